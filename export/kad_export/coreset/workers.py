"""Workers of the selection: who holds the points, and compares them with the centres."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from kad_sdk._native import PrincipalDirections, lower_distances, spread_rows
from kad_sdk.errors import NotFiniteError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "CHUNK_ROWS",
    "Candidates",
    "KnownWorker",
    "LocalTeam",
    "Points",
    "PointsWorker",
    "Team",
    "Worker",
    "default_pool_rows",
    "gather",
    "not_finite",
]

CHUNK_ROWS = 32_768  # rows read at a time: 50 MB at 384 dimensions
FEW_CENTRES = 16  # are measured without principal directions
POOL_SHARE = 0.01  # of the points; more: fewer passes, but more memory
POOL_MIN_ROWS, POOL_MAX_ROWS = 4_096, 65_536
NOWHERE = 2**63 - 1  # behind every row
TAKEN = np.float32(-1)  # in place of a centre's own distance: no point is chosen twice


class Points(Protocol):
    """Rows on disk or in memory: an array, a memory map, or a store that reads slices."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, dimensions."""

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Rows of a slice, or of an int64 array of indices."""


@dataclass(frozen=True)
class Candidates:
    """A worker's farthest points after a flush, and how far the others can be at most.

    Attributes
    ----------
    rows : (p,) int64
        Rows among all points, ascending.
    dist : (p,) float32
        Exact distance of each to its nearest centre; negative for a centre.
    points : (p, d) float32
        Where they are.
    others_dist, others_row : float, int
        Largest distance that another point of the worker may have, and the first row that may.
        -inf and a row behind all when there is none.
    screened, measured : int
        Pairs of a point and a centre that this flush compared along principal directions, and that
        it measured in full.
    """

    rows: np.ndarray
    dist: np.ndarray
    points: np.ndarray
    others_dist: float
    others_row: int
    screened: int = 0
    measured: int = 0


class Worker(Protocol):
    """Holds some of the points, in consecutive rows, and what is known of their distances."""

    first_row: int
    shape: tuple[int, int]

    def flush(self, rows: np.ndarray, centres: np.ndarray, level: float) -> Candidates:
        """Add centres (m, d), of which ``rows`` (m,) are the rows among all points.

        Points that may be as far as ``level`` are compared with all centres so far. The others may
        wait: their distances are then too large, and they are no candidates.
        """

    def fetch(self, rows: np.ndarray) -> np.ndarray:
        """Points (m, d) float32 of ``rows`` (m,), counted from the worker's own first."""


class Team(Protocol):
    """All workers together."""

    shape: tuple[int, int]

    def flush(self, rows: np.ndarray, centres: np.ndarray, level: float) -> list[Candidates]:
        """Let every worker flush; the candidates of all, by rising rows."""

    def fetch(self, rows: np.ndarray) -> np.ndarray:
        """Points (m, d) float32 of ``rows`` (m,) among all points."""


def default_pool_rows(n_points: int) -> int:
    """Rows of the pool for ``n_points`` points that are not in memory as a whole."""
    return min(max(POOL_MIN_ROWS, math.ceil(POOL_SHARE * n_points)), POOL_MAX_ROWS, n_points)


