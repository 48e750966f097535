"""Rules on maps and tiles, and a map's peak, against NumPy and OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from rules_oracle import factors, opened

from kad_sdk._native import MapJudge, map_peak
from kad_sdk.errors import InvalidArgumentError

SEED = 20261127
SIZES = [(1, 1), (1, 17), (15, 16), (33, 31), (64, 97)]


def _random_rules(rng, size):
    height, width = size

    def rects(most, low):
        n = int(rng.integers(0, most + 1))
        corners = rng.integers(low, max(height, width) + 3, (n, 2))
        return [(int(x), int(y), *rng.integers(1, 40, 2).tolist()) for x, y in corners]

    borders = [(0, 0, max(1, width // 2), height), (width // 3, 0, width - width // 3, height)]
    return {
        "ignored": rects(3, -5),
        "zones": [(rect, float(rng.choice([0.1, 0.5, 1.0, 1.5, 3.0]))) for rect in rects(4, -5)],
        "edge_margin": [(0, 0), (3, 0), (0, 2), (5, 4)][int(rng.integers(4))],
        "borders": borders if rng.integers(2) else (),
    }


@pytest.mark.parametrize("size", SIZES)
def test_map_and_tiles_are_those_of_numpy(size):
    rng = np.random.default_rng([SEED, *size])
    for _ in range(60):
        rules = _random_rules(rng, size)
        board_map = rng.gamma(2, 1, size).astype(np.float32)
        board_map[rng.random(size) < 0.1] = np.nan
        kept, expected = board_map.copy(), factors(size, **rules)
        judge = MapJudge(*size, **rules)
        with np.errstate(divide="ignore", invalid="ignore"):
            wanted = np.where(expected > 0, board_map / expected, np.float32(np.nan))
        np.testing.assert_array_equal(judge.map(board_map), wanted)
        np.testing.assert_array_equal(board_map, kept)
        tile = int(rng.integers(1, min(size) + 1))
        xy = rng.integers(0, (size[1] - tile + 1, size[0] - tile + 1), (9, 2)).astype(np.int32)
        crops = [expected[y : y + tile, x : x + tile] for x, y in xy]
        least = [crop[crop > 0].min() if crop.any() else 0 for crop in crops]
        np.testing.assert_array_equal(judge.tiles(xy, tile), np.float32(least))


def test_without_rules_nothing_changes():
    rng = np.random.default_rng(SEED)
    board_map = rng.random((40, 50), dtype=np.float32)
    board_map[3:9, 4:7] = np.nan
    judged = MapJudge(40, 50).map(board_map)
    np.testing.assert_array_equal(judged.view(np.uint32), board_map.view(np.uint32))
    assert MapJudge(40, 50).tiles(np.array([[1, 2]], np.int32), 8).tolist() == [1]


@pytest.mark.parametrize("size", SIZES)
def test_peak(size):
    rng = np.random.default_rng([SEED, *size, 1])
    for smooth in (0, 1.5):
        board_map = rng.gamma(2, 1, size).astype(np.float32)
        if smooth:
            board_map = cv2.GaussianBlur(board_map, (0, 0), smooth).reshape(size)
        board_map[rng.random(size) < 0.2] = np.nan
        if np.isnan(board_map).all():
            board_map[0, 0] = 1
        for area in (1, 2, 3, 8, 40, board_map.size, board_map.size + 1):
            assert map_peak(board_map, min_area_px=area) == opened(board_map, area), area


def test_peak_is_where_the_verdict_turns():
    """Known answer: a spot of 1 px at 9, one of 2 px at 7 and 6, a field of 12 px at 3."""
    board_map = np.full((8, 9), 0.5, np.float32)
    board_map[0, 0] = 9
    board_map[0, 4:6] = 7, 6
    board_map[4:7, 2:6] = 3
    peaks = [map_peak(board_map, min_area_px=area) for area in (1, 2, 3, 12, 13, 72, 73)]
    assert peaks == [9, 6, 3, 3, 0.5, 0.5, 0]
    assert np.isnan(map_peak(np.full((3, 4), np.nan, np.float32)))
    assert np.isnan(map_peak(np.full((3, 4), np.nan, np.float32), min_area_px=2))


@pytest.mark.parametrize(
    ("rules", "match"),
    [
        ({"ignored": [(0, 0, 0, 3)]}, r"ignored\[0\]: expected a size of at least 1 x 1 px"),
        ({"borders": [(0, 0, 4, 4), (0, 0, 1, -1)]}, r"borders\[1\]"),
        ({"zones": [((0, 0, 1, 1), 0.0)]}, r"zones\[0\].factor must be finite and above 0, got 0"),
        ({"zones": [((0, 0, 1, 1), float("nan"))]}, r"zones\[0\].factor"),
        ({"edge_margin": (0, -1)}, "edge_margin_x and _y must be at least 0 px"),
    ],
)
def test_wrong_rules(rules, match):
    judge = MapJudge(10, 12, **rules)
    with pytest.raises(InvalidArgumentError, match=match):
        judge.map(np.zeros((10, 12), np.float32))
    with pytest.raises(InvalidArgumentError, match=match):
        judge.tiles(np.zeros((1, 2), np.int32), 4)


def test_wrong_arguments():
    judge = MapJudge(10, 12)
    with pytest.raises(InvalidArgumentError, match=r"expected float32 of shape \(10, 12\)"):
        judge.map(np.zeros((12, 10), np.float32))
    with pytest.raises(InvalidArgumentError, match="tile 0 at x 9, y 0, side 4 px, leaves"):
        judge.tiles(np.array([[9, 0]], np.int32), 4)
    with pytest.raises(InvalidArgumentError, match="min_area_px must be at least 1, got 0"):
        map_peak(np.zeros((2, 2), np.float32), min_area_px=0)
