"""The machine's description: real values where they can be checked, None where there are none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from kad_bench import environment
from kad_bench.blas import take_best_kernels
from kad_bench.cli import main
from kad_bench.environment import collect, format_table


@pytest.fixture(scope="module")
def found() -> dict:
    return collect()


def test_facts_agree_with_what_python_and_the_system_say(found: dict) -> None:
    assert found["cpu"]["logical_cores"] == os.cpu_count()
    assert found["cpu"]["affinity"] == sorted(os.sched_getaffinity(0))
    assert found["cpu"]["kad_level"] in {"scalar", "avx2", "avx512", "avx512vnni"}
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert found["memory"]["total_bytes"] == pytest.approx(pages, rel=0.02)
    assert 0 < found["memory"]["available_bytes"] <= found["memory"]["total_bytes"]
    assert found["packages"]["numpy"] == np.__version__
    assert "CPUExecutionProvider" in found["onnxruntime_providers"]


def test_commit_is_that_of_the_checkout(found: dict) -> None:
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    answer = subprocess.run(git, capture_output=True, text=True, check=False)
    if answer.returncode:
        pytest.skip("the tests do not run in a git checkout")
    assert found["git"]["commit"] == answer.stdout.strip()
    assert isinstance(found["git"]["dirty"], bool)


def test_a_folder_outside_any_checkout_has_no_commit(tmp_path: Path) -> None:
    assert environment._git(tmp_path) is None


def test_control_group_limits_are_read(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text("150000 100000\n")
    (group / "memory.max").write_text("2147483648\n")
    limited = collect(tmp_path)
    assert limited["cpu"]["quota_cores"] == 1.5
    assert limited["memory"]["limit_bytes"] == 2 << 30
    assert limited["memory"]["total_bytes"] is None
    assert "quota 1.5" in format_table(limited)
    (group / "cpu.max").write_text("max 100000\n")
    (group / "memory.max").write_text("max\n")
    assert collect(tmp_path)["cpu"]["quota_cores"] is None
    assert collect(tmp_path)["memory"]["limit_bytes"] is None


def test_gpus_are_read_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559 MiB, 570.86.15, 9.0'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    gpus = collect()["gpus"]
    assert [gpu["name"] for gpu in gpus] == ["NVIDIA H100 80GB HBM3"]
    assert gpus[0]["compute_cap"] == "9.0"
    tool.write_text("#!/bin/sh\necho 'No devices were found'; exit 6\n")
    assert collect()["gpus"] == []
    tool.unlink()
    assert collect()["gpus"] == []


def test_missing_core_is_a_finding_not_a_failure(
    found: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kad_sdk import _native
    from kad_sdk.errors import NativeLibraryError

    def fail() -> str:
        raise NativeLibraryError("the compiled core is missing")

    monkeypatch.setattr(_native, "cpu_level", fail)
    cpu = collect()["cpu"]
    assert (cpu["kad_level"], cpu["kad_library"]) == ("none", "the compiled core is missing")


def test_command_prints_a_table_or_json(found: dict) -> None:
    table = CliRunner().invoke(main, ["env"])
    assert table.exit_code == 0
    assert f"Python {found['python'].split()[1]}" in table.output
    assert np.__version__ in table.output
    answer = CliRunner().invoke(main, ["env", "--json"])
    assert answer.exit_code == 0
    assert json.loads(answer.output).keys() == found.keys()


@pytest.mark.parametrize(
    ("flags", "kernels"),
    [
        ("fpu avx2 fma avx512f avx512dq avx512bw avx512vl", "SkylakeX"),
        ("fpu avx2 fma avx512f", "Haswell"),
        ("fpu sse4_2", "Barcelona"),
        (None, "Barcelona"),
    ],
)
def test_openblas_takes_the_best_kernels_of_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str | None, kernels: str
) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Barcelona")
    if flags is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/cpuinfo").write_text(f"model name\t: X\nflags\t\t: {flags}\nbugs\t:\n")
    take_best_kernels(tmp_path)
    assert os.environ["OPENBLAS_CORETYPE"] == kernels


def test_the_command_measures_with_the_best_kernels() -> None:
    """Of a process of its own: OpenBLAS has chosen before this one began."""
    command = [sys.executable, "-m", "kad_bench", "env", "--json"]
    poor = {**os.environ, "OPENBLAS_CORETYPE": "Nehalem"}
    found = json.loads(subprocess.run(command, env=poor, check=True, capture_output=True).stdout)
    kernels = {one["kernels"] for one in found["blas"] if one["api"] == "openblas"}
    assert kernels
    assert "Nehalem" not in kernels or "avx2" not in Path("/proc/cpuinfo").read_text()
