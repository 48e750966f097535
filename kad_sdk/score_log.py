"""The log of scores: one JSON line for each board that was scored, for :mod:`kad_sdk.drift`.

A line says when which board was scored, what its tile scores look like, and how bright it is::

    {"version": 1, "time": "2026-11-27T08:00:00Z", "image": "a.jpg", "scoring": "9f...", ...}

``scoring`` identifies everything that tile scores hang on: the artifact's network, bank or density,
and settings, not its thresholds. Lines of different scoring cannot be compared.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from kad_sdk.drift import MEASURES, QUANTILES, board_measures
from kad_sdk.errors import ScoreLogError
from kad_sdk.images import full_scale
from kad_sdk.manifest import CutPasteManifest, PatchCoreManifest
from kad_sdk.schema import Pattern, Range, SchemaError, decode
from kad_sdk.storage import strict_json, writing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from kad_sdk.detector import Detector
    from kad_sdk.manifest import Manifest
    from kad_sdk.result import Result

__all__ = ["LogEntry", "append_entry", "entry_of", "log_measures", "read_log", "scoring_id"]

_LINE_BYTES = 1 << 16

Digest = Annotated[str, Pattern("[0-9a-f]{64}", "a SHA-256 in hexadecimal")]
Time = Annotated[
    str, Pattern(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "a time such as 2026-11-27T08:00:00Z")
]
Count = Annotated[int, Range(1)]


@dataclass(frozen=True)
class LogEntry:
    """One line: a board's score, its tile scores' number, moments and quantiles, its brightness.

    The brightness is the mean of the scored tiles' pixels, in units of full scale.
    """

    version: Literal[1]
    time: Time
    image: str
    scoring: Digest
    precision: str
    anomalous: bool
    score: float
    tiles: Count
    tile_mean: float
    tile_std: float
    tile_quantiles: tuple[float, ...]
    brightness: float


def scoring_id(manifest: Manifest) -> str:
    """Give a SHA-256 of all that an artifact's tile scores hang on."""
    facts: dict[str, object] = {
        "method": manifest.method,
        "preprocessing": asdict(manifest.preprocessing),
        "files": {
            name: entry.sha256
            for name, entry in manifest.files.items()
            if name != manifest.golden.file
        },
    }
    if isinstance(manifest, PatchCoreManifest):
        facts["patchcore"] = asdict(manifest.patchcore)
    if isinstance(manifest, CutPasteManifest):
        facts["density"] = asdict(manifest.density)
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def entry_of(detector: Detector, result: Result, image: NDArray[Any], name: str) -> LogEntry:
    """Sum up a result for the log, now; `image` is the board and `name` what it is called."""
    scores = np.array([tile.score for tile in result.tiles])
    brightness = _brightness(image, result, detector.artifact.manifest.preprocessing.tile)
    *quantiles, brightness = board_measures(scores, brightness).tolist()
    return LogEntry(
        version=1,
        time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        image=name,
        scoring=scoring_id(detector.artifact.manifest),
        precision=detector.precision,
        anomalous=result.anomalous,
        score=result.score,
        tiles=scores.size,
        tile_mean=float(scores.mean()),
        tile_std=float(scores.std()),
        tile_quantiles=tuple(quantiles),
        brightness=brightness,
    )


def _brightness(image: NDArray[Any], result: Result, tile: int) -> float:
    """Mean of every fourth pixel, each way, of the scored tiles, over full scale."""
    pixels = image if image.ndim == 2 else image[..., :3]  # without transparency
    sy, sx = (a / b for a, b in zip(result.image_size, result.frame_size, strict=True))
    means = []
    for t in result.tiles:
        rows = slice(int(t.y * sy), int((t.y + tile) * sy), 4)
        columns = slice(int(t.x * sx), int((t.x + tile) * sx), 4)
        means.append(float(pixels[rows, columns].mean()))
    return sum(means) / len(means) / full_scale(image)


def append_entry(path: Path, entry: LogEntry) -> None:
    """Add a line to a log, which is made where there is none; several processes may do so at once.

    Raises
    ------
    OutputError
        The file cannot be written, and is as it was.
    """
    line = json.dumps(asdict(entry), allow_nan=False).encode() + b"\n"
    with writing(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _append(descriptor, line)
        finally:
            os.close(descriptor)


def _append(descriptor: int, line: bytes) -> None:
    """Add a line whole or not at all: of a full disk half a one would spoil the next, too."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # what is cut off again is nobody else's
    size = os.fstat(descriptor).st_size
    written = 0
    try:
        written = os.write(descriptor, line)
    finally:
        if written < len(line):
            with suppress(OSError):  # a pipe has no end to cut off
                os.ftruncate(descriptor, size)
    if written < len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_log(path: Path, *, last: int | None = None) -> list[LogEntry]:
    """Read a log, or its last lines.

    Raises
    ------
    ScoreLogError
        The file is missing or empty, or a line is not an entry; the text names the line.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ScoreLogError(
            f"{path}: cannot be read: {error.strerror}; it is written by "
            "kad score --log-scores FILE"
        ) from error
    begin = 0 if last is None else max(0, len(lines) - last)
    if not lines[begin:]:
        raise ScoreLogError(f"{path}: no boards in it; score some with --log-scores {path}")
    return [_entry(path, begin + i, line) for i, line in enumerate(lines[begin:], 1)]


def _entry(path: Path, number: int, line: bytes) -> LogEntry:
    try:
        entry: LogEntry = decode(LogEntry, strict_json(line, limit=_LINE_BYTES))
    except (SchemaError, ValueError) as error:
        raise ScoreLogError(
            f"{path}, line {number}: {error}; remove the line if it was cut off"
        ) from error
    if len(entry.tile_quantiles) != len(QUANTILES):
        raise ScoreLogError(
            f"{path}, line {number}: tile_quantiles: expected {len(QUANTILES)} numbers, got "
            f"{len(entry.tile_quantiles)}"
        )
    return entry


def log_measures(
    entries: Sequence[LogEntry], path: Path, *, scoring: str, precision: str
) -> NDArray[np.float64]:
    """Give the `MEASURES` (boards, F) of a log, all of one scoring and precision.

    Raises
    ------
    ScoreLogError
        A board was scored in another way.
    """
    for entry in entries:
        if (entry.scoring, entry.precision) != (scoring, precision):
            raise ScoreLogError(
                f"{path}: {entry.image} ({entry.time}) was scored by another artifact or precision "
                f"(scoring {entry.scoring[:12]}, {entry.precision}), expected {scoring[:12]}, "
                f"{precision}; scores of different scoring cannot be compared: make a new reference"
            )
    rows = [(*entry.tile_quantiles, entry.brightness) for entry in entries]
    return np.array(rows).reshape(-1, len(MEASURES))
