"""CutPasteNet: a ResNet, a projection head, a classifier (thesis, section 5.4.2).

::

    tiles (B, 3, t, t) -> encoder (B, F) -> head (B, 128) = embedding -> classifier (B, K) = logits

The encoder is torchvision's ResNet with ``fc`` replaced by the identity; F is 512 for ResNet-18 and
2048 for ResNet-50. The head goes through the widths F, 512, 512, 512, 512, 512, 512, 128: six times
Linear without bias, batch norm, ReLU, then the Linear that gives the embedding.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from kad_export.backbones import build_trunk, get_backbone, seeded
from kad_export.errors import BackboneError
from kad_export.weights import Weights, load_into_trunk, load_weights

__all__ = [
    "CLASSES",
    "EMBEDDING_DIMS",
    "FEATURES",
    "CutPasteNet",
    "NetworkConfig",
    "build_cutpaste",
    "given_layers",
    "initialise",
]

FEATURES = {"resnet18": 512, "resnet50": 2048}
"""Backbones of CutPasteNet, and the width of what they give."""
HIDDEN = (512,) * 6
EMBEDDING_DIMS = 128
CLASSES = (2, 3)
"""Normal and anomalous; or normal, CutPaste and scar (arXiv 2104.04015, section 2.4)."""


@dataclass(frozen=True)
class NetworkConfig:
    """What has to be known to build a CutPasteNet that a state dict fits.

    Raises
    ------
    BackboneError
        Neither ResNet-18 nor ResNet-50, or neither 2 nor 3 classes.
    """

    backbone: str = "resnet18"
    classes: int = 2

    def __post_init__(self) -> None:
        if self.backbone not in FEATURES:
            raise BackboneError(
                f"CutPaste has no backbone {self.backbone!r}: expected {' or '.join(FEATURES)}"
            )
        if self.classes not in CLASSES:
            raise BackboneError(f"CutPaste has 2 or 3 classes, got {self.classes!r}")


class CutPasteNet(nn.Module):
    """Normalised tiles to logits and embeddings.

    Parameters
    ----------
    config
        Backbone and number of classes.
    seed
        Of the initialisation of all parameters. The global random state is left as it was.

    Attributes
    ----------
    encoder : torchvision.models.ResNet
        With the identity for ``fc``.
    head : nn.Sequential
        Linear, BatchNorm1d, ReLU in turn; the last Linear gives the embedding.
    classifier : nn.Linear
        Embedding to logits; class 0 is normal.
    """

    def __init__(self, config: NetworkConfig | None = None, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config or NetworkConfig()
        self.encoder = get_backbone(self.config.backbone).create(seed)
        self.encoder.fc = nn.Identity()
        with seeded(seed):
            self.head = _projection_head(FEATURES[self.config.backbone])
            self.classifier = nn.Linear(EMBEDDING_DIMS, self.config.classes)

    def forward(self, tiles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits and embeddings.

        Parameters
        ----------
        tiles : torch.Tensor
            Normalised RGB tiles, float32 (B, 3, t, t).

        Returns
        -------
        logits : torch.Tensor
            float32 (B, K).
        embedding : torch.Tensor
            float32 (B, 128).
        """
        embedding = self.head(self.encoder(tiles))  # (B, F) -> (B, E)
        return self.classifier(embedding), embedding


def build_cutpaste(config: NetworkConfig) -> CutPasteNet:
    """Build a network in eval mode, for the state dict of a checkpoint to be loaded into.

    Raises
    ------
    BackboneError
        As `NetworkConfig`.
    """
    return CutPasteNet(config).eval()


def initialise(config: NetworkConfig, weights_spec: str, seed: int) -> tuple[CutPasteNet, Weights]:
    """Build the network that training starts from.

    The encoder gets the weights asked for; head and classifier are drawn from `seed`, and so is
    layer4 where the weights end with layer3; the weights' name then says so.

    Parameters
    ----------
    config
        Backbone and number of classes.
    weights_spec
        ``"imagenet"``, a weights file, or ``"random:SEED"``; see
        :func:`kad_export.weights.load_weights`.
    seed
        Of what the weights do not give.

    Raises
    ------
    BackboneError
        As `NetworkConfig`.
    WeightsError
        The weights cannot be had or belong to another network.
    """
    network = CutPasteNet(config, seed=seed)
    weights = load_weights(weights_spec, config.backbone)
    whole = any(name.startswith("layer4.") for name in weights.state_dict)
    last = "layer4" if whole else "layer3"
    trunk = build_trunk(config.backbone, [last])
    load_into_trunk(trunk, weights)
    network.encoder.load_state_dict(trunk.network.state_dict(), strict=False)
    if last == "layer3":
        weights = dataclasses.replace(weights, name=f"{weights.name}, layer4 from seed {seed}")
    return network, weights


def given_layers(network: CutPasteNet, weights: Weights) -> list[nn.Module]:
    """Return the parts of the encoder whose parameters `weights` gave, from the input on."""
    given = {name.partition(".")[0] for name in weights.state_dict}
    return [layer for name, layer in network.encoder.named_children() if name in given]


def _projection_head(features: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((features, *HIDDEN)):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(HIDDEN[-1], EMBEDDING_DIMS))
