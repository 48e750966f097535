"""Exact nearest-neighbour search on the GPU, portable tier, and the choice of a tier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kad_kernels._cuda import cuda, view
from kad_kernels.device import (
    DeviceRows,
    empty_lists,
    enter,
    has_tensor_tier,
    join,
    n_splits,
    require_gpu,
)
from kad_kernels.reference import checked
from kad_kernels.tiles import MAX_NEIGHBOURS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kad_kernels.tensor.rows import ScreenedRows

__all__ = ["TIERS", "NearestRows", "open_rows"]

TIERS = ("auto", "portable", "tensor")
MOST_MEASURED = 0.5  # share of a bank; from there on it is faster to measure every pair


class NearestRows:
    """A bank on the GPU, to be searched by one thread at a time.

    Parameters
    ----------
    bank : (M, D) float32
        Finite, at least one row.

    Attributes
    ----------
    rows : (M, D) float32, on the GPU
        The bank as it was given.

    Raises
    ------
    ValueError
        The bank is not such a matrix.
    GpuMissingError
        There is no GPU.
    """

    def __init__(self, bank: NDArray[np.float32]) -> None:
        require_gpu()
        bank = np.ascontiguousarray(checked(bank, "rows"))
        self.rows = cuda.to_device(bank)
        self._bank = DeviceRows.empty(*bank.shape)
        self._bank.fill(self.rows)
        self._queries: DeviceRows | None = None
        self._lists: dict[tuple[int, int], tuple[Any, Any]] = {}

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
        queries = np.ascontiguousarray(checked(queries, "rows"))
        dist, index = self.query_device(cuda.to_device(queries), k)
        return dist.copy_to_host(), index.copy_to_host().astype(np.int64)

    def query_device(self, rows: Any, k: int = 1, stream: Any = 0) -> tuple[Any, Any]:
        """Do as :meth:`query` with queries that lie on the GPU, where the answer stays.

        Nothing is waited for. The answer's memory is used again by the next query: copy it on the
        same stream, or wait, before that.

        Parameters
        ----------
        rows : (n, D) float32
            Anything with ``__cuda_array_interface__``, in C order. It is not looked at for NaN and
            Inf: what is found for such a query means nothing, and the row may be 2^31 - 1.
        k : int
            As there.
        stream
            Where the kernels are launched.

        Returns
        -------
        dist : (n, k) float32
        index : (n, k) int32

        Raises
        ------
        ValueError
            The rows are not of the bank's dimension, or k is out of range.
        """
        most = min(MAX_NEIGHBOURS, self._bank.n)
        if not 1 <= k <= most:
            raise ValueError(f"k must be 1 to {most}, got {k}")
        rows = view(rows)
        if rows.shape[1] != self._bank.dims:
            raise ValueError(f"queries have {rows.shape[1]} dimensions, the bank {self._bank.dims}")
        queries = self._arranged(rows, stream)
        dist, index = self._empty_lists(queries.n, k, stream)
        enter(queries, self._bank, 0, dist, index, stream=stream)
        join(dist, index, stream)
        return dist[0], index[0]

    def _arranged(self, rows: Any, stream: Any) -> DeviceRows:
        """Turn queries over, into memory that is kept for as many."""
        n = rows.shape[0]
        if self._queries is None or n > self._queries.room:
            self._queries = DeviceRows.empty(n, self._bank.dims)
        self._queries.fill(rows, stream)
        return self._queries

    def _empty_lists(self, n: int, k: int, stream: Any) -> tuple[Any, Any]:
        if (n, k) not in self._lists:
            if len(self._lists) > 3:  # whole batches, and the last one of a board
                self._lists.clear()
            shape = n_splits(n, self._bank.n), n, k
            self._lists[n, k] = (
                cuda.device_array(shape, np.float32),
                cuda.device_array(shape, np.int32),
            )
        dist, index = self._lists[n, k]
        empty_lists(dist, index, stream)
        return dist, index


def open_rows(bank: NDArray[np.float32], tier: str = "auto") -> NearestRows | ScreenedRows:
    """Bring a bank (M, D) to the GPU, to be searched by a tier of kernels.

    Parameters
    ----------
    bank : (M, D) float32
    tier : str
        ``"portable"`` runs on every GPU and in numba's simulator, and compares every pair;
        ``"tensor"`` screens on tensor cores, of compute capability 8.0 and later; ``"auto"``
        screens where this GPU can, and where few rows are left by it. All give the same bits.

    Raises
    ------
    ValueError
        The bank is not such a matrix, the tier is unknown, or the bank has too few rows for it.
    GpuMissingError
        There is no GPU, or not one that has the tier.
    """
    if tier not in TIERS:
        raise ValueError(f"tier must be one of {', '.join(TIERS)}, got {tier!r}")
    require_gpu()
    if tier == "portable" or (tier == "auto" and not has_tensor_tier()):
        return NearestRows(bank)
    from kad_kernels.tensor.rows import FEWEST_ROWS, ScreenedRows  # noqa: PLC0415 - no simulator

    if tier == "tensor":
        return ScreenedRows(bank)
    if len(bank) < FEWEST_ROWS:
        return NearestRows(bank)
    screened = ScreenedRows(bank)
    return screened if screened.measured_share() < MOST_MEASURED else NearestRows(bank)
