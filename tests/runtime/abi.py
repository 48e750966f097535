"""The C ABI as the headers state it: functions, and what a compiler makes of structs and values.

``python tests/runtime/abi.py`` replaces the snapshot ``tests/c/abi_layout.txt`` after a change that
is meant.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import programs

INCLUDE = programs.ROOT / "kad_sdk" / "include"
HEADERS = ("kad.h", "detector.h")
SNAPSHOT = programs.ROOT / "tests" / "c" / "abi_layout.txt"

STRUCT = re.compile(r"typedef struct (\w+) \{(.*?)\} \1;", re.DOTALL)
FIELD = re.compile(r"(\w+)\s*(?:\[\w+\])?;")
ENUM = re.compile(r"enum\s*\{(.*?)\};", re.DOTALL)
FUNCTION = re.compile(r"KAD_API ([^;{]*);")
CALLBACK = re.compile(r"typedef ([\w ]+ \(\*\w+\)[^;]*);")


def text_of(header: str) -> str:
    """Give a header without its comments."""
    text = (INCLUDE / "kad" / header).read_text()
    return re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.DOTALL)


def _one_line(declaration: str) -> str:
    return " ".join(declaration.split())


def structs(text: str) -> dict[str, list[str]]:
    """Give the fields of every struct."""
    return {name: FIELD.findall(body) for name, body in STRUCT.findall(text)}


def values(text: str) -> list[str]:
    """Give the names of every value, the version first."""
    names = re.findall(r"#define (KAD_ABI_VERSION)\b", text)
    for body in ENUM.findall(text):
        names += re.findall(r"(\w+)\s*=", body)
    return names


def declared(text: str) -> list[str]:
    """Give every struct as one line: its types, which sizes and offsets do not tell."""
    return [f"struct {name} {{ {_one_line(body)} }}" for name, body in STRUCT.findall(text)]


def functions(text: str) -> list[str]:
    """Give every function and type of callback, each as one line."""
    return [_one_line(found) for pattern in (FUNCTION, CALLBACK) for found in pattern.findall(text)]


def exported(header: str) -> set[str]:
    """Give the names of a header's functions."""
    return {
        re.search(r"(\w+)\(", line)[1] for line in functions(text_of(header)) if "(*" not in line
    }


def program(header: str) -> str:
    """Write a program that prints sizes, offsets and values."""
    text = text_of(header)
    lines = []
    for name, fields in structs(text).items():
        lines.append(f'printf("{name} 0 %d\\n", (int)sizeof({name}));')
        lines += [
            f'printf("{name}.{field} %d %d\\n", (int)offsetof({name}, {field}), '
            f"(int)sizeof((({name}*)0)->{field}));"
            for field in fields
        ]
    lines += [f'printf("{name} %ld\\n", (long){name});' for name in values(text)]
    body = "\n".join(lines)
    includes = f'#include <stddef.h>\n#include <stdio.h>\n#include "kad/{header}"\n'
    return f"{includes}int main(void) {{\n{body}\nreturn 0;\n}}\n"


def snapshot(*compiler: str) -> str:
    """Give the ABI as a compiler with these options lays it out."""
    parts = []
    with tempfile.TemporaryDirectory() as scratch:
        for header in HEADERS:
            source, made = Path(scratch) / "layout.c", Path(scratch) / "layout"
            source.write_text(program(header))
            programs.run(*compiler, "-I", INCLUDE, source, "-o", made)
            text = text_of(header)
            lines = (*declared(text), *functions(text))
            parts += [programs.run(made).stdout, *(f"{line}\n" for line in lines)]
    return "".join(parts)


if __name__ == "__main__":
    SNAPSHOT.write_text(snapshot("cc", "-std=c11"))
