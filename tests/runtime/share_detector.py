"""Let threads share a detector, and compare with one thread alone.

``make threads`` runs this for a minute with each artifact, the tests for seconds: under
ThreadSanitizer with a network that is a function of the test program, since ONNX Runtime is not
built with the sanitizer; and with ONNX Runtime itself, without the sanitizer.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import programs
import tiny_artifacts as tiny

THREADS = 8


def artifacts(folder: Path) -> list[Path]:
    """Write an artifact of each method."""
    made = {"patchcore": tiny.patchcore(), "cutpaste": tiny.cutpaste()}
    return [tiny.write(folder / f"{name}.kad", artifact) for name, artifact in made.items()]


def share(seconds: float, paths: list[Path], network: str = "toy") -> str:
    """Score in eight threads, so many seconds with each artifact; give a line for each."""
    program = programs.program("tsan" if network == "toy" else "test", "test_threads")
    limit = len(paths) * seconds + 300
    options = {"TSAN_OPTIONS": "halt_on_error=1"}
    if network == "onnxruntime":
        options = {"KAD_ONNXRUNTIME": programs.onnxruntime_library()}
    result = programs.run(program, network, seconds, THREADS, *paths, timeout=limit, **options)
    assert not result.stderr, result.stderr
    return result.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="with each artifact")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as scratch:
        paths = artifacts(Path(scratch))
        for network in ("toy", "onnxruntime"):
            sys.stdout.write(f"{network}:\n{share(seconds, paths, network)}")


if __name__ == "__main__":
    main()
