"""Greedy k-center: the flush of many centres, and the selection among points in memory."""

from __future__ import annotations

from ctypes import byref, c_int64, c_void_p

import numpy as np
import numpy.typing as npt

from kad_sdk._native.abi import Directions, Handle, KCenterStats, call
from kad_sdk._native.arguments import (
    Floats,
    Longs,
    array_argument,
    int_argument,
    threads_argument,
)
from kad_sdk._native.search import counts
from kad_sdk.errors import InvalidArgumentError

NOWHERE = 2**63 - 1  # behind every row
ENERGY = 0.85  # of the variance that the directions should hold
STEP = 16
SAMPLE_ROWS = 2_048


class PrincipalDirections:
    """Leading principal components of a sample of points.

    As many as hold 85 % of the variance, rounded up to 15, 31, 47, ...; none where these would be
    half of all dimensions, since their products would then save too little.

    Parameters
    ----------
    points : (n, D) float32
        Finite; 2,048 of them, evenly spread, are looked at.
    """

    def __init__(self, points: Floats) -> None:
        points = array_argument("points", points, np.float32, (None, None))
        sample = points[spread_rows(len(points))]
        self.centre = np.ascontiguousarray(sample.mean(axis=0, dtype=np.float64), np.float32)
        self.rows = np.ascontiguousarray(_leading(sample - self.centre), np.float32)  # (n, D)
        self.struct = Directions(
            dims=sample.shape[1],
            n=len(self.rows),
            centre=self.centre.ctypes.data,
            rows=self.rows.ctypes.data if len(self.rows) else None,
        )

    @property
    def sketch_dims(self) -> int:
        """Numbers that a point's sketch has: those along the directions and one; or all of it."""
        return len(self.rows) + 1 if len(self.rows) else self.struct.dims


def spread_rows(n: int) -> Longs:
    """Rows of a sample, evenly spread over n rows, ascending."""
    return np.unique(np.linspace(0, n - 1, min(n, SAMPLE_ROWS)).astype(np.int64))


def _leading(centred: Floats) -> npt.NDArray[np.float64]:
    dims = centred.shape[1]
    none = np.empty((0, dims), np.float64)
    covariance = centred.T.astype(np.float64) @ centred  # (D, D)
    if not np.isfinite(covariance).all() or not covariance.trace() > 0:
        return none
    variance, vectors = np.linalg.eigh(covariance)
    share = np.cumsum(variance[::-1]) / variance.sum()
    needed = int(np.searchsorted(share, ENERGY)) + 1
    n = -(-(needed + 1) // STEP) * STEP - 1
    return vectors[:, : -n - 1 : -1].T if 2 * n < dims else none


def lower_distances(
    points: Floats,
    centres: Floats,
    dist: Floats,
    *,
    directions: PrincipalDirections | None = None,
    threads: int = 1,
) -> int:
    """Lower `dist` in place to each point's distance from its nearest centre.

    Parameters
    ----------
    points : (n, D) float32
    centres : (m, D) float32
    dist : (n,) float32
        Distance to the nearest centre so far: infinite where there is none, negative for a point
        that is one. Only what is smaller is written.
    directions : PrincipalDirections, optional
        They set the time, never the result. A few centres are measured as quickly without.

    Returns
    -------
    int
        Pairs that had to be measured in full.

    Raises
    ------
    NotFiniteError
        A point or a centre holds NaN or Inf.
    """
    points = array_argument("points", points, np.float32, (None, None))
    dims = points.shape[1]
    struct = Directions(dims=dims) if directions is None else directions.struct
    if struct.dims != dims:
        raise InvalidArgumentError(
            f"points have {dims} dimensions, the directions {struct.dims}: they must be equal"
        )
    centres = array_argument("centres", centres, np.float32, (None, dims))
    checked = array_argument("dist", dist, np.float32, (len(points),))
    if checked is not dist:
        raise InvalidArgumentError("dist must be C-contiguous: it is written in place")
    decided = c_int64()
    call(
        "kad_kcenter_flush",
        *(byref(struct), points.ctypes.data, len(points)),
        *(centres.ctypes.data, len(centres), threads_argument(threads)),
        *(dist.ctypes.data, byref(decided)),
    )
    return decided.value


class NativeKCenter(Handle):
    """Greedy k-center selection among points in memory (thesis, equation 4.4).

    Parameters
    ----------
    points : (n, D) float32
        Borrowed: they must not be changed while this lives.
    dist : (n,) float32
        Distance of each point to its nearest centre so far, as in `lower_distances`.
    directions : PrincipalDirections
    skipped : int
        So many of the farthest points are passed over in every step.
    threads : int

    Raises
    ------
    NotFiniteError
        A point holds NaN or Inf.
    """

    def __init__(
        self,
        points: Floats,
        dist: Floats,
        *,
        directions: PrincipalDirections,
        skipped: int = 0,
        threads: int = 1,
    ) -> None:
        self._points = array_argument("points", points, np.float32, (None, directions.struct.dims))
        dist = array_argument("dist", dist, np.float32, (len(points),))
        self._threads = threads_argument(threads)
        handle = c_void_p()
        call(
            "kad_kcenter_create",
            *(byref(directions.struct), self._points.ctypes.data, len(points), dist.ctypes.data),
            *(int_argument("skipped", skipped, 64), self._threads, byref(handle)),
        )
        self._hold(handle, "kcenter", called="selection")

    def pick(
        self, wanted: int, *, outside_dist: float = -np.inf, outside_row: int = NOWHERE
    ) -> tuple[Longs, Floats]:
        """Choose up to `wanted` more points: always the farthest, ties to the lowest row.

        Parameters
        ----------
        wanted : int
        outside_dist, outside_row : float, int
            The selection stops where the next point would not be farther than this, or as far and
            from this row on.

        Returns
        -------
        rows : (m,) int64
            m below `wanted` when it stopped.
        dist : (m,) float32
            Each one's distance from those chosen before it.
        """
        size = max(0, int_argument("wanted", wanted, 64))
        rows, dist = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.float32)
        count = c_int64()
        call(
            "kad_kcenter_pick",
            *(self._open_handle(), wanted, outside_dist, outside_row, self._threads),
            *(rows.ctypes.data, dist.ctypes.data, byref(count)),
        )
        return rows[: count.value], dist[: count.value]

    def stats(self) -> dict[str, int]:
        """Return the fields of ``kad_kcenter_stats``."""
        stats = KCenterStats()
        call("kad_kcenter_info", self._open_handle(), byref(stats))
        return counts(stats)