class LocalTeam:
    """Workers of this process, one after the other.

    Parameters
    ----------
    workers : sequence of Worker
        By rising rows.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.workers = workers
        self.shape = (sum(w.shape[0] for w in workers), workers[0].shape[1])

    def flush(self, rows: np.ndarray, centres: np.ndarray, level: float) -> list[Candidates]:
        """Let every worker flush."""
        return [worker.flush(rows, centres, level) for worker in self.workers]

    def fetch(self, rows: np.ndarray) -> np.ndarray:
        """Points of any rows."""
        starts = [worker.first_row for worker in self.workers]
        return gather(rows, starts, self.shape[1], lambda i, own: self.workers[i].fetch(own))


def gather(rows: np.ndarray, starts: Sequence[int], dims: int, fetch) -> np.ndarray:
    """Points (m, d) of rows that several workers hold; ``fetch(worker, own rows)`` asks one."""
    owner = np.searchsorted(starts, rows, side="right") - 1
    points = np.empty((len(rows), dims), np.float32)
    for i in np.unique(owner):
        here = owner == i
        points[here] = fetch(int(i), rows[here] - starts[i])
    return points


class KnownWorker:
    """Points that are centres from the start: none is a candidate, nothing is compared with them.

    Parameters
    ----------
    points : (n, d) float32
        The first of all points.
    """

    first_row = 0

    def __init__(self, points: np.ndarray) -> None:
        self.shape = points.shape
        self._points = points

    def flush(self, rows: np.ndarray, centres: np.ndarray, level: float) -> Candidates:  # noqa: ARG002
        """See :class:`Worker`."""
        none = np.empty(0, np.float32)
        return Candidates(
            none.astype(np.int64), none, self._points[:0], others_dist=-math.inf, others_row=NOWHERE
        )

    def fetch(self, rows: np.ndarray) -> np.ndarray:
        """See :class:`Worker`."""
        return self._points[rows]


class PointsWorker:
    """Points in an array or a store, compared by the runtime's core.

    Its state is 8 bytes a point: the distance to the nearest centre, and the number of centres that
    this takes into account.

    Parameters
    ----------
    points : Points
        (n, d), read in chunks.
    first_row : int
        Row of the first one among all points.
    pool_rows : int
        Candidates to give.
    threads : int
        Threads of the core.
    """

    def __init__(
        self, points: Points, *, first_row: int = 0, pool_rows: int, threads: int = 1
    ) -> None:
        self.first_row, self.shape = first_row, (points.shape[0], points.shape[1])
        self.dist = np.full(self.shape[0], np.inf, np.float32)  # (n,)
        self.seen = np.zeros(self.shape[0], np.int32)  # (n,) centres compared with
        self._points, self._pool_rows, self._threads = points, pool_rows, threads
        self._centres = np.empty((0, self.shape[1]), np.float32)
        self._directions: PrincipalDirections | None = None
        self._screened = self._measured = 0  # pairs of this flush

    def flush(self, rows: np.ndarray, centres: np.ndarray, level: float) -> Candidates:
        """See :class:`Worker`."""
        self._centres = np.concatenate([self._centres, centres])
        self._screened = self._measured = 0
        own = rows[(rows >= self.first_row) & (rows < self.first_row + self.shape[0])]
        for chunk in chunks(self.shape[0]):
            self._update(chunk, level)
        self.dist[own - self.first_row] = TAKEN
        return self._candidates()

    def fetch(self, rows: np.ndarray) -> np.ndarray:
        """See :class:`Worker`."""
        if (np.diff(rows) > 0).all():
            return _float32(self._points[rows])
        order = np.argsort(rows)  # a store on disk is read front to back
        points = np.empty((len(rows), self.shape[1]), np.float32)
        points[order] = self._points[rows[order]]
        return points

    def _update(self, chunk: slice, level: float) -> None:
        """Compare points of a chunk that may be as far as ``level`` with all centres."""
        dist, seen = self.dist[chunk], self.seen[chunk]
        # A point that is just as far counts: the level is 0 where copies of centres are all that is
        # left, and infinite where distances overflow.
        due = (dist >= level) & (seen < len(self._centres))
        if not due.any():
            return
        points = np.ascontiguousarray(self._points[chunk], np.float32)
        for first in np.unique(seen[due]):
            these = due & (seen == first)
            if these.all():
                self._lower(points, dist, int(first), chunk)
                continue
            lowered = dist[these]
            self._lower(points[these], lowered, int(first), chunk)
            dist[these] = lowered
        seen[due] = len(self._centres)

    def _lower(self, points: np.ndarray, dist: np.ndarray, first: int, chunk: slice) -> None:
        centres = self._centres[first:]
        directions = None if len(centres) <= FEW_CENTRES else self._find_directions()
        try:
            self._measured += lower_distances(
                points, centres, dist, directions=directions, threads=self._threads
            )
        except NotFiniteError as error:
            raise not_finite(self._points, chunk, self.first_row) from error
        if directions is not None and len(directions.rows):
            self._screened += len(points) * len(centres)

    def _find_directions(self) -> PrincipalDirections:
        if self._directions is None:
            self._directions = PrincipalDirections(self.fetch(spread_rows(self.shape[0])))
        return self._directions

    def _candidates(self) -> Candidates:
        current = self.seen == len(self._centres)
        rows, others_dist, others_row = farthest(self.dist, current, self._pool_rows)
        every = len(rows) == self.shape[0]
        return Candidates(
            rows=rows + self.first_row,
            dist=self.dist[rows],
            points=_float32(self._points[:]) if every else self.fetch(rows),
            others_dist=others_dist,
            others_row=others_row + self.first_row if others_row != NOWHERE else NOWHERE,
            screened=self._screened,
            measured=self._measured,
        )


def farthest(dist: np.ndarray, current: np.ndarray, n: int) -> tuple[np.ndarray, float, int]:
    """Find the first n points by falling distance, ties by rising rows, that are ``current``.

    Parameters
    ----------
    dist : (N,) float32
    current : (N,) bool
    n : int

    Returns
    -------
    rows : (up to n,) int64
        Ascending.
    others_dist, others_row : float, int
        The first of all other points, current or not; -inf and NOWHERE without one.
    """
    inside = current.copy()
    n_current = np.count_nonzero(current)
    if n_current > n:
        edge = np.partition(dist[current], n_current - n)[n_current - n]
        inside &= dist > edge
        ties = np.flatnonzero(current & (dist == edge))
        inside[ties[: n - np.count_nonzero(inside)]] = True
    if inside.all():
        return np.arange(len(dist)), -math.inf, NOWHERE
    others = np.where(inside, -np.inf, dist)
    row = int(np.argmax(others))
    return np.flatnonzero(inside), float(others[row]), row


def not_finite(points: Points, chunk: slice, first_row: int) -> NotFiniteError:
    """Say which row of a chunk of a worker's points is the first that has NaN or Inf."""
    bad = np.flatnonzero(~np.isfinite(points[chunk]).all(axis=1))
    what = "a selected row contains"  # a centre, which another worker or chunk may hold
    if len(bad):
        what = f"row {first_row + chunk.start + int(bad[0])} of the features contains"
    return NotFiniteError(f"{what} NaN or Inf: look for a damaged weights file or image")


def chunks(n_rows: int) -> Iterator[slice]:
    """Consecutive slices of at most CHUNK_ROWS rows."""
    return (slice(i, min(i + CHUNK_ROWS, n_rows)) for i in range(0, n_rows, CHUNK_ROWS))


def _float32(points: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(points, np.float32)
