"""What a network has to do: its multiplications and its arrays, counted from the ONNX graph."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx

__all__ = ["GraphCost", "count_cost"]

_WITH_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class GraphCost:
    """For one tile.

    Attributes
    ----------
    flop : int
        Twice the multiplications of convolutions and matrix products; all else is small.
    weight_bytes, activation_bytes : int
        Their weights, and their inputs and outputs, each array counted where it is used.
    """

    flop: int
    weight_bytes: int
    activation_bytes: int


def count_cost(graph: bytes) -> GraphCost:
    """Count the cost of an ONNX graph with a dynamic batch."""
    model = onnx.load_from_string(graph)
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    shapes = weights | {value.name: _shape(value) for value in values}
    flop = weight_bytes = activation_bytes = 0
    for node in model.graph.node:
        if node.op_type not in _WITH_WEIGHTS:
            continue
        inputs = [shapes[name] for name in node.input[:2]]
        out = shapes[node.output[0]]
        flop += 2 * _multiplications(node, inputs, out)
        for name, shape in (*zip(node.input[:2], inputs, strict=True), (node.output[0], out)):
            size = 4 * math.prod(shape)
            if name in weights:
                weight_bytes += size
            else:
                activation_bytes += size
    return GraphCost(flop, weight_bytes, activation_bytes)


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    # A dimension that stays symbolic is the batch.
    return tuple(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)


def _multiplications(
    node: onnx.NodeProto, inputs: list[tuple[int, ...]], out: tuple[int, ...]
) -> int:
    data, weight = inputs
    if node.op_type == "Conv":  # weight (C_out, C_in / groups, kh, kw)
        return math.prod(out) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":  # weight (C_in, C_out / groups, kh, kw)
        return math.prod(data) * math.prod(weight[1:])
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(out) * data[0 if transposed else -1]
