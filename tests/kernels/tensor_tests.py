"""How tests of the tensor tier run: on a GPU, or smaller, emulated, in numba's simulator."""

from __future__ import annotations

import os

import pytest
from kad_kernels.device import gpu_is_available

EMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"


def emulate_or_skip() -> None:
    """Let the module that is being imported run here, or skip it."""
    if EMULATED:
        import tensor_emulator

        tensor_emulator.install()
    elif not gpu_is_available():
        pytest.skip(
            "neither a GPU nor numba's simulator (NUMBA_ENABLE_CUDASIM=1)", allow_module_level=True
        )


def size(on_gpu: int, emulated: int) -> int:
    """Give a size, smaller in the emulator, which is slow."""
    return emulated if EMULATED else on_gpu
