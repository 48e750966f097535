"""The kernels of the tensor tier on a CPU: compiled by the C++ compiler, as they are.

They then run beside numba's simulator (NUMBA_ENABLE_CUDASIM=1), whose arrays they take; what stands
for the GPU is in ``tensor_emulator.hpp``.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import mmap
import os
import re
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from kad_kernels._cuda import cuda
from kad_kernels.tensor.program import Kernel, source_path
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

if TYPE_CHECKING:
    from collections.abc import Sequence

EMULATOR = Path(__file__).with_suffix(".hpp")
MULTIPROCESSORS, SHARED_BYTES = 4, 227 << 10
COMPILER = os.environ.get("CXX", "c++")
FLAGS = ["-std=c++17", "-O3", "-march=native", "-fPIC", "-shared", "-pthread"]
FLAGS += ["-ffp-contract=off", "-fno-strict-aliasing"]  # the defined arithmetic; CUDA's casts
FLAGS += ["-U_FORTIFY_SOURCE"]  # jumps from stack to stack are meant
FLAGS += ["-Wall", "-Wno-unknown-pragmas", "-Wno-unused-function"]
ALIGNED, POISON, PROT_NONE = 16, 0x7F, 0
_seeds = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


class EmulationError(AssertionError):
    """A kernel does what a GPU forbids."""


def _source(name: str) -> str:
    """Give a kernel, with what it includes but the instructions."""
    files = [EMULATOR, source_path(name).with_name("common.cuh"), source_path(name)]
    texts = [f'#line 1 "{file.name}"\n' + _without_includes(file.read_text()) for file in files]
    return "\n".join([*texts, f"EMULATE({name})", ""])


def _without_includes(text: str) -> str:
    return re.sub(r'^#(include "|pragma once).*$', "", text, flags=re.MULTILINE)


def compile_source(text: str) -> Any:
    """Compile a kernel after the emulator, to be given to :func:`run`."""
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "kernel.cpp", Path(folder) / "kernel.so"
        source.write_text(text)
        subprocess.run([COMPILER, *FLAGS, str(source), "-o", str(made)], check=True)
        function = ctypes.CDLL(str(made)).emulate
    function.restype = ctypes.c_char_p
    return function


@cache
def _compiled(name: str) -> Any:
    return compile_source(_source(name))


def run(
    kernel: Any,
    grid: tuple[int, int],
    threads: int,
    arguments: Sequence[Any],
    *,
    seed: int,
    together: bool = False,
) -> None:
    """Run a compiled kernel.

    Raises
    ------
    EmulationError
        It does what a GPU forbids.
    """
    values = [_argument(value) for value in arguments]
    given = (ctypes.c_void_p * len(values))(*[ctypes.addressof(value) for value in values])
    why = kernel(*grid, threads, together, seed, given)
    if why:
        raise EmulationError(why.decode())


def _argument(value: Any) -> Any:
    if isinstance(value, np.int64):
        return ctypes.c_longlong(int(value))
    if isinstance(value, (int, float)):
        return ctypes.c_int(value) if isinstance(value, int) else ctypes.c_float(value)
    return ctypes.c_void_p(value.ctypes.data)


def _init(self: Kernel, name: str) -> None:
    self._emulated = _compiled(name)


def _launch(
    self: Kernel,
    grid: tuple[int, int],
    threads: int,
    arguments: Sequence[Any],
    *,
    shared: int = 0,
    stream: Any = 0,
    together: bool = False,
) -> None:
    del stream
    assert shared <= SHARED_BYTES
    run(self._emulated, grid, threads, arguments, seed=next(_seeds), together=together)


def _device_array(shape: Any, dtype: Any, stream: Any = 0) -> Any:
    """Give an array of numba's simulator that ends where memory does: reading on is a fault."""
    del stream
    dtype, shape = np.dtype(dtype), [int(n) for n in np.atleast_1d(shape)]
    size = -(-math.prod(shape) * dtype.itemsize // ALIGNED) * ALIGNED
    pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, pages + mmap.PAGESIZE)
    whole = np.frombuffer(memory, np.uint8)
    whole[:] = POISON
    if _libc.mprotect(ctypes.c_void_p(whole.ctypes.data + pages), mmap.PAGESIZE, PROT_NONE):
        raise OSError(ctypes.get_errno(), "mprotect")
    return FakeCUDAArray(np.ndarray(shape, dtype, memory, pages - size))


def _to_device(array: Any, stream: Any = 0) -> Any:
    del stream
    made = _device_array(array.shape, array.dtype)
    made[...] = array
    return made


def install() -> None:
    """Let the tensor tier run here, in numba's simulator."""
    Kernel.__init__, Kernel.launch = _init, _launch
    cuda.device_array, cuda.to_device = _device_array, _to_device
    device = cuda.get_current_device()
    device.MULTIPROCESSOR_COUNT = MULTIPROCESSORS
    device.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = SHARED_BYTES
