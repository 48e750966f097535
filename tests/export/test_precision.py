"""Artifacts in half precision and in 8 bits: what their graphs are, and that nothing is mixed."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from conftest import write_board
from convert_once import convert_once
from kad_export.data import load_board
from kad_export.errors import ExportError, OutputMismatchError
from kad_export.extend import ExtendOptions, extend_artifact
from kad_export.half import to_half
from kad_export.options import PatchCoreOptions
from kad_export.patchcore import build_network
from kad_export.pipeline import export_patchcore
from kad_export.precision import LIMITS, RangeTiles, convert, precision_gate
from kad_export.quantize import LARGEST_WEIGHT, OPERATORS, to_int8
from kad_export.report import Silent
from kad_export.survey import measure_normalisation, survey_boards
from onnx import TensorProto, helper, numpy_helper

from kad_sdk import Detector
from kad_sdk.artifact import Artifact
from kad_sdk.dataset import scan_dataset
from kad_sdk.errors import InvalidArgumentError
from kad_sdk.facts import describe
from kad_sdk.session import NetworkSession
from kad_sdk.verify import golden_inputs, verify_artifact

BELOW = ("fp16", "int8")


@pytest.fixture(scope="module")
def exported(small_artifact, small_dataset, quick_options, graphs, tmp_path_factory):
    """The small data set, exported in each precision."""
    folder = tmp_path_factory.mktemp("precisions")
    with pytest.MonkeyPatch.context() as patch:
        convert_once(graphs, patch)
        made = {
            precision: export_patchcore(
                small_dataset,
                folder / f"{precision}.kad",
                PatchCoreOptions(**quick_options, precision=precision),
            )
            for precision in BELOW
        }
    return {"fp32": small_artifact, **made}


def graph_of(artifact):
    return onnx.load_from_string(Artifact.open(artifact).network)


def values_of(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def range_tiles(dataset, quick_options, seed=0):
    """As an export draws them."""
    options = PatchCoreOptions(**quick_options)
    train, console = scan_dataset(dataset).train, Silent()
    boards = survey_boards(train, [], options, console)
    preprocessing = measure_normalisation(train, options, console)
    return RangeTiles(boards, load_board, preprocessing, seed, 1)


# ---- the graphs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", BELOW)
def test_a_graph_takes_and_gives_float32_as_the_float32_one_does(exported, precision):
    fp32, other = graph_of(exported["fp32"]).graph, graph_of(exported[precision]).graph
    assert [*other.input, *other.output] == [*fp32.input, *fp32.output]


def test_half_precision_is_half_from_the_first_weight_to_the_last_pooling(exported):
    model = graph_of(exported["fp16"])
    assert {values.dtype for values in values_of(model).values()} == {np.dtype(np.float16)}
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    types = Counter(value.type.tensor_type.elem_type for value in inferred.graph.value_info)
    assert set(types) == {TensorProto.FLOAT16}
    ends = [node.op_type for node in model.graph.node if node.op_type == "Cast"]
    assert len(ends) == 3  # behind the input, and before each base map
    plain = values_of(graph_of(exported["fp32"]))
    for name, values in values_of(model).items():
        np.testing.assert_array_equal(values, plain[name].astype(np.float16))


def test_int8_has_unsigned_activations_and_weights_of_7_bits_for_each_channel(exported):
    model = graph_of(exported["int8"])
    values = values_of(model)
    makers = {name: node for node in model.graph.node for name in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert convolutions
    for node in convolutions:
        activation, weights = (makers[name] for name in node.input[:2])
        assert activation.op_type == weights.op_type == "DequantizeLinear"
        assert values[activation.input[2]].dtype == np.uint8
        assert values[activation.input[1]].shape == ()
        quantised, scale = values[weights.input[0]], values[weights.input[1]]
        assert quantised.dtype == np.int8
        assert scale.shape == (len(quantised),)
        assert np.abs(quantised.astype(int)).max() <= LARGEST_WEIGHT
    # Two products in 16 bits, which is what processors without VNNI add them in.
    assert np.iinfo(np.int16).max >= 2 * 255 * LARGEST_WEIGHT


def test_int8_computes_all_in_8_bits_but_the_pooling_of_base_maps(exported):
    model = graph_of(exported["int8"])
    fed = {name: node.op_type for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type in OPERATORS:
            assert fed[node.input[0]] == "DequantizeLinear", node.name
    pools = [node for node in model.graph.node if node.op_type == "AveragePool"]
    assert [node.output[0] for node in pools] == ["layer2", "layer3"]


def test_int8_of_another_process_has_the_same_bytes(exported, tmp_path):
    """Whatever order a process hashes names in."""
    (tmp_path / "fp32.onnx").write_bytes(Artifact.open(exported["fp32"]).network)
    tiles = np.random.default_rng(1).normal(0, 1, (4, 3, 64, 64)).astype(np.float32)
    np.save(tmp_path / "tiles.npy", tiles)
    text = (
        "import hashlib, numpy, pathlib; from kad_export.quantize import to_int8; "
        "graph = pathlib.Path('fp32.onnx').read_bytes(); "
        "print(hashlib.sha256(to_int8(graph, [numpy.load('tiles.npy')])).hexdigest())"
    )
    own = to_int8((tmp_path / "fp32.onnx").read_bytes(), [tiles])
    found = subprocess.run(
        [sys.executable, "-c", text],
        cwd=tmp_path,
        env={**os.environ, "PYTHONHASHSEED": "17"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == hashlib.sha256(own).hexdigest()
    assert found.stderr == ""


def test_int8_is_a_function_of_the_tiles(exported):
    graph = Artifact.open(exported["fp32"]).network
    tiles = np.random.default_rng(1).normal(0, 1, (4, 3, 64, 64)).astype(np.float32)
    assert to_int8(graph, [tiles]) == to_int8(graph, [tiles[:1], tiles[1:]])
    assert to_int8(graph, [tiles]) != to_int8(graph, [2 * tiles])


def test_half_precision_refuses_what_it_cannot_hold():
    def graph(node, weight):
        ports = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3])
            for name in ("tiles", "out")
        ]
        constants = [numpy_helper.from_array(np.full(3, weight, np.float32), "w")]
        body = helper.make_graph([node], "g", ports[:1], ports[1:], constants)
        opset = [helper.make_opsetid("", 18)]
        return helper.make_model(body, opset_imports=opset, ir_version=9).SerializeToString()

    add = helper.make_node("Add", ["tiles", "w"], ["out"], "sum")
    assert to_half(graph(add, 6e4))
    with pytest.raises(ExportError, match=r"w: a weight of 7e\+04 is beyond half precision"):
        to_half(graph(add, 7e4))
    with pytest.raises(ExportError, match="beyond half precision"):
        to_half(graph(add, np.nan))
    cast = helper.make_node("Cast", ["tiles"], ["out"], "turn", to=TensorProto.FLOAT)
    with pytest.raises(ExportError, match=r"turn \(Cast\): .* use fp32"):
        to_half(graph(cast, 1))


# ---- tiles for the ranges ------------------------------------------------------------------------


def test_range_tiles_are_training_tiles_drawn_by_the_seed(small_dataset, quick_options):
    tiles = range_tiles(small_dataset, quick_options)
    every = np.concatenate(list(tiles))
    assert len(tiles) == len(every) == 4 * 4 * 3  # fewer than are wanted: all of them
    boards = [len(board.xy) for board in tiles.boards]
    assert boards == [12] * 4
    assert len({tile.tobytes() for tile in every}) == len(every)


def test_fewer_range_tiles_than_there_are(small_dataset, quick_options, monkeypatch):
    every = {t.tobytes() for b in range_tiles(small_dataset, quick_options) for t in b}
    monkeypatch.setattr("kad_export.precision.N_RANGE_TILES", 9)

    def drawn(seed):
        tiles = range_tiles(small_dataset, quick_options, seed)
        found = [tile.tobytes() for batch in tiles for tile in batch]
        assert len(found) == len(set(found)) == len(tiles) == 9
        return set(found)

    assert drawn(0) == drawn(0) < every
    assert drawn(1) != drawn(0)


def test_in_windows_range_tiles_have_what_is_seen_around_them(small_dataset, quick_options):
    tiles = range_tiles(small_dataset, quick_options)
    parts = list(dataclasses.replace(tiles, around=24))
    plain = np.concatenate(list(tiles))
    assert len(parts) == len(plain)
    corners = np.concatenate([board.xy for board in tiles.boards])  # all of them, in their order
    side = plain.shape[2]
    for tile, part, (x, y) in zip(plain, parts, corners, strict=True):
        left, top = min(x, 24), min(y, 24)
        assert part.shape[2] > side or part.shape[3] > side
        assert part.shape[2] <= top + side + 24
        assert part.shape[3] <= left + side + 24
        np.testing.assert_array_equal(part[0, :, top : top + side, left : left + side], tile)


# ---- artifacts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", BELOW)
def test_an_artifact_says_its_precision_and_how_far_it_is_from_float32(exported, precision):
    artifact = Artifact.open(exported[precision])
    manifest, figures = artifact.manifest, artifact.manifest.verification["precision"]
    assert manifest.network.precision == figures["name"] == precision
    assert any(text.startswith(f"{precision}, ") for _, text in describe(manifest))
    assert manifest.golden.tolerance == LIMITS[precision].golden
    for layer in manifest.network.layers:
        assert 0 < figures["outputs"][layer]["rms_rel"] <= LIMITS[precision].of_rms
        assert 0 < figures["outputs"][layer]["max_rel"] <= LIMITS[precision].of_largest
    if precision == "int8":
        assert (figures["tiles"], figures["seed"]) == (3 * 4 * 3, 0)  # one board is held out
    assert Detector.open(exported[precision], threads=1).precision == precision


@pytest.mark.parametrize("precision", BELOW)
def test_golden_tiles_are_reproduced_and_batches_do_not_matter(exported, precision):
    found = verify_artifact(exported[precision], threads=2)
    assert found.passed
    assert found.precision == precision
    assert max(check.max_rel for check in found.checks) < 2e-3  # 0 where threads do not matter
    figures = Artifact.open(exported[precision]).manifest.verification["batch_invariance"]
    assert figures["bitwise"] or precision == "fp16"


@pytest.mark.parametrize("precision", BELOW)
def test_bank_rows_are_features_of_the_graph_itself(exported, small_dataset, precision):
    """A training board's own patches are in the bank, so a distance is 0: nothing is mixed."""
    image = small_dataset / Artifact.open(exported[precision]).manifest.bank.images[0]
    mixed, own = (
        _smallest_distance(exported[name], exported[precision], image)
        for name in ("fp32", precision)
    )
    assert own == 0
    assert mixed > 1e-4


