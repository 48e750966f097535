"""PyTorch module to ONNX graph: one file, batch norm folded, dynamic batch, checked.

The same network gives the same bytes: everything the exporter notes down about its own run
(Python stack traces, file names, rewriting rules) is removed from the graph.
"""

from __future__ import annotations

import copy
import itertools
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import onnx
import torch
from torch import nn

from kad_export.errors import ExportError
from kad_export.tensorrt_operators import unsupported_nodes
from kad_sdk.storage import write_atomic

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

    from kad_export.patchcore import PatchCoreNetwork

__all__ = [
    "INPUT",
    "OPSET",
    "OnnxOutput",
    "encode_graph",
    "export_onnx",
    "fold_batch_norm",
    "strip_metadata",
]

OPSET = 18
"""Version of the operator set; every operator used has been stable since then."""
IR_VERSION = 10  # the newest that ONNX Runtime 1.20 reads
MAX_BYTES = 2**31 - 1  # of a single protocol buffer
INPUT = "tiles"
"""Name of the input of every graph."""
SMALLEST_SIDE, LARGEST_SIDE = 16, 1 << 16  # px, of a graph of dynamic height and width
METADATA_FIELDS = ("metadata_props", "doc_string")
FOLDS = (
    (nn.Conv2d, nn.BatchNorm2d, nn.utils.fusion.fuse_conv_bn_eval),
    (nn.Linear, nn.BatchNorm1d, nn.utils.fusion.fuse_linear_bn_eval),
)


class OnnxOutput(NamedTuple):
    """One output of the graph: a base map."""

    name: str
    channels: int
    height: int
    width: int


def export_onnx(
    network: PatchCoreNetwork,
    path: str | os.PathLike[str],
    *,
    tile: int,
    dynamic: bool = False,
) -> tuple[OnnxOutput, ...]:
    """Write the network as one checked ONNX file; `network` itself is left as it is.

    Parameters
    ----------
    network
        The PatchCore network.
    path
        File to write; it appears complete or not at all.
    tile
        Side of a tile, px. It is fixed in the graph, the batch is not.
    dynamic
        Height and width are not fixed either, each on its own; `tile` is only what the sizes of
        the outputs are told for.

    Returns
    -------
    tuple of OnnxOutput
        One for each layer, named after it, fine to coarse.

    Raises
    ------
    ExportError
        When the graph fails a check: ONNX's own, or that batch norm is folded, the batch dynamic,
        the shapes those of the PyTorch module, and every operator one of TensorRT's.
    OutputError
        When the file cannot be written.
    """
    outputs = tuple(
        OnnxOutput(name, channels, height, width)
        for name, channels, (height, width) in zip(
            network.layers, network.channels, network.map_sizes(tile), strict=True
        )
    )
    shapes = {output.name: tuple(output[1:]) for output in outputs}
    graph = encode_graph(network, tile=tile, outputs=shapes, dynamic=dynamic)
    write_atomic(Path(path), graph)
    return outputs


def encode_graph(
    module: nn.Module,
    *,
    tile: int,
    outputs: Mapping[str, tuple[int, ...]],
    dynamic: bool = False,
) -> bytes:
    """Give any module of tiles as one checked ONNX graph; `module` itself is left as it was.

    Parameters
    ----------
    module
        In eval mode; takes float32 (B, 3, tile, tile).
    tile
        Side of a tile, px.
    outputs
        Names of the outputs, in order, and their shapes behind the batch.
    dynamic
        Height and width of input and outputs (C, h, w) are not fixed.

    Raises
    ------
    ExportError
        As for `export_onnx`.
    """
    model = _convert(module, tile, tuple(outputs), dynamic=dynamic)
    strip_metadata(model)
    wanted: list[tuple[str, tuple[int | None, ...]]] = [(INPUT, (3, tile, tile)), *outputs.items()]
    if dynamic:
        wanted = [(name, (shape[0], None, None)) for name, shape in wanted]
    _check(model, wanted)
    return model.SerializeToString(deterministic=True)


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """Fold each batch norm into the layer right before it, in place; needs eval mode.

    Works on modules that register a convolution or a linear layer and its batch norm one after the
    other, as all networks here do. It is computed in float64 and rounded once, to the module's own
    precision.
    """
    precision = next(module.parameters()).dtype
    module.double()
    for parent in list(module.modules()):
        children = list(parent.named_children())
        for (name, layer), (norm_name, norm) in itertools.pairwise(children):
            for kind, norm_kind, fuse in FOLDS:
                if isinstance(layer, kind) and isinstance(norm, norm_kind):
                    setattr(parent, name, fuse(layer, norm))
                    setattr(parent, norm_name, nn.Identity())
    return module.to(precision)


def _convert(
    network: nn.Module, tile: int, names: tuple[str, ...], *, dynamic: bool
) -> onnx.ModelProto:
    folded = fold_batch_norm(copy.deepcopy(network))
    dims = {0: torch.export.Dim("batch")}
    if dynamic:
        sides = {"min": SMALLEST_SIDE, "max": LARGEST_SIDE}
        dims |= {2: torch.export.Dim("height", **sides), 3: torch.export.Dim("width", **sides)}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own; what it makes is checked below
        program = torch.onnx.export(
            folded,
            (torch.zeros(2, 3, tile, tile),),  # not 1: a batch of one would become a constant
            dynamo=True,
            dynamic_shapes=(dims,),
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(names),
            verbose=False,
        )
    return program.model_proto


def strip_metadata(model: onnx.ModelProto) -> None:
    """Remove, in place, what describes a tool's run and not the network."""
    graph = model.graph
    del graph.value_info[:]
    parts: Iterable[object] = itertools.chain(
        (model, graph), graph.node, graph.input, graph.output, graph.initializer
    )
    for part in parts:
        for field in METADATA_FIELDS:
            part.ClearField(field)
    model.ir_version = IR_VERSION


def _check(model: onnx.ModelProto, expected: Sequence[tuple[str, tuple[int | None, ...]]]) -> None:
    """Check the graph by ONNX's own rules and by ours."""
    if model.ByteSize() > MAX_BYTES:
        raise ExportError(f"the graph takes {model.ByteSize()} bytes, expected at most {MAX_BYTES}")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported graph is not valid ONNX: {error}") from error
    domains = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    if domains:
        raise ExportError(f"the exported graph uses operators outside ONNX: {sorted(domains)}")
    if any(node.op_type == "BatchNormalization" for node in model.graph.node):
        raise ExportError("the exported graph still holds batch norms: expected them to be folded")
    unsupported = unsupported_nodes(model)
    if unsupported:
        raise ExportError(f"TensorRT could not run the exported graph: {'; '.join(unsupported)}")
    got = [_signature(value) for value in (*model.graph.input, *model.graph.output)]
    if got != expected:
        raise ExportError(
            f"the exported graph has inputs and outputs {got}, expected {expected} behind a "
            "dynamic batch"
        )


def _signature(value: onnx.ValueInfoProto) -> tuple[str, tuple[int | None, ...] | str]:
    """Name and shape behind the batch, None where a side is dynamic.

    The whole shape as text when the batch is not dynamic.
    """
    batch, *rest = value.type.tensor_type.shape.dim
    if not batch.dim_param:
        return value.name, f"fixed batch of {batch.dim_value}"
    return value.name, tuple(None if dim.dim_param else dim.dim_value for dim in rest)
