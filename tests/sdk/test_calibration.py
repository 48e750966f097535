"""Calibration: what is found is what is so, how sure, and what is written; and taking it back."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from kad_sdk import Detector
from kad_sdk.artifact import Artifact
from kad_sdk.calibration import calibration_boards, calibration_entry, name_warning
from kad_sdk.cli import main
from kad_sdk.dataset import Sample, scan_dataset
from kad_sdk.errors import ArtifactCorruptError, CalibrationError, OutputError
from kad_sdk.inspection import INSPECTION_LIMIT_BYTES, Tau
from kad_sdk.rules import Rules, RulesEntry
from kad_sdk.storage import locked_folder
from kad_sdk.thresholds import ThresholdMethod, TileScores

SEED = 20261127
SPREAD_BOARDS, SPREAD_TILES = 0.3, 0.4  # of the logarithm of a normal score


def _normal_boards(rng, n_boards: int, n_tiles: int) -> TileScores:
    """Boards whose tiles share a mood: log scores are normal between and within boards."""
    tiles = TileScores()
    for mood in rng.normal(0, SPREAD_BOARDS, n_boards):
        score = np.exp(mood + rng.normal(0, SPREAD_TILES, n_tiles))
        tiles.add(score, 2 * score, np.zeros(n_tiles, bool))
    return tiles


def _true_tile_rate(tau: float) -> float:
    spread = math.hypot(SPREAD_BOARDS, SPREAD_TILES)
    return 1 - statistics.NormalDist(0, spread).cdf(math.log(tau))


def test_interval_of_the_tile_rate_holds_the_true_one():
    """Known answer. Tiles drawn one by one would cover the true rate in two trials of five."""
    method, rng = ThresholdMethod.parse("quantile=0.95"), np.random.default_rng(1)
    held = narrow = 0
    for trial in range(40):
        tiles = _normal_boards(rng, 40, 100)
        entry, _ = calibration_entry(method, tiles, by_map=True, resamples=99, seed=trial)
        rate = _true_tile_rate(entry.tile.value)
        low, high = entry.tile_false_alarms.interval
        held += low <= rate <= high
        wrong = 1.96 * math.sqrt(0.05 * 0.95 / 4000)
        narrow += abs(rate - 0.05) <= wrong
        assert entry.tile_false_alarms.share == pytest.approx(0.05)
    assert held >= 34  # of 40 at 95 %, with 99 resamples of 40 boards
    assert narrow <= 24


def test_the_board_rate_is_kept_on_fresh_boards():
    """Known answer: over many calibrations, no more good boards are rejected than were allowed."""
    method, rng = ThresholdMethod.parse("false-alarms-per-board=0.1"), np.random.default_rng(2)
    rates = []
    for trial in range(30):
        entry, warnings = calibration_entry(
            method, _normal_boards(rng, 49, 20), by_map=True, resamples=20, seed=trial
        )
        assert not warnings
        fresh = _normal_boards(rng, 400, 20)
        rates.append(np.mean([board.map_score >= entry.map.value for board in fresh.boards]))
    # k = 5 of 50: the mean rate is 0.1 at most, and above 4 / 50 as tau lies below the next.
    assert 0.075 <= np.mean(rates) <= 0.11


def test_entry_counts_and_thresholds_of_labelled_boards():
    tiles = TileScores()
    for _ in range(6):
        tiles.add([1.0, 2.0], [2.0, 4.0], [False, False])
    tiles.add([1.0, 5.0], [2.0, 9.0], [False, True])
    entry, warnings = calibration_entry(ThresholdMethod.parse("youden"), tiles, by_map=False)
    assert (entry.tile.value, entry.map.value) == (3.5, 6.5)
    assert entry.tile.interval == (3.5, 3.5)
    counts = (entry.good_boards, entry.defective_boards, entry.normal_tiles, entry.defect_tiles)
    assert counts == (6, 1, 13, 1)
    assert entry.board_false_alarms.share == entry.tile_false_alarms.share == 0
    assert warnings == ("the intervals come of 7 boards, and are rough: take 20 or more",)


@pytest.fixture
def artifact(tiny_artifact, tmp_path):
    return shutil.copytree(tiny_artifact, tmp_path / "x.kad")


def _write_boards(folder, make_board, seeds, *, defect=False):
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        cv2.imwrite(str(folder / f"{seed}.png"), make_board(seed, 60, 100, defect=defect))


@pytest.fixture
def good_boards(make_board, tmp_path):
    _write_boards(tmp_path / "good", make_board, range(1000, 1030))
    return tmp_path / "good"


def kad(*command):
    result = CliRunner().invoke(main, [str(part) for part in command])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_a_calibrated_artifact_keeps_its_rate_on_fresh_boards(artifact, good_boards, make_board):
    before = Artifact.open(artifact).thresholds
    done = kad("calibrate", artifact, good_boards, "--by", "false-alarms-per-board=0.2")
    assert done.exit_code == 0, done.output
    (entry,) = Artifact.open(artifact).inspection.calibrations
    assert (entry.good_boards, entry.defective_boards) == (30, 0)
    with Detector.open(artifact) as detector:
        assert detector.map_threshold == entry.map.value != before.map
        results = [detector.score(make_board(s, 60, 100, defect=False)) for s in range(2000, 2060)]
        bad = detector.score(make_board(3000, 60, 100, defect=True))
    assert bad.anomalous
    rate = np.mean([result.anomalous for result in results])
    low, high = entry.board_false_alarms.interval
    assert low <= rate <= high
    assert 0.5 < bad.normalised_score <= 1 < bad.score / entry.map.value
    text = kad("inspect", artifact).output
    assert "false-alarms-per-board=0.2" in text
    assert f"tiles {before.tile:.6g}, map {before.map:.6g}: fixed, by the export" in text
    assert f"95% interval: tiles {entry.tile.interval[0]:.6g} to" in text
    shown = json.loads(kad("inspect", artifact, "--json").stdout)
    assert shown["inspection"]["calibrations"][0]["good_boards"] == 30
    assert kad("verify", artifact).exit_code == 0  # golden tiles are judged as they were exported


def test_rollback_goes_back_one_by_one(artifact, good_boards):
    exported = Artifact.open(artifact).thresholds
    taus = []
    for method in ("normal-max=2", "quantile=0.9"):
        kad("calibrate", artifact, good_boards, "--by", method)
        taus.append(Artifact.open(artifact).thresholds)
    assert taus[1].tile < taus[0].tile
    text = kad("inspect", artifact).output
    assert text.index("quantile=0.9") < text.index("normal-max=2") < text.index("by the export")
    assert "back to normal-max=2" in kad("calibrate", artifact, "--rollback").output
    assert Artifact.open(artifact).thresholds == taus[0]
    assert "back to fixed" in kad("calibrate", artifact, "--rollback").output
    assert Artifact.open(artifact).thresholds == exported
    refused = kad("calibrate", artifact, "--rollback")
    assert refused.exit_code == 1
    assert (
        "the thresholds are those that this artifact was written with; there is no calibration of "
        "it to take back" in refused.output
    )


@pytest.mark.parametrize(
    "words", [(), ("DATA",), ("--by", "f1"), ("DATA", "--by", "f1", "--rollback")]
)
def test_usage(artifact, words):
    assert kad("calibrate", artifact, *words).exit_code == 2


@pytest.mark.parametrize(
    "words",
    [("--provider", "cpu"), ("--batch", 4), ("--threads", 1), ("--build-engine",)],
)
def test_a_rollback_scores_nothing(artifact, words):
    refused = kad("calibrate", artifact, "--rollback", *words)
    assert refused.exit_code == 2
    assert f"{words[0]} says how boards are scored, and --rollback scores none" in refused.output


def test_youden_without_defects_fails_before_anything_is_scored(
    artifact, good_boards, make_board, tmp_path, monkeypatch
):
    _write_boards(tmp_path / "data" / "test" / "good", make_board, range(3))
    _write_boards(tmp_path / "data" / "train" / "good", make_board, range(3, 6))
    monkeypatch.setattr(Detector, "open", lambda *_, **__: pytest.fail("the artifact was opened"))
    for data in (tmp_path / "data", good_boards):
        result = kad("calibrate", artifact, data, "--by", "youden")
        assert result.exit_code == 1
        assert "needs boards with labelled defects" in result.output
    assert not (artifact / "inspection.json").exists()


@pytest.mark.parametrize("method", ["false-alarms=0.001", "recall=0.9"])
def test_a_plain_folder_for_labelled_tiles_is_told_what_suits_it(artifact, good_boards, method):
    """A folder of good boards is not told to be one."""
    refused = kad("calibrate", artifact, good_boards, "--by", method)
    assert refused.exit_code == 1
    assert "add boards with ground truth to test/" in refused.output
    assert "from good boards alone, such as false-alarms-per-board=0.01" in refused.output
    assert "give a folder" not in refused.output


def test_boards_that_are_taken(make_board, tmp_path):
    root = tmp_path / "data"
    _write_boards(root / "train" / "good", make_board, range(2))
    _write_boards(root / "test" / "spot", make_board, range(2, 4), defect=True)
    with pytest.raises(CalibrationError, match="has none in test/"):
        calibration_boards(scan_dataset(root), ThresholdMethod.parse("quantile=0.9"))
    with pytest.raises(CalibrationError, match="labelled defects"):  # they have no masks
        calibration_boards(scan_dataset(root), ThresholdMethod.parse("f1"))
    _write_boards(root / "test" / "good", make_board, range(4, 6))
    (root / "ground_truth" / "spot").mkdir(parents=True)
    mask = np.zeros((60, 100), np.uint8)
    mask[40:52, 70:82] = 255
    cv2.imwrite(str(root / "ground_truth" / "spot" / "2_mask.png"), mask)
    dataset = scan_dataset(root)
    for method, names in (
        ("quantile=0.9", ["test/good/4.png", "test/good/5.png"]),
        ("f1", ["test/good/4.png", "test/good/5.png", "test/spot/2.png"]),
    ):
        found = calibration_boards(dataset, ThresholdMethod.parse(method))
        assert sorted(sample.name for sample in found) == names


def _write_surrounded(folder, make_board, seeds):
    """Good boards in the middle of a black surround."""
    folder.mkdir()
    for seed in seeds:
        whole = np.zeros((120, 200, 3), np.uint8)
        whole[30:90, 50:150] = make_board(seed, 60, 100, defect=False)
        cv2.imwrite(str(folder / f"{seed}.png"), whole)


def _annotate(folder, seeds):
    areas = {f"{seed}.png": {"borders": [[50, 30, 100, 60]]} for seed in seeds}
    (folder / "annotations.json").write_text(json.dumps(areas))


def test_annotations_name_all_boards_or_none(artifact, make_board, tmp_path, monkeypatch):
    """A single board scored with its surround would give the threshold, and find nothing."""
    folder = tmp_path / "boards"
    _write_surrounded(folder, make_board, range(1, 6))
    _annotate(folder, range(1, 5))
    with monkeypatch.context() as patch:
        patch.setattr(Detector, "open", lambda *_, **__: pytest.fail("the artifact was opened"))
        refused = kad("calibrate", artifact, folder, "--by", "normal-max=1.05")
    assert refused.exit_code == 1
    assert "the annotations name 4 of 5 boards, and not 5.png" in refused.output
    assert not (artifact / "inspection.json").exists()
    _annotate(folder, range(1, 6))
    done = kad("calibrate", artifact, folder, "--by", "normal-max=1.05")
    assert done.exit_code == 0
    assert "as dark as" not in done.output


def test_dark_tiles_that_are_scored_are_told(artifact, make_board, tmp_path):
    folder = tmp_path / "boards"
    _write_surrounded(folder, make_board, range(1, 4))
    done = kad("calibrate", artifact, folder, "--by", "false-alarms-per-board=0.5")
    assert done.exit_code == 0
    assert "tiles of the boards are as dark as the surround that training leaves" in done.output


def test_boards_named_like_the_banks_are_told(artifact, make_board, tmp_path):
    folder = tmp_path / "boards"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):  # the bank is of a.png and c.png, too
        cv2.imwrite(str(folder / name), make_board(ord(name[0]), 60, 100, defect=False))
    for moved, told in (
        (None, "2 of 3 boards have the names of images that the artifact was fitted on"),
        ("a.png", "1 of 3 boards has the name of an image that the artifact was fitted on"),
        ("c.png", None),
    ):
        if moved:
            (folder / moved).rename(folder / f"other_{moved}")
        result = kad("calibrate", artifact, folder, "--by", "normal-max=1.05")
        assert result.exit_code == 0
        assert told in result.stderr if told else "fitted on" not in result.stderr


def test_boards_of_another_folder_are_not_those_of_the_bank(tiny, tmp_path):
    """Each kind of an MVTec data set begins with 000.png."""
    names = ("train/good/000.png", "train/good/001.png")
    bank = dataclasses.replace(tiny.manifest.bank, images=names)
    manifest = dataclasses.replace(tiny.manifest, bank=bank)
    for root, name, same in (
        ("bottle", "test/good/000.png", False),
        ("bottle", "train/good/000.png", True),
        ("bottle/train/good", "000.png", True),
    ):
        sample = Sample(tmp_path / root / name, name, "test", "good", 0, None, None)
        assert (name_warning([sample], manifest) is not None) == same


def test_thresholds_of_another_artifact_are_refused(tiny, artifact, good_boards, tmp_path):
    kad("calibrate", artifact, good_boards, "--by", "normal-max=2")
    plain = dataclasses.replace(tiny.manifest.patchcore, reweighting="none", n_neighbors=0)
    other = tiny.write(
        tmp_path / "other.kad", manifest=dataclasses.replace(tiny.manifest, patchcore=plain)
    )
    shutil.copy(artifact / "inspection.json", other)
    with pytest.raises(ArtifactCorruptError, match="thresholds of another artifact do not hold"):
        Artifact.open(other)


def test_what_was_changed_meanwhile_is_not_overwritten(tiny, artifact, good_boards, tmp_path):
    early = Artifact.open(artifact)
    kad("calibrate", artifact, good_boards, "--by", "normal-max=2")
    with pytest.raises(OutputError, match=r"inspection.json: was changed meanwhile"):
        early.set_inspection(early.inspection)
    late = Artifact.open(artifact)
    thresholds = dataclasses.replace(tiny.manifest.thresholds, tile=0.4)
    tiny.write(
        artifact, manifest=dataclasses.replace(tiny.manifest, thresholds=thresholds), replace=True
    )
    with pytest.raises(OutputError, match="was replaced meanwhile"):
        late.set_inspection(late.inspection)


def _calibrate_again(path, entry, barrier):
    barrier.wait()
    for _ in range(10):
        while True:
            opened = Artifact.open(path)
            both = (*opened.inspection.calibrations, entry)
            try:
                opened.set_inspection(dataclasses.replace(opened.inspection, calibrations=both))
                break
            except OutputError:
                continue


def test_writers_at_once_lose_nothing(artifact):
    entry = _entry()
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    writers = [
        context.Process(target=_calibrate_again, args=(artifact, entry, barrier)) for _ in range(3)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(Artifact.open(artifact).inspection.calibrations) == 30


def _entry(**changes):
    entry, _ = calibration_entry(
        ThresholdMethod.parse("normal-max=2"),
        _normal_boards(np.random.default_rng(0), 3, 4),
        by_map=True,
        resamples=5,
    )
    return dataclasses.replace(entry, **changes)


def test_a_full_history_gives_way_from_its_oldest_end(artifact):
    """Known answer: what is left is the end of both lists, as much as 1 MiB holds."""
    opened = Artifact.open(artifact)
    many = tuple((i, 0, 5, 5) for i in range(200))
    rules = tuple(
        RulesEntry(f"2026-11-27T{i // 60:02}:{i % 60:02}:30Z", Rules(many[:i])) for i in range(200)
    )
    calibrations = tuple(
        _entry(time=f"2026-11-27T{i // 60:02}:{i % 60:02}:00Z", rules=Rules(many[:i]))
        for i in range(200)
    )
    whole = dataclasses.replace(opened.inspection, calibrations=calibrations, rules=rules)
    assert len(whole.to_json()) > INSPECTION_LIMIT_BYTES
    opened.set_inspection(whole)
    size = (artifact / "inspection.json").stat().st_size
    kept = Artifact.open(artifact).inspection
    n, m = len(kept.calibrations), len(kept.rules)
    assert INSPECTION_LIMIT_BYTES - 20_000 < size <= INSPECTION_LIMIT_BYTES
    assert (kept.calibrations, kept.rules) == (calibrations[-n:], rules[-m:])
    assert 0 <= m - n <= 1  # of each minute the calibration is the older one
    assert kad("rules", artifact, "--ignore", "1,2,3,4").exit_code == 0
    assert kad("rules", artifact, "--rollback").exit_code == 0
    assert Artifact.open(artifact).rules == rules[-1].rules


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            {"tile": Tau(1e39, 1.0, (1.0, 1.0))},
            r"calibrations\[0\]\.tile\.value: expected a number",
        ),
        ({"map": Tau(1.0, 1.0, (1.0, math.inf))}, "no reader would take it"),
        ({"rules": Rules(((0, 0, 1, 1),) * 40_000)}, "expected at most 1048576 bytes of JSON"),
    ],
)
def test_what_no_reader_would_take_is_not_written(artifact, change, match):
    opened = Artifact.open(artifact)
    opened.set_inspection(dataclasses.replace(opened.inspection, calibrations=(_entry(),)))
    before = (artifact / "inspection.json").read_bytes()
    opened = Artifact.open(artifact)
    wrong = dataclasses.replace(opened.inspection, calibrations=(_entry(**change),))
    with pytest.raises(OutputError, match=match):
        opened.set_inspection(wrong)
    assert (artifact / "inspection.json").read_bytes() == before
    assert [path.name for path in artifact.parent.iterdir()] == [artifact.name]


def test_a_threshold_beyond_float32_is_refused_where_it_is_found(artifact, good_boards):
    result = kad("calibrate", artifact, good_boards, "--by", "normal-max=1e41")
    assert result.exit_code == 1
    assert "a positive float32 is expected, 1.2e-38 to 3.4e+38" in result.output
    assert not (artifact / "inspection.json").exists()


def test_an_artifact_is_not_replaced_while_something_is_set_on_it(tiny, artifact):
    changed = dataclasses.replace(tiny.manifest, created_by={"kad-sdk": "9.9"})
    with locked_folder(artifact):
        writer = threading.Thread(
            target=tiny.write, args=(artifact,), kwargs={"manifest": changed, "replace": True}
        )
        writer.start()
        writer.join(0.5)
        assert writer.is_alive()
        assert Artifact.open(artifact).manifest.created_by != changed.created_by
    writer.join()
    assert Artifact.open(artifact).manifest.created_by == changed.created_by
    assert [path.name for path in artifact.parent.iterdir()] == [artifact.name]


def test_who_waits_for_a_folder_gets_the_one_that_has_its_name_then(tmp_path):
    folder, held = tmp_path / "x", []
    folder.mkdir()

    def hold():
        with locked_folder(folder) as descriptor:
            held.append(os.path.samestat(os.fstat(descriptor), folder.stat()))

    with locked_folder(folder):
        waiting = threading.Thread(target=hold)
        waiting.start()
        waiting.join(0.3)
        folder.rename(tmp_path / "aside")
        folder.mkdir()
        assert not held
    waiting.join()
    assert held == [True]


def test_an_artifact_that_is_mounted_by_itself_is_told(artifact, mount, tmp_path):
    alone = tmp_path / "m" / "board.kad"
    alone.mkdir(parents=True)
    mount(artifact, alone)
    result = kad("rules", alone, "--min-area", "3")
    assert result.exit_code == 1
    assert f"{alone} is mounted there by itself. Mount the folder that holds" in result.stderr
    assert [path.name for path in alone.parent.iterdir()] == ["board.kad"]
    assert not Artifact.open(artifact).rules


def test_a_folder_above_that_is_read_only_is_named(artifact, mount, tmp_path):
    above = tmp_path / "m"
    above.mkdir()
    mount(artifact.parent, above, ["-o", "remount,bind,ro", above])
    result = kad("rules", above / "x.kad", "--min-area", "3")
    assert result.exit_code == 1
    assert f"and {above} cannot be written to: Read-only file system" in result.stderr


@pytest.mark.parametrize(
    ("name", "number", "words"),
    [
        ("os.rename", errno.EXDEV, "mounted there by itself. Mount the folder that holds"),
        ("os.rename", errno.EIO, "inspection.json: Input/output error"),
        ("write_synced", errno.EACCES, "cannot be written to: Permission denied. Allow this user"),
    ],
)
def test_what_hinders_writing_is_told(artifact, monkeypatch, name, number, words):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    opened = Artifact.open(artifact)
    with monkeypatch.context() as patch:
        patch.setattr(f"kad_sdk.artifact_folder.{name}", fail)
        with pytest.raises(OutputError) as caught:
            opened.set_inspection(opened.inspection)
    assert words in str(caught.value)
    assert [path.name for path in artifact.parent.iterdir()] == [artifact.name]


KILLED = """
import os, sys
from dataclasses import replace
from kad_sdk import artifact_folder, storage
from kad_sdk.artifact import Artifact
opened = Artifact.open(sys.argv[1])
calls, last = 0, int(sys.argv[2])

def killing(function):
    def call(*args, **more):
        global calls
        calls += 1
        if calls == last:
            os._exit(9)
        return function(*args, **more)
    return call

for name in ("open", "rename", "fsync", "write"):
    setattr(os, name, killing(getattr(os, name)))
artifact_folder.write_synced = killing(artifact_folder.write_synced)
twice = 2 * opened.inspection.calibrations
opened.set_inspection(replace(opened.inspection, calibrations=twice))
"""


def test_a_kill_at_any_moment_leaves_a_valid_artifact(artifact, good_boards):
    kad("calibrate", artifact, good_boards, "--by", "normal-max=2")
    found = set()
    for last in range(1, 20):
        run = subprocess.run(
            [sys.executable, "-c", KILLED, str(artifact), str(last)],
            check=False,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        n = len(Artifact.open(artifact).inspection.calibrations)
        found.add(n)
        assert n in {1, 2}
        if run.returncode == 0:
            break
        assert run.returncode == 9
        if n == 2:
            kad("calibrate", artifact, "--rollback")
    assert run.returncode == 0
    assert found == {1, 2}
    assert last > 5
