"""Compile the CUDA C++ kernels with NVRTC, load them, launch them."""

from __future__ import annotations

import ctypes
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from cuda.bindings import driver, nvrtc

from kad_kernels._cuda import cuda
from kad_kernels.device import GpuError, GpuMissingError, require_gpu

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "KERNELS",
    "OLDEST",
    "Kernel",
    "compile_kernel",
    "multiprocessors",
    "shared_bytes",
    "source_path",
]

KERNELS = ("project", "screen", "decide", "pick")
HEADERS = ("common.cuh", "instructions.cuh")
OLDEST = 80  # compute capability, 10 times
_FILES = {"pick": "pool"}
_HERE = Path(__file__).parent
_TYPES = {int: ctypes.c_int, float: ctypes.c_float}
_lock = threading.Lock()


class CompileError(GpuError):
    """NVRTC refuses a kernel, or is missing."""


def source_path(name: str) -> Path:
    """Give the file of CUDA C++ that holds a kernel."""
    return _HERE / f"{_FILES.get(name, name)}.cu"


def compile_kernel(name: str, architecture: int, *, to: str = "cubin") -> bytes:
    """Compile a kernel; needs no GPU.

    Parameters
    ----------
    name : str
        One of :data:`KERNELS`.
    architecture : int
        Compute capability, 10 times; 80 or later.
    to : str
        ``"cubin"`` or ``"ptx"``.

    Raises
    ------
    CompileError
    """
    source = source_path(name).read_bytes()
    headers = [(_HERE / header).read_bytes() for header in HEADERS]
    names = [header.encode() for header in HEADERS]
    try:
        made = nvrtc.nvrtcCreateProgram(source, name.encode(), len(names), headers, names)
    except RuntimeError as error:
        raise CompileError(
            f"NVRTC cannot be loaded ({error}): install kad-sdk[gpu], which brings it"
        ) from error
    program = _checked(made)
    target = "sm" if to == "cubin" else "compute"
    options = [f"--gpu-architecture={target}_{architecture}".encode(), b"--std=c++17"]
    try:
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            log = b" " * _checked(nvrtc.nvrtcGetProgramLogSize(program))
            _checked(nvrtc.nvrtcGetProgramLog(program, log))
            raise CompileError(f"NVRTC refuses {name} for sm_{architecture}: {log.decode()}")
        if to == "cubin":
            code = b" " * _checked(nvrtc.nvrtcGetCUBINSize(program))
            _checked(nvrtc.nvrtcGetCUBIN(program, code))
        else:
            code = b" " * _checked(nvrtc.nvrtcGetPTXSize(program))
            _checked(nvrtc.nvrtcGetPTX(program, code))
        return code
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _checked(answer: tuple[Any, ...]) -> Any:
    """Take a call's value, or raise what its status says."""
    status, *values = answer
    if int(status) != 0:
        raise CompileError(f"{status!r}")
    return values[0] if values else None


def _driven(answer: tuple[Any, ...]) -> Any:
    status, *values = answer
    if status != driver.CUresult.CUDA_SUCCESS:
        raise GpuError(f"the CUDA driver answers {status.name}")
    return values[0] if values else None


def multiprocessors() -> int:
    """Multiprocessors of the current GPU."""
    return int(cuda.get_current_device().MULTIPROCESSOR_COUNT)


def shared_bytes() -> int:
    """Shared memory that a block may have, when it asks for it."""
    return int(cuda.get_current_device().MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)


class Kernel:
    """A kernel on the current GPU.

    Parameters
    ----------
    name : str
        One of :data:`KERNELS`.
    """

    def __init__(self, name: str) -> None:
        require_gpu()
        context = cuda.current_context()  # makes it current for the driver's calls below too
        major, minor = context.device.compute_capability
        self._key = name, int(context.device.id)
        self._function = _load(name, 10 * major + minor, self._key[1])

    def launch(
        self,
        grid: tuple[int, int],
        threads: int,
        arguments: Sequence[Any],
        *,
        shared: int = 0,
        stream: Any = 0,
        together: bool = False,
    ) -> None:
        """Launch; returns at once.

        Parameters
        ----------
        grid, threads
            Blocks in x and y; threads of a block.
        arguments
            Arrays on the GPU, and numbers: int (32 bits), float (float32), np.int64.
        shared : int
            Dynamic shared memory of a block, bytes.
        stream
            A stream of numba's, or a handle; 0: the default one.
        together : bool
            Whether all blocks must run at the same time.
        """
        self._allow(shared)
        values, types = zip(*(_argument(a) for a in arguments), strict=True)
        sizes = (*grid, 1, threads, 1, 1, shared, int(stream))
        if together:
            _driven(driver.cuLaunchCooperativeKernel(self._function, *sizes, (values, types)))
        else:
            _driven(driver.cuLaunchKernel(self._function, *sizes, (values, types), 0))

    def _allow(self, shared: int) -> None:
        """Raise what a block may have; the function is that of all kernels of the name."""
        attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        with _lock:
            if shared > _allowed.get(self._key, 0):
                _driven(driver.cuFuncSetAttribute(self._function, attribute, shared))
                _allowed[self._key] = shared


def _argument(value: Any) -> tuple[Any, Any]:
    if isinstance(value, np.int64):
        return int(value), ctypes.c_longlong
    kind = _TYPES.get(type(value))
    if kind is not None:
        return value, kind
    return value.__cuda_array_interface__["data"][0], ctypes.c_void_p


@cache
def _cubin(name: str, architecture: int) -> bytes:
    return compile_kernel(name, architecture)


_functions: dict[tuple[str, int], Any] = {}
_allowed: dict[tuple[str, int], int] = {}  # bytes of shared memory


def _load(name: str, architecture: int, device: int) -> Any:
    if architecture < OLDEST:
        raise GpuMissingError(
            f"the tensor tier needs a GPU of compute capability 8.0 or later, this one has "
            f"{architecture / 10}: use tier='portable'"
        )
    with _lock:
        if (name, device) not in _functions:
            module = _driven(driver.cuModuleLoadData(_cubin(name, architecture)))
            function = _driven(driver.cuModuleGetFunction(module, name.encode()))
            _functions[name, device] = function
        return _functions[name, device]
