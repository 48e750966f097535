"""Strangers take libkad in: as a subproject, as a package, through pkg-config, from the archives,
and by what docs/integrate.md says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import programs
import pytest
import tiny_artifacts as tiny

import kad_sdk

if TYPE_CHECKING:
    from pathlib import Path

ROOT = programs.ROOT
CONSUMER = ROOT / "tests" / "c" / "consumer"
HEADERS = {"kad.h", "kad.hpp", "detector.h"}
EXAMPLES = {
    *("c/CMakeLists.txt", "c/line_rate.c", "c/score_pnm.c"),
    *("cpp/CMakeLists.txt", "cpp/score_mat.cpp"),
    *("subproject/CMakeLists.txt", "subproject/application.c"),
}


def build(source: Path, folder: Path, *settings: str, **environment: str) -> None:
    cmake = programs.tool("cmake")
    programs.tool("make")
    programs.run(cmake, "-S", source, "-B", folder, *settings, **environment)
    programs.run(cmake, "--build", folder, "--parallel", "2")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """Give an artifact that decides boards by their largest tile."""
    folder = tmp_path_factory.mktemp("artifact")
    return tiny.write(folder / "board.kad", tiny.patchcore(board="largest-tile"))


BLOCK = re.compile(
    r"(?:^`(?P<file>[\w.]+)`:\n\n)?^```(?P<kind>[a-z ]*)\n(?P<text>.*?)^```",
    re.DOTALL | re.MULTILINE,
)


def blocks() -> list[tuple[str | None, str, str]]:
    """Give the blocks of docs/integrate.md: the file that one is, its kind, its text."""
    text = (ROOT / "docs" / "integrate.md").read_text()
    return [(m["file"], m["kind"], m["text"]) for m in BLOCK.finditer(text)]


def commands(kind: str) -> list[str]:
    """Give the commands of the one block of a kind, a line each."""
    (text,) = (text for _, name, text in blocks() if name == kind)
    return re.sub(r" \\\n *", " ", text).splitlines()


SUBPROJECT = {
    "KAD_SOURCE_DIR": str(ROOT),
    "KAD_ONNXRUNTIME_INCLUDE": str(ROOT / "build" / "onnxruntime"),
}


@pytest.fixture(scope="module")
def subproject(tmp_path_factory, artifact) -> Path:
    """Build libkad as a part of a project, by the page's commands.

    The project sets CMAKE_UNITY_BUILD for all its parts, and, to be quick, does not optimise.
    """
    programs.header()
    programs.tool("make")
    folder = tmp_path_factory.mktemp("subproject")
    examples = folder / "prefix" / "share" / "doc" / "kad"
    examples.mkdir(parents=True)
    (examples / "examples").symlink_to(ROOT / "examples")
    shutil.copytree(artifact, folder / "board.kad")
    configure, *others = commands("sh subproject")
    settings = "-DKAD_BUILD_STATIC=ON -DKAD_INSTALL=ON"
    quick = "-DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS=-O0 -DCMAKE_UNITY_BUILD=ON"
    lines = [f"cd {folder}", f"{configure} {settings} {quick}", *others]
    environment = {"CMAKE_PREFIX_PATH": str(folder / "prefix"), **SUBPROJECT}
    library = programs.onnxruntime_library()
    found = programs.run("sh", "-ec", "\n".join(lines), KAD_ONNXRUNTIME=library, **environment)
    (folder / "printed").write_text(found.stdout)
    return folder


@pytest.fixture(scope="module")
def prefix(subproject, tmp_path_factory) -> Path:
    """Install the library that the subproject built."""
    folder = tmp_path_factory.mktemp("prefix")
    library = subproject / "build-subproject" / "_deps" / "kad-build"
    programs.run(programs.tool("cmake"), "--install", library, "--prefix", folder)
    return folder


def test_subproject(subproject):
    assert re.search(
        rf"^libkad {kad_sdk.__version__}: PatchCore, tiles of 32 px, threshold 0.400, "
        r"ONNX Runtime 1\.\d+",
        (subproject / "printed").read_text(),
        re.MULTILINE,
    )


def test_package(prefix, tmp_path, artifact):
    build(CONSUMER, tmp_path, "-DWITH_KAD=package", f"-DCMAKE_PREFIX_PATH={prefix}")
    for library in ("kad", "kad_static"):
        version = programs.run(tmp_path / f"consumer_{library}").stdout.strip()
        assert version == kad_sdk.__version__
        programs.run(tmp_path / f"wrapper_{library}", artifact)
    programs.run(tmp_path / "board_kad_static")


def test_pkg_config(prefix, tmp_path, artifact):
    programs.tool("pkg-config")
    (folder,) = prefix.glob("lib*/**/pkgconfig")
    path = {"PKG_CONFIG_PATH": str(folder)}
    build(CONSUMER, tmp_path, "-DWITH_KAD=pkg-config", **path)
    library_path = {"LD_LIBRARY_PATH": str(folder.parent)}
    version = programs.run(tmp_path / "consumer_kad", **library_path).stdout.strip()
    assert version == kad_sdk.__version__
    programs.run(tmp_path / "wrapper_kad", artifact, **library_path)
    runtime = programs.run("pkg-config", "--variable=runtime", "kad", **path).stdout
    assert runtime.strip() == "ON"


def test_only_what_users_need_is_installed(prefix):
    """No sources of the library, no objects."""
    library_folder = next(prefix.rglob("libkad.a")).parent
    names = {path.relative_to(prefix).as_posix() for path in prefix.rglob("*") if path.is_file()}
    rest = {name for name in names if not name.startswith("share/doc/kad/examples/")}
    assert {name.removeprefix("share/doc/kad/examples/") for name in names - rest} == EXAMPLES
    assert {name.removeprefix("include/kad/") for name in rest if "include" in name} == HEADERS
    lib = library_folder.relative_to(prefix).as_posix()
    libraries = {name.removeprefix(f"{lib}/") for name in rest if "include" not in name}
    assert {name for name in libraries if "/" not in name} == {
        *("libkad.a", "libkad.so", f"libkad.so.{kad_sdk.__version__}"),
        f"libkad.so.{'.'.join(kad_sdk.__version__.split('.')[:2])}",
    }
    assert {name.split("/")[0] for name in libraries if "/" in name} == {"cmake", "pkgconfig"}


# ---- archives ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> Path:
    """Give a folder with what cpack makes."""
    folder = tmp_path_factory.mktemp("archives")
    cpack = programs.tool("cpack")
    config = programs.build("test") / "CPackConfig.cmake"
    programs.run(cpack, "--config", config, "-B", folder)
    shutil.rmtree(folder / "_CPack_Packages")
    return folder


def test_deb(archives, tmp_path, artifact):
    """The two packages, unpacked into one root, are a whole libkad."""
    programs.tool("dpkg-deb")
    packages = sorted(archives.glob("*.deb"))
    if not packages:
        pytest.skip("cpack makes .deb on Debian only")
    fields = programs.run("dpkg-deb", "--field", packages[0]).stdout
    assert "Package: libkad-dev" in fields
    assert f"Depends: libkad0.1 (= {kad_sdk.__version__})" in fields
    contents = programs.run("dpkg-deb", "--contents", packages[1]).stdout
    assert f"libkad.so.{kad_sdk.__version__}" in contents
    assert "include" not in contents
    for package in packages:
        programs.run("dpkg-deb", "--extract", package, tmp_path / "root")
    usr = tmp_path / "root" / "usr"
    build(CONSUMER, tmp_path / "build", "-DWITH_KAD=package", f"-DCMAKE_PREFIX_PATH={usr}")
    programs.run(tmp_path / "build" / "wrapper_kad", artifact)


# ---- docs/integrate.md ---------------------------------------------------------------------------


@pytest.fixture
def room(archives, artifact, tmp_path) -> Path:
    """Give a folder with the archive, an artifact and a picture, and nothing else."""
    (archive,) = archives.glob("*.tar.gz")
    folder = tmp_path / "room"
    folder.mkdir()
    shutil.copy(archive, folder)
    shutil.copytree(artifact, folder / "board.kad")
    image = tiny.board(3, 96, 120)
    header = b"P6\n# a board\n%d %d\n255\n" % (image.shape[1], image.shape[0])
    (folder / "board.ppm").write_bytes(header + image.tobytes())
    return folder


def follow(folder: Path, kinds: tuple[str, ...]) -> str:
    """Write the files and run the commands of the page, as they stand; give what they print."""
    commands = ["set -e"]
    for file, kind, text in blocks():
        if file is not None:
            (folder / file).write_text(text)
        if kind in kinds:
            commands.append(text)
    library = programs.onnxruntime_library()
    environment = {**os.environ, "KAD_ONNXRUNTIME": library}
    for name in ("CMAKE_PREFIX_PATH", "PKG_CONFIG_PATH"):
        environment.pop(name, None)
    result = subprocess.run(
        ["sh"],
        input="\n".join(commands),
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_page_as_it_stands(room):
    programs.tool("make")
    printed = follow(room, ("sh",))
    assert len(re.findall(r"^(pass|reject): score \d", printed, re.MULTILINE)) == 2
    assert re.search(r"^board.ppm: (normal|anomalous), score \d", printed, re.MULTILINE)
    assert re.search(r"^frames 60  anomalous \d+  dropped 0$", printed, re.MULTILINE)
    assert re.search(r"^latency ms:  p50 .*  p99 .*  p99.9 .*  max ", printed, re.MULTILINE)


def test_the_page_with_opencv(room):
    if programs.run("pkg-config", "--exists", "opencv4", check=False).returncode:
        pytest.skip("needs OpenCV's development package (Debian: libopencv-dev)")
    first = next(text for _, kind, text in blocks() if kind == "sh")
    assert first.startswith("tar xzf kad-")
    printed = follow(room, ("sh", "sh opencv"))
    assert re.search(r"^board.ppm: \w+, score [\d.]+, \d+ regions$", printed, re.MULTILINE)
    assert (room / "overlay.png").stat().st_size > 1000


def test_the_page_links_the_static_library(prefix, artifact, tmp_path):
    """A program that is C alone, with the page's own command."""
    programs.tool("pkg-config")
    (folder,) = prefix.glob("lib*/**/pkgconfig")
    (program,) = (text for file, _, text in blocks() if file == "first.c")
    (tmp_path / "first.c").write_text(program)
    (command,) = commands("sh static")
    environment = {"PKG_CONFIG_PATH": str(folder)}
    programs.run("sh", "-ec", f"cd {tmp_path}\n{command}", **environment)
    shutil.copytree(artifact, tmp_path / "board.kad")
    library = programs.onnxruntime_library()
    printed = programs.run(
        "sh", "-ec", f"cd {tmp_path}\n./first-static", KAD_ONNXRUNTIME=library
    ).stdout
    assert re.match(r"(pass|reject): score \d", printed)
    needed = programs.run("ldd", tmp_path / "first-static").stdout
    assert "libkad" not in needed


