"""Workers and pools of the selection on a GPU.

A GPU compares every pair in the defined arithmetic: nothing is screened, and no point is left to
wait for later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from kad_kernels.device import DeviceRows
from kad_kernels.kcenter import Pool, Running

from kad_export.coreset.workers import PointsWorker
from kad_sdk.errors import NotFiniteError

if TYPE_CHECKING:
    from kad_export.coreset.workers import Candidates, Points

__all__ = ["CudaPicker", "CudaWorker"]

CHUNKS_HELD_BYTES = 16 << 30  # of points that stay on the GPU from one flush to the next


class CudaPicker(Pool):
    """The pool on the GPU; see :class:`kad_export.coreset.driver.Picker`."""

    def stats(self) -> dict[str, int]:
        """Pairs compared; nothing is screened."""
        none = dict.fromkeys(("flushes", "screened_pairs", "decided_pairs"), 0)
        return none | {"inner_pairs": self.pairs}


class CudaWorker(PointsWorker):
    """A worker that compares on the GPU, chunk by chunk.

    Parameters
    ----------
    points, first_row, pool_rows
        As for :class:`PointsWorker`.
    """

    def __init__(self, points: Points, *, first_row: int = 0, pool_rows: int) -> None:
        super().__init__(points, first_row=first_row, pool_rows=pool_rows)
        self._held: dict[int, DeviceRows] = {}
        self._holds_all = 4 * points.shape[0] * points.shape[1] <= CHUNKS_HELD_BYTES

    def flush(self, rows: np.ndarray, centres: np.ndarray, level: float) -> Candidates:
        """See :class:`kad_export.coreset.workers.Worker`; ``level`` would save nothing."""
        del level
        self._new = DeviceRows(centres)
        return super().flush(rows, centres, -np.inf)

    def _update(self, chunk: slice, level: float) -> None:
        """Compare all points of a chunk with the new centres."""
        del level
        points = self._on_gpu(chunk)
        running = Running(points, self.dist[chunk])
        running.flush(self._new)
        self.dist[chunk] = running.read()[0]
        self.seen[chunk] = len(self._centres)
        self._measured += points.n * self._new.n

    def _on_gpu(self, chunk: slice) -> DeviceRows:
        if chunk.start in self._held:
            return self._held[chunk.start]
        try:
            points = DeviceRows(np.asarray(self._points[chunk], np.float32))
        except ValueError as error:
            first = self.first_row + chunk.start
            raise NotFiniteError(
                f"features {first} to {self.first_row + chunk.stop} contain NaN or Inf ({error})"
            ) from error
        if self._holds_all:
            self._held[chunk.start] = points
        return points
