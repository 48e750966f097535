"""Greedy selection in a pool on the GPU, tensor tier: all steps in one launch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kad_kernels._cuda import cuda
from kad_kernels.device import ceil_div
from kad_kernels.kcenter import NO_CENTRE, NOWHERE
from kad_kernels.reference import checked
from kad_kernels.tensor.basis import POINT, find_basis
from kad_kernels.tensor.points import DeviceBasis, PointsStore
from kad_kernels.tensor.program import Kernel, multiprocessors, shared_bytes
from kad_kernels.tiles import NOBODY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kad_kernels.tensor.basis import Basis

__all__ = ["ScreenedPool", "most_rows"]

THREADS = 512
ROW_BYTES = 2 * POINT + 16  # of a row in shared memory: point, norm, slack, distance, a place
STATIC_BYTES = 1_024
MOST_STEPS = 100_000  # of a launch


def most_rows() -> int:
    """Rows that a pool may have on the current GPU."""
    return multiprocessors() * ((shared_bytes() - STATIC_BYTES) // ROW_BYTES)


class ScreenedPool:
    """Greedy selection among points on the GPU; as :class:`kad_kernels.kcenter.Pool`.

    Parameters
    ----------
    points : (n, D) float32
        Finite; n up to :func:`most_rows`.
    dist : (n,) float32
        Distance of each to its nearest centre so far; negative for a centre.
    basis : Basis, optional
        Directions found before.
    """

    def __init__(
        self,
        points: NDArray[np.float32],
        dist: NDArray[np.float32],
        basis: Basis | None = None,
    ) -> None:
        points = np.ascontiguousarray(checked(points, "points"))
        self._n = len(points)
        if self._n > most_rows():
            raise ValueError(f"points: expected at most {most_rows()}, got {self._n}")
        self._basis = find_basis(points) if basis is None else basis
        self._store = PointsStore(cuda.to_device(points), DeviceBasis(self._basis))
        self._dist = cuda.to_device(np.array(dist, np.float32))
        self._each = ceil_div(self._n, multiprocessors())
        self._blocks = ceil_div(self._n, self._each)
        self._last = int(NO_CENTRE)
        self._kernel = Kernel("pick")
        self._counts = cuda.to_device(np.zeros(2, np.uint64))
        self.pairs = 0  # of a point and a centre, compared so far

    def pick(
        self, wanted: int, *, outside_dist: float = -np.inf, outside_row: int = NOWHERE
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Choose up to ``wanted`` more points; as :meth:`kad_kernels.kcenter.Pool.pick`."""
        rows, dists = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        while wanted > 0:
            steps = min(wanted, MOST_STEPS)
            row, dist = self._launch(steps, outside_dist, min(outside_row, int(NOBODY)))
            rows.append(row)
            dists.append(dist)
            wanted -= len(row)
            if len(row) < steps:
                break
        return np.concatenate(rows), np.concatenate(dists)

    def _launch(
        self, steps: int, outside_dist: float, outside_row: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        basis, store = self._basis, self._store
        best = cuda.to_device(np.zeros(steps, np.uint64))
        arrived = cuda.to_device(np.zeros(1, np.uint32))
        row = cuda.device_array(steps, np.int32)
        dist = cuda.device_array(steps, np.float32)
        count = cuda.to_device(np.zeros(1, np.int32))
        self._kernel.launch(
            (self._blocks, 1),
            THREADS,
            (
                *(store.rows, self._n, basis.dims),
                *(store.points.point, store.points.norm2, store.points.slack),
                *(store.norm, basis.scale, basis.relative, basis.absolute, self._each),
                *(self._dist, self._last, float(outside_dist), outside_row, steps),
                *(best, arrived, row, dist, count, self._counts),
            ),
            shared=self._each * ROW_BYTES,
            together=True,
        )
        n = int(count.copy_to_host()[0])
        found = row.copy_to_host()[:n].astype(np.int64)
        self.pairs += self._n * n
        if n:
            self._last = int(found[-1])
        return found, dist.copy_to_host()[:n]

    def measured(self) -> int:
        """Pairs of a point and a centre measured so far."""
        return int(self._counts.copy_to_host()[0])

    def close(self) -> None:
        """Free the memory on the GPU."""
        del self._store, self._dist
