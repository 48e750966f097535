"""The command kad-export: exit codes, messages, signals, and nothing half-written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner
from convert_once import convert_once
from kad_export.cli import main

from kad_sdk.artifact import Artifact

QUICK = (
    *("--weights", "random:0", "--tile", "64", "--stride", "48", "--train-stride", "32"),
    *("--coreset", "0.05", "--threads", "2"),
)


@pytest.fixture(autouse=True)
def once(monkeypatch, graphs):
    convert_once(graphs, monkeypatch)


def _run(*words: object):
    return CliRunner().invoke(main, [str(word) for word in words])


def _command(*words: object) -> list[str]:
    return [sys.executable, "-m", "kad_export.cli", *map(str, words)]


def _digest(folder) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_patchcore_in_a_fresh_process_gives_the_same_bytes(tmp_path, small_dataset, small_artifact):
    out = tmp_path / "small.kad"
    done = subprocess.run(
        _command("patchcore", small_dataset, "--out", out, *QUICK, "--scratch", tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert _digest(out) == _digest(small_artifact)
    assert [p.name for p in tmp_path.iterdir()] == ["small.kad"]
    assert "weights: random (random:0)" in done.stderr
    assert "needs about" in done.stderr
    for row in ("bank", "threshold", "parity, network", "time, coreset", "peak memory"):
        assert f"  {row}" in done.stdout


def test_options_reach_the_pipeline(monkeypatch, tmp_path):
    seen = {}

    def record(data, out, options, *, console):
        seen.update(vars(options), data=data, out=out, live=console.live)

    monkeypatch.setattr("kad_export.pipeline.export_patchcore", record)
    words = (
        "patchcore DATA --out X.kad --backbone resnet50 --layers layer1,layer2 --pooling "
        "valid-adaptive --weights w.pth --tile 96 --stride 30 --train-stride 40 --resize 200x300 "
        "--coreset 0.2 --max-bank 77 --seed 5 --denoise 3,4,5,7 --normalisation white --threshold "
        "quantile=0.9 --holdout 0.3 --reweighting paper --memory 1.5GB --scratch S --threads 3 "
        "--batch 4 --sigma 2.5 --board-score largest-tile --force --quiet --trim-outliers 6 "
        "--points float16 --resume --engine ray --workers 2 --precision int8"
    )
    result = _run(*words.split())
    assert result.exit_code == 0, result.output
    denoise = seen.pop("denoise")
    assert (denoise.h, denoise.h_color) == (3, 4)
    assert (denoise.template_window, denoise.search_window) == (5, 7)
    assert {name: str(value) for name, value in seen.items()} == {
        "data": "DATA",
        "out": "X.kad",
        "backbone": "resnet50",
        "layers": "('layer1', 'layer2')",
        "pooling": "valid-adaptive",
        "weights": "w.pth",
        "tile": "96",
        "stride": "30",
        "train_stride": "40",
        "resize": "(200, 300)",
        "coreset": "0.2",
        "max_bank": "77",
        "seed": "5",
        "normalisation": "white",
        "threshold": "quantile=0.9",
        "holdout": "0.3",
        "reweighting": "paper",
        "memory_bytes": str(3 << 29),
        "scratch": "S",
        "threads": "3",
        "batch": "4",
        "sigma": "2.5",
        "board_score": "largest-tile",
        "force": "True",
        "live": "False",
        "trim_outliers": "6",
        "points": "float16",
        "resume": "True",
        "engine": "ray",
        "workers": "2",
        "precision": "int8",
        "mode": "tiles",
        "window": "None",
        "window_memory_bytes": "None",
    }


def test_defaults_are_those_of_the_api(monkeypatch):
    from kad_export.options import PatchCoreOptions

    seen = []
    monkeypatch.setattr(
        "kad_export.pipeline.export_patchcore", lambda *words, **_: seen.append(words[2])
    )
    assert _run("patchcore", "DATA", "--out", "X.kad").exit_code == 0
    assert seen == [PatchCoreOptions()]


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (("--resize", "256"), {"resize": (256, 256)}),
        (("--resize", "0.5"), {"resize": 0.5}),
        (("--resize", "none"), {"resize": None}),
        (("--memory", "512MB"), {"memory_bytes": 512 << 20}),
    ],
)
def test_forms_of_options(monkeypatch, option, expected):
    seen = []
    monkeypatch.setattr(
        "kad_export.pipeline.export_patchcore", lambda *words, **_: seen.append(vars(words[2]))
    )
    assert _run("patchcore", "DATA", "--out", "X.kad", *option).exit_code == 0
    assert expected.items() <= seen[0].items()


def test_denoise_alone_takes_opencv_defaults(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "kad_export.pipeline.export_patchcore", lambda *words, **_: seen.append(words[2].denoise)
    )
    assert _run("patchcore", "DATA", "--denoise", "--out", "X.kad").exit_code == 0
    assert (seen[0].h, seen[0].h_color) == (3, 3)
    assert (seen[0].template_window, seen[0].search_window) == (7, 21)


@pytest.mark.parametrize(
    "words",
    [
        ("patchcore",),
        ("patchcore", "DATA"),
        *(
            ("patchcore", "DATA", "--out", "X.kad", *option)
            for option in (
                ("--tile", "0"),
                ("--resize", "0x5"),
                ("--resize", "large"),
                ("--memory", "much"),
                ("--memory", "-1GB"),
                ("--threshold", "best"),
                ("--threshold", "quantile=2"),
                ("--denoise", "3,3,7"),
                ("--denoise", "3,3,6,21"),
                ("--normalisation", "mine"),
                ("--reweighting", "some"),
                ("--coreset", "0"),
                ("--sigma", "0"),
                ("--board-score", "mean"),
                ("--holdout", "1"),
                ("--precision", "bf16"),
                ("--unknown",),
            )
        ),
        *(
            ("cutpaste", "DATA", "--out", "X.kad", "--precision", name)
            for name in ("fp16", "int8", "x")
        ),
        ("synth", "DIR", "--size", "large"),
        ("synth", "DIR", "--category", "black"),
    ],
)
def test_wrong_usage(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    result = _run(*words)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_cutpaste_says_why_it_is_float32_alone():
    result = _run("cutpaste", "DATA", "--out", "X.kad", "--precision", "int8")
    assert "'int8': CutPaste is exported in fp32 alone, since" in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data", "--out", "X.kad", "--tile", "500"), "--resize"),
        (("data", "--out", "X.kad", "--memory", "1MB"), "memory budget of 1.0 MB cannot hold"),
    ],
)
def test_errors_are_one_message_and_exit_code_1(
    monkeypatch, tmp_path, small_dataset, words, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(small_dataset)
    result = _run("patchcore", words[0], *QUICK, *words[1:])
    assert result.exit_code == 1, result.output
    assert message in result.stderr
    assert result.stderr.splitlines()[-1].startswith("kad-export: ")
    assert "Traceback" not in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("debug", [False, True])
def test_debug_shows_the_traceback(tmp_path, debug):
    result = _run(*(["--debug"] if debug else []), "patchcore", tmp_path, "--out", "X.kad")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit) is not debug


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted; nothing unfinished was left behind, but"),
        (
            MemoryError(),
            1,
            "memory ran out: lower --memory or --batch or --max-bank, or close other programs\n",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 1, "the disk is full"),
        (OSError(errno.EACCES, "Permission denied", "/x"), 1, "Permission denied: '/x'"),
    ],
)
def test_what_the_system_reports_is_told(monkeypatch, error, code, message):
    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr("kad_export.pipeline.export_patchcore", fail)
    result = _run("patchcore", "DATA", "--out", "X.kad")
    assert result.exit_code == code
    assert result.stderr.startswith("kad-export: ")
    assert message in result.stderr


@pytest.mark.parametrize(
    ("place", "words", "message"),
    [
        ("extend.extend_artifact", ("extend", "x.kad", "DATA", "--out", "y.kad"), ""),
        ("synth.generate_dataset", ("synth", "DIR"), ""),
        (
            "pipeline.export_patchcore",
            ("patchcore", "DATA", "--out", "x.kad"),
            ", but for the work of --resume",
        ),
    ],
)
def test_an_interrupted_command_names_options_that_it_has(monkeypatch, place, words, message):
    def press(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"kad_export.{place}", press)
    result = _run(*words)
    assert result.exit_code == 130
    wanted = f"kad-export: interrupted; nothing unfinished was left behind{message}\n"
    assert result.stderr == wanted


def test_quiet_tells_the_summary_alone(tmp_path, small_dataset):
    out = tmp_path / "x.kad"
    result = _run("patchcore", small_dataset, "--out", out, *QUICK, "--quiet")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert result.stdout.startswith(f"exported {out}")
    again = _run("patchcore", small_dataset, "--out", out, *QUICK)
    assert again.exit_code == 1
    assert "--force" in again.stderr


def test_synth_makes_boards_that_patchcore_takes(tmp_path):
    boards = tmp_path / "boards"
    words = ("--boards", "2", "--test-boards", "2", "--size", "512x600", "--seed", "4")
    result = _run("synth", boards, *words)
    assert result.exit_code == 0, result.output
    assert "2 normal boards, 2 test boards of 512 x 600 px" in result.stdout
    assert set(json.loads((boards / "annotations.json").read_text())) >= {
        path.name for path in (boards / "train").iterdir() if path.suffix != ".json"
    }
    assert _run("patchcore", boards, "--out", tmp_path / "x.kad", *QUICK).exit_code == 0
    assert Artifact.open(tmp_path / "x.kad").manifest.training.layout == "boards"
    again = _run("synth", boards, *words)
    assert again.exit_code == 1
    assert again.stderr.startswith("kad-export: ")


def test_help_is_quick():
    """`kad-export --help` must not import torch: it is what a user types first."""
    code = "import sys, kad_export.cli; print({'torch', 'cv2', 'onnx'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "set()"