def test_the_pages_subproject(prefix, tmp_path):
    """Its first command, as it stands, says all that CMake has to know."""
    configure = commands("sh subproject")[0]
    environment = {"CMAKE_PREFIX_PATH": str(prefix), **SUBPROJECT}
    programs.run("sh", "-ec", f"cd {tmp_path}\n{configure}", **environment)
    cache = (tmp_path / "build-subproject" / "CMakeCache.txt").read_text()
    assert "CMAKE_BUILD_TYPE:STRING=Release" in cache


def test_the_pages_package(archives, tmp_path):
    """Its first command configures; what the others make, the archives here are made by, too."""
    programs.header()
    configure, build_it, pack_it = commands("sh package")
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for path in ROOT.iterdir():
        if path.name not in {"build", ".git", ".venv"}:
            (checkout / path.name).symlink_to(path)
    (checkout / "build").mkdir()
    (checkout / "build" / "onnxruntime").symlink_to(ROOT / "build" / "onnxruntime")
    programs.run("sh", "-ec", f"cd {checkout}\n{configure}")
    names = (checkout / "build" / "package" / "CPackConfig.cmake").read_text()
    (archive,) = archives.glob("*.tar.gz")
    assert f'"{archive.name.removesuffix(".tar.gz")}"' in names
    assert f"`{archive.name}`" in (ROOT / "docs" / "integrate.md").read_text()
    assert build_it == 'cmake --build build/package --parallel "$(nproc)"'
    assert pack_it == "cd build/package && cpack"