def _smallest_distance(graph_from, bank_from, image):
    """The smallest distance of a board's patches from a bank, by another artifact's graph."""
    detector = Detector.open(bank_from, threads=1)
    detector._scorer.session = NetworkSession(Artifact.open(graph_from).network, threads=1)
    return float(detector.score(image, keep_patches=True).patches.min())


@pytest.mark.parametrize("precision", BELOW)
def test_spots_are_told_from_normal_boards(exported, small_dataset, precision):
    detector = Detector.open(exported[precision], threads=2)
    good, spot = (
        [detector.score(path).score for path in sorted((small_dataset / "test" / kind).iterdir())]
        for kind in ("good", "spot")
    )
    assert max(good) < min(spot)


@pytest.mark.parametrize("precision", BELOW)
def test_an_extended_bank_stays_in_its_precision(exported, tmp_path, precision):
    for i in range(2):
        write_board(tmp_path / "new" / f"n{i}.png", 100 + i)
    out = extend_artifact(
        exported[precision], tmp_path / "new", tmp_path / "y.kad", ExtendOptions(threads=2)
    )
    before, after = Artifact.open(exported[precision]), Artifact.open(out)
    assert after.network == before.network
    assert after.manifest.network.precision == precision
    assert after.manifest.golden.tolerance == before.manifest.golden.tolerance
    told = after.manifest.verification
    assert told["precision"] == before.manifest.verification["precision"]
    assert after.manifest.bank.rows > before.manifest.bank.rows
    assert verify_artifact(out, threads=2).passed
    added = tmp_path / "new" / "n0.png"
    distance = Detector.open(out, threads=1).score(added, keep_patches=True).patches
    assert float(distance.min()) == 0


