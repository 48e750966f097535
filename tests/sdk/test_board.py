"""Tile maps, board map and regions, against torch, OpenCV and plain NumPy."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from search_oracle import at_level, levels_here

from kad_sdk._native import NativeBoard, plan_tiles
from kad_sdk.errors import ImageTooSmallError, InvalidArgumentError, NotFiniteError

SIGMA, RADIUS = 4.0, 16


def reference_tile_map(dist: np.ndarray, tile: int, sigma: float, radius: int) -> np.ndarray:
    """The definition, (h, w) -> (tile, tile) float64: torch enlarges, OpenCV smooths."""
    grid = torch.from_numpy(dist.astype(np.float64))[None, None]
    large = torch.nn.functional.interpolate(
        grid, (tile, tile), mode="bilinear", align_corners=False
    )[0, 0].numpy()
    if radius == 0:
        return large
    size = 2 * radius + 1
    return cv2.GaussianBlur(large, (size, size), sigma, borderType=cv2.BORDER_REFLECT_101)


def reference_map(height, width, xy, tile_maps) -> np.ndarray:
    total, count = np.zeros((height, width)), np.zeros((height, width))
    for (x, y), tile_map in zip(xy, tile_maps, strict=True):
        side = len(tile_map)
        total[y : y + side, x : x + side] += tile_map
        count[y : y + side, x : x + side] += 1
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def random_dist(n: int, grid: tuple[int, int], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.random((n, grid[0] * grid[1])) * 10).astype(np.float32)


SHAPES = [
    *[(224, (28, 28)), (64, (8, 4)), (65, (9, 7)), (33, (33, 1)), (31, (4, 5)), (17, (3, 3))],
    *[(16, (2, 2)), (15, (1, 1)), (9, (3, 2)), (2, (2, 1)), (1, (1, 1))],
]
SMOOTHINGS = [(4.0, 16), (1.5, 3), (0.0, 0)]
# OpenCV's reflection needs a tile larger than the radius.
CASES = [(*shape, *smooth) for shape in SHAPES for smooth in SMOOTHINGS if shape[0] > smooth[1]]


@pytest.mark.parametrize(("tile", "grid", "sigma", "radius"), CASES)
def test_one_tile_is_torchs_and_opencvs_map(level, tile, grid, sigma, radius):
    board = NativeBoard(tile + 5, tile + 3, tile=tile, grid=grid, sigma=sigma, radius=radius)
    dist = random_dist(1, grid)
    board.add(np.array([[2, 4]], np.int32), dist)
    expected = np.full((tile + 5, tile + 3), np.nan)
    expected[4 : 4 + tile, 2 : 2 + tile] = reference_tile_map(
        dist.reshape(grid), tile, sigma, radius
    )
    np.testing.assert_allclose(board.map(), expected, rtol=3e-6)


def test_a_radius_beyond_the_tile_reflects_again():
    """reflect-101 of a tile of 5 px, folded more than once, written out."""
    tile, radius, sigma = 5, 13, 4.0
    dist = random_dist(1, (5, 5))
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    matrix = np.zeros((tile, tile))
    for i in range(tile):
        for offset, weight in zip(range(-radius, radius + 1), weights, strict=True):
            matrix[i, np.pad(np.arange(tile), 40, mode="reflect")[40 + i + offset]] += weight
    board = NativeBoard(tile, tile, tile=tile, grid=(5, 5), sigma=sigma, radius=radius)
    board.add(np.zeros((1, 2), np.int32), dist)
    np.testing.assert_allclose(board.map(), matrix @ dist.reshape(5, 5) @ matrix.T, rtol=3e-6)


def test_overlapping_tiles_are_averaged(level):
    height, width, tile, grid = 150, 131, 64, (8, 8)
    xy = plan_tiles(height, width, tile=tile, stride=27, labels=[(60, 40, 9, 80)])
    dist = random_dist(len(xy), grid)
    maps = [reference_tile_map(d.reshape(grid), tile, SIGMA, RADIUS) for d in dist]
    board = NativeBoard(height, width, tile=tile, grid=grid, sigma=SIGMA, radius=RADIUS)
    board.add(xy, dist)
    got = board.map()
    expected = reference_map(height, width, xy, maps)
    assert np.isnan(expected).any()
    np.testing.assert_allclose(got, expected, rtol=3e-6)


def board_map(dist, xy, *, size, tile, grid, batch, threads):
    board = NativeBoard(*size, tile=tile, grid=grid, sigma=SIGMA, radius=RADIUS)
    for start in range(0, len(xy), batch):
        board.add(xy[start : start + batch], dist[start : start + batch], threads=threads)
    return board.map(threads=threads)


def test_map_is_bitwise_the_same_at_every_level_split_and_thread_count():
    size, tile, grid = (301, 275), 49, (7, 7)
    xy = plan_tiles(*size, tile=tile, stride=13)
    dist = random_dist(len(xy), grid)
    settings = {"size": size, "tile": tile, "grid": grid}
    expected = board_map(dist, xy, **settings, batch=len(xy), threads=1)
    assert not np.isnan(expected).any()
    for level in levels_here():
        with at_level(level):
            for batch, threads in ((len(xy), 2), (16, 1), (7, 2), (1, 1), (50, 33)):
                got = board_map(dist, xy, **settings, batch=batch, threads=threads)
                np.testing.assert_array_equal(got, expected, err_msg=f"{level} {batch} {threads}")


def test_order_of_tiles_is_the_order_of_addition():
    """Float32 sums depend on the order: a huge, a small and a huge negative value tell it."""
    xy = np.zeros((3, 2), np.int32)
    dist = np.array([[1e8], [1.0], [-1e8]], np.float32)
    board = NativeBoard(4, 4, tile=4, grid=(1, 1), sigma=0, radius=0)
    board.add(xy, dist, threads=2)
    np.testing.assert_array_equal(board.map(), np.zeros((4, 4), np.float32))
    board = NativeBoard(4, 4, tile=4, grid=(1, 1), sigma=0, radius=0)
    board.add(xy, dist[[0, 2, 1]], threads=2)
    np.testing.assert_allclose(board.map(), np.full((4, 4), 1 / 3, np.float32))


def test_more_tiles_on_a_pixel_than_sixteen_bits_count():
    n = 70_000
    board = NativeBoard(3, 3, tile=2, grid=(1, 1), sigma=0, radius=0)
    board.add(np.zeros((n, 2), np.int32), np.full((n, 1), 3.0, np.float32), threads=2)
    got = board.map()
    assert got[0, 0] == 3.0
    assert np.isnan(got[2]).all()


def test_adding_after_mapping_goes_on():
    xy = np.array([[0, 0], [3, 1]], np.int32)
    dist = random_dist(2, (2, 2))
    together = NativeBoard(20, 20, tile=16, grid=(2, 2), sigma=2.0, radius=4)
    together.add(xy, dist)
    apart = NativeBoard(20, 20, tile=16, grid=(2, 2), sigma=2.0, radius=4)
    apart.add(xy[:1], dist[:1])
    apart.map()
    apart.add(xy[1:], dist[1:])
    np.testing.assert_array_equal(apart.map(), together.map())


def test_an_empty_board_is_nan_without_regions():
    board = NativeBoard(30, 20, tile=16, grid=(2, 2), sigma=4.0, radius=4)
    board.add(np.empty((0, 2), np.int32), np.empty((0, 4), np.float32))
    got = board.map()
    assert np.isnan(got).all()
    assert board.regions(got, threshold=-math.inf) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_distance_that_is_not_finite_adds_nothing(bad):
    board = NativeBoard(40, 40, tile=16, grid=(4, 4), sigma=4.0, radius=4)
    xy = np.array([[0, 0], [20, 20]], np.int32)
    dist = random_dist(2, (4, 4))
    dist[1, 7] = bad
    with pytest.raises(NotFiniteError, match="tile 1, patch 7"):
        board.add(xy, dist)
    assert np.isnan(board.map()).all()


@pytest.mark.parametrize("corner", [(-1, 0), (0, -1), (25, 0), (0, 25), (2**31 - 1, 0)])
def test_a_tile_outside_the_image_is_refused(corner):
    board = NativeBoard(40, 40, tile=16, grid=(4, 4), sigma=4.0, radius=4)
    with pytest.raises(InvalidArgumentError, match=r"tile 0 .*leaves the image"):
        board.add(np.array([corner], np.int32), random_dist(1, (4, 4)))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"height": 15}, ImageTooSmallError, "smaller than one tile"),
        ({"tile": 0}, InvalidArgumentError, "tile must be"),
        ({"grid": (0, 4)}, InvalidArgumentError, "grid must be"),
        ({"grid": (4, 17)}, InvalidArgumentError, "grid must be"),
        ({"radius": -1}, InvalidArgumentError, "smoothing_radius"),
        ({"radius": 40_000}, InvalidArgumentError, "smoothing_radius"),
        ({"sigma": 0.0}, InvalidArgumentError, "smoothing_sigma"),
        ({"sigma": math.nan}, InvalidArgumentError, "smoothing_sigma"),
        ({"sigma": math.inf}, InvalidArgumentError, "smoothing_sigma"),
        ({"height": 2**31 - 1, "width": 2**31 - 1}, InvalidArgumentError, "cannot exist"),
        ({"height": 2**29, "width": 2**29}, MemoryError, "memory"),
    ],
)
def test_bad_boards_are_refused(change, error, message):
    settings = {"tile": 16, "grid": (4, 4), "sigma": 4.0, "radius": 8, **change}
    size = (settings.pop("height", 40), settings.pop("width", 40))
    with pytest.raises(error, match=message):
        NativeBoard(*size, **settings)


# ---- regions ------------------------------------------------------------------------------------


def board_of(shape: tuple[int, int]) -> NativeBoard:
    """A board that is one row and column of 8 px tiles, all of distance 1."""
    board = NativeBoard(*shape, tile=8, grid=(2, 2), sigma=0, radius=0)
    xy = plan_tiles(*shape, tile=8, stride=8)
    board.add(xy, np.ones((len(xy), 4), np.float32))
    return board


def reference_regions(values: np.ndarray, threshold: float, min_area: int) -> list[tuple]:
    above = (values >= threshold).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    found = []
    for label in range(1, count):
        x, y, width, height, area = stats[label]
        inside = np.where(labels == label, values, -np.inf)
        peak_y, peak_x = np.unravel_index(np.argmax(inside), values.shape)
        if area >= min_area:
            peak = values[peak_y, peak_x]
            found.append((x, y, width, height, peak_x, peak_y, peak, area))
    return sorted(found, key=lambda r: (-r[6], r[5], r[4]))


def plain(regions) -> list[tuple]:
    return [(r.x, r.y, r.width, r.height, r.peak_x, r.peak_y, r.peak, r.area_px) for r in regions]


@pytest.mark.parametrize("shape", [(8, 8), (17, 33), (64, 48), (9, 130)])
@pytest.mark.parametrize("density", [0.02, 0.2, 0.4, 0.6, 0.95])
@pytest.mark.parametrize("min_area", [1, 4])
def test_regions_are_opencvs_components(shape, density, min_area):
    rng = np.random.default_rng(int(1000 * density) + shape[1])
    values = rng.integers(0, 50, shape).astype(np.float32)  # few values: many equal peaks
    values[rng.random(shape) < 0.1] = np.nan
    board = board_of(shape)
    threshold = 50 * (1 - density)
    expected = reference_regions(np.nan_to_num(values, nan=-1.0), threshold, min_area)
    got = board.regions(values, threshold=threshold, min_area_px=min_area)
    assert plain(got) == expected


def test_shapes_that_join_late():
    """A spiral, a comb and diagonal steps: one component each, found across many rows."""
    spiral = np.zeros((16, 16), np.float32)
    spiral[0, :] = spiral[:, 15] = spiral[15, :] = spiral[2:, 0] = spiral[2, :14] = 1
    spiral[2:14, 13] = spiral[13, 2:14] = 2
    comb = np.zeros((16, 16), np.float32)
    comb[:, ::2] = 1
    comb[15] = 1
    steps = np.eye(16, dtype=np.float32)
    for values in (spiral, comb, steps, np.ascontiguousarray(steps[::-1])):
        got = board_of(values.shape).regions(values, threshold=1.0)
        assert len(got) == 1
        assert plain(got) == reference_regions(values, 1.0, 1)


def test_more_regions_than_the_first_buffer_holds():
    values = np.zeros((64, 64), np.float32)
    values[::2, ::2] = np.arange(1, 1025).reshape(32, 32)
    got = board_of(values.shape).regions(values, threshold=0.5)
    assert [r.peak for r in got] == list(range(1024, 0, -1))


def test_region_names_the_patch_that_explains_its_peak():
    """Brute force over tiles: the largest distance among the patches that cover the peak."""
    height, width, tile, grid = 90, 100, 32, (4, 5)
    xy = plan_tiles(height, width, tile=tile, stride=11)
    dist = random_dist(len(xy), grid, seed=3)
    index = np.random.default_rng(1).integers(0, 2**40, dist.shape)
    board = NativeBoard(height, width, tile=tile, grid=grid, sigma=2.0, radius=5)
    board.add(xy[:20], dist[:20], index[:20])
    board.add(xy[20:], dist[20:], index[20:])
    got = board.map()
    regions = board.regions(got, threshold=float(np.quantile(got, 0.9)), min_area_px=3)
    assert len(regions) > 3
    for region in regions:
        covering = []
        for i, (x, y) in enumerate(xy):
            dx, dy = region.peak_x - x, region.peak_y - y
            if 0 <= dx < tile and 0 <= dy < tile:
                patch = dy * grid[0] // tile * grid[1] + dx * grid[1] // tile
                covering.append((-dist[i, patch], i, patch))
        distance, i, patch = min(covering)
        assert (region.distance, region.tile, region.patch) == (-distance, i, patch)
        assert region.bank_row == index[i, patch]
        assert region.peak == got[region.peak_y, region.peak_x]


def test_bank_row_without_indices_is_minus_one():
    (region,) = board_of((8, 8)).regions(np.ones((8, 8), np.float32), threshold=1.0)
    assert region.bank_row == -1
    assert (region.tile, region.patch, region.distance) == (0, 0, 1.0)


def test_a_map_of_another_board_is_refused():
    board = NativeBoard(20, 20, tile=8, grid=(2, 2), sigma=0, radius=0)
    board.add(np.zeros((1, 2), np.int32), np.ones((1, 4), np.float32))
    values = np.zeros((20, 20), np.float32)
    values[8:, 3] = 1.0
    with pytest.raises(InvalidArgumentError, match="x 3, y 8, where no tile"):
        board.regions(values, threshold=1.0)
    with pytest.raises(InvalidArgumentError, match=r"board_map is float32 of shape \(9, 20\)"):
        board.regions(np.ones((9, 20), np.float32), threshold=1.0)


def test_bad_region_settings_are_refused():
    board = board_of((8, 8))
    values = np.ones((8, 8), np.float32)
    with pytest.raises(NotFiniteError, match="threshold"):
        board.regions(values, threshold=math.nan)
    with pytest.raises(InvalidArgumentError, match="min_area_px"):
        board.regions(values, threshold=1.0, min_area_px=0)
