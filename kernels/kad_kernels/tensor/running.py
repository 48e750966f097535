"""The flush of the selection on the GPU, tensor tier: many points, many centres."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kad_kernels._cuda import cuda
from kad_kernels.tensor.points import (
    GROUPS,
    DeviceBasis,
    Points,
    PointsStore,
    queries_at_once,
    screen,
)
from kad_kernels.tensor.program import multiprocessors
from kad_kernels.tensor.rows import decide
from kad_kernels.tiles import NOBODY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kad_kernels.tensor.basis import Basis

__all__ = ["ScreenedRunning"]


class ScreenedRunning:
    """Points on the GPU, each with its least distance so far and the centre that it is from.

    As :class:`kad_kernels.kcenter.Running`, with the same results.

    Parameters
    ----------
    rows : (n, D) float32
        Finite.
    basis : Basis
        Directions; any will do, those of such rows leave the least to measure.
    dist : (n,) float32, optional
        To begin with; infinite where not given, negative for a centre.
    """

    def __init__(
        self,
        rows: NDArray[np.float32],
        basis: Basis,
        dist: NDArray[np.float32] | None = None,
    ) -> None:
        self._basis = DeviceBasis(basis)
        self.n = len(rows)
        self.rows = cuda.to_device(np.ascontiguousarray(rows, np.float32))
        self.points = Points(self.n)
        self._basis.project(self.rows, self.n, self.points)
        if int(self.points.flag.copy_to_host()[0]):
            raise ValueError("points: expected finite values, got NaN or Inf")
        self.start(np.full(self.n, np.inf, np.float32) if dist is None else dist)
        self._counts = cuda.to_device(np.zeros(2, np.uint64))

    def start(self, dist: NDArray[np.float32]) -> None:
        """Set the distances (n,) to begin with, from no centre."""
        dist = np.array(dist, np.float32).reshape(self.n, 1)
        self._dist = cuda.to_device(dist)
        self._index = cuda.to_device(np.full((self.n, 1), NOBODY, np.int32))

    def store(self, centres: NDArray[np.float32]) -> PointsStore:
        """Bring centres (m, D) to the GPU, for :meth:`flush` of any number of such objects."""
        rows = cuda.to_device(np.ascontiguousarray(centres, np.float32))
        return PointsStore(rows, self._basis)

    def flush(self, centres: PointsStore, first_centre: int = 0) -> None:
        """Compare all points with centres, numbered from ``first_centre``."""
        at_once = queries_at_once(centres)
        room = min(at_once, self.points.padded)
        least = cuda.device_array((centres.tiles, room, GROUPS), np.uint16)
        for first in range(0, self.n, at_once):
            part = slice(first, min(first + at_once, self.n))
            points = self.points.part(first, part.stop - first)
            screen(points, centres, least, multiprocessors(), 0)
            decide(
                *(self.rows[part], points, centres, self._basis.host, least),
                dist=self._dist[part],
                index=self._index[part],
                k=1,
                counts=self._counts,
                known=True,
                first_row=first_centre,
            )

    def read(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Least distances (n,), and the numbers (n,) of their centres, 2^31 - 1 where none."""
        dist, index = self._dist.copy_to_host(), self._index.copy_to_host()
        return dist[:, 0], index[:, 0].astype(np.int64)

    def measured(self) -> int:
        """Pairs of a point and a centre measured so far."""
        return int(self._counts.copy_to_host()[1])
