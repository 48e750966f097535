"""What tests of a training look at in its folder; and a narrow network, whose files are small."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kad_export.cutpaste import network
from kad_export.cutpaste.checkpoint import load_checkpoint, read_document
from kad_export.cutpaste.run_folder import RunFolder
from torchvision.models.resnet import ResNet

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    import pytest

NARROWER = 8


def curves(run: Path) -> tuple[bytes, bytes, Any, Any]:
    """What a run has recorded but the times of day: losses and accuracies, bit by bit."""
    arrays, document, _ = read_document(RunFolder(run).last)
    position, validations = document["position"], document["validations"]
    return (
        *(arrays["curves/loss"].tobytes(), arrays["curves/accuracy"].tobytes()),
        *(position, validations),
    )


def weights(run: Path) -> dict[str, bytes]:
    """Give the tensors of the best network, bit by bit."""
    state = load_checkpoint(RunFolder(run).best).state_dict
    return {name: tensor.numpy().tobytes() for name, tensor in state.items()}


def make_narrow(patch: pytest.MonkeyPatch) -> None:
    """Make ResNet-18's layers, and the head behind them, an eighth as wide."""
    layer = ResNet._make_layer

    def narrow_layer(self, block, planes, *words, **more):
        return layer(self, block, planes // NARROWER, *words, **more)

    patch.setattr(ResNet, "_make_layer", narrow_layer)
    patch.setitem(network.FEATURES, "resnet18", network.FEATURES["resnet18"] // NARROWER)
    patch.setattr(network, "HIDDEN", tuple(width // NARROWER for width in network.HIDDEN))
