"""Bad files of what is set on site; what a case is, is said in hostile.py."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from hostile import HASH, LISTING, MANIFEST, SIZE, VERSION, relist
from hostile_manifest import VALUES, places, set_at

from kad_sdk.inspection import CalibrationEntry, FalseAlarms, Inspection, Tau

if TYPE_CHECKING:
    from pathlib import Path

    from hostile import Named, Spoil

FILE = "inspection.json"


def calibration(tile: float, board: float, method: str = "quantile=0.99") -> CalibrationEntry:
    return CalibrationEntry(
        method=method,
        time="2026-11-27T08:00:00Z",
        tile=Tau(tile, 0.05, (tile, 2 * tile)),
        map=Tau(board, 0.03, (0.5 * board, board)),
        confidence=0.95,
        good_boards=12,
        defective_boards=0,
        normal_tiles=480,
        defect_tiles=0,
        tile_false_alarms=FalseAlarms(0.01, (0.0, 0.02)),
        board_false_alarms=None,
    )


def inspection(folder: Path, **changes: Any) -> Inspection:
    """Give what is set on an artifact that has been calibrated twice."""
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    calibrations = (calibration(0.5, 0.6), calibration(0.35, 0.45))
    return Inspection(digest, **{"calibrations": calibrations, **changes})


def write(folder: Path, **changes: Any) -> None:
    (folder / FILE).write_text(inspection(folder, **changes).to_json())


def _content(folder: Path) -> dict[str, Any]:
    return json.loads(inspection(folder).to_json())


def _edited(path: tuple[Any, ...], value: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        content = _content(folder)
        set_at(path, value)(content)
        (folder / FILE).write_text(json.dumps(content))

    return spoil


def _text(change: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        data = change(inspection(folder).to_json().encode())
        (folder / FILE).write_bytes(data)

    return spoil


def _listed(folder: Path) -> None:
    write(folder)
    relist(folder, FILE)


def _other_manifest(folder: Path) -> None:
    write(folder)
    with (folder / "manifest.json").open("a") as manifest:
        manifest.write("\n")


def cases(good: Path) -> Named:
    """Each value in turn replaced or removed; versions, bytes, places."""
    yield "set", write, "OK"
    yield "empty", lambda folder: write(folder, calibrations=()), "OK"
    yield "of-another-manifest", _other_manifest, HASH
    yield "listed", _listed, MANIFEST
    yield "a-folder", lambda folder: (folder / FILE).mkdir(), LISTING
    yield "a-link", lambda folder: (folder / FILE).symlink_to("manifest.json"), LISTING
    yield "too-large", _text(lambda data: data + b" " * (1 << 20)), SIZE
    for n in range(0, 600, 37):
        yield f"of-{n}-bytes", _text(lambda data, n=n: data[:n]), MANIFEST
    yield "key-twice", _text(lambda d: d.replace(b"{", b'{"version": 1,', 1)), MANIFEST
    yield "a-list", _text(lambda _: b"[]"), MANIFEST
    for value in ("kad-artifact", None, 1):
        yield f"format-{value}", _edited(("format",), value), VERSION
    for value in (0, 2, 10**30, -1):
        yield f"version-{value}", _edited(("version",), value), VERSION
    for value in (1.0, "1", None, True):
        yield f"version-{value!r}", _edited(("version",), value), MANIFEST
    yield "unknown-key", _edited(("rule",), 1), MANIFEST
    for path in places(_content(good)):
        if path[0] in {"format", "version"}:
            continue
        name = ".".join(map(str, path))
        for i, value in enumerate(VALUES):
            yield f"{name}-value-{i}", _edited(path, value), None
