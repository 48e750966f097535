"""The tensor tier: fp16 screening on tensor cores, float32 decision; the bits of the portable tier.

The kernels are CUDA C++ (the ``.cu`` files here), compiled by NVRTC when they are first used, for
compute capability 8.0 and later. Nothing here is imported before it is asked for.
"""

from __future__ import annotations

from kad_kernels.tensor.pool import ScreenedPool
from kad_kernels.tensor.rows import ScreenedRows
from kad_kernels.tensor.running import ScreenedRunning

__all__ = ["ScreenedPool", "ScreenedRows", "ScreenedRunning"]
