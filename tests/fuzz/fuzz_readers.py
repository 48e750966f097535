"""Run the libFuzzer targets of the readers, each for some seconds, from seeds made of artifacts.

``make fuzz`` runs this for minutes; what is found stays in ``build/fuzz/corpus``, so that the next
run begins there. An input that breaks a target is printed with the command that repeats it.
"""

from __future__ import annotations

import argparse
import shutil
import struct
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
import numpy as np
import programs
import tiny_artifacts as tiny

from kad_sdk._native import MapLayout, NativeIndex, StoredIndex

TARGETS = ("json", "manifest", "tensors", "graph", "artifact", "index")
FOLDER = programs.ROOT / "build" / "fuzz"


PROBE = 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }'


def missing() -> str:
    """Say what is not here to build the targets with; nothing when all is."""
    if not shutil.which("clang++"):
        return "clang++ (Debian: apt-get install clang libclang-rt-dev)"
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "probe.cpp"
        source.write_text(PROBE)
        probe = ("clang++", "-fsanitize=fuzzer,address", source, "-o", Path(scratch) / "probe")
        works = programs.run(*probe, check=False).returncode == 0
    return "" if works else "a clang++ with libFuzzer (Debian: apt-get install libclang-rt-dev)"


def build() -> None:
    cmake = programs.tool("cmake")
    with programs.alone("fuzz"):
        programs.run(cmake, "-S", programs.ROOT, "--preset", "fuzz")
        programs.run(cmake, "--build", FOLDER, "--target", "fuzzers", "--parallel", "2")


def seeds() -> dict[str, list[bytes]]:
    """Give good inputs for each target."""
    found: dict[str, list[bytes]] = {name: [] for name in TARGETS}
    made = (tiny.patchcore(), tiny.cutpaste(), tiny.cutpaste("kernel", "tile-score"))
    with tempfile.TemporaryDirectory() as scratch:
        for i, artifact in enumerate(made):
            folder = tiny.write(Path(scratch) / f"{i}.kad", artifact)
            manifest = (folder / "manifest.json").read_bytes()
            found["json"].append(manifest)
            found["manifest"].append(manifest)
            found["graph"] += [path.read_bytes() for path in folder.glob("*.onnx")]
            for path in folder.glob("*.safetensors"):
                data = path.read_bytes()
                found["tensors"].append(data)
                found["artifact"].append(struct.pack("<I", len(manifest)) + manifest + data)
    found["index"].append(stored_index())
    return found


def stored_index() -> bytes:
    """Give the stored index of the bank in fuzz_index.cpp."""
    bank = (np.arange(1100 * 96) * 7919 % 1009).astype(np.float32).reshape(1100, 96)
    layout = MapLayout([(40, 8, 8), (56, 4, 4)], (8, 8), "bilinear")
    stored = NativeIndex(bank, layout=layout).store("a" * 64)
    NativeIndex(bank, layout=layout, stored=StoredIndex(stored, "a" * 64)).close()  # it is accepted
    return stored.tobytes()


def fuzz(seconds: int) -> list[str]:
    """Run every target; give a line for each."""
    lines = []
    for name, inputs in seeds().items():
        folder = FOLDER / "seeds" / name
        corpus = FOLDER / "corpus" / name
        folder.mkdir(parents=True, exist_ok=True)
        corpus.mkdir(parents=True, exist_ok=True)
        for i, data in enumerate(inputs):
            (folder / str(i)).write_bytes(data)
        dictionary = Path(__file__).parent / "json.dict"
        # libFuzzer limits getrusage's peak, which begins with that of the process before exec.
        limits = ["-rss_limit_mb=0", "-malloc_limit_mb=512"]
        options = [f"-max_total_time={seconds}", "-timeout=10", *limits]
        longest = max(65536, *map(len, inputs))
        options += [f"-max_len={longest}", f"-artifact_prefix={FOLDER}/found-{name}-"]
        options += [] if name in {"graph", "index"} else [f"-dict={dictionary}"]
        target = FOLDER / "tests" / "fuzz" / f"fuzz_{name}"
        result = programs.run(
            *(target, *options, corpus, folder),
            check=False,
            timeout=seconds + 120,
            ASAN_OPTIONS="hard_rss_limit_mb=2048",
        )
        if result.returncode:
            raise AssertionError(f"fuzz_{name}: {result.stderr[-4000:]}")
        lines.append(f"fuzz_{name}: {result.stderr.strip().splitlines()[-1]}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    seconds = parser.parse_args().seconds
    lacking = missing()
    if lacking:
        sys.exit(f"fuzzing needs {lacking}")
    build()
    for line in fuzz(seconds):
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
