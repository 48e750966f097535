"""A GPU that was asked for and cannot be used: the error names what is missing."""

from __future__ import annotations

import sys

import onnxruntime
import pytest

from kad_sdk.detector import Detector
from kad_sdk.errors import MissingDependencyError, ProviderUnavailableError
from kad_sdk.verify import verify_artifact


@pytest.fixture
def artifact(tiny, tmp_path):
    return tiny.write(tmp_path / "tiny.kad")


@pytest.fixture
def gpu_wheel(monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)


def test_onnx_runtime_without_cuda(artifact, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderUnavailableError, match=r"no CUDAExecutionProvider.*kad-sdk\[gpu\]"):
        Detector.open(artifact, "cuda")


@pytest.mark.usefixtures("gpu_wheel")
def test_no_numba(artifact, monkeypatch):
    monkeypatch.setitem(sys.modules, "kad_kernels.batches", None)
    for open_ in (Detector.open, verify_artifact):
        with pytest.raises(MissingDependencyError, match=r"numba-cuda.*Install kad-sdk\[gpu\]"):
            open_(artifact, provider="cuda")


@pytest.mark.usefixtures("gpu_wheel")
def test_no_gpu(artifact):
    device = pytest.importorskip("kad_kernels.device", reason="numba-cuda is not installed")
    if device.gpu_is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ProviderUnavailableError, match="GPU 0: numba finds no NVIDIA GPU"):
        Detector.open(artifact, "cuda")


def test_a_kernel_that_cannot_be_launched():
    pytest.importorskip("numba.cuda", reason="numba-cuda is not installed")
    core = pytest.importorskip("cuda.core._utils.cuda_utils", reason="numba-cuda is older")
    from kad_sdk.cuda import _gpu_errors

    with (
        pytest.raises(ProviderUnavailableError, match="cannot use GPU 1: CUDA_ERROR_OUT_OF_MEM"),
        _gpu_errors(1),
    ):
        raise core.CUDAError("CUDA_ERROR_OUT_OF_MEMORY")
