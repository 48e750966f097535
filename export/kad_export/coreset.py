"""Coreset selection: greedy k-center on a sparse random projection (PatchCore, equation 4.4).

The selection is exact: index by index that of plain greedy k-center, which reads all points once
for every centre. It is reached with few passes ("lazy batches"). Between two passes every point
keeps the distance to its nearest centre *as of the last pass*, which can only be too large. The
points with the largest of these bounds form a pool, in which greedy runs with exact distances; as
long as the best distance in the pool exceeds every bound outside it, it is the farthest point of
all, because true distances never exceed their bounds. Then the centres picked so far are compared
with all points in one pass, and the next pool is drawn.

Every distance is that of the runtime's search core in its defined arithmetic (float32 direct
differences in a fixed order), so the selection does not depend on chunks, threads or pool size. The
passes are made by the core; the pool, where one centre at a time meets a few thousand rows, by the
same arithmetic in NumPy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from sklearn.random_projection import SparseRandomProjection, johnson_lindenstrauss_min_dim

from kad_sdk._native import NativeIndex
from kad_sdk.errors import InvalidArgumentError, NotFiniteError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Coreset",
    "Points",
    "Projection",
    "default_pool_rows",
    "k_center",
    "projected_dims",
    "select_coreset",
]

CHUNK_ROWS = 32_768  # rows read at a time: 50 MB at 384 dimensions
POOL_SHARE = 0.01  # of the points; more: fewer passes, but more work for each centre
POOL_MIN_ROWS, POOL_MAX_ROWS = 1_024, 16_384
LANES = 16  # partial sums of the defined arithmetic
TAKEN = np.float32(-1)  # in place of a chosen row's distance: no row is chosen twice


class Points(Protocol):
    """Rows on disk or in memory: an array, a memory map, or a store that reads slices."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, dimensions."""

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Rows of a slice, or of an int64 array of indices."""


@dataclass(frozen=True)
class Coreset:
    """A selection and its certificate.

    Attributes
    ----------
    index : (n,) int64
        Selected rows, in the order of selection.
    radius : float
        Covering radius: no point is farther than this from its nearest selected row.
    passes : int
        How often all points were read.
    """

    index: np.ndarray
    radius: float
    passes: int


def projected_dims(n_points: int, dims: int, eps: float) -> int:
    """Dimension after projection: ``min(dims, 4 ln(n) / (eps^2/2 - eps^3/3))``.

    The Johnson-Lindenstrauss bound as in scikit-learn. Where it reaches the features' own
    dimension a projection would cost accuracy and save nothing: the features are used as they are.
    """
    if not 0 < eps < 1:
        raise InvalidArgumentError(f"eps must lie between 0 and 1, got {eps}: use 0.9")
    return min(dims, max(1, int(johnson_lindenstrauss_min_dim(max(n_points, 2), eps=eps))))


class Projection:
    """Sparse random projection with density 1/sqrt(D), seeded, equal for any chunking.

    Parameters
    ----------
    n_points : int
        How many points will be projected in all; sets the dimension.
    dims : int
        D, the features' dimension.
    eps : float
        Distortion allowed by the Johnson-Lindenstrauss bound.
    seed : int
        Seed of the projection.
    """

    def __init__(self, n_points: int, dims: int, *, eps: float = 0.9, seed: int = 0) -> None:
        self.dims = projected_dims(n_points, dims, eps)
        self._components = None
        if self.dims < dims:
            model = SparseRandomProjection(self.dims, density="auto", random_state=seed)
            model.fit(np.zeros((1, dims), np.float32))
            self._components = model.components_.astype(np.float32)  # CSR, (d, D)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Project ``features`` (n, D) float32 to (n, d), each row the same in any chunk."""
        if self._components is None:
            return np.ascontiguousarray(features, np.float32)
        return np.ascontiguousarray((self._components @ features.T).T, np.float32)  # (n, d)


def select_coreset(
    features: Points,
    n: int,
    *,
    eps: float = 0.9,
    seed: int = 0,
    start: int = 0,
    threads: int = 1,
) -> np.ndarray:
    """Rows of a coreset of ``features``, in the order of selection.

    Parameters
    ----------
    features : (N, D) float32
        An array or a memory map; it is read in chunks. Only the projected features are held.
    n : int
        How many rows to select, 1 to N.
    eps, seed : float, int
        Of the random projection, see :class:`Projection`.
    start : int
        The first centre.
    threads : int
        Threads of the distance computation.

    Returns
    -------
    (n,) int64

    Raises
    ------
    InvalidArgumentError
        ``n`` or ``start`` is out of range, or ``features`` is not a matrix.
    NotFiniteError
        A feature is NaN or Inf.
    """
    _check_shape(features)
    n_points, dims = features.shape
    project = Projection(n_points, dims, eps=eps, seed=seed)
    points = np.empty((n_points, project.dims), np.float32)
    for rows in _chunks(n_points):
        points[rows] = project(features[rows])
    return k_center(points, n, start=start, threads=threads).index


