"""Selections of points in memory or in a file, by each backend."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from kad_kernels import reference

from kad_export.coreset.driver import Coreset, NativePickers, check_selection, run_selection
from kad_export.coreset.projection import Projection
from kad_export.coreset.workers import LocalTeam, PointsWorker, chunks, default_pool_rows
from kad_sdk._native import default_threads
from kad_sdk.errors import InvalidArgumentError, NotFiniteError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kad_export.coreset.driver import Picker, Selected
    from kad_export.coreset.workers import Points

__all__ = ["BACKENDS", "k_center", "select_coreset"]

BACKENDS = ("auto", "cpu", "cuda", "reference")


def select_coreset(
    features: Points,
    n: int,
    *,
    eps: float | None = 0.9,
    seed: int = 0,
    start: int = 0,
    backend: str = "auto",
    trim_outliers: int = 0,
    threads: int | None = None,
) -> np.ndarray:
    """Rows of a coreset of ``features``, in the order of selection.

    Greedy k-center (thesis, equation 4.4; arXiv 2106.08265, algorithm 1): always the row farthest
    from all rows selected before, ties to the lowest, distances in the defined arithmetic of
    :func:`kad_kernels.distances`. Every backend gives the same rows.

    Parameters
    ----------
    features : (N, D) float32
        An array or a memory map; it is read in chunks. The projected features are held.
    n : int
        How many rows to select, 1 to N.
    eps, seed : float or None, int
        Of the random projection, see :class:`Projection`; with ``eps`` None the features are used
        as they are.
    start : int
        The first row.
    backend : str
        ``"cpu"``: the runtime's core; ``"cuda"``: Numba-CUDA; ``"reference"``: plain greedy in
        NumPy, slow; ``"auto"``: CUDA where there is a GPU.
    trim_outliers : int
        In every step so many of the farthest rows are passed over: a coreset with outliers. Not
        with CUDA.
    threads : int, optional
        Of the core; by default one for each processor this process may use.

    Returns
    -------
    (n,) int64

    Raises
    ------
    InvalidArgumentError
        ``n``, ``start``, ``trim_outliers`` or ``backend`` is out of range or of the wrong kind, or
        ``features`` is not an array that is a matrix.
    NotFiniteError
        A feature is NaN or Inf; the first such row is named.
    GpuMissingError
        ``backend="cuda"``, and there is no GPU.
    """
    if not hasattr(features, "shape"):
        raise InvalidArgumentError(
            f"features: expected an array (N, D), got {type(features).__name__}: make one with "
            "np.asarray(features, np.float32)"
        )
    check_selection(features.shape, n, start, trim_outliers)
    n_points, dims = features.shape
    project = Projection(n_points, dims, eps=eps, seed=seed)
    points = np.empty((n_points, project.dims), np.float32)
    for rows in chunks(n_points):
        points[rows] = project(features[rows])
    return k_center(
        points, n, start=start, backend=backend, trim_outliers=trim_outliers, threads=threads
    ).index


def k_center(
    points: Points,
    n: int,
    *,
    start: int = 0,
    backend: str = "cpu",
    trim_outliers: int = 0,
    threads: int | None = None,
    shards: int = 1,
    pool_rows: int | None = None,
    report: Callable[[Selected], None] | None = None,
) -> Coreset:
    """Exact greedy k-center of points as they are.

    Parameters
    ----------
    points : (N, d) float32
        An array, a memory map or a store that is sliced; read in chunks.
    n, start, backend, trim_outliers, threads
        As for :func:`select_coreset`.
    shards : int
        Workers to share the points; it changes the time, never the selection.
    pool_rows : int, optional
        Candidates of each worker beside those that are passed over, likewise; by default all
        points, which must then fit into memory.
    report : callable, optional
        Told what has been selected, now and then.

    Returns
    -------
    Coreset
    """
    check_selection(points.shape, n, start, trim_outliers)
    threads = threads or default_threads()
    backend = _resolve(backend, trim_outliers)
    if backend == "reference":
        return _reference(points, n, start, trim_outliers)
    pool_rows = (pool_rows or points.shape[0]) + trim_outliers
    bounds = np.linspace(0, points.shape[0], min(shards, points.shape[0]) + 1).astype(np.int64)
    if backend == "cuda":
        from kad_export.coreset import cuda  # noqa: PLC0415 - needs numba

        pool_rows = _cuda_pool_rows(pool_rows, points.shape[0], cuda.most_pool_rows)
        basis = cuda.SharedBasis()
        shared = {"basis": basis, "room": cuda.SharedRoom()}
        make_worker = partial(cuda.CudaWorker, pool_rows=pool_rows, **shared)
        make_picker: Callable[[np.ndarray, np.ndarray], Picker] = cuda.CudaPickers(basis)
    else:
        make_worker = partial(PointsWorker, pool_rows=pool_rows, threads=threads)
        make_picker = NativePickers(skipped=trim_outliers, threads=threads)
    parts = [points] if len(bounds) == 2 else [_Slice(points, *pair) for pair in _pairs(bounds)]
    team = LocalTeam(
        [make_worker(part, first_row=int(row)) for part, row in zip(parts, bounds, strict=False)]
    )
    return run_selection(
        team, n, make_picker=make_picker, start=start, skipped=trim_outliers, report=report
    )


def _cuda_pool_rows(wanted: int, n_points: int, most: Callable[[int], int]) -> int:
    """Rows of the pool: as many as wanted where they fit on the GPU, else few."""
    if wanted <= most(n_points):
        return wanted
    return min(default_pool_rows(n_points), most(n_points))


def _pairs(bounds: np.ndarray) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in pairwise(bounds)]


class _Slice:
    """Consecutive rows of points, as points."""

    def __init__(self, points: Points, first: int, stop: int) -> None:
        self.shape = (stop - first, points.shape[1])
        self._points, self._first = points, first

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(self.shape[0])
            return self._points[start + self._first : stop + self._first]
        return self._points[rows + self._first]


def _resolve(backend: str, trim_outliers: int) -> str:
    if backend not in BACKENDS:
        raise InvalidArgumentError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "auto":
        return "cuda" if trim_outliers == 0 and _gpu_is_there() else "cpu"
    if backend == "cuda" and trim_outliers:
        raise InvalidArgumentError(
            f"backend 'cuda' cannot trim outliers, got trim_outliers {trim_outliers}: use 'cpu'"
        )
    return backend


def _gpu_is_there() -> bool:
    try:
        from kad_kernels.device import gpu_is_available  # noqa: PLC0415 - needs numba
    except ImportError:
        return False
    return gpu_is_available()


def _reference(points: Points, n: int, start: int, skipped: int) -> Coreset:
    try:
        index, radius = reference.k_center(points[:], n, start, skipped)
    except ValueError as error:
        raise NotFiniteError(str(error)) from error
    complete = n + skipped == points.shape[0]
    return Coreset(index, radius, None if complete else radius, skipped)
