"""What the report keeps of each board while its pixels are there: pictures, a bounded number.

Boards, misses and false alarms beyond what a page can hold are left out, the least telling first;
the page says how many.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np

from kad_sdk.manifest import CutPasteManifest, PatchCoreManifest
from kad_sdk.report.disagreement import disagreement
from kad_sdk.report.pictures import (
    Window,
    heat_layer,
    mask_path,
    photo,
    region_path,
    spread_layer,
    window_around,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from kad_sdk.detector import Detector
    from kad_sdk.regions import MarkedDefect
    from kad_sdk.report.disagreement import Disagreement
    from kad_sdk.result import Nearest, Result
    from kad_sdk.tally import Scored

__all__ = ["BoardPicture", "Evidence", "Finding", "Spread", "outcome"]

T = TypeVar("T")


def outcome(label: int | None, anomalous: bool) -> str:
    """Name what a verdict turned out to be: the page's word for it."""
    if label is None:
        return "flagged, truth unknown" if anomalous else "passed, truth unknown"
    return (("passed", "false alarm"), ("missed", "found"))[label][int(anomalous)]


@dataclass(frozen=True)
class BoardPicture:
    """A board with its layers; paths are in px of the board."""

    name: str
    kind: str
    outcome: str
    score: float
    size: tuple[int, int]
    photo: str
    heat: str
    spread: str
    regions: str
    truth: str


@dataclass(frozen=True)
class Finding:
    """A missed defect or a false alarm, cut out of its board.

    Attributes
    ----------
    what : {"missed", "false alarm"}
    board, kind : str
        Kind of the missed defect; that of the board for a false alarm.
    value : float
        Largest value of the map there.
    place : tuple
        (x, y) of that value, px of the board.
    window : Window
    photo, heat, regions, truth : str
        As of a board.
    nearest : Nearest or None
        The training patch that the place is most like; None for a method without a memory bank.
    """

    what: str
    board: str
    kind: str
    value: float
    place: tuple[int, int]
    window: Window
    photo: str
    heat: str
    regions: str
    truth: str
    nearest: Nearest | None


class Spread(NamedTuple):
    """How far the tiles of a board disagree: median and 99th percentile, lone cells, cells."""

    name: str
    median: float
    high: float
    n_lone: int
    n_cells: int


@dataclass
class _Kept(Generic[T]):
    """The things of the highest rank, made only when they are kept."""

    limit: int
    offered: int = 0
    _heap: list[tuple[float, int, T]] = field(default_factory=list)

    def offer(self, rank: float, make: Callable[[], T]) -> None:
        self.offered += 1
        entry = (rank, -self.offered)  # of equal ranks the first
        if len(self._heap) == self.limit and (not self._heap or entry < self._heap[0][:2]):
            return
        heapq.heappush(self._heap, (*entry, make()))
        if len(self._heap) > self.limit:
            heapq.heappop(self._heap)

    def by_rank(self) -> list[T]:
        return [thing for *_, thing in sorted(self._heap, key=lambda entry: (-entry[0], -entry[1]))]

    def in_order(self) -> list[T]:
        return [thing for *_, thing in sorted(self._heap, key=lambda entry: -entry[1])]


