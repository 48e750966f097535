"""How far a network sees: receptive field and stride of each output, read from its ONNX graph.

Position i of a map depends on the pixels ``stride * i - before`` to ``stride * i + after`` of its
axis. A window of a board whose halo is as wide as that gives the features of the whole board: see
:mod:`kad_export.windows`.
"""

from __future__ import annotations

from typing import NamedTuple

import onnx

from kad_export.errors import BackboneError

__all__ = ["Reach", "halo_px", "receptive_fields"]

SLIDING = {"Conv", "MaxPool", "AveragePool"}
POINTWISE = {"Relu", "Add", "Mul", "Sigmoid", "Clip", "Identity", "Cast", "Concat"}
WHOLE_IMAGE = {"GlobalAveragePool", "ReduceMean", "GlobalMaxPool"}


class Reach(NamedTuple):
    """Which pixels a position of a map depends on, along each axis."""

    stride: int  # px from one position to the next
    before: int  # px
    after: int  # px

    def slide(self, kernel: int, stride: int, padding: int, dilation: int) -> Reach:
        """Give that of a sliding window over this map."""
        return Reach(
            self.stride * stride,
            self.before + padding * self.stride,
            self.after + (dilation * (kernel - 1) - padding) * self.stride,
        )

    def joined(self, other: Reach) -> Reach:
        """Give that of values that are made of both maps at the same position."""
        if self.stride != other.stride:
            raise BackboneError(
                f"maps of strides {self.stride} and {other.stride} px are joined: expected one "
                "stride; windows cannot be computed with this network, use --mode tiles"
            )
        return Reach(self.stride, max(self.before, other.before), max(self.after, other.after))


def receptive_fields(graph: bytes) -> dict[str, Reach]:
    """Find the reach of each output of a graph whose one input is an image.

    Parameters
    ----------
    graph
        The ONNX graph.

    Raises
    ------
    BackboneError
        A feature depends on the whole image (as with the squeeze-and-excitation of EfficientNets),
        a map has not one position for each whole stride, or a node is of a kind that is not known.
    """
    model = onnx.load_model_from_string(graph).graph
    known = {model.input[0].name: Reach(1, 0, 0)}
    for node in model.node:
        given = [known[name] for name in node.input if name in known]
        if not given:
            continue  # made of constants alone
        reach = _of_node(node, given)
        known |= dict.fromkeys(node.output, reach)
    return {output.name: known[output.name] for output in model.output}


def _of_node(node: onnx.NodeProto, given: list[Reach]) -> Reach:
    if node.op_type in SLIDING:
        return _of_sliding(node, given[0])
    if node.op_type in POINTWISE:
        reach = given[0]
        for other in given[1:]:
            reach = reach.joined(other)
        return reach
    if node.op_type in WHOLE_IMAGE:
        raise BackboneError(
            f"the network averages over the whole image ({node.op_type}, as EfficientNets do in "
            "every block): its features have no bounded reach, and no window can give those of a "
            "board; use a ResNet, or --mode tiles"
        )
    raise BackboneError(
        f"the reach of a node {node.op_type} is not known: expected one of "
        f"{', '.join(sorted(SLIDING | POINTWISE))}; use a ResNet, or --mode tiles"
    )


def _of_sliding(node: onnx.NodeProto, reach: Reach) -> Reach:
    settings = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    kernel = list(settings["kernel_shape"])
    stride = list(settings.get("strides", [1, 1]))
    dilation = list(settings.get("dilations", [1, 1]))
    pads = list(settings.get("pads", [0, 0, 0, 0]))
    centred = all(
        pads[axis] == pads[axis + 2] == dilation[axis] * (kernel[axis] - 1) / 2 for axis in (0, 1)
    )
    if not centred or settings.get("ceil_mode", 0):
        raise BackboneError(
            f"{node.op_type} of kernel {kernel} pads by {pads}: expected as much on both sides as "
            "gives one position for each whole stride; use --pooling same-bilinear and a ResNet, "
            "or --mode tiles"
        )
    rows, columns = (
        reach.slide(kernel[axis], stride[axis], pads[axis], dilation[axis]) for axis in (0, 1)
    )
    return rows.joined(columns)


def halo_px(reaches: dict[str, Reach]) -> int:
    """Give the halo that a window needs, in whole cells of the coarsest map.

    A patch, a position of the finest map, takes its values of a coarser one from the two positions
    around it: one more position on either side.

    Parameters
    ----------
    reaches
        Of the maps that patch features are made of, from :func:`receptive_fields`.
    """
    finest = min(reach.stride for reach in reaches.values())
    align = max(reach.stride for reach in reaches.values())
    needed = 0
    for reach in reaches.values():
        beside = reach.stride if reach.stride > finest else 0
        # A core [begin, end) holds the positions begin / stride to end / stride - 1.
        needed = max(needed, beside + reach.before, beside + reach.after - reach.stride + 1)
    return -(-needed // align) * align
