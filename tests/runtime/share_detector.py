"""Let threads share a detector under ThreadSanitizer, and compare with one thread alone.

``make threads`` runs this for a minute with each artifact, the tests for seconds. The network is a
function of the test program, since ONNX Runtime is not built with the sanitizer.
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


def share(seconds: float, paths: list[Path]) -> str:
    """Score in eight threads, so many seconds with each artifact; give a line for each."""
    program = programs.program("tsan", "test_threads")
    limit = len(paths) * seconds + 300
    options = {"TSAN_OPTIONS": "halt_on_error=1"}
    result = programs.run(program, seconds, THREADS, *paths, timeout=limit, **options)
    assert not result.stderr, result.stderr
    return result.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="with each artifact")
    with tempfile.TemporaryDirectory() as scratch:
        sys.stdout.write(share(parser.parse_args().seconds, artifacts(Path(scratch))))


if __name__ == "__main__":
    main()
