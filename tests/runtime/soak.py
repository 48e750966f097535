"""Run the line-rate loop of the examples for thousands of frames: memory has to stay flat.

``make soak`` installs libkad, builds ``examples/c`` against that, and runs ``line_rate``. It
prints the percentiles of the latency, and fails where memory grows.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

import programs
import tiny_artifacts as tiny

# What the process may gain in the second half of the frames, some 100 bytes for each of 2,500, and
# after their first hundredth, since the heap settles in the beginning.
LATE_KIB, WHOLE_KIB = 256, 4096


def build() -> Path:
    """Install the library, build the examples against it; give the program."""
    folder = programs.ROOT / "build" / "soak"
    prefix, examples = folder / "prefix", folder / "examples"
    cmake = programs.tool("cmake")
    programs.run(cmake, "--install", programs.build("test"), "--prefix", prefix)
    source = prefix / "share" / "doc" / "kad" / "examples" / "c"
    release = "-DCMAKE_BUILD_TYPE=Release"
    programs.run(cmake, "-S", source, "-B", examples, f"-DCMAKE_PREFIX_PATH={prefix}", release)
    programs.run(cmake, "--build", examples)
    return examples / "line_rate"


def artifacts(folder: Path) -> list[Path]:
    """Write one that is scored without maps, and one of each method that is scored with them."""
    made = {
        "scores": tiny.patchcore(board="largest-tile"),
        "maps": tiny.patchcore(),
        "cutpaste": tiny.cutpaste(),
    }
    return [tiny.write(folder / f"{name}.kad", artifact) for name, artifact in made.items()]


def check(printed: str, frames: int) -> None:
    """Fail unless every frame was scored and memory stayed flat."""
    scored, dropped = re.search(r"frames (\d+) .* dropped (\d+)", printed).groups()
    memory = re.search(r"early (\d+)  half (\d+)  end (\d+)", printed).groups()
    early, half, end = map(int, memory)
    assert (int(scored), int(dropped)) == (frames, 0), printed
    assert end - half < LATE_KIB, f"memory grew:\n{printed}"
    assert end - early < WHOLE_KIB, f"memory grew:\n{printed}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artifact", type=Path, help="a real one; by default three tiny ones")
    parser.add_argument("--frames", type=int, default=5_000)
    parser.add_argument("--height", type=int, default=128, help="px")
    parser.add_argument("--width", type=int, default=256, help="px")
    options = parser.parse_args()
    program, library = build(), programs.onnxruntime_library()
    with tempfile.TemporaryDirectory() as scratch:
        for artifact in [options.artifact] if options.artifact else artifacts(Path(scratch)):
            arguments = (artifact, options.frames, options.height, options.width)
            result = programs.run(program, *arguments, timeout=7200, KAD_ONNXRUNTIME=library)
            sys.stdout.write(f"{artifact.stem}\n{result.stdout}")
            check(result.stdout, options.frames)


if __name__ == "__main__":
    main()
