"""The selection: pools of candidates, and rounds of flushes, whoever the workers are."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Integral
from typing import TYPE_CHECKING, Protocol

import numpy as np

from kad_export.coreset.workers import NOWHERE, Candidates
from kad_sdk._native import NativeKCenter, PrincipalDirections
from kad_sdk.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kad_export.coreset.workers import Team

__all__ = ["Coreset", "NativePickers", "Picker", "Selected", "check_selection", "run_selection"]

LEVEL_SHARE = 0.85  # of the farthest distance: points nearer than that need not be compared yet
PICKS_AT_ONCE = 256  # between two reports


@dataclass(frozen=True)
class Coreset:
    """A selection and its certificate.

    Attributes
    ----------
    index : (n,) int64
        Selected rows, in the order of selection.
    radius : float
        Covering radius R: no point, but for those left out, is farther than this from its nearest
        selected row.
    separation : float or None
        Smallest distance s between two of the first n + 1 picks, the last of which is not in
        ``index``. By the pigeonhole principle no n points can cover the same points with a radius
        below s / 2. None when nothing was left to pick.
    skipped : int
        Points left out: the farthest ones.
    counts : dict
        What it took: ``passes``, how often all points were compared with new centres;
        ``pool_passes``, how often those of a pool were; ``screened_pairs`` of a point and a centre,
        compared along principal directions; ``measured_pairs``, whose distance was computed.
    seconds : dict
        Time by phase: ``flush`` and ``pick``.
    """

    index: np.ndarray
    radius: float
    separation: float | None
    skipped: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """R / (s / 2): the radius over a lower bound of the best one possible."""
        return None if not self.separation else self.radius / (self.separation / 2)


@dataclass
class Selected:
    """What has been chosen so far: all that a selection needs to go on later.

    Attributes
    ----------
    rows : list of int
    dist : list of float
        Distance of each from those before it; infinite for the first.
    """

    rows: list[int] = field(default_factory=list)
    dist: list[float] = field(default_factory=list)

    def add(self, rows: np.ndarray, dist: np.ndarray) -> None:
        """Append picks."""
        self.rows += rows.tolist()
        self.dist += dist.tolist()


class Picker(Protocol):
    """Greedy selection in a pool."""

    def pick(
        self, wanted: int, *, outside_dist: float = -np.inf, outside_row: int = NOWHERE
    ) -> tuple[np.ndarray, np.ndarray]:
        """As :meth:`kad_sdk._native.NativeKCenter.pick`."""

    def stats(self) -> dict[str, int]:
        """As :meth:`kad_sdk._native.NativeKCenter.stats`."""

    def close(self) -> None:
        """Free what it holds."""


class NativePickers:
    """Makes pools of the runtime's core, all along the principal directions of the first one.

    Parameters
    ----------
    skipped, threads : int
        As for :class:`NativeKCenter`.
    """

    def __init__(self, *, skipped: int = 0, threads: int = 1) -> None:
        self._skipped, self._threads = skipped, threads
        self._directions: PrincipalDirections | None = None

    def __call__(self, points: np.ndarray, dist: np.ndarray) -> NativeKCenter:
        """Make the pool of points (p, d) with their distances (p,)."""
        self._directions = self._directions or PrincipalDirections(points)
        return NativeKCenter(
            points,
            dist,
            directions=self._directions,
            skipped=self._skipped,
            threads=self._threads,
        )


def check_selection(shape: tuple[int, ...], n: int, start: int, skipped: int) -> None:
    """Refuse what cannot be selected.

    Raises
    ------
    InvalidArgumentError
    """
    for name, value in (("n", n), ("start", start), ("trim_outliers", skipped)):
        if not isinstance(value, Integral):
            raise InvalidArgumentError(
                f"{name} must be an integer, got {type(value).__name__} {value!r}"
            )
    if len(shape) != 2 or 0 in shape:
        raise InvalidArgumentError(f"features must be a non-empty matrix (N, D), got {shape}")
    if not 1 <= n <= shape[0]:
        raise InvalidArgumentError(
            f"n must lie between 1 and the number of points {shape[0]}, got {n}"
        )
    if not 0 <= start < shape[0]:
        raise InvalidArgumentError(f"start must be a row of the {shape[0]} points, got {start}")
    if not 0 <= skipped <= shape[0] - n:
        raise InvalidArgumentError(
            f"trim_outliers must leave the {n} rows to select among the {shape[0]} points: it must "
            f"lie between 0 and {shape[0] - n}, got {skipped}"
        )


def run_selection(
    team: Team,
    n: int,
    *,
    make_picker: Callable[[np.ndarray, np.ndarray], Picker],
    start: int = 0,
    skipped: int = 0,
    report: Callable[[Selected], None] | None = None,
    selected: Selected | None = None,
    enough: float = -np.inf,
) -> Coreset:
    """Exact greedy k-center: first ``start``, then always the point farthest from all chosen ones.

    Parameters
    ----------
    team : Team
        Who holds the points.
    n : int
        How many to choose.
    make_picker : callable
        Pool (p, d) and distances (p,) to a :class:`Picker`.
    start : int
        The first one; ties go to the lowest row.
    skipped : int
        In every step so many of the farthest points are passed over, and the next one is taken.
    report : callable, optional
        Told what has been chosen, now and then.
    selected : Selected, optional
        Of an earlier run, to go on from; it is added to.
    enough : float
        Stops before `n` when no point is farther than this from its nearest chosen one.

    Returns
    -------
    Coreset
    """
    check_selection(team.shape, n, start, skipped)
    selected = selected or Selected()
    if not selected.rows:
        selected.add(np.array([start]), np.array([np.inf]))
    # One more than wanted, for the certificate.
    total = min(n + 1, team.shape[0] - skipped)
    seconds, flushed, level = {"flush": 0.0, "pick": 0.0}, 0, -np.inf
    counts = dict.fromkeys(("passes", "pool_passes", "screened_pairs", "measured_pairs"), 0)
    while len(selected.rows) < total and selected.dist[-1] > enough:
        with _timed(seconds, "flush"):
            rows = np.array(selected.rows[flushed:], np.int64)
            pool = _merge(team.flush(rows, team.fetch(rows), level))
            flushed = len(selected.rows)
            _add(counts, passes=1, screened_pairs=pool.screened, measured_pairs=pool.measured)
        with _timed(seconds, "pick"):
            level = LEVEL_SHARE * _pick_in(
                pool, total, make_picker, selected, report, counts=counts, enough=enough
            )
        del pool  # before the next one is made
    n = min([n, *(i for i, dist in enumerate(selected.dist[: n + 1]) if dist <= enough)])
    radius = selected.dist[n] if total > n else 0.0
    return Coreset(
        index=np.array(selected.rows[:n], np.int64),
        radius=radius,
        separation=radius if total > n else None,
        skipped=skipped,
        counts=counts,
        seconds=seconds,
    )


def _pick_in(
    pool: Candidates,
    total: int,
    make_picker: Callable[[np.ndarray, np.ndarray], Picker],
    selected: Selected,
    report: Callable[[Selected], None] | None,
    *,
    counts: dict[str, int],
    enough: float,
) -> float:
    """Choose in the pool for as long as the farthest point must lie in it.

    Returns
    -------
    float
        A distance that the farthest point of all has at least; -inf when there is none.
    """
    if len(pool.rows) == 0:
        return -np.inf
    picker = make_picker(pool.points, pool.dist)
    try:
        outside_row = int(np.searchsorted(pool.rows, pool.others_row))  # as a row of the pool
        while len(selected.rows) < total and selected.dist[-1] > enough:
            at_once = getattr(picker, "picks_at_once", PICKS_AT_ONCE)
            wanted = min(at_once, total - len(selected.rows))
            rows, dist = picker.pick(wanted, outside_dist=pool.others_dist, outside_row=outside_row)
            selected.add(pool.rows[rows], dist)
            if report is not None and len(rows):
                report(selected)
            if len(rows) < wanted:
                break
        _, rest = picker.pick(1)
        told = picker.stats()
        measured = told["decided_pairs"] + told["inner_pairs"]
        _add(counts, pool_passes=told["flushes"], measured_pairs=measured)
        _add(counts, screened_pairs=told["screened_pairs"])
    finally:
        picker.close()
    return float(rest[0]) if len(rest) else -np.inf


def _merge(parts: Sequence[Candidates]) -> Candidates:
    """Join the pools of all workers; the first of all that is in none of them."""
    first = min(parts, key=lambda part: (-part.others_dist, part.others_row))
    pools = [part for part in parts if len(part.rows)] or parts[:1]
    return Candidates(
        rows=_joined([part.rows for part in pools]),
        dist=_joined([part.dist for part in pools]),
        points=_joined([part.points for part in pools]),
        others_dist=first.others_dist,
        others_row=first.others_row,
        screened=sum(part.screened for part in parts),
        measured=sum(part.measured for part in parts),
    )


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Join arrays; a single one is not copied, as it may be all points."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _add(counts: dict[str, int], **more: int) -> None:
    for name, value in more.items():
        counts[name] += value


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[phase] += time.perf_counter() - start
