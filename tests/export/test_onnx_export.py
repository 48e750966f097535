"""The ONNX graph: complete, clean, the same bytes every time, the module's own numbers."""

import collections
import functools
import sysconfig

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from kad_export import onnx_export as module
from kad_export.errors import ExportError
from kad_export.onnx_export import export_onnx, fold_batch_norm
from kad_export.patchcore import build_network

from kad_sdk.errors import OutputError

LAYERS = ("layer2", "layer3")
TILE = 64


@functools.cache
def _network(pooling="same-bilinear", backbone="resnet18"):
    network = build_network(backbone, LAYERS, pooling, "random:0")
    _shake_batch_norms(network)
    return network


def _shake_batch_norms(network):
    """Random statistics, as a trained network has: fresh ones are near the identity."""
    generator = torch.Generator().manual_seed(1)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
            layer.weight.uniform_(0.5, 1.5, generator=generator)
            layer.bias.normal_(generator=generator)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "network.onnx"
    return path, export_onnx(_network(), path, tile=TILE)


def _tiles(n):
    return torch.randn(n, 3, TILE, TILE, generator=torch.Generator().manual_seed(n))


def _largest_error(path, network, tiles):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    errors = []
    for got, want in zip(session.run(None, {"tiles": tiles.numpy()}), network(tiles), strict=True):
        assert got.shape == want.shape
        errors.append(np.abs(got - want.numpy()).max() / want.abs().max().item())
    return max(errors)


def test_the_outputs_are_those_of_the_graph(exported):
    path, outputs = exported
    graph = onnx.load(path).graph
    assert outputs == (("layer2", 128, 8, 8), ("layer3", 256, 4, 4))
    assert [value.name for value in graph.input] == ["tiles"]
    assert [value.name for value in graph.output] == list(LAYERS)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_graph_computes_what_the_module_does_at_any_batch(exported, batch):
    assert _largest_error(exported[0], _network(), _tiles(batch)) < 1e-5


def test_batch_norm_is_folded_and_nothing_lies_behind_layer3(exported):
    operators = collections.Counter(node.op_type for node in onnx.load(exported[0]).graph.node)
    expected = {"Conv": 15, "Relu": 13, "Add": 6, "MaxPool": 1, "AveragePool": 2}
    assert operators == expected


def test_the_graph_is_one_file_that_tells_nothing_of_its_making(exported):
    path, _ = exported
    assert [file.name for file in path.parent.iterdir()] == ["network.onnx"]
    data = path.read_bytes()
    for trace in (sysconfig.get_path("purelib"), ".py", "File ", str(path.parent), "namespace"):
        assert trace.encode() not in data, trace
    model = onnx.load(path)
    assert model.opset_import[0].version == 18
    assert model.ir_version == 10


def test_the_same_network_gives_the_same_bytes(exported, tmp_path):
    export_onnx(_network(), tmp_path / "again.onnx", tile=TILE)
    assert (tmp_path / "again.onnx").read_bytes() == exported[0].read_bytes()


def test_the_export_is_quiet_and_leaves_the_network_as_it_was(tmp_path, capfd):
    network = _network("valid-adaptive")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    outputs = export_onnx(network, tmp_path / "n.onnx", tile=TILE)
    assert outputs == (("layer2", 128, 6, 6), ("layer3", 256, 2, 2))
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert _largest_error(tmp_path / "n.onnx", network, _tiles(3)) < 1e-5


def test_an_efficientnet_is_exported_too(tmp_path):
    network = build_network("efficientnet_b0", ("layer2",), "same-bilinear", "random:0")
    outputs = export_onnx(network, tmp_path / "n.onnx", tile=TILE)
    assert outputs == (("layer2", 40, 8, 8),)
    assert _largest_error(tmp_path / "n.onnx", network, _tiles(2)) < 1e-5


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_b0"])
def test_folding_leaves_no_batch_norm_and_the_same_values(backbone):
    network = build_network(backbone, LAYERS, "same-bilinear", "random:0")
    _shake_batch_norms(network)
    tiles = _tiles(2)
    expected = network(tiles)
    folded = fold_batch_norm(network)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in folded.modules())
    for got, want in zip(folded(tiles), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5 * want.abs().max().item())


def _fixed_batch(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2


def _swapped_outputs(model):
    first, second = model.graph.output
    del model.graph.output[:]
    model.graph.output.extend([second, first])


def _foreign_operator(model):
    model.graph.node[1].domain = "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))


def _invalid(model):
    model.graph.node[0].input[0] = "nothing"


def _batch_norm(model):
    constants = [onnx.numpy_helper.from_array(np.ones(128, np.float32), name) for name in "abcd"]
    model.graph.initializer.extend(constants)
    source = model.graph.output[0].name
    node = onnx.helper.make_node("BatchNormalization", [source, *"abcd"], ["normed"])
    model.graph.node.append(node)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (_fixed_batch, "fixed batch of 2"),
        (_swapped_outputs, "has inputs and outputs"),
        (_foreign_operator, "operators outside ONNX: .*com.example"),
        (_invalid, "not valid ONNX"),
        (_batch_norm, "still holds batch norms"),
    ],
)
def test_a_graph_that_fails_a_check_is_not_written(exported, monkeypatch, tmp_path, damage, text):
    model = onnx.load(exported[0])
    damage(model)
    monkeypatch.setattr(module, "_convert", lambda *_args, **_more: model)
    with pytest.raises(ExportError, match=text):
        export_onnx(_network(), tmp_path / "n.onnx", tile=TILE)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to_is_named(exported, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_convert", lambda *_args, **_more: onnx.load(exported[0]))
    with pytest.raises(OutputError, match="missing"):
        export_onnx(_network(), tmp_path / "missing" / "n.onnx", tile=TILE)
