"""Boards in windows: plan, scores, map and regions, against NumPy and whatever the windows are."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from kad_kernels.reference import nearest

from kad_sdk._native import (
    NativeIndex,
    NativeWindows,
    WindowSizes,
    force_cpu_level,
    patch_features,
    plan_tiles,
    preprocess,
    preprocess_window,
    window_features,
)
from kad_sdk.errors import ImageTooSmallError, InvalidArgumentError, NotFiniteError

SEED = 20261128
PATCH, ALIGN, TILE, STRIDE = 4, 8, 48, 24
CHANNELS = (5, 7)
HEIGHT, WIDTH = 157, 203  # no multiples of anything
BORDERS = ((13, 9, 120, 101), (90, 60, 101, 90))
LABELS = ((60, 50, 21, 13), (0, 0, 20, 30))
SMOOTH = {"sigma": 3.0, "radius": 12}
SCORE = {"reweighting": "thesis", "n_neighbors": 3, "threads": 2}


def whole_maps(height: int = HEIGHT, width: int = WIDTH) -> list[np.ndarray]:
    """Give base maps of a whole board; what a network sees of a window is a part of them."""
    generator = np.random.default_rng(SEED)
    return [
        generator.standard_normal((1, c, -(-height // cell), -(-width // cell))).astype(np.float32)
        for c, cell in zip(CHANNELS, (PATCH, ALIGN), strict=True)
    ]


def part_of(maps: list[np.ndarray], window) -> list[np.ndarray]:
    """Give the base maps of a window."""
    parts = []
    for layer, cell in zip(maps, (PATCH, ALIGN), strict=True):
        rows = slice(window.y // cell, -(-(window.y + window.height) // cell))
        columns = slice(window.x // cell, -(-(window.x + window.width) // cell))
        parts.append(np.ascontiguousarray(layer[:, :, rows, columns]))
    return parts


@pytest.fixture(scope="module")
def bank():
    return np.random.default_rng(SEED + 1).standard_normal((80, sum(CHANNELS))).astype(np.float32)


@pytest.fixture(scope="module")
def neighbors(bank):
    between = np.linalg.norm(bank[:, None] - bank[None], axis=2)
    np.fill_diagonal(between, np.inf)
    return np.argsort(between, axis=1, kind="stable")[:, :8].astype(np.int64)


def make_board(window=32, *, halo=16, margin=8, borders=(), labels=(), size=(HEIGHT, WIDTH)):
    xy = plan_tiles(*size, tile=TILE, stride=STRIDE, borders=borders, labels=labels)
    sizes = WindowSizes(window, halo, ALIGN, PATCH, margin)
    given = {"sizes": sizes, "tile": TILE, "xy": xy, "borders": borders, "labels": labels}
    return NativeWindows(*size, **given, **SMOOTH), xy


def scored(bank, neighbors, window=32, maps=None, *, threads=2, order=None, **plan):
    maps = whole_maps() if maps is None else maps
    board, xy = make_board(window, **plan)
    numbers = range(len(board.windows)) if order is None else order(len(board.windows))
    index = NativeIndex(bank)
    for number in numbers:
        given = part_of(maps, board.windows[number])
        options = {**SCORE, "threads": threads}
        board.score(number, index, given, neighbors=neighbors, **options)
    index.close()
    return board, xy


def mask_of(borders, labels, margin):
    """Patches that count, and pixels that have a value, by their definitions."""
    rows, columns = -(-HEIGHT // PATCH), -(-WIDTH // PATCH)
    y, x = np.mgrid[:rows, :columns] * PATCH + PATCH / 2
    live = np.zeros((rows, columns), bool)
    for bx, by, w, h in borders or ((0, 0, WIDTH, HEIGHT),):
        live |= (x >= bx) & (x < bx + w) & (y >= by) & (y < by + h)
    for lx, ly, w, h in labels:
        left, top = x - PATCH / 2, y - PATCH / 2
        beside = (left + PATCH > lx - margin) & (left < lx + w + margin)
        live &= ~(beside & (top + PATCH > ly - margin) & (top < ly + h + margin))
        for row, column in owners(borders, near(lx, ly, w, h, margin)):
            live[row, column] = False
    return live


def near(x, y, w, h, margin):
    """Pixels within the margin of a label."""
    pixels = np.zeros((HEIGHT, WIDTH), bool)
    pixels[max(y - margin, 0) : y + h + margin, max(x - margin, 0) : x + w + margin] = True
    return pixels


def owners(borders, pixels):
    """Patches that such pixels of each area have their values of: the nearest of the area's."""
    for bx, by, bw, bh in borders or ((0, 0, WIDTH, HEIGHT),):
        for py, px in np.argwhere(pixels[by : by + bh, bx : bx + bw]):
            yield tuple(
                np.clip((start + at) // PATCH, np.ceil(start / PATCH - 0.5), end - 1).astype(int)
                for start, at, end in (
                    (by, py, np.ceil((by + bh) / PATCH - 0.5)),
                    (bx, px, np.ceil((bx + bw) / PATCH - 0.5)),
                )
            )


def axis_matrix(start, length, first, grid):
    """U of one axis, from its definition."""
    matrix = np.zeros((length, grid))
    places = np.clip((start + np.arange(length) + 0.5) / PATCH - 0.5 - first, 0, grid - 1)
    low = np.minimum(places.astype(int), grid - 1)
    high = np.minimum(low + 1, grid - 1)
    matrix[np.arange(length), low] += 1 - (places - low)
    matrix[np.arange(length), high] += places - low
    offsets = np.arange(-SMOOTH["radius"], SMOOTH["radius"] + 1)
    kernel = np.exp(-0.5 * (offsets / SMOOTH["sigma"]) ** 2)
    reflected = np.pad(np.arange(length), SMOOTH["radius"], mode="reflect")
    smoothing = np.zeros((length, length))
    for row in range(length):
        np.add.at(smoothing[row], reflected[row : row + len(kernel)], kernel / kernel.sum())
    return smoothing @ matrix


def expected_map(dist, live, borders):
    total, count = np.zeros((HEIGHT, WIDTH)), np.zeros((HEIGHT, WIDTH))
    for x, y, w, h in borders or ((0, 0, WIDTH, HEIGHT),):
        rows, columns = (
            (int(np.ceil(at / PATCH - 0.5)), int(np.ceil((at + side) / PATCH - 0.5)))
            for at, side in ((y, h), (x, w))
        )
        part = (slice(*rows), slice(*columns))
        u = axis_matrix(y, h, rows[0], rows[1] - rows[0])
        v = axis_matrix(x, w, columns[0], columns[1] - columns[0])
        weight = u @ live[part] @ v.T
        value = u @ np.where(live, dist, 0)[part] @ v.T
        cell_rows = np.clip(np.arange(y, y + h) // PATCH, rows[0], rows[1] - 1)
        cell_columns = np.clip(np.arange(x, x + w) // PATCH, columns[0], columns[1] - 1)
        good = live[np.ix_(cell_rows, cell_columns)] & (weight > 1e-6)
        pixels = (slice(y, y + h), slice(x, x + w))
        total[pixels] += np.where(good, value / np.where(good, weight, 1), 0)
        count[pixels] += good
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def expected_dist(bank):
    maps = whole_maps()
    grid = maps[0].shape[2:]
    features = patch_features(maps, grid=grid, resampling="aligned-bilinear")[0]
    dist, rows = nearest(features, bank, 1)
    return features, dist.reshape(grid), rows.reshape(grid)


CASES = [((), ()), (BORDERS, ()), ((), LABELS), (BORDERS, LABELS)]


@pytest.mark.parametrize(("borders", "labels"), CASES)
def test_tiles_and_map_are_those_of_their_definition(bank, neighbors, borders, labels):
    board, xy = scored(bank, neighbors, borders=borders, labels=labels)
    features, dist, rows = expected_dist(bank)
    live = mask_of(borders, labels, margin=8)
    score, got_dist, got_rows = board.tiles()
    side = TILE // PATCH
    for i, (x, y) in enumerate(xy.tolist()):
        row, column = (int(np.ceil(at / PATCH - 0.5)) for at in (y, x))
        part = (slice(row, row + side), slice(column, column + side))
        np.testing.assert_array_equal(got_dist[i], np.where(live, dist, 0)[part].ravel())
        np.testing.assert_array_equal(got_rows[i], np.where(live, rows, -1)[part].ravel())
        local = int(got_dist[i].argmax())
        s, m = float(got_dist[i][local]), int(got_rows[i][local])
        number = (row + local // side) * dist.shape[1] + column + local % side
        to = np.linalg.norm(features[number] - bank[neighbors[m, :3]], axis=1)
        a = np.sqrt(sum(CHANNELS))
        assert score[i] == pytest.approx(s * (1 - np.exp(s / a) / np.exp(to / a).sum()), rel=1e-5)
    expected = expected_map(dist, live, borders)
    np.testing.assert_allclose(board.map(threads=3), expected, rtol=1e-5, equal_nan=True)


AREA = (15, 11, 118, 102)  # its patches are x 16 to 131, y 12 to 111: one px more on every side
EDGES = [
    ((), (0, HEIGHT - 1, WIDTH, 1)),  # the last patch with its centre in the image ends at 156
    ((AREA,), (13, 9, 3, 101)),
    ((AREA,), (13, 9, 120, 3)),
    ((AREA,), (132, 0, 71, HEIGHT)),
    ((AREA,), (13, 112, 120, 20)),
    ((AREA,), (0, 0, 15, HEIGHT)),  # beside the area, which its margin reaches
]


@pytest.mark.parametrize("margin", [0, 1, 8])
@pytest.mark.parametrize(("borders", "label"), EDGES)
def test_labels_at_the_edge_of_an_area_have_no_value(bank, neighbors, borders, label, margin):
    plan = {"borders": borders, "labels": (label,), "margin": margin}
    board, _ = scored(bank, neighbors, **plan)
    found = board.map()
    assert np.isnan(found[near(*label, margin)]).all()
    live = mask_of(borders, (label,), margin)
    expected = expected_map(expected_dist(bank)[1], live, borders)
    np.testing.assert_allclose(found, expected, rtol=1e-5, equal_nan=True)
    assert not np.isnan(found).all()


@pytest.mark.parametrize(("borders", "labels"), CASES)
@pytest.mark.parametrize("window", [8, 24, 64, 1024])
def test_nothing_depends_on_the_windows_their_order_or_the_threads(
    bank, neighbors, borders, labels, window
):
    plan = {"borders": borders, "labels": labels}
    first, _ = scored(bank, neighbors, 32, **plan)
    other, _ = scored(
        bank, neighbors, window, threads=1, order=lambda n: reversed(range(n)), halo=24, **plan
    )
    for a, b in zip((*first.tiles(), first.map()), (*other.tiles(), other.map()), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("level", ["scalar", "avx2", None])
def test_every_level_gives_the_same(bank, neighbors, level):
    expected, _ = scored(bank, neighbors, labels=LABELS)
    try:
        force_cpu_level(level)
        got, _ = scored(bank, neighbors, labels=LABELS)
        for a, b in zip(
            (*expected.tiles(), expected.map()), (*got.tiles(), got.map()), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    finally:
        force_cpu_level(None)


@pytest.mark.parametrize("borders", [(), BORDERS])
@pytest.mark.parametrize("window", [8, 40, 72, 512])
def test_windows_cover_the_active_areas_and_see_their_halo(borders, window):
    board, _ = make_board(window, borders=borders)
    covered = np.zeros((HEIGHT, WIDTH), bool)
    for w in board.windows:
        assert w.core_x % ALIGN == w.core_y % ALIGN == w.x % ALIGN == w.y % ALIGN == 0
        assert (w.core_width + 32) * (w.core_height + 32) <= (window + 32) ** 2
        assert (w.x, w.y) == (max(w.core_x - 16, 0), max(w.core_y - 16, 0))
        assert w.x + w.width == min(w.core_x + w.core_width + 16, WIDTH)
        assert w.y + w.height == min(w.core_y + w.core_height + 16, HEIGHT)
        core = (
            slice(w.core_y, w.core_y + w.core_height),
            slice(w.core_x, w.core_x + w.core_width),
        )
        assert borders or not covered[core].any()  # none twice
        covered[core] = True
    y, x = np.nonzero(mask_of(borders, (), 0))
    assert covered[y * PATCH, x * PATCH].all()


@pytest.mark.parametrize("halo", [0, 16, 48])
@pytest.mark.parametrize("window", [8, 40, 72, 104, 512])
def test_windows_are_those_of_the_fewest_pixels(window, halo):
    board, _ = make_board(window, halo=halo)
    sides = [-(-side // ALIGN) for side in (HEIGHT, WIDTH)]  # cells
    most, around = ((window + 2 * halo) // ALIGN) ** 2, 2 * halo // ALIGN

    def cells(counts: tuple[int, int]) -> int:
        rows, columns = (-(-side // n) + around for side, n in zip(sides, counts, strict=True))
        whole = (side + n * around for side, n in zip(sides, counts, strict=True))
        return math.prod(whole) if rows * columns <= most else math.inf

    least = min(map(cells, itertools.product(*(range(1, side + 1) for side in sides))))
    counts = tuple(len({getattr(w, at) for w in board.windows}) for at in ("core_y", "core_x"))
    assert cells(counts) == least


def test_the_map_of_some_tiles_is_made_of_their_patches_alone(bank, neighbors):
    board, xy = scored(bank, neighbors, labels=LABELS)
    kept = np.arange(len(xy)) % 3 == 0
    live = np.zeros((-(-HEIGHT // PATCH), -(-WIDTH // PATCH)), bool)
    side = TILE // PATCH
    for x, y in xy[kept].tolist():
        row, column = (int(np.ceil(at / PATCH - 0.5)) for at in (y, x))
        live[row : row + side, column : column + side] = True
    live &= mask_of((), LABELS, margin=8)
    expected = expected_map(expected_dist(bank)[1], live, ())
    np.testing.assert_allclose(board.map(kept), expected, rtol=1e-5, equal_nan=True)


def test_regions_name_the_patch_of_their_peak(bank, neighbors):
    board, xy = scored(bank, neighbors, labels=LABELS)
    board_map = board.map()
    regions = board.regions(board_map, threshold=float(np.nanquantile(board_map, 0.97)))
    _, dist, rows = board.tiles()
    assert len(regions) > 3
    assert [r.peak for r in regions] == sorted((r.peak for r in regions), reverse=True)
    for region in regions:
        assert board_map[region.peak_y, region.peak_x] == np.float32(region.peak)
        if region.tile < 0:
            continue
        x, y = xy[region.tile]
        assert x <= region.peak_x + PATCH
        assert y <= region.peak_y + PATCH
        assert dist[region.tile, region.patch] == np.float32(region.distance)
        assert rows[region.tile, region.patch] == region.bank_row
    assert any(region.tile >= 0 for region in regions)


def test_a_board_that_is_not_all_searched_tells_nothing(bank, neighbors):
    board, _ = scored(bank, neighbors, order=lambda n: range(n - 1))
    missing = f"window {len(board.windows) - 1} of {len(board.windows)} was not searched"
    with pytest.raises(InvalidArgumentError, match=missing):
        board.tiles()
    with pytest.raises(InvalidArgumentError, match=missing):
        board.map()


def test_what_is_not_finite_is_named_and_leaves_the_board_as_it_was(bank, neighbors):
    board, _ = scored(bank, neighbors, order=lambda n: [i for i in range(n) if i != 2])
    index, good = NativeIndex(bank), part_of(whole_maps(), board.windows[2])
    spoiled = [layer.copy() for layer in good]
    spoiled[1][:] = np.nan
    with pytest.raises(NotFiniteError, match="window 2"):
        board.score(2, index, spoiled, neighbors=neighbors, **SCORE)
    board.score(2, index, good, neighbors=neighbors, **SCORE)
    expected, _ = scored(bank, neighbors)
    for a, b in zip(expected.tiles(), board.tiles(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_window_is_searched_once(bank, neighbors):
    """Of other maps a tile would keep the score, and the board the distances."""
    board, _ = scored(bank, neighbors)
    before = board.tiles()
    maps = [0.5 * layer for layer in part_of(whole_maps(), board.windows[2])]
    with pytest.raises(InvalidArgumentError, match="window 2 was searched before"):
        board.score(2, NativeIndex(bank), maps, neighbors=neighbors, **SCORE)
    for a, b in zip(before, board.tiles(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"window": 20}, "window must be a multiple of align"),
        ({"halo": 12}, "halo must be a multiple of align"),
        ({"align": 6}, "align must be a multiple of patch"),
        ({"patch": 0}, "patch and align must be at least 1"),
        ({"label_margin": 17}, "label_margin"),
        ({"tile": 44}, "tile must be a multiple of align"),
        ({"borders": ((0, 0, 30, 90),)}, "smaller than one tile"),
        ({"labels": ((0, 0, 300, 90),)}, r"labels\[0\]"),
        ({"sigma": float("nan")}, "smoothing_sigma"),
        ({"xy": np.array([[200, 0]], np.int32)}, "leaves the image"),
    ],
)
def test_wrong_settings_are_refused(change, match):
    sizes = {"window": 32, "halo": 16, "align": ALIGN, "patch": PATCH, "label_margin": 8}
    sizes |= {k: v for k, v in change.items() if k in sizes}
    given = {"tile": TILE, "xy": np.zeros((0, 2), np.int32), **SMOOTH}
    given |= {k: v for k, v in change.items() if k not in sizes}
    with pytest.raises((InvalidArgumentError, ImageTooSmallError), match=match):
        NativeWindows(HEIGHT, WIDTH, sizes=WindowSizes(**sizes), **given)


@pytest.mark.parametrize("wrong", ["rows", "resampling", "tiles", "channels"])
def test_maps_of_another_window_are_refused(bank, neighbors, wrong):
    board, _ = make_board()
    maps = part_of(whole_maps(), board.windows[0])
    if wrong == "rows":
        maps[1] = np.ascontiguousarray(maps[1][:, :, :-1])
    elif wrong == "tiles":
        maps = [np.repeat(m, 2, axis=0) for m in maps]
    elif wrong == "channels":
        maps[0] = np.ascontiguousarray(maps[0][:, :-1])
    else:
        with pytest.raises(InvalidArgumentError, match="resampling"):
            patch_features(maps, grid=(4, 4), resampling="nearest")
        return
    with pytest.raises(InvalidArgumentError, match=r"layer 1|one tile|dimensions"):
        board.score(0, NativeIndex(bank), maps, neighbors=neighbors, **SCORE)


@pytest.mark.parametrize(
    ("grid", "sides"), [((8, 12), (4, 6)), ((7, 11), (4, 6)), ((5, 9), (2, 3))]
)
def test_aligned_resampling_enlarges_by_whole_steps_and_cuts_off(grid, sides):
    generator = np.random.default_rng(SEED)
    coarse = generator.standard_normal((1, 3, *sides)).astype(np.float32)
    step = 4 if grid == (5, 9) else 2
    whole = (sides[0] * step, sides[1] * step)
    expected = patch_features([coarse], grid=whole, resampling="bilinear")
    expected = expected.reshape(*whole, 3)[: grid[0], : grid[1]]
    got = patch_features([coarse], grid=grid, resampling="aligned-bilinear").reshape(*grid, 3)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("rect", [(0, 0, 51, 40), (3, 5, 17, 2), (50, 39, 1, 1), (16, 8, 33, 31)])
def test_features_of_some_patches_are_those_of_all(rect):
    maps = whole_maps()
    grid = maps[0].shape[2:]
    options = {"grid": grid, "resampling": "aligned-bilinear"}
    every = patch_features(maps, **options).reshape(*grid, -1)
    x, y, w, h = rect
    got = window_features(maps, rect, **options, threads=2)
    np.testing.assert_array_equal(got, every[y : y + h, x : x + w])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_window_is_normalised_as_tiles_are(dtype, channels):
    generator = np.random.default_rng(SEED)
    image = generator.integers(0, np.iinfo(dtype).max, (60, 70, channels), endpoint=True)
    image = np.squeeze(image.astype(dtype))
    normalised = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.1)}
    got = preprocess_window(image, (3, 5, 40, 41), **normalised, threads=2)
    tile = preprocess(image, np.array([[3, 5]], np.int32), tile=40, **normalised)
    np.testing.assert_array_equal(got[:, :, :40], tile)
    with pytest.raises(InvalidArgumentError, match="leaves the image"):
        preprocess_window(image, (31, 0, 40, 41), **normalised)
