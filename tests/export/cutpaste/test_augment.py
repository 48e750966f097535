"""Augmentations: seen where the mask says, nowhere else, of the sizes that were asked for."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kad_export.cutpaste.augment import (
    MIN_SIDE,
    SCENARIOS,
    VARIANTS,
    AugmentationSettings,
    augment,
)

from kad_sdk.errors import InvalidArgumentError

THESIS = AugmentationSettings()
scenarios = pytest.mark.parametrize("name", list(SCENARIOS))


def surface(seed: int, height: int, width: int, *, grey: float = 190, noise: float = 6):
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(grey, noise, (height, width, 3)), 0, 255).astype(np.uint8)


def extent(mask: np.ndarray) -> tuple[float, float]:
    """Longer and shorter side of the smallest rotated box around a mask, px."""
    points = np.argwhere(mask)[:, ::-1].astype(np.float32)
    return tuple(sorted((side + 1 for side in cv2.minAreaRect(points)[1]), reverse=True))


@scenarios
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(MIN_SIDE, 120),
    width=st.integers(MIN_SIDE, 120),
    grey=st.sampled_from([0, 3, 60, 128, 190, 252, 255]),
    noise=st.sampled_from([0, 6, 60]),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_changes_what_the_mask_says_and_nothing_else(name, seed, height, width, grey, noise):
    tile = surface(seed, height, width, grey=grey, noise=noise)
    before = tile.copy()
    out, mask = SCENARIOS[name](tile, np.random.default_rng(seed), THESIS)
    assert np.array_equal(tile, before)
    assert (out.shape, out.dtype, mask.shape, mask.dtype) == (
        *(tile.shape, np.uint8),
        *(tile.shape[:2], np.bool_),
    )
    changed = (out != tile).any(axis=2)
    assert not changed[~mask].any()
    difference = np.abs(out.astype(int) - tile).max(axis=2)[mask]
    assert difference.max() >= THESIS.min_contrast * THESIS.opacity / 2
    assert changed[mask].mean() > 0.25


@scenarios
def test_hangs_on_the_generator_alone(name):
    tile = surface(0, 224, 224)
    first, second, other = (
        SCENARIOS[name](tile, np.random.default_rng(seed), THESIS)[0] for seed in (5, 5, 6)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


@scenarios
def test_marks_reach_every_border(name):
    """None is bound to the middle, and none is cut off: some masks touch each side of the tile."""
    touched = np.zeros(4, int)
    for seed in range(400):
        _, mask = SCENARIOS[name](surface(seed, 64, 64), np.random.default_rng(seed), THESIS)
        touched += [mask[0].any(), mask[-1].any(), mask[:, 0].any(), mask[:, -1].any()]
    assert (touched > 0).all()


@pytest.mark.parametrize(
    ("name", "longer", "shorter"),
    [
        ("scar", (20, 50), (2, 12)),
        ("black-dot", (6, 10), (6, 10)),
        ("white-dot", (6, 12), (6, 12)),
        # A 60 degree arc of radius r has a chord of r and a height of 0.134 r.
        ("arc-scar", (35, 90), (0.134 * 35, 0.134 * 90 + 5)),
    ],
)
def test_sizes_are_those_of_the_thesis(name, longer, shorter):
    slack = 4  # px: soft edges, and corners of the arc's ends
    found = []
    for seed in range(200):
        _, mask = SCENARIOS[name](surface(seed, 224, 224), np.random.default_rng(seed), THESIS)
        found.append(extent(mask))
    found = np.array(found)
    for sides, (low, high) in zip(found.T, (longer, shorter), strict=True):
        assert low - slack <= sides.min() < low + (high - low) / 3 + slack
        assert high + slack >= sides.max() > high - (high - low) / 3 - slack


def test_plain_cutpaste_takes_the_papers_share_of_the_tile():
    shares, aspects = [], []
    for seed in range(300):
        _, mask = SCENARIOS["cutpaste"](
            surface(seed, 224, 224), np.random.default_rng(seed), THESIS
        )
        _, _, width, height = cv2.boundingRect(mask.astype(np.uint8))
        shares.append(mask.mean())
        aspects.append(width / height)
    assert 0.019 < min(shares) < 0.04
    assert 0.13 < max(shares) < 0.152
    assert 0.28 < min(aspects) < 0.5
    assert 2 < max(aspects) < 3.5


def test_scars_are_rotated_by_up_to_45_degrees():
    long = dataclasses.replace(THESIS, scar_width=(4, 4), scar_length=(50, 50))
    angles = []
    for seed in range(200):
        _, mask = SCENARIOS["scar"](surface(seed, 224, 224), np.random.default_rng(seed), long)
        y, x = np.argwhere(mask).T
        ((a, b), (_, d)) = np.cov(x, y)
        angles.append(np.degrees(0.5 * np.arctan2(2 * b, d - a)))  # of the long axis to vertical
    assert -47 < min(angles) < -35
    assert 35 < max(angles) < 47


def test_a_scar_is_cut_from_the_tile():
    """On a tile red above and blue below the scar has one of the two colours, wherever it lies."""
    tile = np.zeros((224, 224, 3), np.uint8)
    tile[:112, :, 0] = tile[112:, :, 2] = 200
    opaque = dataclasses.replace(THESIS, transparency=0.0, jitter=0.0)
    for seed in range(50):
        out, _ = SCENARIOS["scar"](tile, np.random.default_rng(seed), opaque)
        changed = out[(out != tile).any(axis=2)].astype(int)
        assert len(changed) > 0
        assert changed[:, 1].max() == 0
        assert (changed[:, 0] + changed[:, 2]).min() >= 198


@pytest.mark.parametrize("transparency", [0.0, 15.0, 60.0])
def test_transparency_is_the_share_that_shows_through(transparency):
    dark = dataclasses.replace(THESIS, transparency=transparency)
    tile = np.full((64, 64, 3), 200, np.uint8)
    darkest = [
        SCENARIOS["black-dot"](tile, np.random.default_rng(seed), dark)[0].min()
        for seed in range(100)
    ]
    covered = 1 - transparency / 100
    assert min(darkest) == pytest.approx(200 * (1 - covered), abs=2)
    assert max(darkest) <= 200 * (1 - covered) + 40 * covered + 1


def test_dots_fade_out_from_their_middle():
    big = dataclasses.replace(THESIS, black_dot_diameter=(41, 41), fade=1.0)
    out, mask = SCENARIOS["black-dot"](
        np.full((64, 64, 3), 200, np.uint8), np.random.default_rng(1), big
    )
    y, x = np.argwhere(mask).mean(axis=0).round().astype(int)
    ray = out[y, x : x + 20, 0].astype(int)
    assert (np.diff(ray) >= 0).all()
    assert len(np.unique(ray)) > 15


def test_white_dots_are_white_inside_a_black_border():
    big = dataclasses.replace(THESIS, white_dot_diameter=(40, 40), transparency=0.0)
    out, mask = SCENARIOS["white-dot"](
        np.full((64, 64, 3), 128, np.uint8), np.random.default_rng(1), big
    )
    y, x = np.argwhere(mask).mean(axis=0).round().astype(int)
    assert out[y, x].min() >= 225
    assert out[y, x + 16].max() <= 40  # 20 px of radius, 7 px of border
    assert out[y, min(x + 22, 63)].max() == 128


def test_arcs_are_dark_or_light():
    tile = np.full((224, 224, 3), 128, np.uint8)
    signs = [
        np.sign(
            SCENARIOS["arc-scar"](tile, np.random.default_rng(seed), THESIS)[0].astype(int) - tile
        ).sum()
        for seed in range(40)
    ]
    assert 10 < sum(sign > 0 for sign in signs) < 30


def test_every_scenario_is_as_likely():
    tile, counts = surface(0, 96, 96), dict.fromkeys(VARIANTS["thesis"][0], 0)
    for seed in range(400):
        rng = np.random.default_rng(seed)
        out, _ = augment(tile, rng, THESIS)
        for name in counts:
            again = np.random.default_rng(seed)
            again.integers(4)
            counts[name] += np.array_equal(SCENARIOS[name](tile, again, THESIS)[0], out)
    assert sum(counts.values()) == 400
    assert min(counts.values()) > 70


def test_three_ways_keeps_cutpaste_and_scar_apart():
    assert VARIANTS["3-way"] == (("cutpaste",), ("scar",))
    assert VARIANTS["cutpaste"] == (("cutpaste",),)


@pytest.mark.parametrize(
    "tile",
    [
        np.zeros((64, 64), np.uint8),
        np.zeros((64, 64, 4), np.uint8),
        np.zeros((64, 64, 3), np.float32),
        np.zeros((MIN_SIDE - 1, 64, 3), np.uint8),
    ],
)
def test_other_tiles_are_refused(tile):
    with pytest.raises(InvalidArgumentError, match=r"a tile (must be uint8|of 7 x 64 px is too)"):
        augment(tile, np.random.default_rng(0), THESIS)


def test_an_unknown_scenario_is_refused():
    with pytest.raises(InvalidArgumentError, match="'scars': expected one of scar, black-dot"):
        augment(surface(0, 64, 64), np.random.default_rng(0), THESIS, ["scars"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scar_width", (0, 3)),
        ("scar_length", (9, 3)),
        ("scar_angle", (45.0, -45.0)),
        ("cutpaste_area", (0.1, 0.6)),
        ("transparency", 91.0),
        ("transparency", float("nan")),
        ("fade", 0.0),
        ("jitter", 1.0),
        ("arc_span", 181.0),
        ("arc_thickness", 0.0),
        ("white_dot_border", 1.0),
        ("min_contrast", 0.0),
    ],
)
def test_settings_that_make_no_mark_are_refused(name, value):
    with pytest.raises(InvalidArgumentError, match=f"^{name}: expected .*, got "):
        dataclasses.replace(THESIS, **{name: value})
