"""TensorRT can run every graph that the exports make, by its published list; but not int8's."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from convert_once import convert_once
from kad_export.cutpaste.gradcam import ExplainedCutPasteNet
from kad_export.cutpaste.network import CutPasteNet, NetworkConfig
from kad_export.errors import ExportError
from kad_export.half import to_half
from kad_export.onnx_export import encode_graph
from kad_export.patchcore import POOLINGS, build_network
from kad_export.quantize import to_int8
from kad_export.tensorrt_operators import SUPPORTED, unsupported_nodes
from onnx import TensorProto, helper, numpy_helper

TILE = 64
LAYERS = ("layer2", "layer3")


@pytest.fixture
def patchcore(graphs, monkeypatch):
    """Give PatchCore's float32 graph of a backbone."""
    convert_once(graphs, monkeypatch)

    def encode(backbone, pooling="same-bilinear"):
        network = build_network(backbone, LAYERS, pooling, "random:0")
        shapes = zip(network.layers, network.channels, network.map_sizes(TILE), strict=True)
        outputs = {name: (channels, *size) for name, channels, size in shapes}
        return encode_graph(network, tile=TILE, outputs=outputs)

    return encode


def lacking(graph):
    return unsupported_nodes(onnx.load_from_string(graph))


# Each family has one kind of block, whatever its depth: the export checks every graph besides.
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "efficientnet_b0"])
def test_patchcore_in_float32_and_half_precision(patchcore, backbone):
    graph = patchcore(backbone)
    assert lacking(graph) == lacking(to_half(graph)) == []


def test_each_pooling(patchcore):
    assert [lacking(patchcore("resnet18", pooling)) for pooling in POOLINGS] == [[], []]


def test_cutpaste_and_grad_cam(graphs, monkeypatch):
    convert_once(graphs, monkeypatch)
    network = CutPasteNet(NetworkConfig("resnet18", 2)).eval()
    outputs = {"logits": (2,), "embedding": (128,)}
    assert lacking(encode_graph(network, tile=TILE, outputs=outputs)) == []
    explained = ExplainedCutPasteNet(network)
    outputs["cam"] = (1, *explained.map_size(TILE))
    graph = encode_graph(explained, tile=TILE, outputs=outputs)
    assert {node.op_type for node in onnx.load_from_string(graph).graph.node} <= SUPPORTED
    assert lacking(graph) == []


def test_int8_is_for_processors(patchcore):
    """Its operators are listed, its unsigned activations are not: opening says so."""
    tiles = np.random.default_rng(0).normal(0, 1, (2, 3, TILE, TILE)).astype(np.float32)
    graph = to_int8(patchcore("resnet18"), [tiles])
    assert {node.op_type for node in onnx.load_from_string(graph).graph.node} <= SUPPORTED
    reasons = lacking(graph)
    assert any("(QuantizeLinear): uint8; TensorRT takes int8" in reason for reason in reasons)
    assert all("Linear)" in reason for reason in reasons)


def one_node(operator, *, inputs=1, outputs=1, constants=(), domain="", **attributes):
    """A graph of one node; the constants are its last inputs."""
    names = [f"x{i}" for i in range(inputs)]
    given = [numpy_helper.from_array(np.asarray(c), f"c{i}") for i, c in enumerate(constants)]
    made = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(
        operator, [*names, *(c.name for c in given)], made, "it", domain=domain, **attributes
    )
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in (*names, *made)]
    graph = helper.make_graph([node], "g", ports[:inputs], ports[inputs:], given)
    return helper.make_model(graph)


ZERO, ONE, BYTE = np.int8(0), np.int8(1), np.uint8(0)
SCALE = np.float32(0.1)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (one_node("Relu"), None),
        (one_node("Unique"), "(Unique): not among the operators"),
        (one_node("QLinearConv"), "not among the operators"),
        (one_node("NhwcMaxPool", domain="com.microsoft"), "an operator of com.microsoft"),
        (one_node("MaxPool", kernel_shape=[2, 2], dilations=[1, 1]), None),
        (one_node("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]), "dilations have to be 1"),
        (one_node("AveragePool", kernel_shape=[2]), "in 2 or 3 dimensions"),
        (one_node("MaxPool", outputs=2, kernel_shape=[2, 2]), "Indices is not supported"),
        (one_node("QuantizeLinear", constants=(SCALE, ZERO)), None),
        (one_node("QuantizeLinear", constants=(SCALE, ONE)), "a zero point that is not 0"),
        (one_node("DequantizeLinear", constants=(SCALE, BYTE)), "uint8; TensorRT takes int8"),
        (one_node("QuantizeLinear", constants=(SCALE,)), "uint8 without a zero point"),
        (one_node("QuantizeLinear", inputs=3), "its zero point has to be an initializer"),
        (one_node("ReduceMean", constants=([2, 3],)), None),
        (one_node("ReduceMean", inputs=2), "its axes have to be an initializer"),
    ],
)
def test_what_is_refused(model, reason):
    found = unsupported_nodes(model)
    assert found == [] if reason is None else reason in found[0]


def test_an_export_that_tensorrt_could_not_run_is_refused():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, tiles):
            return torch.linalg.det(self.scale * tiles)[:, :, None, None]

    with pytest.raises(ExportError, match=r"TensorRT could not run .* \(Det\): not among"):
        encode_graph(Odd(), tile=8, outputs={"layer1": (3, 1, 1)})
