"""Thresholds: each method's definition, its edges, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kad_sdk.errors import CalibrationError, InvalidArgumentError
from kad_sdk.thresholds import ThresholdMethod, TileScores, calibrate, tile_peaks


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
        *("false-alarms-per-board", "false-alarms-per-board=0"),
    ],
)
def test_unknown_methods_and_values_are_refused(text):
    with pytest.raises(InvalidArgumentError, match="threshold method"):
        ThresholdMethod.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        *("f1", "quantile=0.999", "quantile=0.9999995", "recall=0.95", "normal-max=1.05"),
        *("normal-max=2", "normal-max=1.23456789", "false-alarms=0", "false-alarms=1e-07"),
    ],
)
def test_methods_are_written_as_read(text):
    assert str(ThresholdMethod.parse(text)) == text


def test_tile_peaks():
    board = np.zeros((4, 6), np.float32)
    board[1, 2], board[3, 5] = 7, 9
    assert tile_peaks(board, np.array([[0, 0], [2, 1], [3, 1]]), 3).tolist() == [7, 7, 9]


def _boards(*largest, defect=()) -> TileScores:
    """Boards of three tiles each; the map says twice what the tiles say."""
    tiles = TileScores()
    for value, bad in [(v, False) for v in largest] + [(v, True) for v in defect]:
        score = np.array([0.1, value, 0.2])
        tiles.add(score, 2 * score, [False, bad, False])
    return tiles


@pytest.mark.parametrize(
    ("rate", "tau"),
    [
        ("0.25", 8.5),  # k = floor(0.25 * 11) = 2: between the largest two
        ("0.2", 8.5),
        ("0.1", 9 * 1.05),  # k = 1: above the largest
        ("0.01", 9 * 1.05),  # k = 0
        ("0.5", 5.5),  # k = 5
    ],
)
def test_false_alarms_per_board_look_at_each_boards_largest_tile(rate, tau):
    method = ThresholdMethod.parse(f"false-alarms-per-board={rate}")
    found = calibrate(method, _boards(*range(10), defect=[20, 30]))
    assert (found.tile, found.map) == pytest.approx((tau, 2 * tau))
    assert found.samples == 36


def test_false_alarms_per_board_with_ties_lie_above_them():
    method = ThresholdMethod.parse("false-alarms-per-board=0.5")
    assert calibrate(method, _boards(1, 2, 7, 7, 7)).tile == pytest.approx(7 * 1.05)
    assert calibrate(method, _boards(1, 7, 7, 7, 9)).tile == 8


def test_too_few_boards_for_a_rate_are_told():
    method = ThresholdMethod.parse("false-alarms-per-board=0.1")
    (text,) = calibrate(method, _boards(*range(1, 9))).warnings
    assert "wants 9 good boards or more, got 8: it lies 5% above their largest score" in text
    enough = calibrate(method, _boards(*range(1, 10)))
    assert not enough.warnings
    assert enough.tile == pytest.approx(9 * 1.05)  # k = 1, as docs/evaluation.md tells
    assert calibrate(method, _boards(*range(1, 20))).tile == 18.5  # k = 2, with 19 boards


def test_boards_without_a_tile_do_not_count():
    """Nine boards are wanted: two of which no tile was scored do not make up for the ninth."""
    method, tiles = ThresholdMethod.parse("false-alarms-per-board=0.1"), _boards(*range(1, 9))
    tiles.add([], [], [])
    tiles.add([], [], [], 5.0)
    (text,) = calibrate(method, tiles).warnings
    assert "wants 9 good boards or more, got 8" in text
    assert len(tiles.boards) == 8


def test_a_tile_of_which_nothing_is_judged_counts_for_no_map_threshold():
    tiles = TileScores()
    tiles.add([1, 2, 3], [4, 5, math.nan], [False, False, False])
    found = calibrate(ThresholdMethod.parse("normal-max=1"), tiles)
    assert (found.tile, found.map) == (3, 5)
    board = np.full((4, 4), np.nan, np.float32)
    board[0, 0] = 2
    np.testing.assert_array_equal(tile_peaks(board, np.array([[0, 0], [2, 2]]), 2), [2, np.nan])
