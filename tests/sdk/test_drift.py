"""Drift: exact p-values, the stated rate of false alarms, alarms on shifts; the log of scores."""

from __future__ import annotations

import dataclasses
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import scipy.stats
from click.testing import CliRunner
from kad_export.synth import generate_dataset

from kad_sdk import Artifact, Detector, read_annotations, read_image
from kad_sdk.cli import main
from kad_sdk.cli_drift import EXIT_DRIFT
from kad_sdk.drift import MEASURES, QUANTILES, board_measures, compare_boards
from kad_sdk.errors import InvalidArgumentError, OutputError, ScoreLogError
from kad_sdk.score_log import (
    LogEntry,
    _brightness,
    append_entry,
    entry_of,
    log_measures,
    read_log,
    scoring_id,
)

if TYPE_CHECKING:
    from pathlib import Path

TRIALS = 200
N_DAY, N_REFERENCE = 10, 30
N_FITTED, N_BOARDS = 6, 40

Board = tuple[np.ndarray, float]  # tile scores, brightness


# ---- the test's arithmetic ----------------------------------------------------------------------


def exact_p(day: np.ndarray, reference: np.ndarray) -> float:
    """Go through every way to choose the day's boards."""
    values = np.concatenate([day, reference])
    ranks = scipy.stats.rankdata(values, axis=0)
    spread = ranks.std(axis=0)
    spread[spread == 0] = 1

    def statistic(chosen: tuple[int, ...]) -> float:
        mean = ranks[list(chosen)].mean(axis=0)
        return float(np.max(np.abs(mean - ranks.mean(axis=0)) / spread))

    found = statistic(tuple(range(len(day))))
    everything = itertools.combinations(range(len(values)), len(day))
    return float(np.mean([statistic(chosen) >= found - 1e-9 for chosen in everything]))


@pytest.mark.parametrize("seed", range(4))
def test_p_value_is_that_of_all_permutations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    day = np.round(rng.normal(0.4 * seed, 1, (5, len(MEASURES))), 1)  # with ties
    reference = np.round(rng.normal(0, 1, (7, len(MEASURES))), 1)
    expected = exact_p(day, reference)
    found = compare_boards(day, reference, permutations=20_000).p_value
    assert found == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 20_000))


def test_one_quantile_alone_gives_the_mann_whitney_test() -> None:
    rng = np.random.default_rng(5)
    day, reference = np.zeros((8, len(MEASURES))), np.zeros((9, len(MEASURES)))
    day[:, 2], reference[:, 2] = rng.normal(0.8, 1, 8), rng.normal(0, 1, 9)
    expected = scipy.stats.mannwhitneyu(day[:, 2], reference[:, 2], method="exact").pvalue
    found = compare_boards(day, reference, permutations=20_000)
    assert found.p_value == pytest.approx(expected, abs=0.01)
    assert found.largest.measure == "score 50 %"
    assert [s.p_value for s in found.shifts if s.measure != "score 50 %"] == [1.0] * 5  # all tie


def test_shifts_say_what_moved_and_how_far() -> None:
    reference = np.arange(20.0)[:, None] + np.array([0, 10, 20, 30, 40, 50])
    day = reference[:10] + np.array([0, 0, 0, 0, 40, 0])
    found = compare_boards(day, reference)
    assert found.alarm
    assert (found.largest.measure, found.largest.p_value) == ("score 90 %", found.p_value)
    assert (found.largest.reference, found.largest.day) == (49.5, 84.5)
    assert found.largest.spread == 9.5
    assert (found.n_day, found.n_reference) == (10, 20)
    assert compare_boards(day, reference) == found  # seeded


def test_equal_boards_are_no_drift() -> None:
    same = np.ones((12, len(MEASURES)))
    assert compare_boards(same, same).p_value == 1.0


def test_a_comparison_that_could_never_alarm_is_refused() -> None:
    boards = np.random.default_rng(0).normal(size=(20, len(MEASURES)))
    with pytest.raises(InvalidArgumentError, match=r"1 boards against 20 .* below 0\.095; score"):
        compare_boards(boards[:1], boards)
    with pytest.raises(InvalidArgumentError, match="with 50 permutations are too few"):
        compare_boards(boards, boards, permutations=50)
    assert compare_boards(boards[:3] + 99, boards).p_value < 0.01  # 2 of 1771 choices