class Evidence:
    """Takes in boards one by one; an observer of :class:`kad_sdk.tally.Tally`.

    Parameters
    ----------
    detector
        It says where a bank row came from.
    max_boards, max_findings
        Boards that are shown, and misses and false alarms of each sort.
    max_side
        Longer side of a board's photo, px.
    """

    def __init__(
        self, detector: Detector, *, max_boards: int, max_findings: int, max_side: int
    ) -> None:
        self._detector, self._max_side = detector, max_side
        self.boards: _Kept[BoardPicture] = _Kept(max_boards)
        self.missed: _Kept[Finding] = _Kept(max_findings)
        self.false_alarms: _Kept[Finding] = _Kept(max_findings)
        self.spreads: list[Spread] = []

    def __call__(self, seen: Scored) -> None:
        """Take in a board."""
        differing = self._disagreement(seen.result)
        self._note_spread(seen, differing)
        self.boards.offer(_weight(seen), lambda: self._board(seen, differing))
        if seen.match is None:
            return
        tau = seen.result.map_threshold
        for defect in seen.match.defects:
            if defect.peak is not None and not defect.found:
                self.missed.offer(-defect.peak / tau, partial(self._missed, seen, defect))
        for i in seen.match.false_regions:
            peak = seen.result.regions[i].peak
            self.false_alarms.offer(peak / tau, partial(self._false_alarm, seen, i))

    def _disagreement(self, result: Result) -> Disagreement | None:
        manifest = self._detector.artifact.manifest
        if isinstance(manifest, PatchCoreManifest):
            grid = manifest.patchcore.grid
        elif isinstance(manifest, CutPasteManifest):
            grid = manifest.cutpaste.map_grid
        else:
            return None
        if result.patches is None:
            return None
        return disagreement(
            np.array([(tile.x, tile.y) for tile in result.tiles]),
            result.patches,
            grid=grid,
            tile=manifest.preprocessing.tile,
            stride=manifest.preprocessing.stride,
            frame=result.frame_size,
            threshold=result.map_threshold,
        )

    def _note_spread(self, seen: Scored, differing: Disagreement | None) -> None:
        if differing is None:
            return
        median, high = differing.quantile(0.5), differing.quantile(0.99)
        if median is not None and high is not None:
            n_cells = int((~np.isnan(differing.spread)).sum())
            spread = Spread(seen.sample.name, median, high, differing.n_lone, n_cells)
            self.spreads.append(spread)

    def _board(self, seen: Scored, differing: Disagreement | None) -> BoardPicture:
        result = seen.result
        tau = result.map_threshold
        return BoardPicture(
            name=seen.sample.name,
            kind=seen.sample.kind,
            outcome=outcome(seen.sample.label, result.anomalous),
            score=result.score,
            size=result.image_size,
            photo=photo(seen.image, self._max_side),
            heat=heat_layer(result.need_map(), tau),
            spread="" if differing is None else spread_layer(differing.spread, tau),
            regions=region_path(result, range(len(result.regions))),
            truth="" if seen.mask is None else mask_path(seen.mask),
        )

    def _missed(self, seen: Scored, defect: MarkedDefect) -> Finding:
        x, y, width, height = defect.box
        box = np.s_[y : y + height, x : x + width]
        values = np.nan_to_num(seen.result.need_map()[box], nan=-np.inf)
        if seen.mask is not None:
            values = np.where(seen.mask[box], values, -np.inf)
        row, column = np.unravel_index(int(values.argmax()), values.shape)
        place = (x + int(column), y + int(row))
        return _finding(
            seen,
            defect.box,
            what="missed",
            kind=defect.kind,
            value=float(values.max()),
            place=place,
            nearest=self._nearest(seen.result, place),
        )

    def _false_alarm(self, seen: Scored, i: int) -> Finding:
        region = seen.result.regions[i]
        box = (region.x, region.y, region.width, region.height)
        return _finding(
            seen,
            box,
            what="false alarm",
            kind=seen.sample.kind,
            value=region.peak,
            place=region.peak_xy,
            nearest=region.nearest,
        )

    def _nearest(self, result: Result, place: tuple[int, int]) -> Nearest | None:
        """Training patch of the tile patch over `place` whose own value is the largest."""
        manifest = self._detector.artifact.manifest
        if result.patches is None or result.patch_rows is None:
            return None
        if not isinstance(manifest, PatchCoreManifest):
            return None
        tile, (rows, columns) = manifest.preprocessing.tile, manifest.patchcore.grid
        scale = np.array(result.frame_size)[::-1] / np.array(result.image_size)[::-1]
        at = (np.array(place) + 0.5) * scale  # in the frame
        corners = np.array([(t.x, t.y) for t in result.tiles])
        inside = np.flatnonzero(((at >= corners) & (at < corners + tile)).all(axis=1))
        if not inside.size:
            return None
        cells = ((at - corners[inside]) * (columns, rows) / tile).astype(np.int64)
        patches = cells[:, 1] * columns + cells[:, 0]
        best = int(result.patches[inside, patches].argmax())
        return self._detector.training_patch(int(result.patch_rows[inside[best], patches[best]]))


def _weight(seen: Scored) -> float:
    """Rank boards for the page: wrong verdicts first, then wrong or missing regions, then any."""
    if seen.sample.label is None or seen.match is None:
        return 0.0
    if bool(seen.result.anomalous) != bool(seen.sample.label):
        return 3.0
    lost = any(defect.scored and not defect.found for defect in seen.match.defects)
    return 2.0 if lost or seen.match.false_regions else 1.0


def _finding(seen: Scored, box: tuple[int, int, int, int], **facts: Any) -> Finding:
    """Cut a finding in `box` (x, y, width, height) out of its board; `facts` as of a Finding."""
    result = seen.result
    window = window_around(box, result.image_size)
    area = np.s_[window.y : window.y + window.side, window.x : window.x + window.side]
    part = result.need_map()[area]
    square = np.full((window.side, window.side), np.nan, np.float32)
    square[: part.shape[0], : part.shape[1]] = part
    return Finding(
        board=seen.sample.name,
        window=window,
        photo=photo(window.cut(seen.image)),
        heat=heat_layer(square, result.map_threshold),
        regions=region_path(result, _within(result, window)),
        truth="" if seen.mask is None else mask_path(seen.mask[area], window.x, window.y),
        **facts,
    )


def _within(result: Result, window: Window) -> list[int]:
    """Which regions reach into a window."""
    return [
        i
        for i, r in enumerate(result.regions)
        if r.x < window.x + window.side
        and window.x < r.x + r.width
        and r.y < window.y + window.side
        and window.y < r.y + r.height
    ]
