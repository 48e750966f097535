"""What `make gpu-check` runs, and how it ends, without a GPU."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.fixture
def gpu_check(monkeypatch):
    path = Path(__file__).with_name("gpu_check.py")
    spec = importlib.util.spec_from_file_location("gpu_check", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_check", module)
    spec.loader.exec_module(module)
    return module


def _chosen(words, name):
    """Whether pytest -k takes a test."""
    terms = re.sub(r"[\w-]+", lambda m: m[0] if m[0] in {"and", "or", "not"} else repr(m[0]), words)
    return eval(re.sub(r"'[\w-]+'", lambda m: str(m[0][1:-1] in name), terms))


@pytest.mark.parametrize(
    ("file", "name", "chosen"),
    [
        ("cuda_stages", "test_tiles_are_those_of_the_reference[order0-shape0]", True),  # cut
        ("cuda_stages", "test_tiles_are_those_of_the_reference[order0-shape3]", False),
        ("cuda_stages", "test_scores_of_the_other_forms[paper]", True),  # resample, peaks, clear
        ("cuda_kernels", "test_search_is_that_of_the_reference[2-65-17-2]", True),  # merge
        ("cuda_kernels", "test_search_is_that_of_the_reference[2-65-17-16]", False),
        (
            "cuda_kernels",
            "test_pool_stops_where_a_point_outside_precedes[4]",
            True,
        ),  # lower, choose
        ("tensor_tier", "test_search_is_that_of_the_reference", True),  # project, screen, decide
        ("tensor_tier", "test_pool_selects_as_the_reference[3000-spread]", True),  # pick
        ("tensor_tier", "test_pool_selects_as_the_reference[20000-spread]", False),  # too slow
    ],
)
def test_the_sanitizer_sees_every_kernel_in_small_cases(gpu_check, file, name, chosen):
    path = f"tests/kernels/test_{file}.py"
    assert _chosen(gpu_check.SANITIZED[path], name) == chosen
    assert name.partition("[")[0] in (gpu_check.ROOT / path).read_text()


def test_what_takes_longer_than_its_own_time_or_that_of_all(gpu_check, tmp_path, capsys):
    check = gpu_check.Check(tmp_path, [])
    nap = [sys.executable, "-c", "import time; time.sleep(60)"]
    check.run("slow", nap, 0.2)
    check.start -= gpu_check.ALL_S - 10.2  # so much is left
    gpu_check_run = gpu_check._run
    gpu_check._run = lambda command, limit_s, out: gpu_check_run(command, limit_s - 10, out)
    check.run("at the end", nap, 60)
    check.start -= 5
    check.run("after it", nap, 60)
    check.skip("sanitizer", "it is missing")
    states = ["timed out", "cut off", "cut off", "skipped"]
    assert [step.state for step in check.steps] == states
    assert "after it: cut off (535 s were over)" in capsys.readouterr().out


def test_the_exit_code(gpu_check):
    def code(*states):
        return gpu_check._exit_code([gpu_check.Step("a step", state) for state in states])

    assert code("passed", "passed") == 0
    assert [code("passed", state) for state in ("cut off", "skipped")] == [3, 3]
    assert [code("cut off", state, "skipped") for state in ("failed", "timed out")] == [1, 1]


def test_the_order_of_steps(gpu_check, tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(gpu_check.Check, "run", lambda self, name, *_: ran.append(name))
    monkeypatch.setattr(gpu_check.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(gpu_check.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(gpu_check, "_environment", lambda: None)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", str(tmp_path)])
    monkeypatch.setattr(gpu_check.signal, "signal", lambda *_: None)
    assert gpu_check.main() == 0
    kinds = [name.rpartition("_")[0] if name.startswith("sanitizer") else name for name in ran]
    assert list(dict.fromkeys(kinds)) == [
        *("build-configure", "build", "tests-tensor_tier", "tests-cuda_selection"),
        *("tests-cuda_kernels", "tests-cuda_stages", "tests-cuda_scorer"),
        *("sanitizer-memcheck-cuda", "sanitizer-memcheck-tensor"),
        *gpu_check.SUITES,
        *("sanitizer-racecheck-cuda", "sanitizer-racecheck-tensor"),
    ]


INTERRUPTED = """
import importlib.util, shutil, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
spec = importlib.util.spec_from_file_location("gpu_check", sys.argv.pop(1))
module = importlib.util.module_from_spec(spec)
sys.modules["gpu_check"] = module
spec.loader.exec_module(module)
module.NEEDED = ()
shutil.which = lambda name: name
nap = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
module._build = lambda check: check.run("nap", [sys.executable, "-c", nap], 60)
sys.exit(module.main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_ends_what_runs(gpu_check, tmp_path, number):
    command = [sys.executable, "-c", INTERRUPTED, gpu_check.__file__, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        log = tmp_path / "nap.log"
        while not (log.exists() and log.read_text().endswith("\n")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(20) == {signal.SIGTERM: 143, signal.SIGINT: -signal.SIGINT}[number]
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.read_text()), 0)
