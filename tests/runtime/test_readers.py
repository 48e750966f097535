"""JSON and SHA-256 of the C door against Python's own."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess

import numpy as np
import programs
import tiny_artifacts as tiny

from kad_sdk.storage import strict_json

PIECES = (
    *("{", "}", "[", "]", ",", ":", '"', "\\", " ", "\n", "0", "1", "-", ".", "e", "E", "+", "9"),
    *("true", "false", "null", "NaN", "Infinity", "\\u00e9", "\\ud83d\\ude00", "\\n", "\x01"),
    *("é", "😀", "\ufeff", "\0", '"a":', "1e5", "-0", "1.5", "1e400", "9223372036854775808", "//"),
)


def read_back(what: str, data: bytes) -> list[str]:
    program = programs.program("asan", "read_back")
    found = subprocess.run([program, what], input=data, capture_output=True, check=True)
    assert not found.stderr
    return found.stdout.decode().splitlines()


def dump(value: object) -> str:
    """Write a parsed value as the program does."""
    match value:
        case dict():
            return "{" + "".join(f"{dump(k)}:{dump(v)}," for k, v in value.items()) + "}"
        case list():
            return "[" + "".join(f"{dump(item)}," for item in value) + "]"
        case str():
            return "s" + value.encode().hex()
        case bool() | None:
            return json.dumps(value)
        case int():
            return f"i{value}" if -(1 << 63) <= value < 1 << 63 else "big"
        case _:
            return "d" + struct.pack(">d", value).hex()


def documents() -> list[bytes]:
    """Give texts near JSON: a manifest with small damages, and pieces put together by chance."""
    generator = np.random.default_rng(tiny.SEED)
    manifest = tiny.patchcore()[0].to_json()
    texts = [manifest.encode(), b"", b" ", b"\xff", b"[" * 64 + b"]" * 64, b"[" * 66 + b"]" * 66]
    texts += [text.encode() for text in ('"a"', "1.5", "[1.25, -0.0, 1e-320, 1e22]", '{"a": 1E5}')]
    for _ in range(1500):
        data = bytearray(manifest.encode())
        for at in generator.integers(0, len(data), generator.integers(1, 4)):
            data[at] = generator.integers(0, 256) if generator.random() < 0.3 else data[at - 1]
        texts.append(bytes(data))
    for _ in range(6000):
        chosen = generator.choice(PIECES, generator.integers(1, 12))
        texts.append("".join(chosen).encode())
        inner = "".join(generator.choice(PIECES[10:], generator.integers(1, 3)))
        texts.append(f'[{inner}, {{"{inner}": {inner}}}]'.encode())
    return texts


def test_json():
    texts = documents()
    framed = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    accepted = 0
    for text, found in zip(texts, read_back("json", framed), strict=True):
        try:
            expected = dump(strict_json(text, limit=1 << 24))
        except ValueError:
            expected = "refused"
        if text.startswith(b"[[[[[[") and len(text) == 132:
            expected = "refused"  # 66 levels: Python's own limit is higher
        assert found == expected, text
        accepted += found != "refused"
    assert len(texts) > accepted > 100


def test_sha256():
    data = bytes(np.random.default_rng(tiny.SEED).integers(0, 256, 300, dtype=np.uint8))
    for n, line in enumerate(read_back("sha256", data)):
        digest = hashlib.sha256(data[:n]).hexdigest()
        assert line == f"{digest} {digest}"