@pytest.mark.parametrize("change", [{"false_alarm_rate": 0}, {"false_alarm_rate": 1}])
def test_rates_out_of_range_are_refused(change: dict[str, float]) -> None:
    boards = np.zeros((20, len(MEASURES)))
    with pytest.raises(InvalidArgumentError, match="above 0 and below 1"):
        compare_boards(boards, boards, **change)
    with pytest.raises(InvalidArgumentError, match=r"day: expected \(boards, 6\)"):
        compare_boards(boards[:, :3], boards)
    with pytest.raises(InvalidArgumentError, match="reference: expected finite"):
        compare_boards(boards, np.full_like(boards, np.nan))


# ---- on boards ----------------------------------------------------------------------------------


def dimmer(image: np.ndarray) -> np.ndarray:
    """A lamp that has aged; boards differ among themselves by 7 %."""
    return (0.85 * image).astype(np.uint8)


def lined(image: np.ndarray) -> np.ndarray:
    """Lines of each colour down the board: a camera whose columns drifted apart."""
    lines = np.random.default_rng(1).normal(0, 6, (1, *image.shape[1:]))
    return np.clip(image + lines, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def boards(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drift") / "boards"
    generate_dataset(folder, boards=N_BOARDS, test_boards=1, size=(512, 512), seed=4)
    return folder


@pytest.fixture(scope="module")
def artifact(tiny, boards, tmp_path_factory) -> Path:
    """The tiny network with a bank of tiles from everywhere on the first six boards."""
    annotations, rng = read_annotations(boards / "annotations.json"), np.random.default_rng(0)
    tiles = []
    for i in range(N_FITTED):
        name = f"train_{i:04d}.jpg"
        image, area = read_image(boards / "train" / name), annotations[name].borders[0]
        for x, y in rng.integers(0, (area.width - 32, area.height - 32), (16, 2)) + area[:2]:
            tiles.append(image[y : y + 32, x : x + 32])
    path = tmp_path_factory.mktemp("artifact") / "synth.kad"
    return tiny.write(path, bank=tiny.bank_of(np.stack(tiles)))


@pytest.fixture(scope="module")
def scored(artifact, boards) -> dict[str, list[Board]]:
    """Scores and brightness of 34 fresh boards, and of the last twelve changed in two ways."""
    annotations = read_annotations(boards / "annotations.json")
    found: dict[str, list[Board]] = {"fresh": [], "dimmer": [], "lined": []}
    with Detector.open(artifact, threads=1) as detector:
        for i in range(N_FITTED, N_BOARDS):
            name = f"train_{i:04d}.jpg"
            image = read_image(boards / "train" / name)
            changes = {"fresh": image}
            if i >= N_BOARDS - 12:
                changes |= {"dimmer": dimmer(image), "lined": lined(image)}
            for change, pixels in changes.items():
                result = detector.score(pixels, annotations[name])
                entry = entry_of(detector, result, pixels, name)
                scores = np.array([tile.score for tile in result.tiles])
                found[change].append((scores, entry.brightness))
    return found


def drawn(rng: np.random.Generator, pool: list[Board], n: int) -> np.ndarray:
    """Measures of n boards: each a board of the pool with its tiles drawn anew."""
    return redrawn(rng, [pool[i] for i in rng.integers(len(pool), size=n)])


def redrawn(rng: np.random.Generator, boards: list[Board]) -> np.ndarray:
    return np.array([board_measures(rng.choice(s, s.size), light) for s, light in boards])


def alarms(scored, change: str, rate: float, *, seed: int) -> int:
    """Alarms of 200 trials, each with a reference and a day of its own."""
    rng, count = np.random.default_rng(seed), 0
    for _ in range(TRIALS):
        reference = drawn(rng, scored["fresh"], N_REFERENCE)
        day = drawn(rng, scored[change], N_DAY)
        found = compare_boards(day, reference, false_alarm_rate=rate, permutations=999)
        count += found.alarm
    return count


@pytest.mark.parametrize("rate", [0.01, 0.05])
def test_fresh_normal_boards_alarm_at_the_stated_rate(scored, rate: float) -> None:
    count = alarms(scored, "fresh", rate, seed=8)
    low, high = scipy.stats.binom.interval(0.999, TRIALS, rate)
    assert low <= count <= high, count


def test_tiles_taken_for_independent_would_alarm_all_the_time(scored) -> None:
    """Why a board is one observation: a test on tiles alarms on boards that are all of one kind."""
    rng, count = np.random.default_rng(8), 0
    for _ in range(40):
        order = rng.permutation(len(scored["fresh"]))
        two = [
            np.concatenate([scored["fresh"][i][0] for i in part]) for part in np.split(order, [10])
        ]
        count += scipy.stats.mannwhitneyu(*two).pvalue < 0.01
    assert count > 20


def test_brightness_is_the_mean_over_full_scale_whatever_the_image() -> None:
    tiles = (SimpleNamespace(x=0, y=0), SimpleNamespace(x=8, y=0))
    result = SimpleNamespace(tiles=tiles, image_size=(16, 48), frame_size=(8, 24))
    grey = np.zeros((16, 48), np.uint8)
    grey[:, 16:32] = 255  # the second tile, at twice the frame's size
    assert _brightness(grey, result, 8) == 0.5
    assert _brightness(grey.astype(np.uint16) * 257, result, 8) == 0.5
    rgba = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    assert _brightness(rgba, result, 8) == 0.5


@pytest.mark.parametrize("change", ["dimmer", "lined"])
def test_less_light_and_colour_lines_raise_the_alarm(scored, change: str) -> None:
    measures = {key: np.array([board_measures(*b) for b in scored[key]]) for key in scored}
    found = compare_boards(measures[change], measures["fresh"][:-12])  # other boards
    assert found.alarm
    assert not compare_boards(measures["fresh"][-12:], measures["fresh"][:-12]).alarm
    count = alarms(scored, change, 0.01, seed=9)
    assert count >= 0.95 * TRIALS, count


def test_a_defective_board_among_ten_is_not_drift(scored) -> None:
    rng, count = np.random.default_rng(10), 0
    for _ in range(TRIALS):
        day = [scored["fresh"][i] for i in rng.integers(len(scored["fresh"]), size=N_DAY)]
        scores, light = day[0]
        defective = np.where(np.arange(scores.size) < scores.size // 10, scores + 9, scores)
        own = redrawn(rng, [(defective, light), *day[1:]])  # a tenth of its tiles, far above all
        reference = drawn(rng, scored["fresh"], N_REFERENCE)
        count += compare_boards(own, reference, permutations=999).alarm
    assert count <= scipy.stats.binom.ppf(0.999, TRIALS, 0.01), count


# ---- the log and the commands -------------------------------------------------------------------


def kad(*arguments: object):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def logs(artifact, boards, tmp_path_factory) -> Path:
    """reference.jsonl of 14 boards, fresh.jsonl of 8 others, dim.jsonl of these, dimmer."""
    folder = tmp_path_factory.mktemp("logs")
    for i in range(32, 40):
        image = read_image(boards / "train" / f"train_{i:04d}.jpg")
        (folder / "dim").mkdir(exist_ok=True)
        path = folder / "dim" / f"train_{i:04d}.png"
        assert cv2.imwrite(str(path), dimmer(image)[..., ::-1])
    images = sorted((boards / "train").glob("*.jpg"))
    days = {"reference": images[6:20], "fresh": images[32:], "dim": [folder / "dim"]}
    for name, paths in days.items():
        command = ("score", artifact, *paths, "--out", folder / "out" / name, "--threads", 1)
        log = ("--log-scores", folder / f"{name}.jsonl", "--no-overlay")
        assert kad(*command, *log).exit_code == 0
    return folder


def test_kad_score_appends_a_line_for_each_board(logs, artifact, boards) -> None:
    entries = read_log(logs / "reference.jsonl")
    assert [entry.image for entry in entries] == [f"train_{i:04d}.jpg" for i in range(6, 20)]
    entry = entries[0]
    content = json.loads((logs / "out" / "reference" / "train_0006.json").read_text())
    scores = [tile["score"] for tile in content["tiles"]]
    assert entry.tiles == len(scores)
    assert entry.tile_quantiles == pytest.approx(np.quantile(scores, QUANTILES))
    assert (entry.tile_mean, entry.tile_std) == pytest.approx((np.mean(scores), np.std(scores)))
    assert (entry.score, entry.anomalous) == (content["score"], content["verdict"] == "anomalous")
    image = read_image(boards / "train" / "train_0006.jpg")
    crops = [image[t["y"] : t["y"] + 32, t["x"] : t["x"] + 32] for t in content["tiles"]]
    assert entry.brightness == pytest.approx(np.mean(crops) / 255, rel=5e-3)
    assert entry.scoring == scoring_id(Artifact.open(artifact).manifest)


def test_kad_drift_is_silent_on_fresh_boards_and_alarms_on_dimmer_ones(logs, artifact) -> None:
    command = ("drift", artifact, logs / "fresh.jsonl", "--reference", logs / "reference.jsonl")
    silent = kad(*command)
    assert silent.exit_code == 0, silent.output
    assert "8 boards against 14 of the reference" in silent.stdout
    assert "no drift: p = " in silent.stdout
    command = ("drift", artifact, logs / "dim.jsonl", *command[3:])
    loud = kad(*command)
    assert loud.exit_code == EXIT_DRIFT
    assert "DRIFT: brightness is lower than in the reference" in loud.stdout
    found = json.loads(kad(*command, "--json").stdout)
    assert found["alarm"] is True
    assert found["p_value"] == min(shift["p_value"] for shift in found["shifts"]) <= 0.01
    assert "7 boards" in kad(*command, "--last", 7).stdout
    few = kad(*command, "--last", 1)
    assert few.exit_code == 1
    assert "too few for a false-alarm rate of 0.01" in few.stderr


def test_logs_of_another_artifact_are_refused(logs, artifact, tiny_artifact) -> None:
    result = kad(
        *("drift", tiny_artifact, logs / "fresh.jsonl", "--reference", logs / "reference.jsonl")
    )
    assert result.exit_code == 1
    assert "train_0032.jpg" in result.stderr
    assert "scores of different scoring cannot be compared" in result.stderr
    entries = read_log(logs / "fresh.jsonl")
    other = dataclasses.replace(entries[3], precision="fp16")
    with pytest.raises(ScoreLogError, match="fp16"):
        log_measures([*entries, other], logs, scoring=other.scoring, precision="fp32")


def test_scoring_hangs_on_all_but_thresholds_and_golden_tiles(
    tiny, tiny_artifact, tmp_path
) -> None:
    own = scoring_id(Artifact.open(tiny_artifact).manifest)

    def changed(**entries: object) -> str:
        manifest = dataclasses.replace(tiny.manifest, **entries)
        path = tiny.write(tmp_path / "x.kad", manifest=manifest, replace=True)
        return scoring_id(Artifact.open(path).manifest)

    part = tiny.manifest
    assert changed(thresholds=dataclasses.replace(part.thresholds, map=9.0)) == own
    assert changed(preprocessing=dataclasses.replace(part.preprocessing, stride=8)) != own
    assert changed(patchcore=dataclasses.replace(part.patchcore, reweighting="none")) != own


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda line: line[:40], "line 2: .*remove the line if it was cut off"),
        (lambda line: line.replace(b'"version": 1', b'"version": 2'), "line 2: version"),
        (lambda line: line.replace(b'"tiles"', b'"tilez"'), "line 2: .*tile"),
        (
            lambda line: line.replace(b'"tile_quantiles": [', b'"tile_quantiles": [0.5, '),
            "expected 5",
        ),
        (lambda line: line.replace(b'"tile_mean": ', b'"tile_mean": NaN, "x": '), "line 2: NaN"),
    ],
)
def test_a_line_that_is_no_entry_is_named(logs, tmp_path, change, words) -> None:
    lines = (logs / "fresh.jsonl").read_bytes().splitlines()
    (tmp_path / "log").write_bytes(b"\n".join([lines[0], change(lines[1])]))
    with pytest.raises(ScoreLogError, match=words):
        read_log(tmp_path / "log")
    with pytest.raises(ScoreLogError, match=words):
        read_log(tmp_path / "log", last=1)


