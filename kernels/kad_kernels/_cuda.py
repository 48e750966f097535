"""The one place that imports numba's ``cuda``, and the defined arithmetic on the device.

The arithmetic is that of :mod:`kad_kernels.reference`: every operation rounded on its own. A plain
``total + d * d`` would become one fused multiply-add; the intrinsics below name their rounding, and
neither NVVM nor ptxas may fuse them. numba's simulator does not have these intrinsics; there the
same operations are NumPy's, on float32 scalars.
"""

from __future__ import annotations

import numpy as np
from numba import cuda
from numba.cuda import config, libdevice

__all__ = ["LANES", "SIMULATED", "add", "cuda", "root", "step"]

LANES = 16  # partial sums of the defined arithmetic
SIMULATED = bool(config.ENABLE_CUDASIM)


if SIMULATED:

    def step(total, a, b):
        """``total + (a - b)^2``, each operation rounded to float32."""
        with np.errstate(over="ignore", under="ignore"):
            difference = a - b
            return total + difference * difference

    def add(a, b):
        """Sum, rounded to float32."""
        with np.errstate(over="ignore"):
            return a + b

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
    def root(x):
        """Square root rounded to float32."""
        return libdevice.fsqrt_rn(x)
