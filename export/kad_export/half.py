"""A float32 graph to half precision: weights and arithmetic, but not its input and outputs.

Casts stand behind the input and before the outputs, so whoever runs the graph gives and gets
float32 as with any other. A processor without float16 arithmetic computes the nodes in float32 and
rounds between them.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kad_export.errors import ExportError
from kad_export.tensorrt_operators import unsupported_nodes

__all__ = ["to_half"]

LARGEST = float(np.finfo(np.float16).max)  # 65504
_HALF, _SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT


def to_half(graph: bytes) -> bytes:
    """Convert a graph whose tensors are float32 (shapes and axes aside), as the export makes them.

    Parameters
    ----------
    graph
        The ONNX graph; batch norms are folded.

    Raises
    ------
    ExportError
        A weight is beyond half precision, or a node makes float32 of its own.
    """
    model = onnx.load_from_string(graph)
    body = model.graph
    for node in body.node:
        _require_plain(node)
    for tensor in body.initializer:
        if tensor.data_type == _SINGLE:
            tensor.CopyFrom(_as_half(tensor))
    _cast_input(body)
    _cast_outputs(body)
    onnx.checker.check_model(model, full_check=True)
    unsupported = unsupported_nodes(model)
    if unsupported:
        raise ExportError(f"TensorRT could not run the fp16 graph: {'; '.join(unsupported)}")
    return bytes(model.SerializeToString(deterministic=True))


def _require_plain(node: onnx.NodeProto) -> None:
    """Refuse what would leave float32 in the middle: no network here has it."""
    holds_tensor = any(a.type == onnx.AttributeProto.TENSOR for a in node.attribute)
    if node.op_type in {"Cast", "Constant", "ConstantOfShape"} or holds_tensor:
        raise ExportError(
            f"{node.name} ({node.op_type}): expected a node that computes in the type of its "
            "inputs; this network cannot be exported with --precision fp16, use fp32"
        )


def _as_half(tensor: TensorProto) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    largest = float(np.abs(values).max()) if values.size else 0.0
    if not largest <= LARGEST:
        raise ExportError(
            f"{tensor.name}: a weight of {largest:.3g} is beyond half precision, whose largest "
            f"number is {LARGEST:.0f}: use --precision fp32"
        )
    return numpy_helper.from_array(values.astype(np.float16), tensor.name)


def _cast_input(body: onnx.GraphProto) -> None:
    name = body.input[0].name
    half = f"{name}_half"
    for node in body.node:
        node.input[:] = [half if given == name else given for given in node.input]
    body.node.insert(0, helper.make_node("Cast", [name], [half], f"cast_{name}", to=_HALF))


def _cast_outputs(body: onnx.GraphProto) -> None:
    for output in body.output:
        name = output.name
        half = f"{name}_half"
        for node in body.node:
            node.input[:] = [half if given == name else given for given in node.input]
            node.output[:] = [half if made == name else made for made in node.output]
        body.node.append(helper.make_node("Cast", [half], [name], f"cast_{name}", to=_SINGLE))
