"""What TensorRT can run, as far as a graph alone tells: operators, and restrictions on them.

From the operator support matrix of ONNX-TensorRT, ``docs/operators.md`` of its release 10.1
(github.com/onnx/onnx-tensorrt, commit 96e781103cfc), which states TensorRT 10.0. Of the
restrictions those that the networks here could meet are checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx

__all__ = ["SUPPORTED", "unsupported_nodes"]

_NAMES = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast
    CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum
    DeformConv DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike
    Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool
    GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Hardmax
    Identity If ImageScaler InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu
    Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool Mean
    MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or PRelu Pad
    ParametricSoftplus Pow QuantizeLinear RNN RandomNormal RandomNormalLike RandomUniform
    RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
    ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence
    RoiAlign Round ScaledTanh Scan Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign
    Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh
    ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""
SUPPORTED = frozenset(_NAMES.split())

_POOLS = ("MaxPool", "AveragePool")
_WITH_AXES = {  # operator to which of its inputs has to be a constant
    **dict.fromkeys(("Squeeze", "Unsqueeze", "ReduceMean", "ReduceSum", "ReduceMax"), 1),
    "Slice": 3,
    "Pad": 3,
}


def unsupported_nodes(model: onnx.ModelProto) -> list[str]:
    """Tell the nodes that TensorRT cannot run, and why; none: it can run the graph.

    Returns
    -------
    list of str
        ``NODE (OPERATOR): reason``.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    return [
        f"{node.name or node.output[0]} ({node.op_type}): {reason}"
        for node in model.graph.node
        for reason in _reasons(node, constants)
    ]


def _reasons(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> Iterator[str]:
    if node.domain not in {"", "ai.onnx"}:
        yield f"an operator of {node.domain}"
    elif node.op_type not in SUPPORTED:
        yield "not among the operators that TensorRT supports"
    if node.op_type in _POOLS:
        yield from _pool_reasons(node)
    if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
        yield from _quantisation_reasons(node, constants)
    place = _WITH_AXES.get(node.op_type)
    if place is not None and len(node.input) > place and node.input[place] not in {"", *constants}:
        yield "its axes have to be an initializer"


def _pool_reasons(node: onnx.NodeProto) -> Iterator[str]:
    if len(node.output) > 1:
        yield "the output Indices is not supported"
    for attribute in node.attribute:
        if attribute.name == "dilations" and set(attribute.ints) != {1}:
            yield "dilations have to be 1"
        if attribute.name == "kernel_shape" and len(attribute.ints) not in {2, 3}:
            yield "pooling has to be in 2 or 3 dimensions"


def _quantisation_reasons(
    node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]
) -> Iterator[str]:
    if len(node.input) < 3:
        yield "uint8 without a zero point; TensorRT takes int8"
        return
    tensor = constants.get(node.input[2])
    if tensor is None:
        yield "its zero point has to be an initializer"
        return
    zero = numpy_helper.to_array(tensor)
    if zero.dtype != np.int8:
        yield f"{zero.dtype}; TensorRT takes int8"
    if zero.any():
        yield "a zero point that is not 0"
