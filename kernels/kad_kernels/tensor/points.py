"""Rows on the GPU as points for screening, and the screening of all pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kad_kernels._cuda import cuda
from kad_kernels.device import ceil_div
from kad_kernels.tensor.basis import POINT
from kad_kernels.tensor.program import Kernel

if TYPE_CHECKING:
    from kad_kernels.tensor.basis import Basis

__all__ = [
    "GROUPS",
    "TILE",
    "DeviceBasis",
    "Points",
    "PointsStore",
    "queries_at_once",
    "screen",
]

TILE = 128  # points that are compared with 128 others at a time
GROUPS = 8  # of 16 points, in a tile
THREADS = 256
PROJECTED = 64  # rows of a block
STAGES, STAGE_BYTES = 3, TILE * (2 * POINT + 4)
LEAST_BYTES = 256 << 20  # of the least distances that are kept at a time
BLOCKS_EACH = 6  # for every multiprocessor, in a screening


class DeviceBasis:
    """A basis on the GPU.

    Parameters
    ----------
    basis : Basis
    """

    def __init__(self, basis: Basis) -> None:
        self.host = basis
        self._mean = cuda.to_device(basis.mean)
        self._directions = cuda.to_device(basis.directions.view(np.uint16))
        self._kernel = Kernel("project")

    def project(self, rows: Any, n: int, into: Points, stream: Any = 0) -> None:
        """Bring rows (n, D) float32 on the GPU to points; returns at once."""
        host = self.host
        self._kernel.launch(
            (into.padded // PROJECTED, 1),
            THREADS,
            (
                *(rows, np.int64(n), host.dims, host.padded, self._mean, host.scale),
                *(self._directions, host.inverse_sigma, host.rest_weight),
                *(into.point, into.norm2, into.slack, into.flag),
            ),
            stream=stream,
        )


class Points:
    """Room for n points on the GPU, n rounded up to whole tiles.

    Attributes
    ----------
    point : (padded, 128) uint16
        Bits of fp16.
    norm2, slack : (padded,) float32
        Squared length; how far a point may be from the true one.
    flag : (1,) int32
        Not 0 where a row was not finite.
    """

    def __init__(self, n: int) -> None:
        self.padded = ceil_div(n, TILE) * TILE
        self.point = cuda.device_array((self.padded, POINT), np.uint16)
        self.norm2 = cuda.device_array(self.padded, np.float32)
        self.slack = cuda.device_array(self.padded, np.float32)
        self.flag = cuda.to_device(np.zeros(1, np.int32))

    def part(self, first: int, n: int) -> Points:
        """Give n of them, from a multiple of 128 on; they stay where they are."""
        part = Points.__new__(Points)
        part.padded = ceil_div(n, TILE) * TILE
        here = slice(first, first + part.padded)
        part.point, part.norm2, part.slack = self.point[here], self.norm2[here], self.slack[here]
        part.flag = self.flag
        return part


class PointsStore:
    """Rows that stay on the GPU with their points: a bank, or centres.

    Parameters
    ----------
    rows : (n, D) float32, on the GPU
        C-contiguous.
    basis : DeviceBasis

    Attributes
    ----------
    rows, points, n
    slack, norm : float
        The largest slack and length of all points.
    screenable : bool
        Whether all points fit into fp16; otherwise every row is measured.

    Raises
    ------
    ValueError
        A row is not finite.
    """

    def __init__(self, rows: Any, basis: DeviceBasis) -> None:
        self.rows, self.n = rows, int(rows.shape[0])
        self.points = Points(self.n)
        basis.project(rows, self.n, self.points)
        if int(self.points.flag.copy_to_host()[0]):
            raise ValueError("rows: expected finite values, got NaN or Inf")
        norm2 = self.points.norm2.copy_to_host()[: self.n]
        slack = self.points.slack.copy_to_host()[: self.n]
        with np.errstate(over="ignore", invalid="ignore"):
            self.norm = float(np.sqrt(norm2.max()) * np.float32(1 + 2.0**-20))
        self.slack = float(slack.max())
        self.screenable = bool(np.isfinite(self.norm) and np.isfinite(self.slack))

    @property
    def tiles(self) -> int:
        """Tiles of 128 points."""
        return self.points.padded // TILE


def queries_at_once(bank: PointsStore) -> int:
    """Give a multiple of 128 queries whose least distances stay within LEAST_BYTES."""
    return max(1, LEAST_BYTES // (2 * GROUPS * bank.tiles * TILE)) * TILE


def screen(queries: Points, bank: PointsStore, least: Any, n_processors: int, stream: Any) -> None:
    """Fill ``least`` (tiles, padded queries, 8) uint16 for all pairs; returns at once."""
    blocks = queries.padded // TILE
    wanted = max(1, ceil_div(BLOCKS_EACH * n_processors, blocks))
    each = ceil_div(bank.tiles, min(wanted, bank.tiles))
    Kernel("screen").launch(
        (blocks, ceil_div(bank.tiles, each)),
        THREADS,
        (
            *(queries.point, queries.norm2, np.int64(queries.padded)),
            *(bank.points.point, bank.points.norm2, bank.tiles, each, least),
        ),
        shared=STAGES * STAGE_BYTES,
        stream=stream,
    )
