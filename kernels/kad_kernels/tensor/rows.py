"""Exact nearest-neighbour search on the GPU, tensor tier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kad_kernels._cuda import address, cuda, view
from kad_kernels.device import ceil_div, require_gpu
from kad_kernels.reference import checked
from kad_kernels.tensor.basis import find_basis
from kad_kernels.tensor.points import (
    GROUPS,
    THREADS,
    TILE,
    DeviceBasis,
    Points,
    PointsStore,
    queries_at_once,
    screen,
)
from kad_kernels.tensor.program import Kernel, multiprocessors
from kad_kernels.tiles import MAX_NEIGHBOURS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kad_kernels.tensor.basis import Basis

__all__ = ["FEWEST_ROWS", "ScreenedRows", "decide"]

FEWEST_ROWS = 2_048  # of a bank; 16 lanes of a warp then have a tile each
PROBES = 256  # rows of the bank that tell how much screening saves
WARPS = THREADS // 32


class ScreenedRows:
    """A bank on the GPU, to be searched by one thread at a time, on one stream.

    Its interface is that of :class:`kad_kernels.nearest.NearestRows`.

    Parameters
    ----------
    bank : (M, D) float32
        Finite; 2,048 rows at least.
    basis : Basis, optional
        Directions found before; by default those of the bank.

    Attributes
    ----------
    rows : (M, D) float32, on the GPU
        The bank as it was given.

    Raises
    ------
    ValueError
        The bank is not such a matrix.
    GpuMissingError
        There is no GPU of compute capability 8.0 or later.
    """

    def __init__(self, bank: NDArray[np.float32], basis: Basis | None = None) -> None:
        require_gpu()
        bank = np.ascontiguousarray(checked(bank, "bank"))
        if len(bank) < FEWEST_ROWS:
            raise ValueError(
                f"bank: expected at least {FEWEST_ROWS} rows for screening, got {len(bank)}: use "
                "tier='portable'"
            )
        self.n, self.dims = bank.shape
        self._basis = DeviceBasis(find_basis(bank) if basis is None else basis)
        self.rows = cuda.to_device(bank)
        self._bank = PointsStore(self.rows, self._basis)
        self._probes = bank[:: max(1, self.n // PROBES)].copy()
        self._processors = multiprocessors()
        self._counts = cuda.to_device(np.zeros(2, np.uint64))
        self._kept_lists: dict[tuple[int, int], tuple[Any, Any]] = {}
        self._kept_room: tuple[Points, Any] | None = None
        self._parts: dict[int, Points] = {}  # of that room

    def query(
        self, queries: NDArray[np.float32], k: int = 1
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the k nearest rows of each query; as :meth:`NearestRows.query`."""
        queries = np.ascontiguousarray(checked(queries, "queries"))
        dist, index = self.query_device(cuda.to_device(queries), k)
        return dist.copy_to_host(), index.copy_to_host().astype(np.int64)

    def query_device(self, rows: Any, k: int = 1, stream: Any = 0) -> tuple[Any, Any]:
        """Find the k nearest rows of queries that are on the GPU; returns at once.

        The answer's memory is used again by the next query of as many.

        Parameters
        ----------
        rows : (n, D) float32
            Anything with ``__cuda_array_interface__``, in C order; where D is a multiple of 4, at
            an address that is one of 16, as every allocation is. It is not looked at for NaN and
            Inf: what is found for such a query means nothing.
        k : int
            1 to 16.
        stream
            Where the kernels are launched.

        Returns
        -------
        dist : (n, k) float32, on the GPU
        index : (n, k) int32, on the GPU
        """
        rows = view(rows)
        if rows.dtype != np.float32 or not rows.is_c_contiguous():
            raise ValueError(f"queries must be float32 in C order, got {rows.dtype}, or strides")
        n, dims = rows.shape
        if dims != self.dims:
            raise ValueError(f"queries have {dims} dimensions, the bank {self.dims}")
        if dims % 4 == 0 and address(rows) % 16:  # `project` reads four values at a time
            raise ValueError(
                f"queries must begin at a multiple of 16 bytes, got address {address(rows):#x}, "
                "inside some array: copy them"
            )
        if not 1 <= k <= MAX_NEIGHBOURS:
            raise ValueError(f"k must be 1 to {MAX_NEIGHBOURS}, got {k}")
        dist, index = self._lists(n, k)
        at_once = queries_at_once(self._bank)
        for first in range(0, n, at_once):
            part = slice(first, min(first + at_once, n))
            self._search(rows[part], dist[part], index[part], k, stream)
        return dist, index

    def counts(self) -> tuple[int, int]:
        """Rows that were looked at as points one by one, and rows measured, so far."""
        looked, measured = self._counts.copy_to_host()
        return int(looked), int(measured)

    def measured_share(self) -> float:
        """Share of the bank that a query takes to be measured.

        Found by rows of the bank itself, evenly spread, that look for the nearest other row.

        Returns
        -------
        float
            0 to 1; the nearer to 0, the more screening saves.
        """
        before = self.counts()[1]
        self.query_device(cuda.to_device(self._probes), 2)
        return (self.counts()[1] - before) / (len(self._probes) * self.n)

    def _search(self, rows: Any, dist: Any, index: Any, k: int, stream: Any) -> None:
        n = rows.shape[0]
        points, least = self._room(n)
        self._basis.project(rows, n, points, stream)
        screen(points, self._bank, least, self._processors, stream)
        decide(
            *(rows, points, self._bank, self._basis.host, least),
            dist=dist,
            index=index,
            k=k,
            counts=self._counts,
            stream=stream,
        )

    def _lists(self, n: int, k: int) -> tuple[Any, Any]:
        """Room for answers, kept for the next call."""
        lists = self._kept_lists
        if (n, k) not in lists:
            if len(lists) > 3:  # whole batches, and the last one of a board
                lists.clear()
            lists[n, k] = (
                cuda.device_array((n, k), np.float32),
                cuda.device_array((n, k), np.int32),
            )
        return lists[n, k]

    def _room(self, n: int) -> tuple[Points, Any]:
        """Room for n queries: of the one for most so far, which is kept.

        Its least distances (tiles, padded, 8) are packed anew for each number of queries.
        """
        padded = ceil_div(n, TILE) * TILE
        if self._kept_room is None or self._kept_room[0].padded < padded:
            self._kept_room, self._parts = None, {}  # before memory for the new one is asked for
            least = cuda.device_array((self._bank.tiles, padded, GROUPS), np.uint16)
            self._kept_room = Points(n), least
        points, least = self._kept_room
        if padded not in self._parts:
            self._parts[padded] = points.part(0, n)
        return self._parts[padded], least


def decide(
    rows: Any,
    points: Points,
    bank: PointsStore,
    basis: Basis,
    least: Any,
    *,
    dist: Any,
    index: Any,
    k: int,
    counts: Any,
    known: bool = False,
    first_row: int = 0,
    stream: Any = 0,
) -> None:
    """Measure what may be among the k nearest; see ``decide.cu``. Returns at once."""
    n = rows.shape[0]
    slack = bank.slack + basis.absolute * basis.scale if bank.screenable else float("nan")
    Kernel("decide").launch(
        (ceil_div(n, WARPS), 1),
        THREADS,
        (
            *(rows, np.int64(n), basis.dims, bank.rows, bank.n),
            *(points.point, points.norm2, points.slack, bank.points.point, bank.points.norm2),
            *(slack, bank.norm, basis.scale, basis.relative, least, bank.tiles),
            *(np.int64(points.padded), k, int(known), first_row, dist, index, counts),
        ),
        stream=stream,
    )
