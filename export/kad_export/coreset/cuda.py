"""Workers and pools of the selection on a GPU.

The tensor tier screens pairs on tensor cores and measures those that may matter; the portable tier,
for older GPUs and numba's simulator, measures every pair. Both use the defined arithmetic: the
selection is the same. No point is left to wait for later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from kad_kernels.device import DeviceRows, free_bytes, has_tensor_tier
from kad_kernels.kcenter import Pool, Running

from kad_export.coreset.workers import PointsWorker, not_finite
from kad_sdk._native import spread_rows
from kad_sdk.errors import NotFiniteError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kad_kernels.tensor.basis import Basis

    from kad_export.coreset.workers import Candidates, Points

__all__ = ["CudaPickers", "CudaWorker", "SharedBasis", "SharedRoom", "most_pool_rows"]

POINT_BYTES = 264  # of a row on the GPU, beside its values
HELD_BYTES = 16 << 30  # of points that stay on the GPU from one flush to the next
CHUNK_ROWS = 262_144  # points that are compared at a time
PICKS_AT_ONCE = 4_096


def most_pool_rows(n_points: int) -> int:
    """Rows of a pool that the GPU can hold; the portable tier holds any number."""
    if not has_tensor_tier():
        return n_points
    from kad_kernels.tensor.pool import most_rows  # noqa: PLC0415 - needs a GPU that has it

    return most_rows()


class SharedBasis:
    """The directions along which all workers and pools of a selection screen: found once."""

    def __init__(self) -> None:
        self._basis: Basis | None = None

    def of(self, sample: Callable[[], np.ndarray]) -> Basis:
        """Give them; the first to ask has its sample (n, d) looked at."""
        if self._basis is None:
            from kad_kernels.tensor.basis import find_basis  # noqa: PLC0415 - needs a GPU

            self._basis = find_basis(sample())
        return self._basis


class SharedRoom:
    """Memory in which points stay on the GPU from one flush to the next: one for all workers.

    Raises
    ------
    GpuMissingError
    """

    def __init__(self) -> None:
        self._left = min(HELD_BYTES, free_bytes() // 2)

    def take(self, n_bytes: int) -> bool:
        """Take so much of it, if there is as much left; whether there was."""
        if n_bytes > self._left:
            return False
        self._left -= n_bytes
        return True


class CudaPickers:
    """Makes pools on the GPU.

    Parameters
    ----------
    basis : SharedBasis
    """

    def __init__(self, basis: SharedBasis) -> None:
        self._basis = basis

    def __call__(self, points: np.ndarray, dist: np.ndarray) -> _Picker:
        """Make the pool of points (p, d) with their distances (p,)."""
        if not has_tensor_tier():
            return _Picker(Pool(points, dist))
        from kad_kernels.tensor import ScreenedPool  # noqa: PLC0415

        return _Picker(ScreenedPool(points, dist, self._basis.of(lambda: points)))


class _Picker:
    """A pool as :class:`kad_export.coreset.driver.Picker`."""

    picks_at_once = PICKS_AT_ONCE

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.pick, self.close = pool.pick, pool.close

    def stats(self) -> dict[str, int]:
        """Pairs screened and measured."""
        pairs, measured = self._pool.pairs, self._pool.measured()
        screened = pairs if measured < pairs else 0
        counts = {"flushes": 0, "screened_pairs": screened, "decided_pairs": 0}
        return counts | {"inner_pairs": measured}


class CudaWorker(PointsWorker):
    """A worker that compares on the GPU, chunk by chunk.

    Parameters
    ----------
    points, first_row, pool_rows
        As for :class:`PointsWorker`.
    basis : SharedBasis
    room : SharedRoom
    """

    def __init__(
        self,
        points: Points,
        *,
        first_row: int = 0,
        pool_rows: int,
        basis: SharedBasis,
        room: SharedRoom,
    ) -> None:
        super().__init__(points, first_row=first_row, pool_rows=pool_rows)
        self._held: dict[int, Any] = {}
        self._holds_all = room.take(points.shape[0] * (4 * points.shape[1] + POINT_BYTES))
        self._screens = has_tensor_tier()
        self._basis = basis

    def flush(self, rows: np.ndarray, centres: np.ndarray, level: float) -> Candidates:
        """See :class:`kad_export.coreset.workers.Worker`; ``level`` would save nothing."""
        del level
        self._screened = self._measured = 0
        compare = self._screen if self._screens else self._measure_all
        new: Any = None
        for first in range(0, self.shape[0], CHUNK_ROWS):
            new = compare(slice(first, min(first + CHUNK_ROWS, self.shape[0])), centres, new)
        own = rows[(rows >= self.first_row) & (rows < self.first_row + self.shape[0])]
        self._centres = np.concatenate([self._centres, centres])
        self.seen[:] = len(self._centres)
        self.dist[own - self.first_row] = -1
        return self._candidates()

    def _screen(self, chunk: slice, centres: np.ndarray, new: Any) -> Any:
        """Compare a chunk with the new centres on tensor cores; ``new``: they are on the GPU."""
        points = self._on_gpu(chunk)
        before = points.measured()
        points.start(self.dist[chunk])
        try:
            new = points.store(centres) if new is None else new
        except ValueError as error:
            raise NotFiniteError(
                f"features of selected rows contain NaN or Inf ({error})"
            ) from error
        points.flush(new)
        self.dist[chunk] = points.read()[0]
        self._screened += points.n * new.n
        self._measured += points.measured() - before
        return new

    def _measure_all(self, chunk: slice, centres: np.ndarray, new: Any) -> Any:
        points = self._on_gpu(chunk)
        new = DeviceRows(centres) if new is None else new
        running = Running(points, self.dist[chunk])
        running.flush(new)
        self.dist[chunk] = running.read()[0]
        self._measured += points.n * new.n
        return new

    def _on_gpu(self, chunk: slice) -> Any:
        if chunk.start in self._held:
            return self._held[chunk.start]
        try:
            points = self._to_gpu(np.asarray(self._points[chunk], np.float32))
        except ValueError as error:
            raise not_finite(self._points, chunk, self.first_row) from error
        if self._holds_all:
            self._held[chunk.start] = points
        return points

    def _to_gpu(self, points: np.ndarray) -> Any:
        if not self._screens:
            return DeviceRows(points)
        from kad_kernels.tensor import ScreenedRunning  # noqa: PLC0415

        basis = self._basis.of(lambda: self.fetch(spread_rows(self.shape[0])))
        return ScreenedRunning(points, basis)
