"""Bad files of what is set on site; what a case is, is said in hostile.py."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from hostile import HASH, LISTING, MANIFEST, SIZE, VERSION, relist
from hostile_manifest import VALUES, places, set_at

from kad_sdk.inspection import CalibrationEntry, FalseAlarms, Inspection, Tau
from kad_sdk.rules import NO_RULES, Rules, RulesEntry, Zone

if TYPE_CHECKING:
    from pathlib import Path

    from hostile import Named, Spoil

FILE = "inspection.json"


RULES = Rules(((0, 90, 300, 60),), (Zone((60, 20, 60, 50), 1.7),), 5, 30)


def calibration(
    tile: float, board: float, method: str = "quantile=0.99", rules: Rules = NO_RULES
) -> CalibrationEntry:
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
        rules=rules,
    )


def inspection(folder: Path, **changes: Any) -> Inspection:
    """Give what is set on an artifact that has been calibrated twice, with rules set between."""
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    content = {
        "calibrations": (
            calibration(0.5, 0.6),
            calibration(0.35, 0.45, rules=Rules(edge_margin_px=3)),
        ),
        "rules": (RulesEntry("2026-11-27T08:00:00Z", RULES),),
    }
    return Inspection(digest, **{**content, **changes})


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


def _version_1(**more: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        content = {**_content(folder), "version": 1}
        del content["rules"]
        for entry in content["calibrations"]:
            del entry["rules"]
        (folder / FILE).write_text(json.dumps({**content, **more}))

    return spoil


_IN_FORCE = ("rules", 0, "rules")
RANGES = [
    ((*_IN_FORCE, "ignore"), [], "OK"),
    ((*_IN_FORCE, "ignore"), {}, MANIFEST),
    *(
        ((*_IN_FORCE, "ignore", 0), rect, expected)
        for rect, expected in (
            ([2**31 - 1, 2**31 - 1, 2**31 - 1, 2**31 - 1], "OK"),
            ([2**31, 0, 1, 1], MANIFEST),
            ([0, 0, 2**31, 1], MANIFEST),
            ([0, -1, 1, 1], MANIFEST),
            ([0, 0, 0, 1], MANIFEST),
            ([0, 0, 1], MANIFEST),
            ([0, 0, 1, 1, 1], MANIFEST),
            ([0, 0, 1.0, 1], MANIFEST),
        )
    ),
    *(
        ((*_IN_FORCE, "zones", 0, "factor"), factor, expected)
        for factor, expected in (
            (0.01, "OK"),
            (100, "OK"),
            (0.00999, MANIFEST),
            (100.0001, MANIFEST),
            (0, MANIFEST),
            (-1.5, MANIFEST),
            (None, MANIFEST),
        )
    ),
    ((*_IN_FORCE, "zones", 0, "name"), "a", MANIFEST),
    ((*_IN_FORCE, "edge_margin_px"), 1 << 16, "OK"),
    ((*_IN_FORCE, "edge_margin_px"), (1 << 16) + 1, MANIFEST),
    ((*_IN_FORCE, "min_region_area_px"), None, "OK"),
    ((*_IN_FORCE, "min_region_area_px"), 2**31 - 1, "OK"),
    ((*_IN_FORCE, "min_region_area_px"), 2**31, MANIFEST),
    ((*_IN_FORCE, "min_region_area_px"), 0, MANIFEST),
    (("calibrations", 0, "rules", "edge_margin_px"), -1, MANIFEST),
    (("rules", 0, "time"), "", MANIFEST),
]


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
    yield "empty", lambda folder: write(folder, calibrations=(), rules=()), "OK"
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
    for value in (0, 3, 10**30, -1):
        yield f"version-{value}", _edited(("version",), value), VERSION
    for value in (1.0, "1", None, True):
        yield f"version-{value!r}", _edited(("version",), value), MANIFEST
    yield "unknown-key", _edited(("rule",), 1), MANIFEST
    yield "version-1", _version_1(), "OK"
    yield "version-1-with-rules", _version_1(rules=[]), MANIFEST
    yield "version-1-of-2", _edited(("version",), 1), MANIFEST
    for path, value, expected in RANGES:
        yield f"{'.'.join(map(str, path))}={value}", _edited(path, value), expected
    for path in places(_content(good)):
        if path[0] in {"format", "version"}:
            continue
        name = ".".join(map(str, path))
        for i, value in enumerate(VALUES):
            yield f"{name}-value-{i}", _edited(path, value), None
