"""Bad artifacts, each with what the C door and the Python door must say to it.

A case is a name, a function that spoils a folder, and the status of the C door; None where the two
doors only have to agree. Functions that change listed files list them anew, with their true sizes
and hashes, so that the damage is found by what it breaks and not by its hash.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import tiny_artifacts as tiny
from onnx import TensorProto, helper, load_from_string

from kad_sdk.tensors import encode_tensors, read_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Spoil = Callable[[Path], object]
    Named = Iterator[tuple[str, Spoil, str | None]]

FOUND, VERSION, MANIFEST = "NOT_FOUND", "VERSION", "MANIFEST"
LISTING, SIZE, HASH, TENSORS, NETWORK = "LISTING", "SIZE", "HASH", "TENSORS", "NETWORK"

METHODS = {
    "patchcore": tiny.patchcore,
    "cutpaste": tiny.cutpaste,
    "kernel": lambda: tiny.cutpaste("kernel", "tile-score"),
}


def manifest_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def write_manifest(folder: Path, content: object) -> None:
    (folder / "manifest.json").write_text(json.dumps(content))


def relist(folder: Path, *names: str) -> None:
    """List files with the sizes and hashes that they have now."""
    content = manifest_of(folder)
    for name in names:
        data = (folder / name).read_bytes()
        content["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    write_manifest(folder, content)


def rewrite(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)
    relist(folder, name)


# ---- the folder ---------------------------------------------------------------------------------


def _drop_folder(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def _file_for_folder(folder: Path) -> None:
    _drop_folder(folder)
    folder.write_text("{}")


def _replace(name: str, make: Callable[[Path], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).rename(folder.parent / f"{folder.name}.{name}")
        make(folder / name)

    return spoil


def _link(path: Path) -> None:
    path.symlink_to(path.parent.parent / f"{path.parent.name}.{path.name}")


def _hard_named_pipe(path: Path) -> None:
    os.mkfifo(path)


def folder_cases(files: list[str]) -> Named:
    yield "no-folder", _drop_folder, FOUND
    yield "a-file", _file_for_folder, FOUND
    for name in ("manifest.json", *files):
        yield f"missing-{name}", _replace(name, lambda _: None), LISTING
        yield f"link-{name}", _replace(name, _link), LISTING
        yield f"folder-{name}", _replace(name, lambda path: path.mkdir()), LISTING
        yield f"pipe-{name}", _replace(name, _hard_named_pipe), LISTING
    for name in ("notes.txt", ".hidden", "network.onnx.data"):
        yield f"extra-{name}", lambda folder, n=name: (folder / n).write_text("1"), LISTING
    yield "extra-folder", lambda folder: (folder / "more").mkdir(), LISTING
    yield "extra-link", lambda folder: (folder / "up").symlink_to("/etc"), LISTING


def _resized(name: str, change: Callable[[bytes], bytes]) -> Spoil:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def _flipped(name: str, share: float) -> Spoil:
    def flip(data: bytes) -> bytes:
        at = min(int(share * len(data)), len(data) - 1)
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    return _resized(name, flip)


def byte_cases(files: list[str]) -> Named:
    for name in files:
        yield f"empty-{name}", _resized(name, lambda _: b""), SIZE
        yield f"one-byte-less-{name}", _resized(name, lambda data: data[:-1]), SIZE
        yield f"one-byte-more-{name}", _resized(name, lambda data: data + b"\0"), SIZE
        for share in (0, 0.01, 0.5, 1):
            yield f"flipped-{name}-{share}", _flipped(name, share), HASH


# ---- the manifest -------------------------------------------------------------------------------


def _text(change: Callable[[str], str | bytes]) -> Spoil:
    def spoil(folder: Path) -> None:
        text = change((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())

    return spoil


def _edit(change: Callable[[dict[str, Any]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        content = manifest_of(folder)
        change(content)
        write_manifest(folder, content)

    return spoil


def text_cases(size: int) -> Named:
    for length in {*range(0, size, 61), size - 3}:
        yield f"manifest-of-{length}-bytes", _text(lambda text, n=length: text[:n]), MANIFEST
    for at in range(1, size, 43):
        yield f"manifest-flipped-{at}", _flipped("manifest.json", at / size), None
    texts = {
        "deep-lists": "[" * 100_000,
        "deep-objects": '{"a":' * 50_000,
        "a-list": "[]",
        "a-number": "17",
        "nothing": "null",
        "huge": '"' + "x" * (16 << 20) + '"',
        "many-values": "[" + "0," * 500_000 + "0]",
    }
    for name, text in texts.items():
        expected = SIZE if name == "huge" else MANIFEST
        yield f"manifest-{name}", _text(lambda _, t=text: t), expected
    changes: dict[str, Callable[[str], str | bytes]] = {
        "comment": lambda text: text.replace("{", "{ /* hello */", 1),
        "trailing-comma": lambda text: text.rstrip().removesuffix("}") + ",}",
        "two-values": lambda text: text + "{}",
        "key-twice": lambda text: text.replace("{", '{"format": "kad-artifact",', 1),
        "escaped-key-twice": lambda text: text.replace("{", '{"\\u0066ormat": "kad-artifact",', 1),
        "nan": lambda text: text.replace('"sigma": 2.0', '"sigma": NaN'),
        "infinity": lambda text: text.replace('"sigma": 2.0', '"sigma": Infinity'),
        "too-large": lambda text: text.replace('"sigma": 2.0', '"sigma": 1e999'),
        "leading-zero": lambda text: text.replace('"sigma": 2.0', '"sigma": 02.0'),
        "lone-point": lambda text: text.replace('"sigma": 2.0', '"sigma": 2.'),
        "byte-order-mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
        "utf-16": lambda text: text.encode("utf-16"),
        "bad-utf-8": lambda text: text.encode().replace(b'"tiny"', b'"t\xffny"'),
        "overlong-utf-8": lambda text: text.encode().replace(b'"tiny"', b'"t\xc1\xa9ny"'),
        "surrogate-utf-8": lambda text: text.encode().replace(b'"tiny"', b'"\xed\xa0\x80"'),
        "lone-surrogate": lambda text: text.replace('"tiny"', '"\\ud800"'),
        "control-character": lambda text: text.replace('"tiny"', '"ti\tny"'),
        "escaped-control-character": lambda text: text.replace('"tiny"', '"ti\\u0000ny"'),
        "bad-escape": lambda text: text.replace('"tiny"', '"ti\\xny"'),
        "zero-byte": lambda text: text.replace('"tiny"', '"tiny"\0'),
    }
    for name, change in changes.items():
        yield f"manifest-{name}", _text(change), MANIFEST


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Give the place of every value in a document."""
    if path:
        yield path
    if not isinstance(value, dict | list):
        return
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield from places(item, (*path, key))


