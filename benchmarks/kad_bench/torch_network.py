"""PatchCore's network in PyTorch on the GPU, where ONNX Runtime has no CUDA provider.

It has the weights and layers of the exported graph, batch norms folded into the convolutions as the
export does, reads tiles where kad's kernels have cut them, and runs on their stream: a CUDA graph,
as ONNX Runtime makes one.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from kad_kernels._cuda import SIMULATED, cuda
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kad_bench.gpu_parts import TORCH_DEVICE, on_gpu

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kad_export.patchcore import PatchCoreNetwork

__all__ = ["TorchNetwork", "folded"]

WARM_UP = 3  # runs before the graph is recorded, in which cuDNN chooses its algorithms


class TorchNetwork:
    """A :class:`kad_sdk.cuda.DeviceNetwork`.

    Parameters
    ----------
    network : PatchCoreNetwork
        Copied.
    batches : kad_kernels.batches.Batches
        Whose tiles are read, on whose stream it runs.
    half : bool
        Weights and activations in float16, base maps in float32 as ever.
    """

    provider = "torch"

    def __init__(self, network: PatchCoreNetwork, batches: Any, *, half: bool = False) -> None:
        self.device = "cpu" if SIMULATED else f"cuda:{batches.device_id}"
        self.precision = "fp16" if half else "fp32"
        self._half, self._module = half, folded(network).to(TORCH_DEVICE)
        if half:
            self._module = self._module.half().to(memory_format=torch.channels_last)
        self._graph: torch.cuda.CUDAGraph | None = None
        if not SIMULATED:
            self._stream = torch.cuda.ExternalStream(batches.pointer, device=self.device)
            self._record(on_gpu(batches.tiles))

    def run(self, tiles: Any, n: int) -> Sequence[Any]:
        """See :class:`kad_sdk.cuda.DeviceNetwork`."""
        if self._graph is None:
            return [cuda.to_device(x.numpy()) for x in self.maps(on_gpu(tiles)[:n])]
        with torch.cuda.stream(self._stream):
            self._graph.replay()
        return self._maps

    def close(self) -> None:
        """See :class:`kad_sdk.cuda.DeviceNetwork`: it has no thread."""

    @torch.inference_mode()
    def maps(self, tiles: torch.Tensor) -> list[torch.Tensor]:
        """Compute base maps (B, C, h, w) float32 of tiles (B, 3, t, t) float32."""
        if self._half:
            tiles = tiles.half().to(memory_format=torch.channels_last)
        return [x.float().contiguous() for x in self._module(tiles)]

    def _record(self, tiles: torch.Tensor) -> None:
        tiles.zero_()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                self.maps(tiles)
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._maps = self.maps(tiles)
        torch.cuda.synchronize()


def folded(network: PatchCoreNetwork) -> nn.Module:
    """Copy a network, its batch norms folded into the convolutions before them."""
    network = copy.deepcopy(network).eval()
    for module in list(network.modules()):
        before: tuple[str, nn.Module] | None = None
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d) and before is not None:
                setattr(module, before[0], fuse_conv_bn_eval(before[1], child))
                setattr(module, name, nn.Identity())
            before = (name, child) if isinstance(child, nn.Conv2d) else None
    return network
