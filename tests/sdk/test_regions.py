"""Which defects a region hits, and which regions are false: hand-made masks and maps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from kad_sdk.dataset import Sample
from kad_sdk.defects import Defect
from kad_sdk.errors import AnnotationError
from kad_sdk.regions import match_regions, region_mask

TAU = 1.0


def picture(*rows: str) -> np.ndarray:
    """'#' is True, '?' is None of it: see `result_of`."""
    return np.array([[char == "#" for char in row] for row in rows])


def result_of(*rows: str, boxes: list[tuple[int, int, int, int]] | None = None) -> SimpleNamespace:
    """A map of digits, '?' where nothing was scored, with the regions at or above 1."""
    values = {"?": np.nan, ".": 0.0}
    heat = np.array([[values.get(c, c) for c in row] for row in rows]).astype(np.float32)
    flagged = (np.nan_to_num(heat) >= TAU).astype(np.uint8)
    found = boxes or cv2.connectedComponentsWithStats(flagged)[2][1:, :4].tolist()
    regions = [_region(heat, box) for box in found]
    return SimpleNamespace(need_map=lambda: heat, map_threshold=TAU, regions=tuple(regions))


def _region(heat: np.ndarray, box: tuple[int, int, int, int]) -> SimpleNamespace:
    x, y, width, height = box
    inside = np.nan_to_num(heat[y : y + height, x : x + width])
    top, left = np.unravel_index(inside.argmax(), inside.shape)
    peak = (x + int(left), y + int(top))
    return SimpleNamespace(x=x, y=y, width=width, height=height, peak_xy=peak)


def board(*defects: Defect, kind: str = "scar") -> Sample:
    return Sample(Path("b.png"), "test/b.png", "test", kind, 1, None, None, defects)


def test_a_defect_is_found_by_one_shared_pixel_and_not_by_a_shared_box() -> None:
    #   The region is an L around the second defect, which lies inside its box and is not on it.
    truth = picture("##....", "......", "...#..", "......")
    found = result_of(".2....", ".1....", ".1....", ".13333")
    match = match_regions(board(), found, truth)
    assert [(d.box, d.area_px, d.peak, d.found) for d in match.defects] == [
        ((0, 0, 2, 1), 2, 2.0, True),
        ((3, 2, 1, 1), 1, 0.0, False),
    ]
    assert match.defects[0].regions == (0,)
    assert match.false_regions == ()


def test_regions_beside_every_defect_are_false() -> None:
    truth = picture("#.....", "......", "......")
    found = result_of(".2...3", "......", "1....1")
    match = match_regions(board(), found, truth)
    assert [d.found for d in match.defects] == [False]
    assert match.false_regions == (0, 1, 2, 3)


def test_pixels_that_touch_at_a_corner_are_one_defect() -> None:
    match = match_regions(board(), result_of("1..", "...", "..."), np.eye(3, dtype=bool))
    assert [(d.area_px, d.found) for d in match.defects] == [(3, True)]


def test_an_entry_of_the_file_of_defects_is_one_defect_however_many_parts_it_has() -> None:
    truth = picture("#.#..#", "......", "#.#..#")
    splash = Defect("splash", (0, 0, 4, 3))
    empty = Defect("dirt", (3, 0, 2, 2))  # the ground truth marks nothing in it
    match = match_regions(board(splash, empty), result_of("......", "......", "..4..."), truth)
    assert [(d.kind, d.area_px, d.found) for d in match.defects] == [
        ("splash", 4, True),
        ("other", 1, False),  # what lies in no box: its parts, one by one
        ("other", 1, False),
    ]


def test_a_defect_where_nothing_was_scored_is_told_apart() -> None:
    truth = picture("##..", "....", "..##")
    match = match_regions(board(), result_of("??..", "....", "..?3"), truth)
    assert [(d.scored, d.peak, d.found) for d in match.defects] == [
        (False, None, False),
        (True, 3.0, True),
    ]


def test_two_regions_may_find_one_defect_and_one_region_two() -> None:
    truth = picture("###", "...", "#.#")
    match = match_regions(board(), result_of("2.2", "...", "333"), truth)
    assert [d.regions for d in match.defects] == [(0, 1), (2,), (2,)]
    assert match.false_regions == ()


def test_a_region_that_the_resized_map_lost_counts_by_its_box() -> None:
    found = result_of("....", "....", boxes=[(1, 0, 2, 1)])
    assert not region_mask(found.regions[0], found).any()
    assert match_regions(board(), found, picture(".#..", "....")).defects[0].found
    assert match_regions(board(), found, picture("...#", "....")).false_regions == (0,)


def test_region_mask_is_the_component_of_the_peak() -> None:
    found = result_of("1.9", "1.9", "1..", boxes=[(0, 0, 3, 3)])
    assert region_mask(found.regions[0], found).tolist() == picture("..#", "..#", "...").tolist()


def test_a_box_outside_of_the_board_is_refused() -> None:
    with pytest.raises(AnnotationError, match=r"test/b\.png: the box \[2, 0, 2, 1\] of a dent"):
        match_regions(board(Defect("dent", (2, 0, 2, 1))), result_of("..."), picture("..#"))
