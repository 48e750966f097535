"""A grid of two small runs, one of each method: what tests run, kill and look at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from click.testing import CliRunner
from kad_export.cli import main as kad_export
from kad_export.experiments.child import check_networks
from kad_export.experiments.experiment import run_experiments
from kad_export.experiments.grid import read_grid
from kad_export.experiments.process import Used
from kad_export.experiments.store import Store

from kad_sdk.cli import main as kad
from kad_sdk.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FIRST", "SECOND", "SMALL", "Killed", "files_of", "kill_and_go_on", "run_here"]

SMALL = """
categories: [white]
runs:
  - {method: patchcore, backbone: resnet18, denoise: none}
  - {method: cutpaste, backbone: resnet18, denoise: none}
options:
  weights: random:0
  threads: 1
  patchcore: {tile: 64, stride: 48, coreset: 0.05}
  cutpaste: {tile: 32, stride: 32, epochs: 1, steps-per-epoch: 2, batch: 8, map: tile-score}
  validation-tiles: 8
"""
FIRST, SECOND = "patchcore-white-resnet18", "cutpaste-white-resnet18"
PATIENCE_S = 240


class Killed(NamedTuple):
    """What was found after the kill, and after the grid was gone on with."""

    data: Path
    grid: Path
    out: Path
    after_kill: dict[str, bytes]  # files below OUT/runs
    refused: str  # what the command was told while that of the killed grid was still there
    told: str  # by the command that was killed
    ran: list[list[str]]  # commands that were run afterwards


def files_of(folder: Path) -> dict[str, bytes]:
    """Give all files below a folder."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def run_here(words: list[str], log: Path, **_: object) -> Used:
    """Run a command in this process, where PyTorch has been loaded already."""
    if words[0] == "check-networks":
        check_networks(words[1])
    else:
        result = CliRunner().invoke({"kad": kad, "kad-export": kad_export}[words[0]], words[1:])
        assert result.exit_code == 0, result.output
        log.write_text(result.output)
    return Used(1.5, 2.5, 200 << 20)


def kill_and_go_on(data: Path, folder: Path) -> Killed:
    """Do the first run, kill the command in the middle of the second, and go on."""
    path, out, ran = folder / "small.yaml", folder / "out", []
    path.write_text(SMALL, encoding="utf-8")

    def first_alone(words: list[str], log: Path, **_: object) -> Used:
        if SECOND in str(log):
            raise KeyboardInterrupt
        return run_here(words, log)

    def noted(words: list[str], log: Path, **_: object) -> Used:
        ran.append(words)
        return run_here(words, log)

    with suppress(KeyboardInterrupt):
        run_experiments(data, read_grid(path), out, execute=first_alone)
    refused, told = _kill_in_second(data, path, out)
    after_kill = files_of(out / "runs")
    run_experiments(data, read_grid(path), out, execute=noted)
    return Killed(data, path, out, after_kill, refused, told, ran)


def _kill_in_second(data: Path, grid: Path, out: Path) -> tuple[str, str]:
    """Kill the command once it trains; returns what a second one and what it itself was told."""
    words = [sys.executable, "-m", "kad_export.cli", "experiments", str(data)]
    words += ["--grid", str(grid), "--out", str(out)]
    log, limit = grid.with_suffix(".txt"), time.monotonic() + PATIENCE_S
    with log.open("wb") as file:
        process = subprocess.Popen(words, start_new_session=True, stderr=file)
    try:
        while not (out / "runs" / SECOND / "training").exists():
            assert process.poll() is None, f"it ended before its second run: {log.read_text()}"
            assert time.monotonic() < limit, "the second run was never begun"
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGSTOP)  # the second run cannot end before it is killed
        process.kill()
        process.wait()
        refused = CliRunner().invoke(kad_export, words[3:]).stderr
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    while time.monotonic() < limit:  # until the killed command has let go of the folder
        with suppress(OutputError), Store.open(out):
            break
        time.sleep(0.02)
    return refused, log.read_text()