def _at(content: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        content = content[key]
    return content


def _set(path: tuple[Any, ...], value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        _at(content, path[:-1])[path[-1]] = copy.deepcopy(value)

    return change


def _delete(path: tuple[Any, ...]) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        del _at(content, path[:-1])[path[-1]]

    return change


VALUES = (
    *(None, True, -1, 0, 1, 0.5, 1 << 16, (1 << 16) + 1, (1 << 63) - 1, 1 << 63, 10**400, -0.0),
    *("", "x", "../x", "a\x01", [], [1], [1, 1], [0.1, 0.2, 0.3], {}, {"a": 1}),
)


def value_cases(content: dict[str, Any], entries: tuple[str, ...]) -> Named:
    """Each value of these entries in turn replaced, removed, or given a neighbour."""
    for path in places(content):
        name = ".".join(map(str, path))
        if path[0] not in entries:
            continue
        for i, value in enumerate(VALUES):
            if value != _at(content, path) or type(value) is not type(_at(content, path)):
                yield f"value-{name}-{i}", _edit(_set(path, value)), None
        yield f"without-{name}", _edit(_delete(path)), None
        if isinstance(_at(content, path), dict):
            yield f"more-in-{name}", _edit(_set((*path, "unheard"), 1)), None


def version_cases() -> Named:
    for version in ("2.0", "0.9", "1000.0"):
        yield f"version-{version}", _edit(_set(("format_version",), version)), VERSION
    yield "format", _edit(_set(("format",), "other")), VERSION
    for version in ("1", "1.", ".1", "1.0.0", "1.x", "-1.0", "10000.0", "\u0661.0", "1.0 "):
        yield f"version-{version}", _edit(_set(("format_version",), version)), MANIFEST

    def newer(content: dict[str, Any]) -> None:
        content.update(format_version="1.9", unheard={"of": [1, None]})
        content["thresholds"]["unheard"] = 1.5

    yield "newer-minor", _edit(newer), "OK"


def name_cases() -> Named:
    entry = {"size": 1, "sha256": "0" * 64}
    for name in (
        "../outside",
        "..",
        ".",
        "/etc/passwd",
        "a/b",
        "",
        ".x",
        "a\0b",
        "a\\b",
        "x" * 129,
    ):
        yield f"listed-{name[:20]!r}", _edit(_set(("files", name), entry)), MANIFEST
        yield f"named-{name[:20]!r}", _edit(_set(("network", "file"), name)), MANIFEST
    yield "same-file-twice", _edit(_set(("network", "file"), "golden.safetensors")), MANIFEST
    yield "named-manifest", _edit(_set(("network", "file"), "manifest.json")), MANIFEST


# ---- tensors ------------------------------------------------------------------------------------


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


def _rewritten(name: str, change: Callable[[bytes], bytes]) -> Spoil:
    return lambda folder: rewrite(folder, name, change((folder / name).read_bytes()))


def _retensored(name: str, change: Callable[[dict[str, np.ndarray]], object]) -> Spoil:
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
        yield f"{name}-of-{length}-bytes", _rewritten(name, lambda d, n=length: d[:n]), TENSORS
    yield f"{name}-longer", _rewritten(name, lambda d: d + bytes(8)), TENSORS
    for size in (0, 1, 1 << 20, (1 << 20) + 1, 1 << 63, (1 << 64) - 1):
        change = _rewritten(name, lambda d, n=size: struct.pack("<Q", n) + d[8:])
        yield f"{name}-header-of-{size}", change, TENSORS
    for at in range(0, begin, 5):
        for bit in (1, 32, 128):
            flip = _rewritten(name, lambda d, i=at, b=bit: d[:i] + bytes([d[i] ^ b]) + d[i + 1 :])
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
    overlap = _with_header(name, lambda h: h.update(more=dict(h[first])))
    yield f"{name}-overlap", overlap, TENSORS


def content_cases(name: str, header: dict[str, Any]) -> Named:
    first = next(iter(header))
    yield f"{name}-more", _retensored(name, lambda t: t.update(more=np.zeros(4, np.int64))), TENSORS
    yield f"{name}-fewer", _retensored(name, lambda t: t.pop(first)), TENSORS
    for key, entry in header.items():
        if entry["dtype"] == "F32":
            for value in (np.nan, np.inf, -np.inf):
                change = _retensored(name, lambda t, k=key, v=value: t[k].reshape(-1).put(-1, v))
                yield f"{name}-{key}-{value}", change, TENSORS
        change = _retensored(name, lambda t, k=key: t.update({k: t[k][:-1]}))
        yield f"{name}-{key}-shorter", change, None if key == "samples" else TENSORS


def meaning_cases(method: str) -> Named:
    """Tensors that are well-formed and mean something that scoring must not use."""
    if method == "patchcore":
        for key in ("neighbors", "source_image"):
            for value in (-1, tiny.ROWS if key == "neighbors" else len(tiny.IMAGES)):
                change = _retensored("bank.safetensors", lambda t, k=key, v=value: t[k].put(3, v))
                yield f"{key}-{value}", change, TENSORS
        return
    file = "density.safetensors"
    if method == "cutpaste":
        for value in (0.0, -1.0):
            change = _retensored(file, lambda t, v=value: t["cholesky"].put(0, v))
            yield f"diagonal-{value}", change, TENSORS
        yield "upper-triangle", _retensored(file, lambda t: t["cholesky"].put(3, 0.5)), TENSORS
        return
    none = _retensored(file, lambda t: t.update(samples=t["samples"][:0]))
    yield "no-samples", none, TENSORS
    many = _retensored(file, lambda t: t.update(samples=np.repeat(t["samples"], 2, axis=0)))
    yield "too-many-samples", many, TENSORS
    half = _retensored(file, lambda t: t.update(samples=t["samples"][: tiny.SAMPLES // 2]))
    yield "fewer-samples", half, "OK"


# ---- the network --------------------------------------------------------------------------------


def _graph(name: str, change: Callable[[Any], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        proto = load_from_string((folder / name).read_bytes())
        change(proto)
        rewrite(folder, name, proto.SerializeToString())

    return spoil


def _external(location: str) -> Callable[[Any], None]:
    def change(proto: Any) -> None:
        _make_external(proto.graph.initializer[0], location)

    return change


def _make_external(tensor: Any, location: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "4")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def _external_in_subgraph(proto: Any) -> None:
    tensor = TensorProto(name="hidden", data_type=1, dims=[1])
    _make_external(tensor, "../outside.bin")
    node = helper.make_node("Constant", [], ["unused"], value=tensor)
    branch = helper.make_graph([node], "branch", [], [])
    proto.graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=branch))


def _engine_node(proto: Any) -> None:
    proto.graph.node.append(helper.make_node("EPContext", ["tiles"], ["y"], domain="com.microsoft"))


def _dimension(port: Callable[[Any], Any], axis: int, value: int) -> Callable[[Any], None]:
    def change(proto: Any) -> None:
        port(proto).type.tensor_type.shape.dim[axis].dim_value = value

    return change


def _rename_input(proto: Any) -> None:
    proto.graph.input[0].name = "images"
    for node in proto.graph.node:
        node.input[:] = ["images" if name == "tiles" else name for name in node.input]


def network_cases(name: str, data: bytes) -> Named:
    locations = {
        "inside": "weights.bin",
        "above": "../outside.bin",
        "absolute": "/etc/passwd",
        "process-memory": "/proc/self/mem",
    }
    for key, location in locations.items():
        yield f"{name}-external-{key}", _graph(name, _external(location)), NETWORK
    yield f"{name}-external-in-subgraph", _graph(name, _external_in_subgraph), NETWORK
    yield f"{name}-engine-node", _graph(name, _engine_node), NETWORK
    contents = {
        "empty": b"",
        "garbage": bytes(range(256)),
        "text": b"This is a network.",
        "ort-format": b"\x1c\0\0\0ORTM" + bytes(64),
        "group": b"\x0b",
        "endless-varint": b"\x08" + b"\xff" * 11,
        "long-field": b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        "deep": _nested(400),
    }
    for key, content in contents.items():
        yield f"{name}-{key}", _rewritten(name, lambda _, c=content: c), NETWORK
    for length in range(1, len(data), len(data) // 16):
        yield f"{name}-of-{length}-bytes", _rewritten(name, lambda d, n=length: d[:n]), NETWORK
    # Protobuf drops what lies above 32 bits of a tag: this one is field 13 there.
    long_tag = b"\xea\x80\x80\x80\x10\x00"
    yield f"{name}-tag-of-33-bits", _rewritten(name, lambda d: d + long_tag), NETWORK
    yield f"{name}-input-name", _graph(name, _rename_input), NETWORK
    fixed = _dimension(lambda proto: proto.graph.input[0], 0, 4)
    yield f"{name}-fixed-batch", _graph(name, fixed), NETWORK
    dropped = _graph(name, lambda proto: proto.graph.output.pop())
    yield f"{name}-output-dropped", dropped, NETWORK


def _nested(depth: int) -> bytes:
    """Give a graph in an attribute in a node in a graph and so on."""

    def field(number: int, content: bytes) -> bytes:
        length, size = b"", len(content)
        while size >= 128:
            length += bytes([size & 127 | 128])
            size >>= 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + content

    content = b""
    for _ in range(depth):
        content = field(1, field(5, field(6, content)))
    return field(7, content)
