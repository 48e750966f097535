"""A stranger's C project takes libkad in as a subproject, as a package, and through pkg-config."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import kad_sdk

ROOT = Path(__file__).parents[2]
CONSUMER = Path(__file__).parent / "consumer"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("cmake"), reason="needs cmake"),
    pytest.mark.skipif(not shutil.which("c++"), reason="needs a C++ compiler"),
]


def run(*command: object, **environment: str) -> str:
    result = subprocess.run(
        [str(part) for part in command],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def build(folder: Path, *settings: str, **environment: str) -> None:
    run("cmake", "-S", CONSUMER, "-B", folder, *settings, **environment)
    run("cmake", "--build", folder, "--parallel", "2")


@pytest.fixture(scope="module")
def subproject(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("subproject")
    build(
        folder,
        "-DWITH_KAD=subproject",
        f"-DKAD_SOURCE_DIR={ROOT}",
        "-DKAD_BUILD_STATIC=ON",
        "-DKAD_INSTALL=ON",
        "-DCMAKE_BUILD_TYPE=Release",
    )
    return folder


@pytest.fixture(scope="module")
def prefix(subproject, tmp_path_factory) -> Path:
    """Install the library that the subproject built."""
    folder = tmp_path_factory.mktemp("prefix")
    run("cmake", "--install", subproject / "kad", "--prefix", folder)
    return folder


def test_subproject(subproject):
    assert run(subproject / "consumer").strip() == kad_sdk.__version__
    assert run(subproject / "consumer_static").strip() == kad_sdk.__version__


def test_package(prefix, tmp_path):
    build(tmp_path, "-DWITH_KAD=package", f"-DCMAKE_PREFIX_PATH={prefix}")
    assert run(tmp_path / "consumer").strip() == kad_sdk.__version__
    assert run(tmp_path / "consumer_static").strip() == kad_sdk.__version__


@pytest.mark.skipif(not shutil.which("pkg-config"), reason="needs pkg-config")
def test_pkg_config(prefix, tmp_path):
    (folder,) = prefix.glob("lib*/**/pkgconfig")
    build(tmp_path, "-DWITH_KAD=pkg-config", PKG_CONFIG_PATH=str(folder))
    library_path = str(folder.parent)
    assert run(tmp_path / "consumer", LD_LIBRARY_PATH=library_path).strip() == kad_sdk.__version__


def test_only_what_users_need_is_installed(prefix):
    """No sources, no objects: the header, the two libraries, files for CMake and pkg-config."""
    headers = [path.name for path in prefix.rglob("*.h*")]
    assert headers == ["kad.h"]
    folders = {path.parent.name for path in prefix.rglob("*") if path.is_file()}
    library_folder = next(prefix.rglob("libkad.a")).parent.name
    assert folders == {"kad", library_folder, "pkgconfig"}
