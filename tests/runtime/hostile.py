"""Bad artifacts, each with what both doors must say to it: here folders, bytes and graphs.

Manifests are in hostile_manifest.py, tensors in hostile_tensors.py.

A case is a name, a function that spoils a folder, and the status of the C door; None where the two
doors only have to agree. Functions that change listed files list them anew, with their true sizes
and hashes, so that the damage is found by what it breaks and not by its hash.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import tiny_artifacts as tiny
from onnx import TensorProto, helper, load_from_string

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Spoil = Callable[[Path], object]
    Named = Iterator[tuple[str, Spoil, str | None]]

FOUND, VERSION, MANIFEST = "NOT_FOUND", "VERSION", "MANIFEST"
LISTING, SIZE, HASH, TENSORS, NETWORK = "LISTING", "SIZE", "HASH", "TENSORS", "NETWORK"

LONG = "\u00e9" * 9000  # no error has room for all of it

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


def flipped(name: str, share: float) -> Spoil:
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
            yield f"flipped-{name}-{share}", flipped(name, share), HASH


def rewritten(name: str, change: Callable[[bytes], bytes]) -> Spoil:
    return lambda folder: rewrite(folder, name, change((folder / name).read_bytes()))


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


def _external_with_long_name(proto: Any) -> None:
    proto.graph.initializer[0].name = LONG
    _make_external(proto.graph.initializer[0], "weights.bin")


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


def _output_of(kind: str) -> Callable[[Any], None]:
    """Cast the last output, in a sound graph."""

    def change(proto: Any) -> None:
        output, to = proto.graph.output[-1], getattr(TensorProto, kind)
        for node in proto.graph.node:
            for names in (node.input, node.output):
                names[:] = ["raw" if name == output.name else name for name in names]
        proto.graph.node.append(helper.make_node("Cast", ["raw"], [output.name], to=to))
        output.type.tensor_type.elem_type = to

    return change


def _rename_input(proto: Any) -> None:
    proto.graph.input[0].name = "images"
    for node in proto.graph.node:
        node.input[:] = ["images" if name == "tiles" else name for name in node.input]


def reading_cases(name: str) -> Named:
    """Give graphs that read other files, or are none: refused whether they are run or not."""
    locations = {
        "inside": "weights.bin",
        "above": "../outside.bin",
        "absolute": "/etc/passwd",
        "process-memory": "/proc/self/mem",
    }
    for key, location in locations.items():
        yield f"{name}-external-{key}", _graph(name, _external(location)), NETWORK
    yield f"{name}-external-long-name", _graph(name, _external_with_long_name), NETWORK
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
        yield f"{name}-{key}", rewritten(name, lambda _, c=content: c), NETWORK
    # Protobuf drops what lies above 32 bits of a tag: this one is field 13 there.
    long_tag = b"\xea\x80\x80\x80\x10\x00"
    yield f"{name}-tag-of-33-bits", rewritten(name, lambda d: d + long_tag), NETWORK


def network_cases(name: str, data: bytes) -> Named:
    """Give graphs that are refused when they are to be run."""
    yield from reading_cases(name)
    for length in range(1, len(data), len(data) // 16):
        yield f"{name}-of-{length}-bytes", rewritten(name, lambda d, n=length: d[:n]), NETWORK
    yield f"{name}-input-name", _graph(name, _rename_input), NETWORK
    fixed = _dimension(lambda proto: proto.graph.input[0], 0, 4)
    yield f"{name}-fixed-batch", _graph(name, fixed), NETWORK
    fixed_output = _dimension(lambda proto: proto.graph.output[-1], 0, 4)
    yield f"{name}-fixed-output-batch", _graph(name, fixed_output), NETWORK
    for kind in ("FLOAT16", "DOUBLE"):
        yield f"{name}-output-of-{kind}", _graph(name, _output_of(kind)), NETWORK
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