def k_center(
    points: Points,
    n: int,
    *,
    start: int = 0,
    threads: int = 1,
    pool_rows: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Coreset:
    """Exact greedy k-center: first ``start``, then always the point farthest from all chosen ones.

    Parameters
    ----------
    points : (N, d) float32
        An array, a memory map or a store that is sliced; read in chunks.
    n : int
        How many centres, 1 to N.
    start : int
        The first centre; ties go to the lowest index.
    threads : int
        Threads of the distance computation.
    pool_rows : int, optional
        Size of the pool; it changes the time, never the selection.
    progress : callable, optional
        Told the number of new centres, now and then.

    Returns
    -------
    Coreset
    """
    _check_shape(points)
    n_points = points.shape[0]
    if not 1 <= n <= n_points:
        raise InvalidArgumentError(
            f"n must lie between 1 and the number of points {n_points}, got {n}"
        )
    if not 0 <= start < n_points:
        raise InvalidArgumentError(f"start must be a row of the {n_points} points, got {start}")
    pool_rows = pool_rows or default_pool_rows(n_points)
    report = progress or (lambda _: None)

    bound = np.full(n_points, np.inf, np.float32)  # (N,) distance to the nearest centre, or more
    chosen, pending, passes = [start], [start], 0
    report(1)
    while pending:
        _flush(points, np.array(pending, np.int64), bound, threads)
        bound[chosen] = TAKEN
        passes += 1
        pending = _greedy_in_pool(points, bound, n - len(chosen), pool_rows)
        chosen += pending
        if pending:
            report(len(pending))
    return Coreset(np.array(chosen, np.int64), max(0.0, float(bound.max())), passes)


def default_pool_rows(n_points: int) -> int:
    """Rows of the pool for ``n_points`` points."""
    return min(max(POOL_MIN_ROWS, math.ceil(POOL_SHARE * n_points)), POOL_MAX_ROWS, n_points)


def _flush(points: Points, centres: np.ndarray, bound: np.ndarray, threads: int) -> None:
    """Lower every bound to the exact distance, now that ``centres`` are chosen."""
    index = NativeIndex(_rows(points, centres), threads=threads)
    for rows in _chunks(len(bound)):
        block = np.ascontiguousarray(points[rows], np.float32)
        if not np.isfinite(block).all():
            raise NotFiniteError(
                f"features {rows.start} to {rows.stop} contain NaN or Inf: look for a damaged "
                "weights file or image"
            )
        dist, _ = index.query(block, 1, threads=threads)  # (rows, 1)
        np.minimum(bound[rows], dist[:, 0], out=bound[rows])
    index.close()


def _greedy_in_pool(points: Points, bound: np.ndarray, wanted: int, pool_rows: int) -> list[int]:
    """Pick up to ``wanted`` centres, as long as the farthest point must lie in the pool."""
    if wanted == 0:
        return []
    pool = _draw_pool(bound, pool_rows)
    outside, first_outside = _largest_outside(bound, pool)
    lanes = _lanes(_rows(points, pool))
    dist = bound[pool]  # exact right after a pass, and kept exact below
    picked: list[int] = []
    while len(picked) < wanted:
        best = int(np.argmax(dist))  # the pool ascends, so ties go to the lowest index
        tied_before = dist[best] == outside and pool[best] < first_outside
        if not (dist[best] > outside or tied_before):
            break
        picked.append(int(pool[best]))
        np.minimum(dist, _distances(lanes, best), out=dist)
        dist[best] = TAKEN
    return picked


def _lanes(rows: np.ndarray) -> np.ndarray:
    """Rows (m, d) as (groups, 16, m), padded with zeros: dimension i is lane i mod 16."""
    n_rows, dims = rows.shape
    padded = np.zeros((-(-dims // LANES) * LANES, n_rows), np.float32)
    padded[:dims] = rows.T
    return padded.reshape(-1, LANES, n_rows)


def _distances(lanes: np.ndarray, row: int) -> np.ndarray:
    """Distances (m,) of all rows of ``lanes`` (groups, 16, m) to one of them, as in the core."""
    sums, difference = np.zeros((2, *lanes.shape[1:]), np.float32)  # (16, m)
    for group in lanes:
        np.subtract(group, group[:, row, None], out=difference)
        np.multiply(difference, difference, out=difference)
        sums += difference
    for half in (8, 4, 2, 1):
        sums = sums[:half] + sums[half : 2 * half]
    return np.sqrt(sums[0])


def _draw_pool(bound: np.ndarray, pool_rows: int) -> np.ndarray:
    """Rows with the largest bounds, ascending.

    Among rows that tie at the edge the lowest indices enter, so the pool always holds the row that
    plain greedy would pick next.
    """
    n_points = len(bound)
    if pool_rows >= n_points:
        return np.arange(n_points)
    edge = np.partition(bound, n_points - pool_rows)[n_points - pool_rows]
    inside = bound > edge
    ties = np.flatnonzero(bound == edge)
    inside[ties[: pool_rows - np.count_nonzero(inside)]] = True
    return np.flatnonzero(inside)


def _largest_outside(bound: np.ndarray, pool: np.ndarray) -> tuple[float, int]:
    """Largest bound outside the pool, and the first row that has it."""
    if len(pool) == len(bound):
        return -math.inf, 0
    others = bound.copy()
    others[pool] = -math.inf
    row = int(np.argmax(others))
    return float(others[row]), row


def _rows(points: Points, index: np.ndarray) -> np.ndarray:
    """Rows ``index`` of ``points``, in that order."""
    order = np.argsort(index)  # a store on disk is read front to back
    rows = np.empty((len(index), points.shape[1]), np.float32)
    rows[order] = points[index[order]]
    return rows


def _chunks(n_rows: int) -> list[slice]:
    return [slice(i, min(i + CHUNK_ROWS, n_rows)) for i in range(0, n_rows, CHUNK_ROWS)]


def _check_shape(points: Points) -> None:
    if len(points.shape) != 2 or 0 in points.shape:
        raise InvalidArgumentError(
            f"features must be a non-empty matrix (N, D), got {points.shape}"
        )
