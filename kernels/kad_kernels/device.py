"""Rows on the GPU, arranged for the kernels, and the lists that the kernels keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kad_kernels._cuda import DRIVER_ERRORS, LANES, SIMULATED, cuda
from kad_kernels.reference import checked
from kad_kernels.tiles import (
    ARRANGE_BLOCK,
    MERGE_BLOCK,
    NEAREST_BLOCK,
    SQUARE,
    TILE,
    arrange,
    clear,
    merge,
    nearest_tiles,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "GPU_ERRORS",
    "DeviceRows",
    "GpuError",
    "GpuMissingError",
    "empty_lists",
    "enter",
    "free_bytes",
    "gpu_is_available",
    "has_tensor_tier",
    "join",
    "require_gpu",
]


class GpuMissingError(RuntimeError):
    """There is no GPU that numba could use."""


class GpuError(RuntimeError):
    """The driver, or the compiler of kernels, refuses to go on."""


GPU_ERRORS = (GpuMissingError, GpuError, *DRIVER_ERRORS)
"""What the GPU's lack, the driver, or a lack of memory can raise."""
BLOCKS_WANTED = 512  # a few for each multiprocessor of a large GPU
MAX_SPLITS = 64


def gpu_is_available() -> bool:
    """Whether numba finds a GPU; the simulator does not count as one."""
    return not SIMULATED and bool(cuda.is_available())


def require_gpu(number: int = 0) -> None:
    """Refuse to go on without a GPU or numba's simulator; ``number`` says which GPU.

    Raises
    ------
    GpuMissingError
    """
    if not SIMULATED and not cuda.is_available():
        raise GpuMissingError(
            "numba finds no NVIDIA GPU: check the driver with `nvidia-smi`, or use the CPU; for a "
            "trial without a GPU set NUMBA_ENABLE_CUDASIM=1, which is slow"
        )
    if not 0 <= number < len(cuda.gpus):
        raise GpuMissingError(
            f"GPU {number} is not there: expected a number from 0 to {len(cuda.gpus) - 1}"
        )


def free_bytes() -> int:
    """Memory of the GPU that is free now; much in the simulator.

    Raises
    ------
    GpuMissingError
    """
    require_gpu()
    return 1 << 62 if SIMULATED else int(cuda.current_context().get_memory_info().free)


def has_tensor_tier() -> bool:
    """Whether there is a GPU with the tensor cores that :mod:`kad_kernels.tensor` asks for."""
    return gpu_is_available() and cuda.get_current_device().compute_capability >= (8, 0)


class DeviceRows:
    """Rows (n, D) on the GPU: lane by lane, see :mod:`kad_kernels.tiles`, n rounded up to 64.

    Parameters
    ----------
    rows : (n, D) float32
        Finite, at least one.

    Raises
    ------
    ValueError
        The rows are not such a matrix.
    GpuMissingError
    """

    def __init__(self, rows: NDArray[np.float32]) -> None:
        require_gpu()
        rows = np.ascontiguousarray(checked(rows, "rows"))
        self._allocate(*rows.shape)
        self.fill(cuda.to_device(rows))

    @classmethod
    def empty(cls, n: int, dims: int) -> DeviceRows:
        """Make room for n rows, to be filled."""
        require_gpu()
        rows = cls.__new__(cls)
        rows._allocate(n, dims)
        return rows

    def _allocate(self, n: int, dims: int) -> None:
        self.n, self.dims, self.room = n, dims, ceil_div(n, TILE) * TILE
        shape = ceil_div(dims, LANES) * LANES, self.room
        self.values = cuda.device_array(shape, np.float32)

    def fill(self, rows: Any, stream: Any = 0) -> None:
        """Take rows (n, D) that lie on the GPU, at most as many as there is room for.

        They are not looked at: NaN and Inf are the caller's to find.
        """
        n, dims = rows.shape
        if dims != self.dims or n > self.room:
            raise ValueError(
                f"expected at most {self.room} rows of {self.dims} dimensions, got {(n, dims)}"
            )
        self.n = n
        grid = ceil_div(self.room, SQUARE), ceil_div(self.values.shape[0], SQUARE)
        arrange[grid, ARRANGE_BLOCK, stream](rows, self.values)


def enter(
    queries: DeviceRows,
    bank: DeviceRows,
    first_row: int,
    dist: Any,
    index: Any,
    *,
    stream: Any = 0,
) -> None:
    """Enter all rows of a bank into the lists of the k nearest of all queries.

    Parameters
    ----------
    queries, bank : DeviceRows
    first_row : int
        Number of the bank's first row.
    dist, index : (splits, n, k) float32, int32, on the GPU
        Lists; the bank is shared out to the splits.
    stream
        Where it is launched.
    """
    if queries.dims != bank.dims:
        raise ValueError(f"queries have {queries.dims} dimensions, the bank {bank.dims}")
    tiles_each = ceil_div(ceil_div(bank.n, TILE), dist.shape[0])
    grid = ceil_div(queries.n, TILE), dist.shape[0]
    nearest_tiles[grid, NEAREST_BLOCK, stream](
        queries.values, bank.values, bank.n, first_row, tiles_each, dist, index
    )


def join(dist: Any, index: Any, stream: Any = 0) -> None:
    """Bring all splits' lists together in the first."""
    if dist.shape[0] > 1:
        merge[ceil_div(dist.shape[1], MERGE_BLOCK), MERGE_BLOCK, stream](dist, index)


def empty_lists(dist: Any, index: Any, stream: Any = 0) -> None:
    """Empty all lists."""
    places = dist.shape[0] * dist.shape[1]
    clear[ceil_div(places, MERGE_BLOCK), MERGE_BLOCK, stream](dist, index)


def n_splits(n_queries: int, n_rows: int) -> int:
    """Return among how many blocks a bank is shared so that all multiprocessors have work."""
    wanted = ceil_div(BLOCKS_WANTED, ceil_div(n_queries, TILE))
    return max(1, min(wanted, ceil_div(n_rows, TILE), MAX_SPLITS))


def ceil_div(a: int, b: int) -> int:
    """Divide, rounding up."""
    return -(-a // b)
