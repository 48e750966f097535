"""Bad tensor files; what a case is, is said in hostile.py."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import tiny_artifacts as tiny
from hostile import LONG, TENSORS, rewrite, rewritten

from kad_sdk.tensors import encode_tensors, read_tensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hostile import Named, Spoil


def _header(data: bytes) -> tuple[dict[str, Any], bytes]:
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def _with_header(name: str, change: Callable[[dict[str, Any]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        header, body = _header((folder / name).read_bytes())
        changed = change(header)
        text = changed if isinstance(changed, bytes) else json.dumps(header).encode()
        text += b" " * (-(8 + len(text)) % 64)
        rewrite(folder, name, struct.pack("<Q", len(text)) + text + body)

    return spoil


def retensored(name: str, change: Callable[[dict[str, np.ndarray]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        tensors = {key: tensor.copy() for key, tensor in read_tensors(folder / name).items()}
        change(tensors)
        rewrite(folder, name, b"".join(bytes(part) for part in encode_tensors(tensors)))

    return spoil


def tensor_cases(name: str, data: bytes) -> Named:
    header, _ = _header(data)
    begin = len(data) - max(entry["data_offsets"][1] for entry in header.values())
    ends = {begin + entry["data_offsets"][1] for entry in header.values()} - {len(data)}
    for length in sorted({0, 1, 7, 8, 9, begin - 1, begin, begin + 1, *ends, len(data) - 1}):
        yield f"{name}-of-{length}-bytes", rewritten(name, lambda d, n=length: d[:n]), TENSORS
    yield f"{name}-longer", rewritten(name, lambda d: d + bytes(8)), TENSORS
    for size in (0, 1, 1 << 20, (1 << 20) + 1, 1 << 63, (1 << 64) - 1):
        change = rewritten(name, lambda d, n=size: struct.pack("<Q", n) + d[8:])
        yield f"{name}-header-of-{size}", change, TENSORS
    for at in range(0, begin, 5):
        for bit in (1, 32, 128):
            flip = rewritten(name, lambda d, i=at, b=bit: d[:i] + bytes([d[i] ^ b]) + d[i + 1 :])
            yield f"{name}-flipped-{at}-{bit}", flip, None
    yield from header_cases(name, header)
    yield from content_cases(name, header)


def header_cases(name: str, header: dict[str, Any]) -> Named:
    texts = {
        "deep": b"[" * 100_000,
        "list": b"[]",
        "empty": b"{}",
        "twice": b'{"a": 1, "a": 1}',
        "metadata": b'{"__metadata__": {"a": 1}}',
    }
    for key, text in texts.items():
        yield f"{name}-header-{key}", _with_header(name, lambda _, t=text: t), TENSORS
    first = next(iter(header))
    begin_at, end_at = header[first]["data_offsets"]
    fields = {
        "dtype": ("F64", "f32", "BOOL", 4, None),
        "shape": (
            *([], [-1], [1 << 61, 8], [1 << 62], [1 << 63], [1 << 32, 1 << 32], [1.0], ["1"]),
            *([0], [1] * 9, [True], 5, None, [1 << 31, 1 << 31, 4]),
        ),
        "data_offsets": (
            *([begin_at + 1, end_at + 1], [begin_at, end_at - 1], [end_at, begin_at], [begin_at]),
            *([-4, end_at], [0, 1 << 62], [1 << 63, (1 << 63) + 4], [0.0, 4.0], None, [0, 0, 0]),
        ),
    }
    for field, values in fields.items():
        for i, value in enumerate(values):
            change = _with_header(name, lambda h, f=field, v=value: h[first].update({f: v}))
            yield f"{name}-{field}-{i}", change, TENSORS
    long_texts: dict[str, Callable[[dict[str, Any]], object]] = {
        "name": lambda h: h.update({LONG: h.pop(first)}),
        "broken-name": lambda h: h.update({LONG: 1}),
        "key": lambda h: h[first].update({LONG: 1}),
        "dtype": lambda h: h[first].update(dtype=LONG),
        "size": lambda h: h[first].update(shape=[LONG]),
        "sizes": lambda h: h[first].update(shape=LONG),
    }
    for key, change in long_texts.items():
        yield f"{name}-long-{key}", _with_header(name, change), TENSORS
    overlap = _with_header(name, lambda h: h.update(more=dict(h[first])))
    yield f"{name}-overlap", overlap, TENSORS


def content_cases(name: str, header: dict[str, Any]) -> Named:
    first = next(iter(header))
    yield f"{name}-more", retensored(name, lambda t: t.update(more=np.zeros(4, np.int64))), TENSORS
    yield f"{name}-fewer", retensored(name, lambda t: t.pop(first)), TENSORS
    for key, entry in header.items():
        if entry["dtype"] == "F32":
            for value in (np.nan, np.inf, -np.inf):
                change = retensored(name, lambda t, k=key, v=value: t[k].reshape(-1).put(-1, v))
                yield f"{name}-{key}-{value}", change, TENSORS
        change = retensored(name, lambda t, k=key: t.update({k: t[k][:-1]}))
        yield f"{name}-{key}-shorter", change, None if key == "samples" else TENSORS


def meaning_cases(method: str) -> Named:
    """Tensors that are well-formed and mean something that scoring must not use."""
    if method == "patchcore":
        for key in ("neighbors", "source_image"):
            for value in (-1, tiny.ROWS if key == "neighbors" else len(tiny.IMAGES)):
                change = retensored("bank.safetensors", lambda t, k=key, v=value: t[k].put(3, v))
                yield f"{key}-{value}", change, TENSORS
        return
    file = "density.safetensors"
    if method == "cutpaste":
        for value in (0.0, -1.0):
            change = retensored(file, lambda t, v=value: t["cholesky"].put(0, v))
            yield f"diagonal-{value}", change, TENSORS
        yield "upper-triangle", retensored(file, lambda t: t["cholesky"].put(3, 0.5)), TENSORS
        return
    none = retensored(file, lambda t: t.update(samples=t["samples"][:0]))
    yield "no-samples", none, TENSORS
    many = retensored(file, lambda t: t.update(samples=np.repeat(t["samples"], 2, axis=0)))
    yield "too-many-samples", many, TENSORS
    half = retensored(file, lambda t: t.update(samples=t["samples"][: tiny.SAMPLES // 2]))
    yield "fewer-samples", half, "OK"
