"""The command ``kad``: what it writes, what it prints, and how it fails."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from inspect import signature

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from kad_sdk._native import force_cpu_level
from kad_sdk.artifact import Artifact
from kad_sdk.cli import main
from kad_sdk.render import render_overlay
from kad_sdk.report import write_report


@pytest.fixture(autouse=True)
def own_level():
    yield
    force_cpu_level(None)


def kad(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def fails(*arguments, code=1):
    """Run a command that must fail with one message and no traceback; give the message."""
    result = kad(*arguments)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.stderr


@pytest.fixture
def boards(make_board, tmp_path):
    folder = tmp_path / "boards"
    (folder / "late").mkdir(parents=True)
    for name, defect in (("good.png", False), ("bad.png", True), ("late/bad.png", True)):
        board = make_board(1, 90, 140, defect=defect)
        cv2.imwrite(str(folder / name), board[..., ::-1])
    return folder


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_score(tiny_artifact, boards, tmp_path):
    out = tmp_path / "out"
    result = kad("score", tiny_artifact, boards, "--out", out, "--npy", "--threads", 1)
    assert result.exit_code == 0, result.output
    endings = (".json", "_map.npy", "_map.png", "_overlay.png")
    stems = ("bad", "good", "late/bad")
    assert files(out) == sorted(stem + ending for stem in stems for ending in endings)
    lines = [line for line in result.stdout.splitlines() if ".png" in line]
    assert [line.split()[0] for line in lines] == ["anomalous", "normal", "anomalous"]
    assert re.search(r"anomalous +1\.0000 +score \d\S+ +1 regions +\d+ ms .*bad\.png", lines[0])
    assert "3 scored, 2 anomalous, 0 failed" in result.stdout
    for stage in ("read", "network", "search", "map", "encode", "write", "total"):
        assert re.search(rf"^  {stage} +\d+\.\d +\d+\.\d %$", result.stdout, re.MULTILINE), stage
    assert re.search(r"\d+\.\d boards a minute, peak memory \d+ MiB", result.stdout)


def test_the_map_file_means_what_the_json_says(tiny_artifact, boards, tmp_path):
    kad("score", tiny_artifact, boards / "bad.png", "--out", tmp_path / "out", "--npy")
    content = json.loads((tmp_path / "out" / "bad.json").read_text())
    assert content["image"] == "bad.png"
    assert content["map"]["file"] == "bad_map.png"
    stored = cv2.imread(str(tmp_path / "out" / "bad_map.png"), cv2.IMREAD_UNCHANGED)
    exact = np.load(tmp_path / "out" / "bad_map.npy")
    low, high = content["map"]["value_1"], content["map"]["value_65535"]
    assert high == 2 * content["map_threshold"]
    meant = low + (stored.astype(float) - 1) / 65534 * (high - low)
    np.testing.assert_allclose(meant, np.minimum(exact, high), atol=high / 65534)


SETTINGS = [("--threads", 1), ("--threads", 2), ("--batch", 1), ("--batch", 32)]
SETTINGS += [("--level", name) for name in ("scalar", "avx2", "avx512", "avx512vnni")]


def test_threads_batches_and_levels_give_the_same_scores(tiny_artifact, boards, tmp_path):
    found = {}
    for setting in SETTINGS:
        out = tmp_path / "-".join(map(str, setting))
        result = kad("score", tiny_artifact, boards, "--out", out, "--npy", *setting)
        if result.exit_code and "--level" in setting:
            assert "level" in result.stderr  # this processor lacks it
            continue
        assert result.exit_code == 0, result.output
        content = json.loads((out / "bad.json").read_text())
        scores = json.dumps([content["tiles"], content["regions"], content["score"]])
        found[setting] = (scores, (out / "bad_map.npy").read_bytes())
    assert len(found) >= 5
    assert len(set(found.values())) == 1


def test_annotations_and_threshold(tiny_artifact, boards, tmp_path):
    label = {"labels": [[70, 40, 12, 12]]}
    (tmp_path / "a.json").write_text(json.dumps({"bad.png": label, "good.png": {}}))
    command = ("score", tiny_artifact, boards / "bad.png", "--out", tmp_path / "out")
    assert kad(*command).stdout.count("anomalous  ") == 1
    annotated = kad(*command, "--annotations", tmp_path / "a.json")
    assert annotated.stdout.splitlines()[1].startswith("normal ")
    raised = kad(*command, "--map-threshold", 100, "--no-overlay")
    assert raised.stdout.splitlines()[1].startswith("normal ")
    assert json.loads((tmp_path / "out" / "bad.json").read_text())["map_threshold"] == 100


def test_annotations_that_are_not_used_are_mentioned(tiny_artifact, boards, tmp_path):
    (boards.parent / "annotations.json").write_text("{}")
    command = ("score", tiny_artifact, boards / "bad.png", "--no-overlay", "--out")
    said = kad(*command, tmp_path / "out").stderr
    (boards.parent / "annotations.json").unlink()
    assert "annotations.json is not used, all of each image is scored" in said
    assert kad(*command, tmp_path / "out").stderr == ""


def test_what_is_not_scored_is_told(tiny_artifact, boards, tmp_path):
    annotations = tmp_path / "annotations.json"
    annotations.write_text('{"bad.png": {"borders": [], "labels": [[40, 20, 9, 9]]}}')
    command = ("score", tiny_artifact, boards / "bad.png", "--no-overlay", "--out")
    said = kad(*command, tmp_path / "out", "--annotations", annotations).stdout
    share = json.loads((tmp_path / "out" / "bad.json").read_text())["scored_share"]
    assert 0 < share < 0.95
    assert f" regions, {100 * (1 - share):.1f} % not scored  " in said
    assert "not scored" not in kad(*command, tmp_path / "all").stdout


def test_overlay_options(tiny_artifact, boards, tmp_path):
    command = ("score", tiny_artifact, boards / "bad.png", "--out")
    kad(*command, tmp_path / "none", "--no-overlay")
    assert files(tmp_path / "none") == ["bad.json", "bad_map.png"]
    kad(*command, tmp_path / "small", "--max-overlay-side", 70, "--heat")
    assert cv2.imread(str(tmp_path / "small" / "bad_overlay.png")).shape == (45, 70, 3)
    kad(*command, tmp_path / "full", "--max-overlay-side", 0)
    assert cv2.imread(str(tmp_path / "full" / "bad_overlay.png")).shape == (90, 140, 3)
    refused = kad(*command, tmp_path / "heat", "--no-overlay", "--heat")
    assert refused.exit_code == 2
    assert "--heat blends the map into the overlay: leave --no-overlay out" in refused.output
    assert not (tmp_path / "heat").exists()


def test_results_do_not_go_among_the_images(tiny_artifact, boards):
    before = files(boards)
    for out in (boards, boards / "late" / "results"):
        message = fails("score", tiny_artifact, boards, "--out", out)
        assert "lies among the images" in message
    assert "lies among" in fails("score", tiny_artifact, boards / "bad.png", "--out", boards)
    assert files(boards) == before


def test_two_boards_of_one_name_are_refused(tiny_artifact, boards, tmp_path):
    out = tmp_path / "out"
    message = fails(
        *("score", tiny_artifact, boards / "bad.png", boards / "late" / "bad.png", "--out", out)
    )
    assert "would both be written to bad.json" in message
    assert not out.exists()
    twice = kad("score", tiny_artifact, boards / "bad.png", boards / "bad.png", "--out", out)
    assert "1 scored" in twice.stdout


def test_a_bad_image_is_reported_and_the_others_are_scored(tiny_artifact, boards, tmp_path):
    jpeg = cv2.imencode(".jpg", cv2.imread(str(boards / "bad.png")))[1].tobytes()
    (boards / "broken.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    cv2.imwrite(str(boards / "small.png"), np.zeros((31, 200, 3), np.uint8))
    out = tmp_path / "out"
    result = kad("score", tiny_artifact, boards, "--out", out)
    assert result.exit_code == 1
    assert "3 scored, 2 anomalous, 2 failed" in result.stdout
    broken, small = result.stderr.splitlines()
    assert broken.startswith("kad: ")
    assert "broken.jpg: truncated JPEG" in broken
    assert "small.png" in small
    assert not [name for name in files(out) if "broken" in name or "small" in name]


def test_missing_things(tiny_artifact, boards, tmp_path):
    out = ("--out", tmp_path / "out")
    assert "no such image file or folder" in fails("score", tiny_artifact, tmp_path / "x", *out)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no images in this folder" in fails("score", tiny_artifact, empty, *out)
    annotations = ("--annotations", tmp_path / "none.json")
    assert "none.json" in fails("score", tiny_artifact, boards, *out, *annotations)


def test_usage(tiny_artifact, boards):
    fails("score", tiny_artifact, boards, code=2)
    fails("score", tiny_artifact, boards, "--out", "x", "--batch", 0, code=2)
    fails("scor", code=2)
    assert "score" in kad("--help").stdout
    assert kad("--version").stdout.startswith("kad, version ")


def test_defaults_are_those_of_the_functions():
    options = {
        p.name: p.default for name in ("score", "report") for p in main.commands[name].params
    }
    page, overlay = signature(write_report).parameters, signature(render_overlay).parameters
    assert options["max_overlay_side"] == overlay["max_side"].default
    for name in ("max_boards", "max_findings", "max_side"):
        assert options[name] == page[name].default


def test_debug_shows_the_traceback(tmp_path):
    result = kad("--debug", "inspect", tmp_path / "x.kad")
    assert type(result.exception).__name__ == "ArtifactError"


def test_inspect(tiny_artifact):
    text = kad("inspect", tiny_artifact).stdout
    for fact in ("tiny layer2+layer3", "32 px, stride 16", "40 x 11", "all hashes are right"):
        assert fact in text
    content = kad("inspect", tiny_artifact, "--json").stdout
    assert content == (tiny_artifact / "manifest.json").read_text()


def test_verify(tiny, tiny_artifact, tmp_path):
    result = kad("verify", tiny_artifact)
    assert result.exit_code == 0
    assert result.stdout.count("  ok\n") == 4
    assert "decisions: all the same" in result.stdout
    assert json.loads(kad("verify", tiny_artifact, "--json").stdout)["passed"] is True
    wrong = {**tiny.golden, "score": tiny.golden["score"] + 1}
    wrong["anomalous"] = 1 - wrong["anomalous"]
    path = tiny.write(tmp_path / "x.kad", golden=wrong)
    message = fails("verify", path)
    assert "does not reproduce the artifact's scores" in message
    assert "FLIPPED for tiles 0, 1, 2" in kad("verify", path).stdout


def test_evaluate(tiny_artifact, make_board, tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    data = tmp_path / "data"
    for kind, defect in (("good", False), ("hole", True)):
        (data / "test" / kind).mkdir(parents=True)
        for i in range(3):
            board = make_board(i, 90, 140, defect=defect)
            cv2.imwrite(str(data / "test" / kind / f"{i}.png"), board)
    (data / "train" / "good").mkdir(parents=True)
    cv2.imwrite(str(data / "train" / "good" / "0.png"), make_board(9, 90, 140, defect=False))
    (data / "ground_truth" / "hole").mkdir(parents=True)
    mask = np.zeros((90, 140), np.uint8)
    mask[40:52, 70:82] = 255
    for i in range(3):
        cv2.imwrite(str(data / "ground_truth" / "hole" / f"{i}_mask.png"), mask)
    result = kad("evaluate", tiny_artifact, data, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["image_roc_auc"] == 1.0
    assert "ROC-AUC" in result.stdout
    assert "no such" in fails("evaluate", tiny_artifact, tmp_path / "x", "--out", "o").lower()


PROGRAM = "from kad_sdk.cli import main; main()"


def test_interrupt(tiny_artifact, make_board, tmp_path):
    boards = tmp_path / "boards"
    boards.mkdir()
    for i in range(40):
        cv2.imwrite(str(boards / f"{i:02}.png"), make_board(i, 300, 300, defect=True))
    out = tmp_path / "out"
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            PROGRAM,
            "score",
            str(tiny_artifact),
            str(boards),
            "--out",
            str(out),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    while "00.png" not in process.stdout.readline():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "kad: interrupted; boards that were reported are complete\n"
    assert not [name for name in files(out) if name.endswith(".tmp")]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["score", "--out", "out"], "boards that were reported are complete"),
        (["evaluate", "--out", "out"], "figures are written once all images are scored: run it"),
        (["report", "--out", "r.html"], "the page is written once all images are scored: run it"),
        (
            ["calibrate", "--by", "normal-max=1"],
            "the thresholds are as they were, unless others are",
        ),
        (["rules", "--clear"], "the rules are as they were, unless others are reported above"),
        (["inspect"], "nothing was changed"),
    ],
)
def test_an_interrupted_command_tells_what_it_leaves(
    monkeypatch, tiny_artifact, make_board, tmp_path, words, told
):
    def press(*_args, **_kwargs):
        raise KeyboardInterrupt

    (tmp_path / "data/test/good").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "data/test/good/0.png"), make_board(0, 90, 140, defect=False))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Artifact, "open", press)
    command, *options = words
    data = [] if command in ("rules", "inspect") else ["data"]
    result = kad(command, tiny_artifact, *data, *options)
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1].startswith(f"kad: interrupted; {told}")
