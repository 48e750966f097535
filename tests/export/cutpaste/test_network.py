"""CutPasteNet: the shapes of the thesis, and where its parameters come from."""

from __future__ import annotations

import pytest
import torch
from kad_export.cutpaste.network import CutPasteNet, NetworkConfig, build_cutpaste, initialise
from kad_export.errors import BackboneError, WeightsError
from kad_export.weights import load_weights
from torch import nn

from kad_sdk.tensors import write_tensors


@pytest.mark.parametrize(("backbone", "features"), [("resnet18", 512), ("resnet50", 2048)])
@pytest.mark.parametrize("classes", [2, 3])
def test_outputs_are_logits_and_embeddings(backbone, features, classes):
    network = build_cutpaste(NetworkConfig(backbone, classes))
    assert isinstance(network.encoder.fc, nn.Identity)
    assert not network.training
    with torch.inference_mode():
        tiles = torch.zeros(3, 3, 64, 64)
        assert network.encoder(tiles).shape == (3, features)
        logits, embedding = network(tiles)
    assert (logits.shape, embedding.shape) == ((3, classes), (3, 128))


@pytest.mark.parametrize(("backbone", "features"), [("resnet18", 512), ("resnet50", 2048)])
def test_the_head_is_that_of_the_thesis(backbone, features):
    """[512 or 2048, 512, 512, 512, 512, 512, 512, 128], Linear (no bias) + BatchNorm + ReLU."""
    *hidden, last = CutPasteNet(NetworkConfig(backbone)).head
    widths = [features, *[512] * 6]
    assert [type(layer) for layer in hidden] == [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 6
    linear = hidden[::3]
    assert [layer.in_features for layer in linear] == widths[:-1]
    assert [layer.out_features for layer in linear] == widths[1:]
    assert all(layer.bias is None for layer in linear)
    assert [norm.num_features for norm in hidden[1::3]] == widths[1:]
    assert (last.in_features, last.out_features) == (512, 128)


def test_the_classifier_reads_the_embedding():
    network = CutPasteNet(NetworkConfig(classes=3)).eval()
    assert (network.classifier.in_features, network.classifier.out_features) == (128, 3)
    with torch.inference_mode():
        logits, embedding = network(torch.zeros(2, 3, 64, 64))
        torch.testing.assert_close(network.classifier(embedding), logits)


def test_the_seed_decides_every_parameter_and_leaves_the_global_state():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = (CutPasteNet(seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    for name in ("encoder.layer4.0.conv1.weight", "head.0.weight", "classifier.weight"):
        assert not torch.equal(first[name], other[name])


@pytest.fixture(scope="module")
def trunk_file(tmp_path_factory):
    """Weights that end with layer3, as those made for PatchCore do."""
    path = tmp_path_factory.mktemp("weights") / "trunk.safetensors"
    state = load_weights("random:9", "resnet18").state_dict
    names = [n for n in state if not n.startswith(("layer4", "fc")) and "batches" not in n]
    write_tensors(path, {name: state[name].numpy() for name in names})
    return path


def test_weights_fill_the_encoder(trunk_file):
    whole = load_weights("random:9", "resnet18").state_dict
    network, weights = initialise(NetworkConfig(), "random:9", seed=1)
    assert (weights.source, weights.name) == ("random", "random:9")
    for name, tensor in network.encoder.state_dict().items():
        assert torch.equal(tensor, whole[name]), name


def test_what_the_weights_lack_comes_from_the_seed_and_is_told(trunk_file):
    network, weights = initialise(NetworkConfig(), str(trunk_file), seed=4)
    assert weights.name == "trunk.safetensors, layer4 from seed 4"
    whole, drawn = load_weights("random:9", "resnet18").state_dict, CutPasteNet(seed=4).state_dict()
    for name, tensor in network.state_dict().items():
        short = name.removeprefix("encoder.")
        given = name.startswith("encoder.") and not short.startswith("layer4")
        assert torch.equal(tensor, whole[short] if given else drawn[name]), name


def test_weights_of_another_backbone_are_refused(trunk_file):
    with pytest.raises(WeightsError, match=r"trunk\.safetensors do not belong to this network"):
        initialise(NetworkConfig("resnet50"), str(trunk_file), seed=0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"backbone": "vgg11"}, "no backbone 'vgg11': expected resnet18 or resnet50"),
        ({"classes": 4}, "2 or 3 classes, got 4"),
    ],
)
def test_other_networks_are_refused(config, message):
    with pytest.raises(BackboneError, match=message):
        NetworkConfig(**config)
