"""Which GPU and which TensorRT there is, asked of their libraries: the key of built engines."""

from __future__ import annotations

import ctypes
import importlib.util
from ctypes import byref, c_char_p, c_int, create_string_buffer
from pathlib import Path
from typing import NamedTuple

from kad_sdk.errors import ProviderUnavailableError

__all__ = ["Gpu", "find_gpu", "tensorrt_version"]

CUDA_DRIVER = "libcuda.so.1"
TENSORRT = ("libnvinfer.so.10", "libnvinfer.so.11")
_BESIDE_TENSORRT = ("libnvinfer_plugin", "libnvonnxparser")  # what ONNX Runtime asks for besides
_WHEEL = "tensorrt_libs"  # the package in which NVIDIA's wheels keep them
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


class Gpu(NamedTuple):
    """A GPU's name, and its compute capability, for example ``"8.9"``."""

    name: str
    capability: str


def find_gpu(device_id: int) -> Gpu:
    """Say what GPU it is that CUDA gives this number.

    Raises
    ------
    ProviderUnavailableError
        There is no driver, or no such GPU.
    """
    try:
        cuda = ctypes.CDLL(CUDA_DRIVER)
    except OSError as error:
        raise ProviderUnavailableError(
            f"{CUDA_DRIVER} cannot be loaded ({error}): NVIDIA's driver is missing here. Install "
            "it and look at nvidia-smi, or score with provider 'cpu'."
        ) from error

    def call(name: str, *arguments: object) -> None:
        status = getattr(cuda, name)(*arguments)
        if status:
            text = c_char_p()
            cuda.cuGetErrorString(status, byref(text))
            reason = (text.value or b"").decode() or f"error {status}"
            raise ProviderUnavailableError(
                f"GPU {device_id}: the driver says to {name}: {reason}. Look at nvidia-smi and "
                "CUDA_VISIBLE_DEVICES, or name another device_id."
            )

    device, name, values = c_int(), create_string_buffer(256), (c_int(), c_int())
    call("cuInit", 0)
    call("cuDeviceGet", byref(device), device_id)
    call("cuDeviceGetName", name, len(name), device)
    for value, attribute in zip(values, (_MAJOR, _MINOR), strict=True):
        call("cuDeviceGetAttribute", byref(value), attribute, device)
    major, minor = (value.value for value in values)
    return Gpu(name.value.decode(errors="replace"), f"{major}.{minor}")


def tensorrt_version() -> str:
    """Load TensorRT, where ONNX Runtime will find it then, and say its version: ``"10.9.0"``.

    Raises
    ------
    ProviderUnavailableError
        It is not here.
    """
    library, errors = None, []
    for name in TENSORRT:
        try:
            library = _load(name)
            break
        except OSError as error:
            errors.append(str(error))
    if library is None:
        raise ProviderUnavailableError(
            f"TensorRT is missing here: {TENSORRT[0]} cannot be loaded ({'; '.join(errors)}). "
            "Install the TensorRT that ONNX Runtime was built with (its libraries on the loader's "
            "path, or NVIDIA's wheel tensorrt), or use provider 'cuda' or 'cpu'."
        )
    number = int(library.getInferLibVersion())
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def _load(name: str) -> ctypes.CDLL:
    """Load a library from the loader's path, or from NVIDIA's wheel with those beside it."""
    try:
        return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        found = importlib.util.find_spec(_WHEEL)
        folders = list(found.submodule_search_locations or ()) if found else []
        paths = [Path(folder) / name for folder in folders if (Path(folder) / name).is_file()]
        if not paths:
            raise
    library = ctypes.CDLL(str(paths[0]), mode=ctypes.RTLD_GLOBAL)
    suffix = name.removeprefix("libnvinfer")
    for other in _BESIDE_TENSORRT:
        beside = paths[0].with_name(f"{other}{suffix}")
        if beside.is_file():
            ctypes.CDLL(str(beside), mode=ctypes.RTLD_GLOBAL)
    return library
