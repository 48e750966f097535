"""The C programs of the tests, built once in a folder for each CMake preset, and run."""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


def run(
    *command: object, check: bool = True, timeout: float = 3600, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command; its two outputs come as text."""
    result = subprocess.run(
        [str(part) for part in command],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **environment},
    )
    assert not check or result.returncode == 0, result.stdout + result.stderr
    return result


def lacking(what: str) -> NoReturn:
    """Skip the test for what is not here; fail where KAD_REQUIRE_ALL is set."""
    if os.environ.get("KAD_REQUIRE_ALL"):
        pytest.fail(f"{what}, and KAD_REQUIRE_ALL is set")
    pytest.skip(what)


def tool(name: str) -> str:
    """Find a program, in the virtual environment first; skip the test without it."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    return found or lacking(f"needs {name}")


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Keep other processes of the tests out of a folder of the build."""
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@functools.cache
def header() -> Path:
    """Give the folder with ONNX Runtime's header; skip the test where it cannot be had."""
    folder = ROOT / "build" / "onnxruntime"
    with alone("onnxruntime"):
        result = run(ROOT / "cmake" / "onnxruntime_header.sh", folder, check=False)
    if result.returncode:
        lacking(f"the header of ONNX Runtime cannot be had here: {result.stderr.strip()}")
    return folder


@functools.cache
def _configure(preset: str) -> Path:
    header()
    tool("c++")
    folder, settings = ROOT / "build" / preset, []
    ninja = Path(sys.executable).parent / "ninja"
    if ninja.is_file() and not (folder / "CMakeCache.txt").is_file():
        settings = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    with alone(preset):
        run(tool("cmake"), "-S", ROOT, "--preset", preset, *settings)
    return folder


@functools.cache
def build(preset: str, target: str = "all") -> Path:
    """Build a target of a preset; give the preset's folder."""
    folder = _configure(preset)
    with alone(preset):
        run(tool("cmake"), "--build", folder, "--target", target, "--parallel", "2")
    return folder


def program(preset: str, name: str) -> Path:
    """Build one program of tests/c/runtime; give its path."""
    return build(preset, name) / "tests" / "c" / "runtime" / name


def onnxruntime_library() -> str:
    """Give the library in the installed wheel of ONNX Runtime."""
    import onnxruntime

    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    return str(library)
