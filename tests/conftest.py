"""Fixtures shared by all rooms: real weights and images, when their folders are named."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

# A shell's background job ignores Ctrl-C and so would the commands that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set: it names a folder with real files")
    return Path(value)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which instruction sets were tested: tests run at those that this processor has."""
    from search_oracle import LEVELS, levels_here

    here = levels_here()
    lacking = ", ".join(LEVELS[len(here) :]) or "none"
    terminalreporter.write_line(
        f"instruction sets tested: {', '.join(here)}; not on this processor: {lacking}"
    )


@pytest.fixture(scope="session")
def weights_file() -> Path:
    """Real ImageNet ResNet-18 weights, conv1 to layer3."""
    path = _folder("KAD_WEIGHTS_DIR") / "resnet18_trunk.safetensors"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    return path


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with the data sets kolektor_sdd, magnetic_tile and hazelnut in MVTec layout."""
    return _folder("KAD_DATA_DIR")


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for :func:`convert_once`, one for all workers of a run."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "graphs"


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, bytes | None]]:
    """Everything below a folder: path to content, None for folders."""

    def look(folder: Path) -> dict[str, bytes | None]:
        return {
            path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes()
            for path in folder.rglob("*")
        }

    return look


@pytest.fixture(params=["tmpfs", "limit"])
def small_disk(request, tmp_path) -> Callable[[int], AbstractContextManager[Path]]:
    """Give a folder that takes only so many bytes, while a block runs.

    ``tmpfs`` is a real full disk and needs the right to mount one; ``limit`` makes the system
    refuse larger files, as a quota would.
    """

    @contextmanager
    def make(size: int) -> Iterator[Path]:
        folder = tmp_path / "disk"
        folder.mkdir()
        if request.param == "limit":
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
            try:
                yield folder
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            return
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "kad-test", str(folder)]
        if (
            shutil.which("mount") is None
            or subprocess.run(mount, capture_output=True, check=False).returncode
        ):
            pytest.skip("a tmpfs cannot be mounted here")
        try:
            yield folder
        finally:
            subprocess.run(["umount", str(folder)], check=True)

    return make
