"""Which tiles are looked at: the grids of training and scoring, borders, labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kad_sdk._native import plan_tiles
from kad_sdk.errors import ImageTooSmallError, InvalidArgumentError


def reference(size, tile, stride, *, borders=(), labels=(), cover_edges=True):
    """Plain Python of the definition; size is (height, width)."""

    def starts(start, length):
        found = [start + i * stride for i in range((length - tile) // stride + 1)]
        flush = start + length - tile
        return [*found, flush] if cover_edges and found[-1] != flush else found

    tiles = []
    for bx, by, bw, bh in borders or [(0, 0, size[1], size[0])]:
        for y in starts(by, bh):
            for x in starts(bx, bw):
                hit = any(
                    x < lx + lw and lx < x + tile and y < ly + lh and ly < y + tile
                    for lx, ly, lw, lh in labels
                )
                if not hit and (x, y) not in tiles:
                    tiles.append((x, y))
    return np.array(tiles, np.int32).reshape(-1, 2)


@pytest.mark.parametrize(
    ("size", "tile", "stride", "columns_rows"),
    [
        ((4730, 4074), 224, 112, (35, 41)),
        ((4730, 4074), 224, 512, (8, 9)),
        ((224, 224), 224, 112, (1, 1)),
        ((335, 336), 224, 112, (2, 1)),
        ((10, 12), 3, 2, (5, 4)),
    ],
)
def test_training_grid_has_the_formulas_columns_and_rows(size, tile, stride, columns_rows):
    columns, rows = columns_rows
    xy = plan_tiles(*size, tile=tile, stride=stride, cover_edges=False)
    expected = [(stride * i, stride * j) for j in range(rows) for i in range(columns)]
    np.testing.assert_array_equal(xy, expected)


def test_scoring_grid_adds_one_flush_column_and_row():
    xy = plan_tiles(4730, 4074, tile=224, stride=112)
    assert len(xy) == 36 * 42
    assert tuple(xy[35]) == (4074 - 224, 0)
    assert tuple(xy[-1]) == (4074 - 224, 4730 - 224)


def test_published_annotation():
    """The example of the annotation format: one label, one border."""
    border, label = (617, 161, 3279, 3424), (659, 2231, 600, 1239)
    xy = plan_tiles(4730, 4074, tile=224, stride=112, borders=[border], labels=[label])
    np.testing.assert_array_equal(
        xy, reference((4730, 4074), 224, 112, borders=[border], labels=[label])
    )
    everything = plan_tiles(4730, 4074, tile=224, stride=112, borders=[border])
    assert tuple(everything[0]) == (617, 161)
    assert tuple(everything[-1]) == (617 + 3279 - 224, 161 + 3424 - 224)
    assert 0 < len(xy) < len(everything)


def test_a_label_that_only_touches_a_tiles_edge_keeps_it():
    tiles = {"tile": 10, "stride": 10, "cover_edges": False}
    assert len(plan_tiles(10, 30, **tiles, labels=[(10, 0, 10, 10)])) == 2
    assert len(plan_tiles(10, 30, **tiles, labels=[(9, 9, 1, 1)])) == 2
    assert len(plan_tiles(10, 30, **tiles, labels=[(0, 0, 30, 10)])) == 0


def test_overlapping_borders_do_not_repeat_tiles():
    borders = [(0, 0, 40, 40), (20, 20, 30, 30), (0, 0, 40, 40)]
    xy = plan_tiles(60, 60, tile=10, stride=10, borders=borders)
    assert len({tuple(tile) for tile in xy}) == len(xy)
    np.testing.assert_array_equal(xy, reference((60, 60), 10, 10, borders=borders))


rectangles = st.tuples(
    st.integers(0, 20), st.integers(0, 20), st.integers(9, 30), st.integers(9, 30)
)


@settings(max_examples=150, deadline=None)
@given(
    tile=st.integers(1, 9),
    stride=st.integers(1, 12),
    borders=st.lists(rectangles, max_size=3),
    labels=st.lists(rectangles, max_size=2),
    cover_edges=st.booleans(),
)
def test_any_grid_is_the_references(tile, stride, borders, labels, cover_edges):
    areas = {"borders": borders, "labels": labels, "cover_edges": cover_edges}
    xy = plan_tiles(55, 50, tile=tile, stride=stride, **areas)
    np.testing.assert_array_equal(xy, reference((55, 50), tile, stride, **areas))


@settings(max_examples=60, deadline=None)
@given(height=st.integers(9, 70), width=st.integers(9, 70), tile=st.integers(1, 9), data=st.data())
def test_scoring_grid_covers_every_pixel(height, width, tile, data):
    stride = data.draw(st.integers(1, tile))
    covered = np.zeros((height, width), bool)
    for x, y in plan_tiles(height, width, tile=tile, stride=stride):
        assert y + tile <= height
        assert x + tile <= width
        covered[y : y + tile, x : x + tile] = True
    assert covered.all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"tile": 0}, InvalidArgumentError, "tile must be 1"),
        ({"tile": 32769, "height": 40000, "width": 40000}, InvalidArgumentError, "32769"),
        ({"stride": 0}, InvalidArgumentError, "stride"),
        ({"height": 0}, InvalidArgumentError, "image size"),
        ({"height": 15}, ImageTooSmallError, "smaller than one tile"),
        ({"borders": [(0, 0, 15, 40)]}, ImageTooSmallError, r"borders\[0\]"),
        ({"borders": [(90, 0, 20, 20)]}, InvalidArgumentError, r"borders\[0\].*leaves"),
        ({"borders": [(-1, 0, 20, 20)]}, InvalidArgumentError, "leaves"),
        ({"borders": [(1, 2, 2**31 - 1, 20)]}, InvalidArgumentError, "leaves"),
        ({"labels": [(0, 0, 5, 5), (3, 3, 0, 5)]}, InvalidArgumentError, r"labels\[1\].*empty"),
        ({"labels": [(0, 0, 5)]}, InvalidArgumentError, r"labels\[0\] must be"),
        ({"labels": [(0, 0, 5, 5.5)]}, InvalidArgumentError, r"labels\[0\] must be an integer"),
        ({"height": 2**31 - 1, "width": 2**31 - 1}, InvalidArgumentError, "larger stride"),
    ],
)
def test_bad_grids_are_refused(change, error, message):
    arguments = {"height": 80, "width": 100, "tile": 16, "stride": 8, **change}
    with pytest.raises(error, match=message):
        plan_tiles(arguments.pop("height"), arguments.pop("width"), **arguments)
