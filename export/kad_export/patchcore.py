"""The network of PatchCore: a cut backbone and 3x3 pooling, returning base maps.

PatchCore joins a patch's features from several layers: each layer's map is average-pooled over 3x3
with stride 1, all are brought to the finest layer's grid, and concatenated (arXiv 2106.08265,
section 3.1; thesis, section 4.2). Pooling and resizing are linear, so the network stops before the
resizing: it returns *base maps*, each on its own grid, and the engine joins them.

Two poolings exist, named in the manifest:

``same-bilinear``
    Padding 1, maps resized bilinearly (``align_corners=False``). Padding zeros count in the mean,
    which is always over nine values: both public implementations of the paper pool like that
    (unfold with zero padding, then mean; ``avg_pool2d(3, 1, 1)``), and the kernel stays the same
    everywhere.
``valid-adaptive``
    No padding, then adaptive average pooling to the grid, which is the finest layer's grid before
    pooling (28 x 28 from 26 x 26 at 224 px).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from kad_export.backbones import Trunk, build_trunk, get_backbone, sort_layers
from kad_export.errors import BackboneError
from kad_export.weights import Weights, load_into_trunk, load_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["POOLINGS", "PatchCoreNetwork", "build_network"]

POOLINGS = {"same-bilinear": "bilinear", "valid-adaptive": "adaptive-average"}
"""Pooling to the resampling that goes with it."""

PATCH = 3  # side of the pooling window, in cells of the layer's map


class PatchCoreNetwork(nn.Module):
    """Normalised tiles to base maps.

    Parameters
    ----------
    trunk
        The cut backbone.
    backbone, layers, pooling, weights
        What it is made of; layers are fine to coarse, as the outputs are.

    Attributes
    ----------
    resampling : str
        How the base maps come to one grid: ``"bilinear"`` or ``"adaptive-average"``.
    channels : tuple of int
        Channels of each base map.
    """

    def __init__(
        self, trunk: Trunk, *, backbone: str, layers: Sequence[str], pooling: str, weights: Weights
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.backbone = backbone
        self.layers = tuple(layers)
        self.pooling = pooling
        self.resampling = POOLINGS[pooling]
        self.weights = weights
        self.channels = tuple(get_backbone(backbone).layer(name).channels for name in layers)
        self._padding = PATCH // 2 if pooling == "same-bilinear" else 0

    def forward(self, tiles: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the base maps.

        Parameters
        ----------
        tiles : torch.Tensor
            Normalised RGB tiles, float32 (B, 3, t, t).

        Returns
        -------
        tuple of torch.Tensor
            For each layer float32 (B, C, h, w).
        """
        return tuple(
            F.avg_pool2d(x, PATCH, stride=1, padding=self._padding) for x in self.trunk(tiles)
        )

    def grid(self, tile: int) -> tuple[int, int]:
        """Return (height, width) of the patch grid for tiles of `tile` px.

        It is the finest layer's own grid, before pooling: 28 x 28 for layer2 at 224 px.
        """
        height, width = self.map_sizes(tile)[0]
        lost = PATCH - 1 - 2 * self._padding
        return height + lost, width + lost

    @torch.inference_mode()
    def map_sizes(self, tile: int) -> tuple[tuple[int, int], ...]:
        """Return (height, width) of each base map for tiles of `tile` px, found by running one.

        Raises
        ------
        BackboneError
            When the tile is too small to leave anything to pool at the last layer.
        """
        try:
            maps = self(torch.zeros(1, 3, tile, tile))
        except RuntimeError as error:
            raise BackboneError(
                f"tiles of {tile} px are too small for {self.backbone} up to {self.layers[-1]} "
                f"with {self.pooling} pooling: give a larger tile, or finer layers ({error})"
            ) from error
        return tuple((x.shape[2], x.shape[3]) for x in maps)


def build_network(
    backbone: str, layers: Sequence[str], pooling: str, weights_spec: str
) -> PatchCoreNetwork:
    """Build the frozen PatchCore network with the weights asked for.

    Parameters
    ----------
    backbone
        A key of :data:`kad_export.backbones.BACKBONES`.
    layers
        For example ``("layer2", "layer3")``; outputs come fine to coarse.
    pooling
        ``"same-bilinear"`` or ``"valid-adaptive"``.
    weights_spec
        ``"imagenet"``, a weights file, or ``"random:SEED"``; see
        :func:`kad_export.weights.load_weights`.

    Raises
    ------
    BackboneError
        Unknown backbone, layer or pooling.
    WeightsError
        The weights cannot be had or belong to another network.
    """
    names = [layer.name for layer in sort_layers(get_backbone(backbone), layers)]
    if pooling not in POOLINGS:
        raise BackboneError(f"unknown pooling {pooling!r}: expected one of {', '.join(POOLINGS)}")
    weights = load_weights(weights_spec, backbone)
    trunk = build_trunk(backbone, names)
    load_into_trunk(trunk, weights)
    network = PatchCoreNetwork(
        trunk, backbone=backbone, layers=names, pooling=pooling, weights=weights
    )
    return network.eval().requires_grad_(False)
