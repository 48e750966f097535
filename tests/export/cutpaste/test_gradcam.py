"""Grad-CAM as forward operations: what ``torch.autograd`` gives, on real tiles, for every break."""

from __future__ import annotations

import copy

import cv2
import numpy as np
import pytest
import torch
from kad_export.cutpaste import gradcam
from kad_export.cutpaste.gradcam import ExplainedCutPasteNet
from kad_export.cutpaste.verify import grad_cam, steady
from kad_export.errors import BackboneError
from kad_export.onnx_export import encode_graph

from kad_sdk._native import preprocess
from kad_sdk.session import NetworkSession

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
BACKBONES = ("resnet18", "resnet50")


@pytest.fixture(scope="module")
def networks(make_network):
    return {name: make_network(name) for name in BACKBONES}


@torch.inference_mode()
def explain(network, tiles):
    return [output.numpy() for output in ExplainedCutPasteNet(network)(torch.from_numpy(tiles))]


def autograd(network, tiles):
    """Logits, embedding and Grad-CAM by PyTorch alone."""
    batch = torch.from_numpy(tiles)
    with torch.inference_mode():
        found = [output.numpy() for output in network(batch)]
    return [*found, grad_cam(network, batch).numpy()[:, None]]


def difference(network, tiles):
    """Largest differences of logits, embedding and Grad-CAM over the largest value.

    In float64: of the many thousand ReLUs of a network one may lie so near 0 that float32 rounds
    it to another side in another order of summation, and the gradient jumps there.
    """
    exact, tiles = copy.deepcopy(network).double(), tiles.astype(np.float64)
    wanted, found = autograd(exact, tiles), explain(exact, tiles)
    assert [x.shape for x in found] == [x.shape for x in wanted]
    assert wanted[2].max() > 0
    return [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(found, wanted, strict=True)]