# ---- the gate ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gate(exported):
    """Run the gate of a precision on an artifact's golden tiles with another graph."""
    artifact = Artifact.open(exported["fp32"])
    layers = artifact.manifest.network.layers
    tiles = golden_inputs(artifact.golden().tiles, artifact.manifest.preprocessing)

    def run(graph, precision, seed=0):
        network = build_network("resnet18", layers, "same-bilinear", f"random:{seed}")
        session = NetworkSession(graph, threads=1)
        return precision_gate(network, session, tiles, layers=layers, precision=precision)

    return run


@pytest.mark.parametrize("precision", BELOW)
def test_the_gate_refuses_a_network_of_other_weights(exported, gate, precision):
    graph = Artifact.open(exported[precision]).network
    assert gate(graph, precision)["outputs"]["layer2"]["rms_rel"] > 0
    with pytest.raises(OutputMismatchError, match=rf"layer2: {precision} is off float32 by .* use"):
        gate(graph, precision, seed=1)


@pytest.mark.parametrize("precision", BELOW)
def test_the_gate_refuses_a_disturbed_weight(exported, gate, precision):
    """One scale of the last convolution, or one of its channels of weights, is 8 times as large."""
    model = graph_of(exported[precision])
    last = [node for node in model.graph.node if node.op_type == "Conv"][-1]
    makers = {name: node for node in model.graph.node for name in node.output}
    name = last.input[1] if precision == "fp16" else makers[last.input[1]].input[1]
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(8 * numpy_helper.to_array(tensor), name))
    with pytest.raises(OutputMismatchError, match="layer3"):
        gate(model.SerializeToString(), precision)


