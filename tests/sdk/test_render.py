"""Overlays and map files."""

from __future__ import annotations

import dataclasses
import io

import cv2
import numpy as np
import pytest

from kad_sdk import Annotation, Detector, Rect
from kad_sdk.errors import InvalidArgumentError
from kad_sdk.render import (
    OUTLINE,
    UNSCORED,
    map_npy,
    map_png,
    map_to_uint16,
    picture_png,
    render_map,
    render_overlay,
    shrink_map,
)


@pytest.fixture(scope="module")
def board(make_board):
    return make_board(1, 200, 300, defect=True)


@pytest.fixture(scope="module")
def result(tiny_artifact, board):
    with Detector.open(tiny_artifact) as detector:
        return detector.score(board, Annotation(labels=(Rect(200, 100, 20, 20),)))


def changed(overlay, board):
    return (overlay != board).any(axis=2)


def test_map_to_uint16():
    values = np.array([[np.nan, 0, 1, 2, 3, 1e9]], np.float32)
    assert map_to_uint16(values, 2.0).tolist() == [[0, 1, 32768, 65535, 65535, 65535]]
    random = np.random.default_rng(0).random((50, 60), dtype=np.float32)
    back = (map_to_uint16(random, 1.0).astype(np.float64) - 1) / 65534
    assert np.abs(back - random).max() <= 0.51 / 65534
    for high in (0.0, -1.0, float("nan")):
        with pytest.raises(InvalidArgumentError, match="high: expected a number above 0"):
            map_to_uint16(values, high)


def test_the_overlay_marks_the_region_and_nothing_else_that_is_scored(board, result):
    overlay = render_overlay(board, result)
    assert overlay.shape == board.shape
    assert overlay.dtype == np.uint8
    ys, xs = np.nonzero(changed(overlay, board) & np.isfinite(result.map))
    (region,) = result.regions
    assert region.x - 40 <= xs.min() < region.x
    assert xs.max() < region.x + region.width + 40
    assert region.y - 40 <= ys.min() < region.y
    assert ys.max() < region.y + region.height + 40
    assert (overlay == OUTLINE).all(axis=2).sum() > 50
    inside = np.s_[region.peak_xy[1] - 1 : region.peak_xy[1] + 2, region.peak_xy[0]]
    np.testing.assert_array_equal(overlay[inside], board[inside])


def test_a_normal_board_stays_as_it_is(tiny_artifact, make_board):
    board = make_board(1, 100, 100, defect=False)
    with Detector.open(tiny_artifact) as detector:
        result = detector.score(board)
    np.testing.assert_array_equal(render_overlay(board, result), board)


def test_a_result_without_a_map_is_drawn_too(board, result):
    without = dataclasses.replace(result, map=None, regions=())
    np.testing.assert_array_equal(render_overlay(board, without), board)


def test_heat_colours_the_defect_and_leaves_the_labels(board, result):
    label = np.s_[105:115, 205:215]
    plain = render_overlay(board, result)
    heat = render_overlay(board, result, heat=True).astype(int)
    np.testing.assert_array_equal(heat[label], plain[label])
    assert np.abs(heat[40:52, 70:82] - board[40:52, 70:82]).mean() > 50
    far = np.abs(heat[150:, 240:] - board[150:, 240:]).mean()
    assert far < 30


@pytest.mark.parametrize(("max_side", "size"), [(100, (67, 100)), (300, (200, 300)), (1, (1, 1))])
def test_large_boards_are_scaled_down(board, result, max_side, size):
    assert render_overlay(board, result, max_side=max_side).shape == (*size, 3)
    assert render_overlay(board, result, max_side=None).shape == board.shape


def test_other_pixel_kinds(board, result):
    expected = render_overlay(board, result)
    deep = render_overlay(board.astype(np.uint16) * 257, result)
    np.testing.assert_array_equal(deep, expected)
    alpha = np.dstack([board, np.zeros((200, 300), np.uint8)])
    np.testing.assert_array_equal(render_overlay(alpha, result), expected)
    grey = render_overlay(board[..., 0].copy(), result)
    assert grey.shape == board.shape
    strided = np.zeros((200, 500, 3), np.uint8)
    strided[:, 100:400] = board
    np.testing.assert_array_equal(render_overlay(strided[:, 100:400], result), expected)


def test_wrong_arguments(board, result):
    with pytest.raises(InvalidArgumentError, match=r"size \(200, 300\), got \(199, 300\)"):
        render_overlay(board[:-1], result)
    with pytest.raises(InvalidArgumentError, match="max_side"):
        render_overlay(board, result, max_side=0)


def test_many_regions_up_to_the_edges(tiny_artifact, make_board):
    board = make_board(1, 120, 160, defect=False)
    board[:6, :6] = board[-6:, -6:] = board[:6, -6:] = board[60:66, 80:86] = 0
    with Detector.open(tiny_artifact) as detector:
        result = detector.score(board)
    assert len(result.regions) == 4
    overlay = render_overlay(board, result)
    for region in result.regions:
        box = overlay[region.y : region.y + region.height, region.x : region.x + region.width]
        assert (box == OUTLINE).all(axis=2).any()


def decode_png(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def test_encodings_give_back_what_went_in(board, result):
    np.testing.assert_array_equal(decode_png(picture_png(board))[..., ::-1], board)
    stored = decode_png(map_png(result.map, high=0.6))
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored, map_to_uint16(result.map, 0.6))
    np.testing.assert_array_equal(stored == 0, np.isnan(result.map))
    exact = np.load(io.BytesIO(map_npy(result.map)), allow_pickle=False)
    np.testing.assert_array_equal(exact, result.map)


@pytest.fixture
def edged():
    """A map (200, 300) that is scored from column 151 on, high at its edges and its last pixel."""
    values = np.full((200, 300), 0.1, np.float32)
    values[:, :151] = np.nan
    values[102, 151] = values[199, 299] = 5
    return values


def test_a_smaller_map_has_the_largest_of_the_scored_values(edged):
    blocks = edged.reshape(40, 5, 60, 5)
    expected = np.fmax.reduce(np.fmax.reduce(blocks, axis=3), axis=1)
    np.testing.assert_array_equal(shrink_map(edged, 60), expected)
    assert (expected[20, 30], expected[39, 59]) == (5, 5)
    assert np.isnan(expected[:, :30]).all()
    assert not np.isnan(expected[:, 30:]).any()
    for side in (300, 301, None):
        np.testing.assert_array_equal(shrink_map(edged, side), edged)


@pytest.mark.parametrize("side", [1, 7, 59, 61, 299])
def test_no_value_is_lost_where_sides_do_not_divide(edged, side):
    for y, x in ((0, 299), (199, 151), (199, 299), (57, 211)):
        one = np.where(np.isnan(edged), edged, 0)
        one[y, x] = 1
        assert (shrink_map(one, side) == 1).sum() == 1


def test_what_is_not_scored_stays_grey_in_a_smaller_map(result, edged):
    picture = render_map(dataclasses.replace(result, map=edged), max_side=60)
    grey = (picture == UNSCORED).all(axis=2)
    assert grey[:, :30].all()
    assert not grey[:, 30:].any()
    assert picture[20, 30].sum() == picture.max(axis=(0, 1)).sum() > 600
