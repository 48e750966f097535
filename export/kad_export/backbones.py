"""Networks that patch features are taken from, cut after the last layer that is needed.

Each backbone advertises its layers (name, channels, reduction), so that callers ask instead of
knowing. A layer's name means the same resolution everywhere:

========  =========  ==========================  ==================================
name      reduction  ResNets: end of             EfficientNets: end of
========  =========  ==========================  ==================================
layer1    4          ``layer1``                  ``features.2``
layer2    8          ``layer2``                  ``features.3``
layer3    16         ``layer3``                  ``features.5`` (last with 1/16)
layer4    32         ``layer4``                  ``features.7`` (last with 1/32)
========  =========  ==========================  ==================================

The networks are torchvision's and keep its module and parameter names, so its checkpoints fit.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torchvision
from torch import nn

from kad_export.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "BACKBONES",
    "Backbone",
    "Layer",
    "Trunk",
    "build_trunk",
    "get_backbone",
    "seeded",
    "sort_layers",
]

LAYER_NAMES = ("layer1", "layer2", "layer3", "layer4")
REDUCTIONS = (4, 8, 16, 32)


class Layer(NamedTuple):
    """A place in a backbone where features can be taken."""

    name: str  # what users call it
    channels: int
    reduction: int  # side of the input over side of the map
    module: str  # the torchvision module whose output it is


@dataclass(frozen=True)
class Backbone:
    """A torchvision network as a chain of modules, each fed with the output of the one before."""

    name: str
    chain: tuple[str, ...]  # module names, from the input on
    layers: tuple[Layer, ...]  # fine to coarse

    def layer(self, name: str) -> Layer:
        """Return the layer of that name.

        Raises
        ------
        BackboneError
            When the backbone has no such layer; the text lists those it has.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        known = ", ".join(f"{x.name} ({x.channels} channels, 1/{x.reduction})" for x in self.layers)
        raise BackboneError(f"{self.name} has no layer {name!r}: expected one of {known}")

    def create(self, seed: int) -> nn.Module:
        """Build the whole torchvision network, initialised from `seed` alone."""
        with seeded(seed):
            return torchvision.models.get_model(self.name, weights=None)


def _resnet(name: str, channels: Sequence[int]) -> Backbone:
    layers = tuple(map(Layer, LAYER_NAMES, channels, REDUCTIONS, LAYER_NAMES))
    return Backbone(name, ("conv1", "bn1", "relu", "maxpool", *LAYER_NAMES), layers)


def _efficientnet(name: str, channels: Sequence[int]) -> Backbone:
    modules = ("features.2", "features.3", "features.5", "features.7")
    layers = tuple(map(Layer, LAYER_NAMES, channels, REDUCTIONS, modules))
    return Backbone(name, tuple(f"features.{i}" for i in range(8)), layers)


BACKBONES: dict[str, Backbone] = {
    backbone.name: backbone
    for backbone in (
        _resnet("resnet18", (64, 128, 256, 512)),
        _resnet("resnet50", (256, 512, 1024, 2048)),
        _resnet("wide_resnet50_2", (256, 512, 1024, 2048)),
        _efficientnet("efficientnet_b0", (24, 40, 112, 320)),
        _efficientnet("efficientnet_b1", (24, 40, 112, 320)),
        _efficientnet("efficientnet_b2", (24, 48, 120, 352)),
        _efficientnet("efficientnet_b3", (32, 48, 136, 384)),
        _efficientnet("efficientnet_b4", (32, 56, 160, 448)),
        _efficientnet("efficientnet_b5", (40, 64, 176, 512)),
        _efficientnet("efficientnet_b6", (40, 72, 200, 576)),
        _efficientnet("efficientnet_b7", (48, 80, 224, 640)),
    )
}


def get_backbone(name: str) -> Backbone:
    """Look a backbone up by name.

    Raises
    ------
    BackboneError
        When the name is unknown; the text lists the known ones.
    """
    try:
        return BACKBONES[name]
    except KeyError:
        known = ", ".join(BACKBONES)
        raise BackboneError(f"unknown backbone {name!r}: expected one of {known}") from None


def sort_layers(backbone: Backbone, names: Sequence[str]) -> tuple[Layer, ...]:
    """Return the named layers, fine to coarse, whatever order they were named in.

    Raises
    ------
    BackboneError
        When no layer is named, one is named twice, or the backbone lacks one.
    """
    layers = [backbone.layer(name) for name in names]
    if not layers or len(set(layers)) != len(layers):
        raise BackboneError(
            f"layers must be one or more different names, got {list(names)}: "
            "give for example layer2,layer3"
        )
    return tuple(sorted(layers, key=backbone.layers.index))


class Trunk(nn.Module):
    """A backbone from its input to the last layer needed; what lies behind is removed.

    Parameters
    ----------
    network
        The whole torchvision network; it is taken over and cut.
    backbone
        Its description.
    layers
        Layers to return, fine to coarse.

    Attributes
    ----------
    network : nn.Module
        The cut network, with torchvision's parameter names.
    removed : tuple of str
        Names of the modules that were cut off.
    """

    def __init__(self, network: nn.Module, backbone: Backbone, layers: Sequence[Layer]) -> None:
        super().__init__()
        end = backbone.chain.index(layers[-1].module) + 1
        self.chain = backbone.chain[:end]
        self.taps = tuple(layer.module for layer in layers)
        self.removed = tuple(_prune(network, self.chain))
        self.network = network

    def forward(self, tiles: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the layers' maps.

        Parameters
        ----------
        tiles : torch.Tensor
            Normalised tiles, float32 (B, 3, t, t).

        Returns
        -------
        tuple of torch.Tensor
            For each layer float32 (B, C, h, w).
        """
        maps = []
        x = tiles
        for name in self.chain:
            x = self.network.get_submodule(name)(x)  # (B, C, h, w)
            if name in self.taps:
                maps.append(x)
        return tuple(maps)


def build_trunk(backbone: str, layers: Sequence[str], *, seed: int = 0) -> Trunk:
    """Build a cut network, frozen, in eval mode, initialised from `seed`.

    Parameters
    ----------
    backbone
        A key of `BACKBONES`.
    layers
        Names of the layers to return; they come fine to coarse.
    seed
        Seed of the initialisation. The global random state is left as it was.

    Raises
    ------
    BackboneError
        Unknown backbone or layer.
    """
    entry = get_backbone(backbone)
    chosen = sort_layers(entry, layers)
    return Trunk(entry.create(seed), entry, chosen).eval().requires_grad_(False)


def _prune(module: nn.Module, keep: Sequence[str], prefix: str = "") -> Iterator[str]:
    """Delete every submodule that is neither in `keep` nor on the way to one that is."""
    for name, child in list(module.named_children()):
        path = prefix + name
        if path in keep:
            continue
        if any(kept.startswith(f"{path}.") for kept in keep):
            yield from _prune(child, keep, f"{path}.")
        else:
            delattr(module, name)
            yield path


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the CPU generator and put its state back afterwards."""
    generator = torch.random.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)