def test_the_gate_refuses_int8_in_the_place_of_half_precision(exported, gate):
    with pytest.raises(OutputMismatchError, match="fp16 is off float32"):
        gate(Artifact.open(exported["int8"]).network, "fp16")


def test_a_graph_that_gives_no_numbers_is_refused(exported):
    class Broken:
        def run(self, tiles):
            return [np.full((len(tiles), 2, 3, 3), np.nan, np.float32)]

    network = torch.nn.AdaptiveAvgPool2d(3)
    wanted = type("Two", (torch.nn.Module,), {"forward": lambda _, x: (network(x)[:, :2],)})()
    tiles = np.ones((2, 3, 8, 8), np.float32)
    with pytest.raises(OutputMismatchError, match="got nan"):
        precision_gate(wanted, Broken(), tiles, layers=["layer2"], precision="int8")


# ---- what is asked for ---------------------------------------------------------------------------


def test_float32_is_left_as_it_is(exported, small_dataset, quick_options):
    graph = Artifact.open(exported["fp32"]).network
    tiles = range_tiles(small_dataset, quick_options)
    assert convert(graph, "fp32", tiles) == (graph, {})
    assert "precision" not in Artifact.open(exported["fp32"]).manifest.verification


def test_an_unknown_precision_is_refused():
    with pytest.raises(InvalidArgumentError, match="precision: expected fp32, fp16, int8, got"):
        PatchCoreOptions(precision="bf16")
