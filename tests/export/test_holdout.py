"""Boards held out for the threshold, and the golden tiles that are picked among theirs."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from kad_export.holdout import ScoredTile, crop_tiles, pick_golden, split_board, split_holdout

from kad_sdk.annotations import Annotation, Rect
from kad_sdk.dataset import Sample
from kad_sdk.errors import CalibrationError
from kad_sdk.thresholds import ThresholdMethod, TileScores, calibrate


def _tiles(normal, defect=(), *, peak_factor=2.0) -> TileScores:
    tiles = TileScores()
    for scores, label in ((normal, False), (defect, True)):
        score = np.array(scores, np.float64)
        tiles.add(score, peak_factor * score, np.full(len(score), label))
    return tiles


def _sample(path, name="a.png", annotation=None) -> Sample:
    return Sample(path / name, name, "train", "good", 0, None, annotation)


def test_holdout_is_seeded_disjoint_and_in_order(tmp_path):
    samples = [_sample(tmp_path, f"{i:02}.png") for i in range(20)]
    kept, held = split_holdout(samples, 0.2, seed=1)
    assert len(held) == 4
    assert sorted(kept + held, key=lambda s: s.name) == samples
    assert [s.name for s in kept] == sorted(s.name for s in kept)
    assert split_holdout(samples, 0.2, seed=1) == (kept, held)
    assert split_holdout(samples, 0.2, seed=2) != (kept, held)


@pytest.mark.parametrize(("n", "share", "n_held"), [(2, 0.01, 1), (2, 0.99, 1), (10, 0.1, 1)])
def test_holdout_holds_out_one_and_never_all(tmp_path, n, share, n_held):
    kept, held = split_holdout([_sample(tmp_path, str(i)) for i in range(n)], share, seed=0)
    assert (len(kept), len(held)) == (n - n_held, n_held)


@pytest.mark.parametrize("size", [(300, 100), (100, 300)])
def test_only_image_is_split_without_a_shared_tile(tmp_path, size):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros(size, np.uint8))
    sticker = Rect(0, 0, 5, 5)
    first, second = split_board(
        _sample(tmp_path, annotation=Annotation(labels=(sticker,))), 0.1, tile=64
    )
    far, near = first.annotation.labels[1], second.annotation.labels[1]
    axis = size.index(300)
    assert (near[3 - axis], far[1 - axis]) == (236, 236)  # 64 px held out, at the far end
    assert first.annotation.labels[0] == second.annotation.labels[0] == sticker


def test_only_image_that_is_too_small_to_split(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((100, 100), np.uint8))
    with pytest.raises(CalibrationError, match="too small to hold tiles of 64 px out of it"):
        split_board(_sample(tmp_path), 0.1, tile=64)


def _scored(path, normal, defect) -> list[ScoredTile]:
    tiles = [(score, False) for score in normal] + [(score, True) for score in defect]
    return [ScoredTile(_sample(path), i, 0, score, label) for i, (score, label) in enumerate(tiles)]


def test_golden_tiles_are_half_defects_and_span_the_scores(tmp_path):
    calibration = calibrate(ThresholdMethod.parse("f1"), _tiles([1, 2], [9, 10]))
    tiles = pick_golden(_scored(tmp_path, range(1, 30), range(40, 50)), calibration)
    assert [t.score for t in tiles if t.defect] == [40, 43, 46, 49]
    assert [t.score for t in tiles if not t.defect] == [1, 10, 20, 29]


def test_golden_tiles_keep_clear_of_the_threshold(tmp_path):
    calibration = dataclasses.replace(
        calibrate(ThresholdMethod.parse("normal-max=1"), _tiles([10])), tile=10.0
    )
    tiles = pick_golden(_scored(tmp_path, [9.5, 9.95, 10.0, 10.05], []), calibration)
    assert [t.score for t in tiles] == [9.5]
    with pytest.raises(CalibrationError, match="no tile's score lies clear of the threshold"):
        pick_golden(_scored(tmp_path, [10.0], []), calibration)


@pytest.mark.parametrize(
    ("board", "expected"),
    [
        (np.full((8, 8), 200, np.uint8), [200, 200, 200]),
        (np.full((8, 8), 51_400, np.uint16), [200, 200, 200]),
        (np.full((8, 8, 3), (1, 2, 3), np.uint8), [1, 2, 3]),
    ],
    ids=["grey8", "grey16", "rgb8"],
)
def test_golden_crops_are_rgb_of_8_bits(tmp_path, board, expected):
    crops = crop_tiles(_scored(tmp_path, [1, 2], []), lambda _: board, 4)
    assert crops.shape == (2, 4, 4, 3)
    assert crops.dtype == np.uint8
    assert (crops == expected).all()