@pytest.mark.parametrize(
    ("backbone", "tile"),
    [("resnet18", 64), ("resnet18", 65), ("resnet18", 75), ("resnet18", 96), ("resnet50", 65)],
)
def test_it_is_what_autograd_gives(networks, make_tiles, backbone, tile):
    """Odd sizes too: strided layers leave rows and columns over that the way back must restore."""
    network = networks[backbone]
    assert max(difference(network, make_tiles(4, 1, tile, blobs=2))) < 1e-9
    assert ExplainedCutPasteNet(network).map_size(tile) == (-(-tile // 2),) * 2


def _crops(folder, places, tile):
    crops = []
    for path in sorted(folder.iterdir())[:places]:
        image = cv2.imread(str(path))[:, :, ::-1]
        corner = np.array([[(image.shape[1] - tile) // 2, (image.shape[0] - tile) // 2]], np.int32)
        crops.append(preprocess(image, corner, tile=tile, **IMAGENET))
    return np.concatenate(crops)


def _deployed(network, tile):
    """The graph that explains itself, in ONNX Runtime."""
    side = -(-tile // 2)
    outputs = {"logits": (2,), "embedding": (128,), "cam": (1, side, side)}
    graph = encode_graph(ExplainedCutPasteNet(network), tile=tile, outputs=outputs)
    session = NetworkSession(graph, threads=1)
    assert session.output_names == tuple(outputs)
    return session


def test_on_real_tiles(make_network, data_dir, weights_file):
    """The formulas in float64, and the graph that is deployed, in float32, against float64."""
    network = make_network("resnet18", weights=str(weights_file))
    kolektor = data_dir / "kolektor_sdd" / "test"
    tiles = np.concatenate([_crops(kolektor / kind, 3, 96) for kind in ("crack", "good")])
    assert max(difference(network, tiles[::3])) < 1e-9
    tiles = tiles[steady(network, tiles)]
    assert len(tiles) >= 2
    wanted = autograd(copy.deepcopy(network).double(), tiles.astype(np.float64))
    for got, want in zip(_deployed(network, 96).run(tiles), wanted, strict=True):
        assert np.abs(got - want).max() / np.abs(want).max() < 1e-4


def test_three_classes_explain_the_first_anomalous_one(make_network, make_tiles):
    network = make_network(classes=3)
    tiles = make_tiles(3, 2)
    assert max(difference(network, tiles)) < 1e-9
    of_class_2 = grad_cam(network, torch.from_numpy(tiles), target=2).numpy()
    assert np.abs(explain(network, tiles)[2][:, 0] - of_class_2).max() > 0.1 * of_class_2.max()


def test_equal_elements_in_a_pooling_window_need_no_rule(networks):
    """On tiles of one colour every window is a tie, and autograd picks one element of each."""
    flat = np.repeat(np.float32([[-2.0], [0.0], [1.5]]), 3 * 64 * 64, axis=1)
    assert max(difference(networks["resnet18"], flat.reshape(3, 3, 64, 64))) < 1e-9


def test_a_tile_does_not_hang_on_its_batch(networks, make_tiles):
    network, tiles = copy.deepcopy(networks["resnet18"]).double(), make_tiles(4, 3).astype("f8")
    together = explain(network, tiles)[2]
    alone = np.concatenate([explain(network, tiles[i : i + 1])[2] for i in range(4)])
    np.testing.assert_allclose(alone, together, atol=1e-10 * together.max())


def test_the_network_is_left_as_it_was(networks):
    network = networks["resnet18"]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    ExplainedCutPasteNet(network)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_only_resnets_can_be_explained(make_network):
    network = make_network()
    network.encoder = torch.nn.Flatten()
    with pytest.raises(BackboneError, match="written for ResNets, got Flatten"):
        ExplainedCutPasteNet(network)


def test_steady_tiles_are_those_whose_map_rounding_leaves_alone(networks, make_tiles):
    """With ReLUs of the head at 0 for one tile, that tile is told from the others."""
    network, tiles = copy.deepcopy(networks["resnet18"]), make_tiles(6, 6, blobs=2)
    before = steady(network, tiles)
    first, second = np.flatnonzero(before)[:2]
    norm, seen = network.head[1], []
    hook = norm.register_forward_hook(lambda _layer, _in, out: seen.append(out))
    with torch.inference_mode():
        network(torch.from_numpy(tiles[[first, second]]))
    hook.remove()
    norm.bias.data[:64] -= seen[0][0, :64]  # now 64 of the tile's units are 0
    after = steady(network, tiles[[first, second]])
    assert not after[0]
    assert after[1]


# ---- broken on purpose --------------------------------------------------------------------------


def _masks(network, tiles):
    """How often a gradient is masked on its way back."""
    calls = []
    original = gradcam._masked
    gradcam._masked = lambda *words: calls.append(0) or original(*words)
    try:
        explain(network, tiles)
    finally:
        gradcam._masked = original
    return len(calls)


def test_every_relu_has_its_mask(monkeypatch, networks, make_tiles):
    """Without any one of them the map is another: none is left out, none is there in vain.

    ResNet-18 has 6 in the head, 2 in each of 8 blocks, and 1 before the pooling.
    """
    network, tiles = copy.deepcopy(networks["resnet18"]).double(), make_tiles(2, 1, 48, blobs=1)
    batch, count = torch.from_numpy(tiles).double(), _masks(networks["resnet18"], tiles)
    assert count == 6 + 2 * 8 + 1
    explained, right = ExplainedCutPasteNet(network), grad_cam(network, batch)
    original = gradcam._masked
    for broken in (None, *range(count)):
        numbers = iter(range(count))

        def masked(gradient, output, broken=broken, numbers=numbers):
            found = original(gradient, output)
            return gradient.expand_as(found) if next(numbers) == broken else found

        monkeypatch.setattr(gradcam, "_masked", masked)
        with torch.inference_mode():
            error = float((explained(batch)[2][:, 0] - right).abs().max() / right.max())
        assert (error < 1e-9) if broken is None else (error > 1e-2), (broken, error)


def test_the_windows_beside_give_another_map(monkeypatch, networks, make_tiles):
    def neighbour(gradient, pooled):
        return torch.where(torch.roll(pooled, 1, dims=3) > 0, gradient, 0.0)

    monkeypatch.setattr(gradcam, "_routed", neighbour)
    assert difference(networks["resnet18"], make_tiles(2, 1, blobs=1))[2] > 1e-2


def test_the_route_of_average_pooling_gives_another_map(monkeypatch, networks, make_tiles):
    original = ExplainedCutPasteNet._cam

    def averaged(self, first, pooled, gradient):
        """Every element of a window gets the same share, and the ReLU before stops some."""
        share = torch.nn.functional.avg_pool2d((first > 0).to(first), 3, stride=2, padding=1)
        return original(self, first, torch.ones_like(pooled), gradient * share)

    monkeypatch.setattr(ExplainedCutPasteNet, "_cam", averaged)
    assert difference(networks["resnet18"], make_tiles(2, 1, blobs=1))[2] > 1e-2


def test_a_left_out_shortcut_gives_another_map(monkeypatch, networks, make_tiles):
    original = gradcam._Block.gradient

    def gradient(self, upper, trace):
        shortcut = gradcam._masked(upper, trace.output) if self.side is None else 0
        return original(self, upper, trace) - shortcut

    monkeypatch.setattr(gradcam._Block, "gradient", gradient)
    assert difference(networks["resnet18"], make_tiles(2, 1))[2] > 1e-2
