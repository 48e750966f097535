"""Running a grid: one that was really killed, and what a later command makes of its folder."""

from __future__ import annotations

import csv
import io
import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner
from experiments_grid import FIRST, SECOND, files_of, run_here
from kad_export.cli import main
from kad_export.errors import BackboneError, ExperimentError, WeightsError
from kad_export.experiments.child import check_networks
from kad_export.experiments.experiment import run_experiments
from kad_export.experiments.grid import parse_setting, read_grid
from kad_export.experiments.process import Used, run_command

from kad_sdk.artifact import Artifact
from kad_sdk.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def again(killed_grid, tmp_path):
    """Give the finished grid in a folder of its own, and a way to go on there without processes."""
    out = shutil.copytree(killed_grid.out, tmp_path / "out")
    done: list[list[str]] = []

    def execute(words, log, *, keep_open=()):
        done.append(list(words))
        folder = log.parent
        if words[:2] == ["kad", "evaluate"]:
            shutil.copytree(
                killed_grid.out / "runs" / folder.name / "evaluation", folder / "evaluation"
            )
        return Used(2.0, 3.0, 4 << 20)

    def run(*settings: str, execute=execute, **given):
        chosen = [parse_setting(text) for text in settings]
        grid = read_grid(killed_grid.grid)
        given = {"settings": chosen, "execute": execute, **given}
        return run_experiments(given.pop("data", killed_grid.data), grid, out, **given)

    run.out, run.done = out, done
    return run


def figures(folder: Path) -> dict:
    return json.loads((folder / "evaluation" / "metrics.json").read_bytes())


# ---- a real grid, killed in its second run -------------------------------------------------------


def test_a_kill_costs_the_run_that_it_fell_in_alone(killed_grid):
    after, now = killed_grid.after_kill, files_of(killed_grid.out / "runs")
    assert f"{FIRST}/result.json" in after
    assert f"{SECOND}/log.txt" in after
    assert f"{SECOND}/result.json" not in after
    first = {name: data for name, data in after.items() if name.startswith(f"{FIRST}/")}
    assert {name: now[name] for name in first} == first
    assert f"{SECOND}/result.json" in now
    assert "1 of 2 runs are done" in killed_grid.told
    assert f"run 2 of 2: {SECOND}" in killed_grid.told
    assert "run 1 of 2" not in killed_grid.told
    assert [words[:2] for words in killed_grid.ran[1:]] == [
        ["kad-export", "cutpaste"],
        ["kad", "evaluate"],
    ]


def test_a_folder_is_kept_for_what_a_killed_command_left_running(killed_grid):
    assert "another process works in" in killed_grid.refused


def test_each_run_leaves_an_artifact_and_its_evaluation(killed_grid):
    for name, method in ((FIRST, "patchcore"), (SECOND, "cutpaste")):
        folder = killed_grid.out / "runs" / name
        assert Artifact.open(folder / "artifact.kad").manifest.method == method
        assert (folder / "evaluation" / "roc.png").is_file()
    assert (killed_grid.out / "runs" / SECOND / "training" / "best.safetensors").is_file()


def test_the_tables_have_the_figures_of_the_evaluations(killed_grid):
    document = json.loads((killed_grid.out / "experiments.json").read_bytes())
    lines = list(csv.DictReader(io.StringIO((killed_grid.out / "experiments.csv").read_text())))
    text = (killed_grid.out / "experiments.md").read_text()
    assert [row["run"] for row in document["rows"]] == [FIRST, SECOND]
    for row, line in zip(document["rows"], lines, strict=True):
        metrics = figures(killed_grid.out / "runs" / row["run"])
        for name in ("tile_roc_auc", "average_precision", "accuracy", "precision", "recall"):
            assert row[name] == metrics[name] == float(line[name])
            assert f"| {metrics[name]:.4f} |" in text
        matrix = metrics["confusion_matrix"]
        cells = ("true_negatives", "false_alarms", "missed", "found")
        assert [int(line[cell]) for cell in cells] == [*matrix[0], *matrix[1]]
        assert f"[{matrix[0]}, {matrix[1]}]" in text
        assert row["export"]["seconds"] == float(line["export_seconds"]) == 1.5
        assert row["export"]["peak_bytes"] == int(line["export_peak_bytes"]) == 200 << 20
        assert row["ms_per_board"] == metrics["timings_ms"]["score_total"]["mean"]
        assert row["artifact"]["weights"] == "random:0"
        assert row["command"].startswith(
            f"kad-export {row['method']} DATA/white --out X.kad --back"
        )
        assert row["command"] in text
    assert document["best"] == {"white": {"patchcore": FIRST, "cutpaste": SECOND}}


def test_the_thesis_rows_stand_beside_and_are_marked(killed_grid):
    text = (killed_grid.out / "experiments.md").read_text()
    assert "measured on **other data**" in text
    assert "| *thesis, no. 6* | *white* | *resnet18* | *none* | *ImageNet* | *0.7662* |" in text
    assert "| *thesis, no. 4* | *white* | *resnet18* | *none* | *ImageNet* | *0.8090* |" in text
    _, _, comparison = text.partition("## PatchCore against CutPaste: white (thesis, table 6.3)")
    rows = [line for line in comparison.partition("##")[0].splitlines() if line.startswith("|")]
    named = ["PatchCore |", "*PatchCore, thesis, no. 3*", "CutPaste |", "*CutPaste, thesis, no. 6*"]
    assert [any(row.startswith(f"| {n}") for row in rows) for n in named] == [True] * 4


# ---- going on ------------------------------------------------------------------------------------


def test_what_is_done_is_never_done_again(again):
    before = files_of(again.out / "runs")
    rows = again("threads=2", "memory=2GB")
    assert again.done == []
    assert [row.state for row in rows] == ["done", "done"]
    assert files_of(again.out / "runs") == before


