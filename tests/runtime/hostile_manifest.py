"""Bad manifests; what a case is, is said in hostile.py."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from hostile import LONG, MANIFEST, SIZE, VERSION, flipped, manifest_of, write_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hostile import Named, Spoil


def _text(change: Callable[[str], str | bytes]) -> Spoil:
    def spoil(folder: Path) -> None:
        text = change((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())

    return spoil


def edit(change: Callable[[dict[str, Any]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        content = manifest_of(folder)
        change(content)
        write_manifest(folder, content)

    return spoil


def text_cases(size: int) -> Named:
    for length in {*range(0, size, 61), size - 3}:
        yield f"manifest-of-{length}-bytes", _text(lambda text, n=length: text[:n]), MANIFEST
    for at in range(1, size, 43):
        yield f"manifest-flipped-{at}", flipped("manifest.json", at / size), None
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


def long_cases() -> Named:
    """Give manifests whose errors quote long texts: the reason and what to do stay."""
    deep: Any = []
    for _ in range(40):
        deep = [deep]
    changes: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
        "format": (set_at(("format",), LONG), VERSION),
        "version": (set_at(("format_version",), LONG), MANIFEST),
        "key": (set_at((LONG,), 1), MANIFEST),
        "inner-key": (set_at(("thresholds", LONG), 1), MANIFEST),
        "value": (set_at(("thresholds", "board"), LONG), MANIFEST),
        "created-by": (set_at(("created_by", LONG), 1), MANIFEST),
        "verification": (set_at(("verification", LONG), deep), MANIFEST),
        "file": (set_at(("network", "file"), LONG), MANIFEST),
        "listed-file": (set_at(("files", LONG), {}), MANIFEST),
    }
    for name, (change, expected) in changes.items():
        yield f"long-{name}", edit(change), expected
    twice = f'{{"{LONG}": 1, "{LONG}": 2, '
    yield "long-key-twice", _text(lambda text: text.replace("{", twice, 1)), MANIFEST


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


def set_at(path: tuple[Any, ...], value: Any) -> Callable[[dict[str, Any]], None]:
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
                yield f"value-{name}-{i}", edit(set_at(path, value)), None
        yield f"without-{name}", edit(_delete(path)), None
        if isinstance(_at(content, path), dict):
            yield f"more-in-{name}", edit(set_at((*path, "unheard"), 1)), None


def version_cases() -> Named:
    for version in ("2.0", "0.9", "1000.0"):
        yield f"version-{version}", edit(set_at(("format_version",), version)), VERSION
    yield "format", edit(set_at(("format",), "other")), VERSION
    for version in ("1", "1.", ".1", "1.0.0", "1.x", "-1.0", "10000.0", "\u0661.0", "1.0 "):
        yield f"version-{version}", edit(set_at(("format_version",), version)), MANIFEST

    def newer(content: dict[str, Any]) -> None:
        content.update(format_version="1.9", unheard={"of": [1, None]})
        content["thresholds"]["unheard"] = 1.5

    yield "newer-minor", edit(newer), "OK"


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
        yield f"listed-{name[:20]!r}", edit(set_at(("files", name), entry)), MANIFEST
        yield f"named-{name[:20]!r}", edit(set_at(("network", "file"), name)), MANIFEST
    yield "same-file-twice", edit(set_at(("network", "file"), "golden.safetensors")), MANIFEST
    yield "named-manifest", edit(set_at(("network", "file"), "manifest.json")), MANIFEST


def precision_cases() -> Named:
    for precision in ("fp32", "fp16", "int8"):
        yield f"precision-{precision}", edit(set_at(("network", "precision"), precision)), "OK"
    for precision in ("fp8", "int4", "FP16", "fp32 ", "", None, 16, ["fp16"]):
        changed = edit(set_at(("network", "precision"), precision))
        yield f"precision-{precision}", changed, MANIFEST


def extension_cases() -> Named:
    for name, entries, expected in _extensions():
        yield f"extended-{name}", edit(set_at(("bank", "extended"), entries)), expected


def _extensions() -> Iterator[tuple[str, Any, str]]:
    """Give entries of a bank of 60 rows that was extended."""
    good = {"parent": "0" * 64, "rows": 30, "images": 1, "candidates": 9, "radius": 0.5}
    yield "once", [good], "OK"
    yield "twice", [good, {**good, "rows": 29}], "OK"
    yield "by-all", [good, good], MANIFEST
    yield "by-more", [{**good, "rows": (1 << 63) - 1}, {**good, "rows": (1 << 63) - 1}], MANIFEST
    for key in good:
        yield f"without-{key}", [{k: v for k, v in good.items() if k != key}], MANIFEST
        for i, value in enumerate((None, -1, "x", [])):
            yield f"{key}-{i}", [{**good, key: value}], MANIFEST
    yield "unknown", [{**good, "time": "now"}], MANIFEST
    yield "no-list", good, MANIFEST


def window_cases() -> Named:
    """Give settings of windows, of an artifact in that mode: cells of 4 and 8 px, tiles of 32."""
    windows = {"window_px": 64, "halo_px": 16, "align_px": 8, "patch_px": 4, "label_margin_px": 8}
    core = "patchcore"
    yield "windows-as-they-are", edit(set_at((core, "windows"), windows)), "OK"
    values: dict[str, tuple[Any, ...]] = {
        "window_px": (0, 8, 60, (1 << 16) + 8, 64.0, "64", None),
        "halo_px": (-8, 4, (1 << 15) + 8, 16.5, None),
        "align_px": (0, 4, 12, 16, True),
        "patch_px": (0, 3, 8, 2, None),
        "label_margin_px": (-1, 9, 1 << 16, None),
    }
    for key, several in values.items():
        yield f"without-{key}", edit(_delete((core, "windows", key))), MANIFEST
        for value in several:
            expected = "OK" if (key, value) == ("window_px", 8) else MANIFEST
            yield f"{key}-{value}", edit(set_at((core, "windows", key), value)), expected
    for path, several in {
        (core, "windows"): (None, [], {}, {**windows, "more": 1}),
        (core, "mode"): ("tiles", "strips", None, 1),
        (core, "resampling"): ("bilinear", "adaptive-average"),
        (core, "grid"): ([8, 7], [7, 8], [4, 4]),
        ("preprocessing", "tile"): (28, 40, 64),
        ("network", "outputs", 0, "height"): (7, 16),
        ("network", "outputs", 1, "width"): (8, 3),
    }.items():
        for value in several:
            yield f"{path[-1]}-{value}", edit(set_at(path, value)), MANIFEST


def range_cases(method: str) -> Named:
    """Give numbers that scoring, which is done in float32 and in bounded memory, cannot use."""
    beyond, below = 3.5e38, 1e-46
    preprocessing: list[tuple[str, list[Any]]] = [
        ("tile", [0, (1 << 15) + 1, 1 << 16]),
        ("mean", [[beyond, 0.5, 0.5], [0.5, 0.5, -beyond], [3e38, 0.5, 0.5]]),
        ("std", [[0.2, beyond, 0.2], [0.2, 0.2, below], [0.2, 0, 0.2]]),
        ("resize", [[1 << 16, 1 << 16], [1 << 14, (1 << 14) + 1], [31, 90], [90, 31]]),
    ]
    for key, values in preprocessing:
        for value in values:
            yield f"{key}-{value}", edit(set_at(("preprocessing", key), value)), MANIFEST
    for path in (("map", "sigma"), ("thresholds", "tile"), ("thresholds", "map")):
        for value in (beyond, below, 0):
            yield f"{'.'.join(path)}-{value}", edit(set_at(path, value)), MANIFEST
    for value in (beyond, -1):
        settings = {"h": 3, "h_color": value, "template_window": 7, "search_window": 21}
        yield f"h-color-{value}", edit(set_at(("preprocessing", "denoise"), settings)), MANIFEST
    if method == "kernel":
        for value in (beyond, 1e300, below, 0):
            yield f"bandwidth-{value}", edit(set_at(("density", "bandwidth"), value)), MANIFEST

    def at_the_edge(content: dict[str, Any]) -> None:
        content["preprocessing"].update(mean=[-3e38, 0.5, 1e9], std=[1, 3e38, 1e-28])
        content["preprocessing"].update(resize=[1 << 14, 1 << 14])
        content["map"]["sigma"] = 3.4e38
        content["thresholds"].update(tile=1.2e-38, map=3.4e38)

    yield "at-the-edge", edit(at_the_edge), "OK"
