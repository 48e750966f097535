"""Everything that needs a GPU, on a machine that has one: `make gpu-check`.

    python3 tests/kernels/gpu_check.py [FOLDER] [--only STEP ...]

Steps: build the compiled core; the tests marked `gpu`, the tensor tier's and the selection's first;
compute-sanitizer's memcheck on small cases; the suites of `kad-bench run gpu`; its racecheck. It
needs no network and no environment of the project: PyTorch, numba-cuda and so on are those of the
Python that runs it, and what is missing is skipped by name. Every step has its time, and what it
said and measured lies in FOLDER (build/gpu-check) when it ends, summed up in check.json. A step
that fails does not stop the others. All of it takes less than nine minutes; what is left by then is
cut off.

Exit codes: 0, all passed; 1, a step failed or took longer than its own time, or nothing could be
run; 3, nothing failed, but a step was cut off by the time of all, or skipped (the sanitizer where
it is missing, say).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = "build/gpu"
TESTS = ("tests/kernels/test_tensor_tier.py", "tests/kernels/test_cuda_selection.py")
TESTS += ("tests/kernels/test_cuda_kernels.py", "tests/kernels/test_cuda_stages.py")
TESTS += ("tests/kernels/test_cuda_scorer.py",)
# Small and quick under the sanitizer: every kernel once.
SANITIZED = {
    "tests/kernels/test_cuda_stages.py": (
        "(tiles_are and shape0) or other_forms or leaves_the_answer or overflow"
    ),
    "tests/kernels/test_cuda_kernels.py": (
        "2-65-17-2 or order_of_summation or flush_keeps or pool_stops"
    ),
    # Not selections of 20,000 points: the reference would take longer than the sanitizer has.
    "tests/kernels/test_tensor_tier.py": (
        "(the_reference and not 20000) or without_a_centre or point_outside"
    ),
}
SUITES = {"gpu_search": 150, "gpu_coreset": 130, "gpu_board": 170}  # seconds for each
NEEDED = ("numpy", "cv2", "click", "numba", "torch", "torchvision")
ALL_S = 535


@dataclass
class Step:
    """What came of a step.

    Attributes
    ----------
    name : str
    state : str
        ``"passed"``, ``"failed"``, ``"timed out"`` (its own time), ``"cut off"`` (by the time of
        all steps) or ``"skipped"``.
    seconds : float
    told : str
        The end of what it said, or why it was skipped.
    """

    name: str
    state: str
    seconds: float = 0.0
    told: str = ""


@dataclass
class Check:
    """The run: a folder for what it finds, and the steps so far."""

    folder: Path
    only: list[str]
    start: float = field(default_factory=time.monotonic)
    steps: list[Step] = field(default_factory=list)

    def run(self, name: str, command: list[str], limit_s: float) -> None:
        """Run a command for a step, its output into a file of the folder."""
        if self.only and not any(name.startswith(word) for word in self.only):
            return
        left = ALL_S - (time.monotonic() - self.start)
        if left < 10:
            self.note(Step(name, "cut off", told=f"{ALL_S} s were over"))
            return
        log, start = self.folder / f"{name}.log", time.monotonic()
        with log.open("w") as out:
            code = _run(command, min(limit_s, left), out)
        told = log.read_text(errors="replace")[-1_500:]
        states = {0: "passed", None: "timed out" if limit_s <= left else "cut off"}
        self.note(Step(name, states.get(code, "failed"), time.monotonic() - start, told))

    def skip(self, name: str, why: str) -> None:
        """Say that a step cannot run."""
        if not self.only or any(name.startswith(word) for word in self.only):
            self.note(Step(name, "skipped", told=why))

    def note(self, step: Step) -> None:
        """Keep a step, and write all down."""
        self.steps.append(step)
        text = f"{step.seconds:.1f} s" if step.seconds else step.told
        print(f"{step.name}: {step.state} ({text})", flush=True)  # noqa: T201 - its output
        document = {"python": sys.version, "steps": [asdict(one) for one in self.steps]}
        (self.folder / "check.json").write_text(json.dumps(document, indent=1) + "\n")


def main() -> int:
    """Run all steps; the exit code."""
    parser = argparse.ArgumentParser(description="Check kad on a GPU.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build/gpu-check")
    parser.add_argument("--only", nargs="*", default=[], metavar="STEP", help="these, by prefix")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    check = Check(given.folder.resolve(), given.only)
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        check.skip("everything", f"{', '.join(missing)} cannot be imported by {sys.executable}")
        return 1
    if shutil.which("nvidia-smi") is None:
        check.skip("everything", "nvidia-smi is missing: no NVIDIA driver here")
        return 1
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    _environment()
    _build(check)
    _tests(check)
    _sanitize(check, "memcheck")
    for suite, limit_s in SUITES.items():
        _measure(check, suite, limit_s)
    _sanitize(check, "racecheck")
    _show(check)
    return _exit_code(check.steps)


def _exit_code(steps: list[Step]) -> int:
    states = {step.state for step in steps}
    if states & {"failed", "timed out"}:
        return 1
    return 3 if states & {"cut off", "skipped"} else 0


def _environment() -> None:
    """Let what is started find the rooms of the project and the core that is built here."""
    rooms = [str(ROOT / room) for room in ("", "export", "kernels", "benchmarks")]
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*rooms, *([before] if before else [])])
    os.environ["KAD_LIBRARY"] = str(ROOT / BUILD / "libkad.so")
    toolkit = Path(shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc").resolve().parents[1]
    if (toolkit / "nvvm").is_dir():  # where numba looks
        os.environ.setdefault("CUDA_HOME", str(toolkit))


def _build(check: Check) -> None:
    if shutil.which("cmake") is None:
        check.skip("build", "cmake is missing")
        return
    ninja = ["-G", "Ninja"] if shutil.which("ninja") else []
    configure = ["cmake", "-S", ".", "-B", BUILD, *ninja, "-DCMAKE_BUILD_TYPE=Release"]
    check.run("build-configure", configure, 60)
    build = ["cmake", "--build", BUILD, "--target", "kad", "-j", str(os.cpu_count() or 2)]
    check.run("build", build, 150)


def _pytest(*words: str) -> list[str]:
    # Warnings of newer packages are no failures of the kernels: they are shown.
    given = ["-q", "--maxfail=8", "-p", "no:cacheprovider", "-W", "default", "-m", "gpu"]
    return [sys.executable, "-m", "pytest", *given, *words]


def _tests(check: Check) -> None:
    if importlib.util.find_spec("pytest") is None:
        check.skip("tests", "pytest is missing")
        return
    for path in TESTS:
        check.run(f"tests-{Path(path).stem[5:]}", _pytest(path), 120)


def _sanitize(check: Check, kind: str) -> None:
    tool = shutil.which("compute-sanitizer") or next(
        (str(p) for p in Path("/usr/local").glob("cuda*/bin/compute-sanitizer")), None
    )
    if tool is None or importlib.util.find_spec("pytest") is None:
        check.skip(f"sanitizer-{kind}", "compute-sanitizer or pytest is missing")
        return
    for path, words in SANITIZED.items():
        command = [tool, "--tool", kind, "--error-exitcode", "9", "--target-processes", "all"]
        name = f"sanitizer-{kind}-{Path(path).stem[5:]}"
        check.run(name, [*command, *_pytest(path, "-k", words)], 45)


def _measure(check: Check, suite: str, limit_s: float) -> None:
    out = check.folder / f"{suite}.json"
    cache = os.environ.get("KAD_BENCH_CACHE") or str(check.folder / "cache")
    command = [sys.executable, "-m", "kad_bench", "run", suite, "--profile", "regular"]
    check.run(suite, [*command, "--cache", cache, "--json", str(out)], limit_s)


def _show(check: Check) -> None:
    """Print the tables of the suites, as the runs printed them."""
    for suite in SUITES:
        log = check.folder / f"{suite}.log"
        if log.is_file():
            print(f"\n## {suite}\n\n{log.read_text(errors='replace')}")  # noqa: T201


def _run(command: list[str], limit_s: float, out: object) -> int | None:
    """Run a command in the repository's root; its exit code, None when its time is over."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=out,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.returncode is None:  # its time is over, or Ctrl-C or SIGTERM ends this program
            os.killpg(process.pid, signal.SIGKILL)  # the command and all that it started
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
