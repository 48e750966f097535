"""The one place that imports numba's ``cuda``, and the defined arithmetic on the device.

The arithmetic is that of :mod:`kad_kernels.reference`: every operation rounded on its own. A plain
``total + d * d`` would become one fused multiply-add; the intrinsics below name their rounding, and
neither NVVM nor ptxas may fuse them. numba's simulator does not have these intrinsics; there the
same operations are NumPy's, on float32 scalars.

The simulator has neither streams of others, nor addresses on a device, nor times: what stands for
them is here too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# numba-cuda 0.30 asks for this name, which NumPy 2.5 has removed.
vars(np).setdefault("row_" + "stack", np.vstack)

from numba import cuda  # noqa: E402
from numba.cuda import config, libdevice  # noqa: E402
from numba.cuda.cudadrv.driver import CudaAPIError  # noqa: E402
from numba.cuda.cudadrv.error import CudaSupportError  # noqa: E402

__all__ = [
    "DRIVER_ERRORS",
    "LANES",
    "SIMULATED",
    "add",
    "address",
    "cuda",
    "elapsed_ms",
    "mul",
    "root",
    "step",
    "stream_pointer",
    "view",
]

LANES = 16  # partial sums of the defined arithmetic
# Small grids are meant: a pick is one block, and a board's last batch may be one tile.
config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
SIMULATED = bool(config.ENABLE_CUDASIM)


def _launch_errors() -> tuple[type[Exception], ...]:
    """Give what cuda.core raises, through which newer releases of numba-cuda launch kernels."""
    if SIMULATED:
        return ()
    try:
        from cuda.core._utils.cuda_utils import CUDAError  # noqa: PLC0415 - it may be missing
    except ImportError:
        return ()
    return (CUDAError,)


DRIVER_ERRORS = (CudaAPIError, CudaSupportError, *_launch_errors())


if SIMULATED:

    def step(total, a, b):
        """``total + (a - b)^2``, each operation rounded to float32."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            difference = a - b
            return total + difference * difference

    def add(a, b):
        """Sum, rounded to float32."""
        with np.errstate(over="ignore", invalid="ignore"):
            return a + b

    def mul(a, b):
        """Product, rounded to float32."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return a * b

    def root(x):
        """Square root rounded to float32."""
        return np.sqrt(x)

else:

    @cuda.jit(device=True, inline="always")
    def step(total, a, b):
        """``total + (a - b)^2``, each operation rounded to float32."""
        difference = libdevice.fadd_rn(a, -b)
        return libdevice.fadd_rn(total, libdevice.fmul_rn(difference, difference))

    @cuda.jit(device=True, inline="always")
    def add(a, b):
        """Sum, rounded to float32."""
        return libdevice.fadd_rn(a, b)

    @cuda.jit(device=True, inline="always")
    def mul(a, b):
        """Product, rounded to float32."""
        return libdevice.fmul_rn(a, b)

    @cuda.jit(device=True, inline="always")
    def root(x):
        """Square root rounded to float32."""
        return libdevice.fsqrt_rn(x)


def view(array: Any) -> Any:
    """Give a device array of any library, by ``__cuda_array_interface__``, to kernels: no copy."""
    return array if hasattr(array, "__cuda_ndarray__") else cuda.as_cuda_array(array, sync=False)


def address(array: Any) -> int:
    """Give the address of an array's first value; in the simulator, in the host's memory."""
    if SIMULATED:
        return int(array.ctypes.data)
    return int(array.__cuda_array_interface__["data"][0])


def stream_pointer(stream: Any) -> int:
    """Give a stream's handle for other libraries; 0 in the simulator, which has none."""
    return 0 if SIMULATED else int(stream)


def elapsed_ms(begin: Any, end: Any) -> float:
    """Give the time between two recorded events; 0 in the simulator, which has no clock."""
    return 0.0 if SIMULATED else float(begin.elapsed_time(end))
