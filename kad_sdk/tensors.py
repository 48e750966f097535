"""A strict subset of safetensors: memory-mapped reading, deterministic atomic writing.

The format (https://github.com/huggingface/safetensors): 8 bytes little-endian header length N, N
bytes of JSON ``{name: {"dtype", "shape", "data_offsets"}}``, then the tensors' bytes. The reader
accepts what the `safetensors` package writes and refuses holes, overlaps, trailing bytes, unknown
dtypes and repeated names, so that one file has one meaning.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from kad_sdk.errors import ArtifactCorruptError, InvalidArgumentError
from kad_sdk.storage import map_file, strict_json, write_atomic

if TYPE_CHECKING:
    import mmap
    import os
    from collections.abc import Mapping

    from numpy.typing import NDArray

_Entry: TypeAlias = "tuple[np.dtype[Any], tuple[int, ...], int, int]"  # dtype, shape, begin, end

__all__ = ["encode_tensors", "parse_tensors", "read_tensors", "write_tensors"]

_DTYPES: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "U8": np.dtype("u1"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_HEADER_LIMIT = 1 << 20  # bytes; our files hold a handful of tensors
_ALIGNMENT = 64  # of the first tensor, in bytes: a cache line
_MAX_DIMS = 8
_MAX_BYTES = 1 << 62


def read_tensors(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Map a safetensors file.

    Returns
    -------
    dict
        Name to read-only array; the arrays share the mapping, which lives as long as they do.

    Raises
    ------
    ArtifactCorruptError
        The file cannot be opened or breaks a rule of the format; the text names file and check.
    """
    path = Path(path)
    try:
        data = map_file(path)
    except OSError as error:
        raise ArtifactCorruptError(f"{path}: cannot be opened: {error.strerror}") from error
    return parse_tensors(data, str(path))


def parse_tensors(data: mmap.mmap | bytes, name: str) -> dict[str, NDArray[Any]]:
    """Arrays over the bytes of a safetensors file; `name` is what errors call the file."""
    size = len(data)
    if size < 8:
        raise ArtifactCorruptError(f"{name}: expected at least 8 bytes, got {size}")
    header_size = int.from_bytes(data[:8], "little")
    if header_size > min(_HEADER_LIMIT, size - 8):
        raise ArtifactCorruptError(
            f"{name}: the header's length must be at most {min(_HEADER_LIMIT, size - 8)}, got "
            f"{header_size}: the file is truncated or is not a safetensors file"
        )
    begin = 8 + header_size
    try:
        header = strict_json(data[8:begin], limit=_HEADER_LIMIT)
    except ValueError as error:
        raise ArtifactCorruptError(f"{name}: header: {error}") from error
    if not isinstance(header, dict):
        raise ArtifactCorruptError(f"{name}: header: expected a JSON object")
    _check_metadata(header.pop("__metadata__", {}), name)
    entries = {key: _entry(value, f"{name}: tensor {key!r}") for key, value in header.items()}
    _check_layout(entries, size - begin, name)
    return {key: _view(data, begin, entry, f"{name}: {key}") for key, entry in entries.items()}


def _check_metadata(metadata: object, name: str) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ArtifactCorruptError(f"{name}: __metadata__ must map strings to strings")


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < _MAX_BYTES


def _entry(value: object, where: str) -> _Entry:
    """One header entry, checked on its own: (dtype, shape, begin, end)."""
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise ArtifactCorruptError(f"{where}: expected the keys dtype, shape, data_offsets")
    dtype = _DTYPES.get(value["dtype"]) if isinstance(value["dtype"], str) else None
    if dtype is None:
        raise ArtifactCorruptError(
            f"{where}: expected a dtype of {', '.join(_DTYPES)}, got {value['dtype']!r}"
        )
    shape, offsets = value["shape"], value["data_offsets"]
    if not isinstance(shape, list) or len(shape) > _MAX_DIMS or not all(map(_is_size, shape)):
        raise ArtifactCorruptError(f"{where}: expected a shape of sizes, got {shape!r}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise ArtifactCorruptError(f"{where}: expected two offsets, got {offsets!r}")
    begin, end = offsets
    expected = math.prod(shape) * dtype.itemsize
    if end - begin != expected:
        raise ArtifactCorruptError(
            f"{where}: {dtype} {tuple(shape)} takes {expected} bytes, not {end - begin}"
        )
    return dtype, tuple(shape), begin, end


def _check_layout(entries: Mapping[str, _Entry], size: int, name: str) -> None:
    """No hole, no overlap, and the last tensor's end is the file's end."""
    position = 0
    for key, (_, _, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != position:
            raise ArtifactCorruptError(
                f"{name}: tensor {key!r} should begin at byte {position} of the data, begins at "
                f"{begin}: holes and overlaps are not allowed"
            )
        position = end
    if position != size:
        raise ArtifactCorruptError(
            f"{name}: the tensors take {position} bytes, the file holds {size}"
        )


def _view(data: mmap.mmap | bytes, begin: int, entry: _Entry, where: str) -> NDArray[Any]:
    dtype, shape, first, last = entry
    if (begin + first) % dtype.itemsize:
        raise ArtifactCorruptError(
            f"{where}: begins at byte {begin + first} of the file, not a multiple of "
            f"{dtype.itemsize}: write it again with write_tensors"
        )
    count = (last - first) // dtype.itemsize
    flat = np.frombuffer(data, dtype=dtype, count=count, offset=begin + first)
    return flat.reshape(shape)


def encode_tensors(tensors: Mapping[str, NDArray[Any]]) -> list[bytes | memoryview]:
    """Make the bytes of a safetensors file, as header followed by one part for each tensor.

    Tensors lie by falling item size, then by name, so that each is aligned and the bytes do not
    depend on the order of `tensors`. The first one begins at a multiple of 64 bytes.

    Raises
    ------
    InvalidArgumentError
        A dtype other than float32, float16, int64, int32 and uint8, or an unusable name.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name, tensor in tensors.items():
        if not name or name == "__metadata__":
            raise InvalidArgumentError(f"{name!r} cannot be the name of a tensor")
        if tensor.dtype.newbyteorder("<") not in _NAMES:
            allowed = ", ".join(str(dtype) for dtype in _NAMES)
            raise InvalidArgumentError(
                f"tensor {name!r}: expected a dtype of {allowed}, got {tensor.dtype}"
            )
        little = tensor.astype(tensor.dtype.newbyteorder("<"), order="C", copy=False)
        arrays[name] = np.ascontiguousarray(little).reshape(tensor.shape)
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header, position = {}, 0
    for name in order:
        array = arrays[name]
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [position, position + array.nbytes],
        }
        position += array.nbytes
    text = json.dumps(header, separators=(",", ":"), sort_keys=True).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    bodies = [arrays[name].reshape(-1).view(np.uint8).data for name in order]
    return [len(text).to_bytes(8, "little") + text, *bodies]


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write a safetensors file atomically; the same tensors give the same bytes.

    Raises
    ------
    InvalidArgumentError
        As :func:`encode_tensors`.
    OutputError
        The file cannot be written.
    """
    write_atomic(Path(path), *encode_tensors(tensors))
