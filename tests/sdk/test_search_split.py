"""Banks that know the base maps they come from: the same answers, whatever the maps."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from search_oracle import Oracle

from kad_sdk._native import patch_features
from kad_sdk.errors import InvalidArgumentError, NotFiniteError
from kad_sdk.search import MapLayout, SearchIndex

ROWS = 1100
# Layers, grid, resampling; whether products of a coarse layer's positions can be mixed.
LAYOUTS = {
    "same": ([(40, 28, 28), (60, 14, 14)], (28, 28), "bilinear"),
    "valid": ([(40, 26, 26), (60, 12, 12)], (28, 28), "adaptive-average"),
    "coarse first": ([(60, 14, 14), (40, 28, 28)], (28, 28), "bilinear"),
    "two coarse": ([(40, 8, 12), (30, 4, 6), (30, 4, 6)], (8, 12), "bilinear"),
    "all coarse": ([(50, 7, 7), (50, 7, 7)], (14, 14), "bilinear"),
    "coarse between": ([(30, 8, 8), (40, 4, 4), (30, 8, 8)], (8, 8), "bilinear"),
    "three sizes": ([(30, 16, 16), (40, 8, 8), (30, 4, 4)], (16, 16), "bilinear"),
    "odd grid": ([(40, 13, 9), (60, 7, 5)], (13, 9), "bilinear"),
    "few coarse": ([(96, 8, 8), (4, 4, 4)], (8, 8), "bilinear"),
    "few fine": ([(4, 8, 8), (96, 4, 4)], (8, 8), "bilinear"),
    "one position": ([(40, 3, 3), (60, 1, 1)], (3, 3), "bilinear"),
    "large": ([(40, 48, 40), (60, 24, 20)], (48, 40), "bilinear"),
}


def smooth_maps(seed, layout, batch=2):
    """Maps whose neighbouring positions are alike, as those of images are."""
    rng = np.random.default_rng(seed)
    bend = np.random.default_rng(7)
    maps = []
    for channels, height, width in layout.layers:
        y, x = np.mgrid[:height, :width] / max(height, width)
        phase = rng.uniform(0, 6, (batch, 5, 1, 1))
        waves = np.sin(phase + 4 * np.stack([x, y, x + y, x - y, x * y]))  # (B, 5, h, w)
        mixed = np.einsum("bihw,ci->bchw", waves, bend.normal(size=(channels, 5)))
        maps.append((mixed + 0.05 * rng.normal(size=mixed.shape)).astype(np.float32))
    return maps


def made(name, seed=0, batch=2):
    """Layout, a bank of its patches, maps, and their patch features."""
    layout = MapLayout(*LAYOUTS[name])
    options = {"grid": layout.grid, "resampling": layout.resampling}
    patches = [patch_features(smooth_maps(seed + i, layout, 1), **options)[0] for i in range(18)]
    patches = np.concatenate(patches)
    bank = patches[np.random.default_rng(seed).integers(0, len(patches), ROWS)]
    bank += 0.02 * np.random.default_rng(seed + 1).normal(size=bank.shape).astype(np.float32)
    maps = smooth_maps(seed + 99, layout, batch)
    features = patch_features(maps, **options)
    return layout, bank, maps, features.reshape(-1, features.shape[2])


@cache
def oracle_of(name):
    _, bank, _, features = made(name, batch=1)
    return Oracle(bank, features)


def ask(index, layout, maps, k, **options):
    dist, row = index.query_maps(maps, k, grid=layout.grid, resampling=layout.resampling, **options)
    return dist.reshape(-1, k), row.reshape(-1, k)


@pytest.mark.parametrize("name", LAYOUTS)
def test_maps_get_the_answers_of_their_patches(level, name):
    layout, bank, maps, features = made(name, batch=1)
    oracle = oracle_of(name)
    with SearchIndex(bank, layout=layout, threads=1) as index:
        for k in (1, 3):
            oracle.check(*ask(index, layout, maps, k))
        oracle.check(*index.query(features, 2))
        stats = index.stats()
    assert stats.narrow_pairs > 0


def test_coarse_products_are_shared():
    layout, bank, maps, features = made("few fine")
    with SearchIndex(bank, layout=layout) as index:
        ask(index, layout, maps, 1)
        split = index.stats()
        index.query(features)
        whole = index.stats()
    assert whole.dense_queries == 0
    assert 3 * split.narrow_products <= whole.narrow_products - split.narrow_products


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_windows_do_not_change_answers(threads):
    layout, bank, maps, _ = made("large", batch=1)
    with SearchIndex(bank, layout=layout, threads=1) as index:
        expected = ask(index, layout, maps, 3)
        got = ask(index, layout, maps, 3, threads=threads)
    assert np.array_equal(got[0], expected[0])
    assert np.array_equal(got[1], expected[1])


def test_tiles_of_a_batch_do_not_change_each_other():
    layout, bank, maps, _ = made("valid", batch=4)
    with SearchIndex(bank, layout=layout, threads=2) as index:
        dist, row = ask(index, layout, maps, 2)
        for tile in (3, 0):
            one = ask(index, layout, [m[tile : tile + 1] for m in maps], 2)
            assert np.array_equal(one[0], dist[tile * 784 : (tile + 1) * 784])
            assert np.array_equal(one[1], row[tile * 784 : (tile + 1) * 784])


def test_maps_of_another_size():
    _, bank, _, _ = made("same")
    layout, other, maps = MapLayout(*LAYOUTS["same"]), MapLayout(*LAYOUTS["valid"]), None
    maps = smooth_maps(3, other)
    features = patch_features(maps, grid=other.grid, resampling=other.resampling).reshape(-1, 100)
    with SearchIndex(bank, layout=layout) as index:
        Oracle(bank, features).check(*ask(index, other, maps, 2))


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e17])
def test_extreme_scales(level, scale):
    layout, bank, maps, _ = made("two coarse")
    bank = (bank * scale).astype(np.float32)
    maps = [(m * scale).astype(np.float32) for m in maps]
    features = patch_features(maps, grid=layout.grid, resampling=layout.resampling)
    with SearchIndex(bank, layout=layout) as index:
        Oracle(bank, features.reshape(-1, 100)).check(*ask(index, layout, maps, 3))


@pytest.mark.parametrize("value", [1e3, 1e9, 1e20, 1e38])
def test_one_position_far_from_the_others(level, value):
    layout, bank, maps, _ = made("two coarse")
    maps[1][0, :, 2, 3] = value
    maps[2][1, 5, 0, 0] = -value
    features = patch_features(maps, grid=layout.grid, resampling=layout.resampling)
    with SearchIndex(bank, layout=layout) as index:
        Oracle(bank, features.reshape(-1, 100)).check(*ask(index, layout, maps, 2))


def test_positions_that_cancel(level):
    # Patches of moderate size whose coarse positions are huge.
    layout, bank, maps, _ = made("two coarse")
    sign = np.where(np.add(*np.mgrid[:4, :6]) % 2, -1.0, 1.0) * 3.0 ** (np.arange(6) * 6)
    maps[1][:, :7] = (1e14 * sign).astype(np.float32)
    features = patch_features(maps, grid=layout.grid, resampling=layout.resampling)
    with SearchIndex(bank, layout=layout) as index:
        Oracle(bank, features.reshape(-1, 100)).check(*ask(index, layout, maps, 2))


def test_not_finite_maps_are_named():
    layout, bank, maps, _ = made("same")
    maps[1][1, 3, 5, 5] = np.inf
    with SearchIndex(bank, layout=layout) as index, pytest.raises(NotFiniteError, match="tile 1"):
        ask(index, layout, maps, 1)


def test_a_layout_of_other_channels_is_refused():
    bank = np.zeros((9, 100), np.float32)
    layout = MapLayout([(40, 4, 4), (50, 2, 2)], (4, 4), "bilinear")
    with pytest.raises(InvalidArgumentError, match=r"expected 100 channels together.*got 90"):
        SearchIndex(bank, layout=layout)