# What surrounds the fragments of the page: a function around statements.
C_START = """
#include <kad/detector.h>
#include <stddef.h>
typedef struct my_engine my_engine;
my_engine* my_engine_build(const char* path, int32_t batch);
int my_engine_run(my_engine* engine, const kad_network_batch* batch);
"""
C_BODY = """
kad_status fragment(kad_session* session, kad_image image) {
  kad_status status;
  kad_detector* detector = NULL;
  kad_result* result = NULL;
  (void)session, (void)image, (void)detector, (void)result;
"""
CPP_START = """
#include <kad/kad.hpp>
struct Mat { unsigned char* data; int rows, cols; size_t step[2]; };
void mark(int x, int y, int width, int height);
void fragment(const Mat& mat) {
"""


def fragments() -> list[tuple[str, str]]:
    """Give the page's pieces of programs as whole sources: the language, the text."""
    sources = []
    for file, kind, text in blocks():
        if file is None and kind == "cpp":
            sources.append(("c++", f"{CPP_START}{text}}}\n"))
        elif file is None and kind == "c":
            *functions, statements = text.split("\n}\n\n")
            before = "".join(f"{function}\n}}\n" for function in functions)
            body = f"{C_BODY}{statements}  return status;\n}}\n"
            sources.append(("c", f"{C_START}{before}{body}"))
    return sources


@pytest.mark.parametrize(("language", "source"), fragments(), ids=lambda value: value[:3])
def test_the_pages_fragments_compile(language, source):
    compiler, standard = {"c": ("cc", "c11"), "c++": ("c++", "c++17")}[language]
    options = (f"-std={standard}", "-Wall", "-Wextra", "-Werror", "-fsyntax-only")
    include = f"-I{ROOT / 'kad_sdk' / 'include'}"
    result = subprocess.run(
        [programs.tool(compiler), *options, include, "-x", language, "-"],
        input=source,
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
