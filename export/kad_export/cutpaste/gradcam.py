"""Grad-CAM at ``encoder.conv1`` as forward operations, so that an ONNX graph can hold it.

Grad-CAM (Selvaraju et al., 2017; thesis, section 5.4.5) weighs the channels of a layer's output A
by the gradient of a class's logit, averaged over positions, and keeps what speaks for the class::

    alpha_c = 1 / (h w) * sum_ij d logit / d A_cij          cam = relu(sum_c alpha_c A_c)

A graph for inference has no gradients. The network is piecewise linear, so the gradient is a second
pass through the same weights, back to front: each linear layer transposed, each ReLU a mask of
where its output was positive. Three identities keep that pass short and exact:

- Batch norm in evaluation is linear and is folded into the layer before it, so its scale is in the
  weights of both passes. A is conv1's output *before* bn1: with bn1 folded the first layer gives
  A'_c = s_c A_c + t_c, the gradient at A' is that at A divided by s_c, and
  ``sum_c alpha_c A_c = sum_c beta_c (A'_c - t_c)`` with beta the averaged gradient at A'. Nothing
  is divided by s_c, which may be 0.
- Max pooling sends the gradient of each window to its largest element, where the ReLU in front lets
  it pass when that element is positive. The element's value is the pooled value, so the *sum* over
  positions, which is all that alpha needs, is ``sum(gradient * (pooled > 0))`` over windows. No
  index is followed, and ties need no rule: equal elements have equal masks.
- The average pooling at the end spreads the gradient evenly.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from kad_export.errors import BackboneError
from kad_export.onnx_export import fold_batch_norm

if TYPE_CHECKING:
    from kad_export.cutpaste.network import CutPasteNet

__all__ = ["ANOMALOUS_CLASS", "ExplainedCutPasteNet"]

ANOMALOUS_CLASS = 1
"""Class whose logit is explained: 0 is normal, 1 the cut and pasted patches."""


class ExplainedCutPasteNet(nn.Module):
    """Normalised tiles to logits, embeddings and Grad-CAM maps of the anomalous class.

    Parameters
    ----------
    network
        CutPasteNet in eval mode on a ResNet; it is copied and left as it was.

    Raises
    ------
    BackboneError
        The encoder is not a ResNet with batch norm in front of its ReLUs.
    """

    def __init__(self, network: CutPasteNet) -> None:
        super().__init__()
        folded = fold_batch_norm(copy.deepcopy(network).eval()).requires_grad_(False)
        encoder = folded.encoder
        _check_resnet(encoder)
        self.conv1, self.maxpool = encoder.conv1, encoder.maxpool
        stages = (encoder.layer1, encoder.layer2, encoder.layer3, encoder.layer4)
        self.blocks = nn.ModuleList(_Block(block) for stage in stages for block in stage)
        self.head = nn.ModuleList(_linear_layers(folded.head))
        self.classifier = folded.classifier

    def forward(self, tiles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return logits, embeddings and maps.

        Parameters
        ----------
        tiles : torch.Tensor
            Normalised RGB tiles, float32 (B, 3, t, t).

        Returns
        -------
        logits : torch.Tensor
            float32 (B, K).
        embedding : torch.Tensor
            float32 (B, E).
        cam : torch.Tensor
            float32 (B, 1, h, w) with (h, w) the size of conv1's output; 0 or more, not normalised.
        """
        first = self.conv1(tiles)  # A', (B, C, h, w)
        pooled = self.maxpool(F.relu(first))
        x, traces = pooled, []
        for block in self.blocks:
            trace = block.trace(x)
            traces.append(trace)
            x = trace.output
        features = x.mean(dim=(2, 3))  # (B, D)
        embedding, hidden = self._project(features)
        logits = self.classifier(embedding)
        gradient = self._head_gradient(hidden)[:, :, None, None] / (x.shape[2] * x.shape[3])
        for block, trace in zip(reversed(self.blocks), reversed(traces), strict=True):
            gradient = block.gradient(gradient, trace)
        return logits, embedding, self._cam(first, pooled, gradient)

    @torch.inference_mode()
    def map_size(self, tile: int) -> tuple[int, int]:
        """Return (height, width) of the map of a tile of `tile` px, found by running one."""
        _, _, cam = self(torch.zeros(1, 3, tile, tile))
        return cam.shape[2], cam.shape[3]

    def _project(self, features: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the embeddings (B, E) and the outputs of the ReLUs on the way."""
        hidden = []
        for layer in self.head[:-1]:
            features = F.relu(layer(features))
            hidden.append(features)
        return self.head[-1](features), hidden

    def _head_gradient(self, hidden: list[torch.Tensor]) -> torch.Tensor:
        """Return the anomalous logit's gradient at the encoder's features, (B, D) or (1, D)."""
        gradient = self.classifier.weight[ANOMALOUS_CLASS][None] @ self.head[-1].weight
        for layer, output in zip(reversed(self.head[:-1]), reversed(hidden), strict=True):
            gradient = _masked(gradient, output) @ layer.weight
        return gradient

    def _cam(
        self, first: torch.Tensor, pooled: torch.Tensor, gradient: torch.Tensor
    ) -> torch.Tensor:
        """Return the map (B, 1, h, w) from A', the pooling's output and the gradient there."""
        height, width = first.shape[2:]
        beta = _routed(gradient, pooled).sum(dim=(2, 3)) / (height * width)  # (B, C)
        activation = first - self.conv1.bias[:, None, None]  # s A, (B, C, h, w)
        return F.relu((beta[:, None] @ activation.flatten(2)).unflatten(2, (height, width)))


class _Trace(NamedTuple):
    """What a block's forward pass leaves for its gradient."""

    input: torch.Tensor
    hidden: tuple[torch.Tensor, ...]  # outputs of the ReLUs inside
    output: torch.Tensor


class _Block(nn.Module):
    """A residual block with its batch norms folded: ReLU(main(x) + side(x))."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        names = [name for name, layer in block.named_children() if isinstance(layer, nn.Conv2d)]
        self.main = nn.ModuleList(getattr(block, name) for name in names)
        self.side = None if block.downsample is None else block.downsample[0]

    def trace(self, x: torch.Tensor) -> _Trace:
        """Run the block forward."""
        hidden = [x]
        for conv in self.main[:-1]:
            hidden.append(F.relu(conv(hidden[-1])))
        side = x if self.side is None else self.side(x)
        return _Trace(x, tuple(hidden[1:]), F.relu(self.main[-1](hidden[-1]) + side))

    def gradient(self, gradient: torch.Tensor, trace: _Trace) -> torch.Tensor:
        """Bring the gradient from the block's output to its input."""
        gradient = main = _masked(gradient, trace.output)
        size = trace.input.shape[2:]
        side = gradient if self.side is None else _transposed(self.side, gradient, size)
        for conv, output in zip(reversed(self.main[1:]), reversed(trace.hidden), strict=True):
            main = _masked(_transposed(conv, main, output.shape[2:]), output)
        return _transposed(self.main[0], main, size) + side


def _masked(gradient: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Bring the gradient back through a ReLU whose output was `output`; 0 at 0, as PyTorch does."""
    return torch.where(output > 0, gradient, 0.0)


def _routed(gradient: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
    """Bring the gradient back through max pooling and the ReLU before it, window by window.

    What a window's gradient becomes at the element it is routed to; see the module's text.
    """
    return _masked(gradient, pooled)


def _transposed(conv: nn.Conv2d, gradient: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """Bring the gradient back through a convolution, to an input of `size` (h, w)."""
    # Where the stride leaves rows or columns of the input over, their number must be told.
    left_over = [
        n - (s * (g - 1) + d * (k - 1) + 1 - 2 * p)
        for n, g, s, d, k, p in zip(
            *(size, gradient.shape[2:], conv.stride, conv.dilation, conv.kernel_size, conv.padding),
            strict=True,
        )
    ]
    return F.conv_transpose2d(
        gradient,
        conv.weight,
        stride=conv.stride,
        padding=conv.padding,
        output_padding=left_over,
        groups=conv.groups,
        dilation=conv.dilation,
    )


def _check_resnet(encoder: nn.Module) -> None:
    """Refuse an encoder that is not a torchvision ResNet, whose blocks the gradient follows."""
    if not isinstance(encoder, torchvision.models.ResNet):
        raise BackboneError(
            f"Grad-CAM is written for ResNets, got {type(encoder).__name__}: choose resnet18 or "
            "resnet50, or export the map of tile scores"
        )


def _linear_layers(head: nn.Sequential) -> list[nn.Linear]:
    """Return the linear layers of a folded head; between each two stands a ReLU."""
    return [layer for layer in head if isinstance(layer, nn.Linear)]
