"""Thresholds: each method's definition, its edges, and what it refuses."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
import pytest
from kad_export.calibrate import ThresholdMethod, TileScores, calibrate, tile_peaks
from kad_export.errors import CalibrationError
from kad_export.holdout import ScoredTile, crop_tiles, pick_golden, split_board, split_holdout

from kad_sdk.annotations import Annotation, Rect
from kad_sdk.dataset import Sample
from kad_sdk.errors import InvalidArgumentError


def _tiles(normal, defect=(), *, peak_factor=2.0) -> TileScores:
    tiles = TileScores()
    for scores, label in ((normal, False), (defect, True)):
        score = np.array(scores, np.float64)
        tiles.add(score, peak_factor * score, np.full(len(score), label))
    return tiles


def _tau(method: str, normal, defect=()) -> float:
    return calibrate(ThresholdMethod.parse(method), _tiles(normal, defect)).tile


def test_normal_max():
    assert _tau("normal-max=1.1", [1, 3, 2]) == pytest.approx(3.3)


def test_quantile():
    assert _tau("quantile=0.5", [1, 2, 3, 4]) == 2.5


@pytest.mark.parametrize("method", ["f1", "youden"])
def test_separable_labels_are_cut_midway(method):
    assert _tau(method, [1, 2, 3], [5, 6]) == 4


def test_f1_and_youden_on_overlapping_labels():
    normal, defect = [1, 2, 3, 4, 5, 6], [4.5, 5.5, 7]
    # tau 6.5: tp 1, fp 0, F1 2/4; 4.25: tp 3, fp 2, F1 6/8; 5.25: tp 2, fp 1, F1 4/6
    assert _tau("f1", normal, defect) == 4.25
    assert _tau("youden", normal, defect) == 4.25


@pytest.mark.parametrize(("recall", "tau"), [("1", 4.25), ("0.6", 5.25), ("0.3", 6.5)])
def test_recall_gives_the_highest_threshold_that_keeps_it(recall, tau):
    assert _tau(f"recall={recall}", [1, 2, 3, 4, 5, 6], [4.5, 5.5, 7]) == tau


def test_recall_needs_no_normal_tiles():
    calibration = calibrate(ThresholdMethod.parse("recall=1"), _tiles([], [4, 8]))
    assert calibration.tile == 2
    assert calibration.tile_scale == 0.2


@pytest.mark.parametrize(("rate", "tau"), [("0", 4.5), ("0.25", 3.5), ("0.5", 2.5), ("0.6", 2.5)])
def test_false_alarms_give_the_lowest_threshold_that_keeps_them(rate, tau):
    assert _tau(f"false-alarms={rate}", [1, 2, 3, 4], [5]) == tau


@pytest.mark.parametrize("method", ["f1", "youden", "recall=0.5", "false-alarms=0.1"])
def test_no_tile_of_the_sample_lies_on_the_threshold(method):
    rng = np.random.default_rng(0)
    normal, defect = rng.normal(5, 1, 200), rng.normal(6, 1, 50)
    assert _tau(method, normal, defect) not in {*normal, *defect}


def test_map_threshold_by_the_same_method():
    calibration = calibrate(ThresholdMethod.parse("normal-max=1.5"), _tiles([1, 2], peak_factor=3))
    assert (calibration.tile, calibration.map) == (3, 9)
    assert calibration.samples == 2
    assert calibration.method == "normal-max=1.5"


def test_median_normal_tile_is_normalised_to_a_tenth():
    calibration = calibrate(ThresholdMethod.parse("normal-max=2"), _tiles([1, 2, 5]))
    assert 1 / (1 + math.exp(-(2 - calibration.tile) / calibration.tile_scale)) == pytest.approx(
        0.1
    )


def test_scale_stays_positive_below_the_median():
    calibration = calibrate(ThresholdMethod.parse("normal-max=0.1"), _tiles([5, 5, 6]))
    assert calibration.tile_scale == pytest.approx(0.06)


def test_small_sample_for_a_quantile_is_told():
    (text,) = calibrate(ThresholdMethod.parse("quantile=0.99"), _tiles(range(1, 100))).warnings
    assert "wants 100 held-out normal tiles or more, got 99" in text
    assert not calibrate(ThresholdMethod.parse("quantile=0.99"), _tiles(range(1, 101))).warnings


@pytest.mark.parametrize(
    ("method", "normal", "defect", "message"),
    [
        ("normal-max=1", [], [], "held-out normal tiles, got none"),
        ("quantile=0.9", [], [3], "held-out normal tiles, got none"),
        ("f1", [1], [], "labelled defect tiles, got none"),
        ("youden", [], [1], "labelled normal tiles, got none"),
        ("recall=0.9", [1], [], "labelled defect tiles, got none"),
        ("false-alarms=0.1", [], [1], "labelled normal tiles, got none"),
        ("normal-max=1", [0, 0], [], "copies of training images"),
    ],
)
def test_data_that_cannot_give_a_threshold(method, normal, defect, message):
    with pytest.raises(CalibrationError, match=message):
        _tau(method, normal, defect)


@pytest.mark.parametrize(
    "text",
    [
        *("", "max", "f1=0.5", "youden=", "normal-max=0", "normal-max=inf"),
        *("quantile", "quantile=1", "quantile=0", "quantile=nan", "quantile=x"),
        *("recall=0", "recall=1.1", "false-alarms=1", "false-alarms=-0.1"),
    ],
)
def test_unknown_methods_and_values_are_refused(text):
    with pytest.raises(InvalidArgumentError, match="threshold method"):
        ThresholdMethod.parse(text)


@pytest.mark.parametrize("text", ["quantile=0.999", "normal-max=1.05", "f1", "recall=0.95"])
def test_methods_are_written_as_read(text):
    assert str(ThresholdMethod.parse(text)) == text


def test_tile_peaks():
    board = np.zeros((4, 6), np.float32)
    board[1, 2], board[3, 5] = 7, 9
    assert tile_peaks(board, np.array([[0, 0], [2, 1], [3, 1]]), 3).tolist() == [7, 7, 9]


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