def test_logs_that_cannot_be_read_or_written(tmp_path) -> None:
    with pytest.raises(ScoreLogError, match="kad score --log-scores"):
        read_log(tmp_path / "none")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(ScoreLogError, match="no boards in it"):
        read_log(tmp_path / "empty")
    with pytest.raises(OutputError, match="none"):
        append_entry(tmp_path / "none" / "log", _entry(0))


def _entry(number: int) -> LogEntry:
    quantiles = (0.1, 0.2, 0.3, 0.4, 0.5)
    image = f"{number:04d}{'x' * 200}"
    return LogEntry(
        1, "2026-11-27T08:00:00Z", image, "0" * 64, "fp32", False, 1.0, 9, 0.3, 0.1, quantiles, 0.6
    )


def _append(path: Path, first: int) -> None:
    for i in range(first, first + 200):
        append_entry(path, _entry(i))


def test_lines_of_several_writers_do_not_mix(tmp_path) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(_append, [tmp_path / "log"] * 2, (0, 200)))
    entries = read_log(tmp_path / "log")
    assert sorted(int(entry.image[:4]) for entry in entries) == list(range(400))


def test_a_full_disk_leaves_whole_lines(tmp_path, small_disk) -> None:
    with small_disk(8192) as disk:
        written = 0
        with suppress(OutputError):
            for written in range(100):
                append_entry(disk / "log", _entry(written))
        whole = (disk / "log").read_bytes()
        assert whole.endswith(b"\n")
        assert len(read_log(disk / "log")) == written < 99
        with pytest.raises(OutputError, match="Nothing was left behind"):
            append_entry(disk / "log", _entry(written))
        assert (disk / "log").read_bytes() == whole
