"""Banks that know the base maps they come from: the same answers, whatever the maps."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from search_layouts import LAYOUTS, ask, made, smooth_maps
from search_oracle import Oracle

from kad_sdk._native import patch_features
from kad_sdk.errors import InvalidArgumentError, NotFiniteError
from kad_sdk.search import MapLayout, SearchIndex


@cache
def oracle_of(name):
    _, bank, _, features = made(name, batch=1)
    return Oracle(bank, features)


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


@pytest.mark.parametrize("threads", [1, 4, 8])
def test_bad_first_guesses_do_not_cost_the_codes(level, threads):
    """Small windows of noisy maps: at first nearly all rows come through, but few are decided."""
    layout, seeds = MapLayout([(128, 28, 28), (256, 14, 14)], (28, 28), "bilinear"), range(3)
    order, noise, other_noise = (np.random.default_rng(seed) for seed in seeds)
    patches = _patches(layout, range(20))
    bank = patches[order.permutation(len(patches))[:10_000]]
    bank += 0.3 * noise.normal(size=bank.shape).astype(np.float32)
    maps = smooth_maps(999, layout, 1)
    maps = [m + 0.3 * other_noise.normal(size=m.shape).astype(np.float32) for m in maps]
    with SearchIndex(bank, layout=layout) as index:
        ask(index, layout, maps, 1, threads=threads)
        stats = index.stats()
    assert stats.dense_queries == 0
    assert stats.decided_pairs < 40 * 784


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


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize(
    ("bank_layers", "layers"),
    [
        ([(40, 8, 8), (60, 4, 4)], [(10, 8, 8), (30, 8, 8), (60, 4, 4)]),
        ([(10, 8, 8), (30, 8, 8), (60, 4, 4)], [(40, 8, 8), (60, 4, 4)]),
        ([(40, 8, 8), (60, 4, 4)], [(40, 8, 8), (20, 4, 4), (40, 4, 4)]),
        ([(40, 8, 8), (20, 4, 4), (40, 4, 4)], [(40, 8, 8), (60, 4, 4)]),
        ([(60, 4, 4), (40, 8, 8)], [(20, 4, 4), (40, 4, 4), (10, 8, 8), (30, 8, 8)]),
        ([(40, 8, 8), (60, 4, 4)], [(60, 4, 4), (40, 8, 8)]),
    ],
    ids=["fine-cut", "fine-joined", "coarse-cut", "coarse-joined", "both-cut", "other-order"],
)
def test_maps_of_other_layers(bank_layers, layers, k):
    """The same dimensions may come from other layers than the bank's did, cut in other places."""
    layout, other = (MapLayout(each, (8, 8), "bilinear") for each in (bank_layers, layers))
    bank = _patches(layout, range(18))
    maps = smooth_maps(5, other)
    features = patch_features(maps, grid=other.grid, resampling=other.resampling).reshape(-1, 100)
    with SearchIndex(bank, layout=layout, threads=1) as index:
        Oracle(bank, features).check(*ask(index, other, maps, k))


def _patches(layout, seeds):
    options = {"grid": layout.grid, "resampling": layout.resampling}
    patches = [patch_features(smooth_maps(seed, layout, 1), **options)[0] for seed in seeds]
    return np.concatenate(patches)


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


@pytest.mark.parametrize(
    ("layers", "grid", "message"),
    [
        ([], (4, 4), "at least one layer, got none"),
        ([(100, 4)], (4, 4), r"layers\[0\] must be \(channels, height, width\), got \(100, 4\)"),
        ([(60, 4, 4), 40], (4, 4), r"layers\[1\] must be \(channels, height, width\), got 40"),
        ([(100, 4.5, 4)], (4, 4), r"layers\[0\] must be an integer, got 4.5"),
        ([("a", 4, 4)], (4, 4), r"layers\[0\] must be an integer, got 'a'"),
        ([(100, 2**32 + 4, 4)], (4, 4), r"layers\[0\] is 4294967300: it does not fit 32 bits"),
        ([(100, 4, 4)], (4,), r"grid must be \(height, width\), got \(4,\)"),
        ([(100, 4, 4)], 4, r"grid must be \(height, width\), got 4"),
        ([(100, 4, 4)], (4, None), "grid must be an integer, got None"),
    ],
)
def test_layouts_that_are_none(layers, grid, message):
    bank = np.zeros((9, 100), np.float32)
    with pytest.raises(InvalidArgumentError, match=message):
        SearchIndex(bank, layout=MapLayout(layers, grid, "bilinear"))
    if layers == [(100, 4, 4)]:
        maps = [np.zeros((1, 100, 4, 4), np.float32)]
        with SearchIndex(bank) as index, pytest.raises(InvalidArgumentError, match=message):
            index.query_maps(maps, grid=grid, resampling="bilinear")


def test_a_layout_of_other_channels_is_refused():
    bank = np.zeros((9, 100), np.float32)
    layout = MapLayout([(40, 4, 4), (50, 2, 2)], (4, 4), "bilinear")
    with pytest.raises(InvalidArgumentError, match=r"expected 100 channels together.*got 90"):
        SearchIndex(bank, layout=layout)
