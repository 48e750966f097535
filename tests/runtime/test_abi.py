"""The C ABI: what the headers say, compilers make of it, and the library exports."""

from __future__ import annotations

import re

import abi
import programs
import pytest
import tiny_artifacts as tiny

COMPILERS = {
    "gcc-c11": ("gcc", "-x", "c", "-std=c11"),
    "clang-c11": ("clang", "-x", "c", "-std=c11"),
    "gcc-c++17": ("g++", "-x", "c++", "-std=c++17"),
    "clang-c++17": ("clang++", "-x", "c++", "-std=c++17"),
}
STRICT = ("-Wall", "-Wextra", "-Werror", "-pedantic", "-Wshadow", "-Wconversion", "-Wundef")


def command_of(name: str) -> tuple[str, ...]:
    programs.tool(COMPILERS[name][0])
    return COMPILERS[name]


@pytest.mark.parametrize("header", ["kad.h", "detector.h"])
@pytest.mark.parametrize("name", COMPILERS)
def test_each_header_stands_alone(name, header, tmp_path):
    source = tmp_path / "alone"
    source.write_text(f"#include <kad/{header}>\n#include <kad/{header}>\nint main(void);\n")
    command = command_of(name)
    programs.run(*command, *STRICT, "-I", abi.INCLUDE, "-fsyntax-only", source)


@pytest.mark.parametrize("name", [name for name in COMPILERS if name.endswith("c++17")])
def test_the_wrapper_stands_alone(name, tmp_path):
    test_each_header_stands_alone(name, "kad.hpp", tmp_path)


@pytest.mark.parametrize("name", COMPILERS)
def test_layout(name):
    found = abi.snapshot(*command_of(name))
    assert found == abi.SNAPSHOT.read_text(), "when the change is meant, run tests/runtime/abi.py"


def test_the_snapshot_is_whole():
    """Nothing that the headers declare escapes the expressions that read them."""
    for header, least in (("kad.h", 25), ("detector.h", 12)):
        text = abi.text_of(header)
        words = set(re.findall(r"\b[Kk][Aa][Dd]_\w+", abi.SNAPSHOT.read_text()))
        declared = set(re.findall(r"\b[Kk][Aa][Dd]_\w+", text))
        assert declared - words <= {"KAD_API", "KAD_STATIC", "KAD_KAD_H", "KAD_DETECTOR_H"}
        assert len(abi.exported(header)) == len(re.findall("^KAD_API ", text, re.MULTILINE))
        assert len(abi.exported(header)) >= least
        fields = [field for fields in abi.structs(text).values() for field in fields]
        bodies = "".join(body for _, body in abi.STRUCT.findall(text))
        assert len(fields) == bodies.count(";")


def test_structs_begin_with_their_size():
    """All but the frozen ones, which never grow."""
    for header in abi.HEADERS:
        comments = (abi.INCLUDE / "kad" / header).read_text()
        for name, fields in abi.structs(abi.text_of(header)).items():
            frozen = re.search(rf"frozen[^/]*\*/\s*typedef struct {name} ", comments)
            by_argument = f"sizeof({name})" in comments  # its size is an argument of a function
            assert (fields[0] == "struct_size") != bool(frozen or by_argument), name


def test_exports():
    """The library has the functions of both headers and nothing else."""
    programs.tool("nm")
    library = programs.build("test") / "libkad.so"
    listed = programs.run("nm", "--dynamic", "--defined-only", library).stdout
    names = {line.split()[-1].split("@")[0] for line in listed.splitlines()}
    assert names == set().union(*map(abi.exported, abi.HEADERS))


def test_so_name():
    programs.tool("readelf")
    dynamic = programs.run("readelf", "--dynamic", programs.build("test") / "libkad.so").stdout
    major, minor = divmod(
        int(re.search(r"KAD_ABI_VERSION (\d+)", abi.SNAPSHOT.read_text())[1]), 1 << 16
    )
    assert f"Library soname: [libkad.so.{major}.{minor}]" in dynamic
    needed = set(re.findall(r"NEEDED.*\[(.*?)\.so", dynamic))
    assert needed <= {"libstdc++", "libm", "libgcc_s", "libc", "ld-linux-x86-64", "libdl"}


def test_structs_of_other_releases(tmp_path):
    """An application built with an older, smaller struct works, and one with a newer."""
    artifact = tiny.write(tmp_path / "board.kad", tiny.patchcore())
    programs.run(programs.program("asan", "test_struct_versions"))
    programs.run(programs.program("asan", "test_struct_sizes"), artifact)
