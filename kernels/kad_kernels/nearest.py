"""Exact nearest-neighbour search on the GPU, portable tier."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kad_kernels._cuda import cuda
from kad_kernels.device import DeviceRows, enter, join, n_splits
from kad_kernels.tiles import MAX_NEIGHBOURS, NOBODY

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NearestRows"]


class NearestRows:
    """A bank on the GPU, to be searched.

    Parameters
    ----------
    bank : (M, D) float32
        Finite, at least one row.

    Raises
    ------
    ValueError
        The bank is not such a matrix.
    GpuMissingError
        There is no GPU.
    """

    def __init__(self, bank: NDArray[np.float32]) -> None:
        self._bank = DeviceRows(bank)

    def query(
        self, queries: NDArray[np.float32], k: int = 1
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the k nearest rows of each query, nearest first, ties to the lowest row.

        The same bits as :func:`kad_kernels.reference.nearest`.

        Parameters
        ----------
        queries : (n, D) float32
        k : int
            1 to M, and at most 16.

        Returns
        -------
        dist : (n, k) float32
        index : (n, k) int64

        Raises
        ------
        ValueError
            The queries are not finite or not of the bank's dimension, or k is out of range.
        """
        most = min(MAX_NEIGHBOURS, self._bank.n)
        if not 1 <= k <= most:
            raise ValueError(f"k must be 1 to {most}, got {k}")
        rows = DeviceRows(queries)
        shape = n_splits(rows.n, self._bank.n), rows.n, k
        dist = cuda.to_device(np.full(shape, np.inf, np.float32))
        index = cuda.to_device(np.full(shape, NOBODY, np.int32))
        enter(rows, self._bank, 0, dist, index)
        join(dist, index)
        return dist.copy_to_host()[0], index.copy_to_host()[0].astype(np.int64)
