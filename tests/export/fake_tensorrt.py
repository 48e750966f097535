"""ONNX Runtime with TensorRT as tests have it: no GPU, and engines that are six bytes long."""

from __future__ import annotations

import os
import types
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from kad_sdk import tensorrt
from kad_sdk.tensorrt import Machine

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

HERE = Machine("NVIDIA L4", "8.9", "10.9.0", "1.22.0")
KEY = "nvidia-l4-sm89-trt10.9.0-ort1.22.0"
PROVIDERS = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


EXTENSIONS = ("engine", "profile")


class Builder:
    """Stands for ONNX Runtime's session with TensorRT: takes an engine that fits, or builds one."""

    made: list[dict] = []  # noqa: RUF012 - emptied by the fixture
    batches: list[int] = []  # noqa: RUF012
    lazy = False  # builds with the first batch, as old versions did
    stubborn = False  # takes no engine
    idle = False  # writes none

    def __init__(self, data, sess_options, providers, provider_options, enable_fallback):
        self.on_cpu = providers == ["CPUExecutionProvider"]
        if self.on_cpu:
            return
        self.options = provider_options[0]
        type(self).made.append(self.options)
        if not type(self).lazy:
            self._build()

    def _build(self):
        cls, folder = type(self), self.options["trt_engine_cache_path"]
        names = [f"{folder}/TensorrtExecutionProvider_graph_0_sm89.{e}" for e in EXTENSIONS]
        if cls.idle or (all(map(os.path.exists, names)) and not cls.stubborn):
            return
        for name in names:
            with open(name, "ab") as file:  # noqa: PTH123 - as ONNX Runtime names it
                file.write(b"engine")
        with open(f"{self.options['trt_timing_cache_path']}/cache_sm89.timing", "wb") as file:  # noqa: PTH123
            file.write(b"times")

    def disable_fallback(self):
        pass

    def get_providers(self):
        return ["CPUExecutionProvider"] if self.on_cpu else PROVIDERS[:2]

    def get_inputs(self):
        return [types.SimpleNamespace(name="tiles", shape=["batch", 3, 32, 32])]

    def get_outputs(self):
        return [types.SimpleNamespace(name="base_map_0")]

    def run(self, names, feeds):
        (tiles,) = feeds.values()
        type(self).batches.append(len(tiles))
        self._build()
        return [np.zeros((len(tiles), 5, 8, 8), np.float32)]


def install(patch: pytest.MonkeyPatch, cache: Path) -> type[Builder]:
    """Put the fake in ONNX Runtime's place, on a machine that is not here; give its class."""
    fake = type("Fake", (Builder,), {"made": [], "batches": []})
    patch.setattr(onnxruntime, "get_available_providers", lambda: PROVIDERS)
    patch.setattr(onnxruntime, "InferenceSession", fake)
    patch.setattr(onnxruntime, "preload_dlls", lambda: None)
    patch.setattr(onnxruntime, "__version__", HERE.onnxruntime)
    patch.setattr(tensorrt, "tensorrt_version", lambda: HERE.tensorrt)
    gpu = types.SimpleNamespace(name=HERE.gpu, capability=HERE.capability)
    patch.setattr(tensorrt, "find_gpu", lambda _: gpu)
    patch.setenv("XDG_CACHE_HOME", str(cache))
    return fake
