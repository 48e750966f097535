"""What an export of CutPaste says about itself: the manifest's entries that PatchCore has not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kad_export.cutpaste.gradcam import ANOMALOUS_CLASS
from kad_export.cutpaste.network import EMBEDDING_DIMS
from kad_export.describe import NETWORK_FILE
from kad_export.onnx_export import INPUT, OPSET
from kad_sdk import manifest as schema

if TYPE_CHECKING:
    from kad_export.cutpaste.checkpoint import Checkpoint
    from kad_export.cutpaste.density import Density
    from kad_export.cutpaste.network import NetworkConfig

__all__ = [
    "DENSITY_FILE",
    "EXPLAIN_FILE",
    "describe_cutpaste",
    "describe_density",
    "describe_network",
]

EXPLAIN_FILE, DENSITY_FILE = "explain.onnx", "density.safetensors"


def describe_network(trained: Checkpoint) -> schema.Network:
    """Give the manifest's entry of the network; its weights are what the training started from."""
    return schema.Network(
        file=NETWORK_FILE,
        backbone=trained.config.backbone,
        weights=trained.weights,
        opset=OPSET,
        precision="fp32",
        input=INPUT,
    )


def describe_cutpaste(
    config: NetworkConfig, map_kind: str, map_grid: tuple[int, int]
) -> schema.CutPaste:
    """Give the manifest's entry of what the network gives and which map a tile gets."""
    return schema.CutPaste(
        classes=config.classes,
        embedding_dims=EMBEDDING_DIMS,
        anomalous_class=ANOMALOUS_CLASS,
        map=map_kind,
        explain_file=EXPLAIN_FILE if map_kind == "grad-cam" else None,
        map_grid=map_grid,
    )


def describe_density(density: Density) -> schema.Density:
    """Give the manifest's entry of the density."""
    return schema.Density(
        kind=density.kind,
        file=DENSITY_FILE,
        samples=density.samples,
        shrinkage=density.shrinkage,
        bandwidth=density.bandwidth,
    )