def test_a_run_without_a_result_is_begun_anew(again):
    folder = again.out / "runs" / FIRST
    (folder / "result.json").unlink()
    (folder / "left over").write_text("x")
    rows = again()
    check, export, evaluate = again.done
    assert check[0] == "check-networks"
    assert export[:2] == ["kad-export", "patchcore"]
    assert {"--coreset=0.05", "--weights=random:0"} <= set(export)
    assert evaluate[:3] == ["kad", "evaluate", str(folder / "artifact.kad")]
    assert evaluate[-2:] == ["--threads", "1"]
    assert not (folder / "left over").exists()
    assert rows[0].result["export"] == {
        "seconds": 2.0,
        "processor_seconds": 3.0,
        "peak_bytes": 4 << 20,
    }


def test_other_options_are_refused_by_name(again):
    with pytest.raises(ExperimentError, match=r"was done with coreset = 0.05, and 0.1 is"):
        again("coreset=0.1")
    assert again.done == []


def test_other_boards_are_refused(again, small_dataset, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(small_dataset, data / "white")
    again(data=data)  # a copy is the same
    board = next((data / "white" / "train" / "good").iterdir())
    board.write_bytes(board.read_bytes() + b"\0")
    with pytest.raises(ExperimentError, match="was done on other images"):
        again(data=data)


@pytest.mark.parametrize("text", ["", "{}", '{"format": "kad-experiment", "format_version": 2}'])
def test_a_damaged_result_is_named(again, text):
    path = again.out / "runs" / FIRST / "result.json"
    path.write_text(text)
    with pytest.raises(ExperimentError, match=r"result.json cannot be read .*: remove"):
        again()


def test_a_folder_of_something_else_is_left_alone(killed_grid, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="neither empty nor a folder of experiments"):
        run_experiments(killed_grid.data, read_grid(killed_grid.grid), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


# ---- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_going", [False, True])
def test_a_failed_run_is_told_and_tried_again(again, keep_going):
    shutil.rmtree(again.out)

    def fail(words, log, **_):
        if words[0] == "kad-export":
            started.append(words[1])
            raise ExperimentError("cannot write X: No space left on device")
        return Used(0, 0, 0)

    started: list[str] = []
    n = 2 if keep_going else 1
    with pytest.raises(ExperimentError, match=f"{n} of 2 runs failed: {FIRST}: cannot write X"):
        again(execute=fail, keep_going=keep_going)
    assert started == ["patchcore", "cutpaste"][:n]
    rows = json.loads((again.out / "experiments.json").read_bytes())["rows"]
    assert [row["state"] for row in rows] == ["failed", "failed" if keep_going else "to do"]
    assert "No space left on device" in (again.out / "experiments.md").read_text()
    assert [row.state for row in again()] == ["done", "done"]


def test_an_interrupted_run_leaves_nothing(again):
    shutil.rmtree(again.out / "runs" / SECOND)

    def interrupt(words, log, **_):
        if words[0] == "kad-export":
            (log.parent / "half").write_text("x")
            raise KeyboardInterrupt
        return Used(0, 0, 0)

    with pytest.raises(KeyboardInterrupt):
        again(execute=interrupt)
    assert [path.name for path in (again.out / "runs").iterdir()] == [FIRST]


def test_the_command_tells_one_message(tmp_path, killed_grid):
    words = ["experiments", killed_grid.data, "--grid", killed_grid.grid, "--out", tmp_path / "out"]
    words += ["--category", "oak"]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"kad-export: {killed_grid.data / 'oak'}: no such folder")
    assert not (tmp_path / "out").exists()
    wrong = CliRunner().invoke(main, [*map(str, words), "--set", "epochs"])
    assert wrong.exit_code == 2
    assert "NAME=VALUE or SCOPE:NAME=VALUE is expected" in wrong.stderr


def test_networks_that_cannot_be_had_are_told_before_the_first_run(again):
    shutil.rmtree(again.out)
    with pytest.raises(WeightsError, match=r"nowhere\.pth"):
        again("cutpaste:weights=nowhere.pth", execute=run_here)
    assert not (again.out / "runs").exists()
    with pytest.raises(BackboneError, match="resnet19"):
        check_networks(json.dumps([_NETWORK | {"backbone": "resnet19"}]))
    with pytest.raises(BackboneError, match="tiles of 8 px are too small"):
        check_networks(json.dumps([_NETWORK | {"tile": 8, "pooling": "valid-adaptive"}]))


_NETWORK = {
    "method": "patchcore",
    "backbone": "resnet18",
    "weights": "random:0",
    "tile": 64,
    "seed": 0,
    "layers": ["layer2", "layer3"],
    "pooling": "same-bilinear",
}


def test_list_runs_nothing(tmp_path, categories):
    words = ["experiments", categories, "--grid", "thesis", "--out", tmp_path / "out", "--list"]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert result.stdout.count("kad-export patchcore DATA/white") == 6
    assert result.stdout.count("kad-export cutpaste DATA/white") == 8
    assert not (tmp_path / "out").exists()


def test_memory_is_the_commands_own(tmp_path):
    ballast = np.ones(1 << 26)  # half a gigabyte in this process, which starts the command
    used = run_command(["kad", "--version"], tmp_path / "log.txt")
    assert ballast.nbytes > used.peak_bytes > 1 << 20
    assert used.processor_seconds > 0
    assert "version" in (tmp_path / "log.txt").read_text()


def test_a_commands_own_message_is_passed_on(tmp_path):
    words = ["kad", "inspect", str(tmp_path / "nowhere.kad")]
    with pytest.raises(ExperimentError, match=r"^(?!kad:).*nowhere.kad"):
        run_command(words, tmp_path / "log.txt")
