"""The registry tells the truth, and cut networks compute what the whole ones do."""

import pytest
import torch
import torchvision
from kad_export.backbones import BACKBONES, Trunk, build_trunk, get_backbone, sort_layers
from kad_export.errors import BackboneError
from torchvision.models.feature_extraction import create_feature_extractor


@pytest.mark.parametrize("name", BACKBONES)
def test_advertised_channels_and_reductions_are_those_of_the_network(name):
    backbone = BACKBONES[name]
    with torch.device("meta"):  # shapes only: nothing is computed
        trunk = Trunk(backbone.create(0), backbone, backbone.layers)
        maps = trunk(torch.empty(2, 3, 96, 64))
    for layer, x in zip(backbone.layers, maps, strict=True):
        assert x.shape == (2, layer.channels, 96 // layer.reduction, 64 // layer.reduction)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_the_cut_network_computes_what_the_whole_one_does(name):
    backbone = get_backbone(name)
    layers = ("layer1", "layer2", "layer3")
    whole = torchvision.models.get_model(name, weights=None)
    whole.load_state_dict(backbone.create(4).state_dict())
    nodes = [backbone.layer(layer).module for layer in layers]
    tiles = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = create_feature_extractor(whole.eval(), nodes)(tiles)
    for node, got in zip(nodes, build_trunk(name, layers, seed=4)(tiles), strict=True):
        assert torch.equal(got, expected[node]), node


@pytest.mark.parametrize(
    ("name", "last", "removed"),
    [
        ("resnet18", "layer3", ("layer4", "avgpool", "fc")),
        ("resnet18", "layer1", ("layer2", "layer3", "layer4", "avgpool", "fc")),
        ("efficientnet_b0", "layer3", ("features.6", "features.7", "features.8", "avgpool")),
    ],
)
def test_nothing_is_kept_behind_the_last_layer(name, last, removed):
    trunk = build_trunk(name, [last])
    assert set(removed) <= set(trunk.removed)
    names = [key for key, _ in trunk.network.named_modules()]
    assert not [key for key in names if key.startswith(removed)]
    assert trunk.chain[-1] == get_backbone(name).layer(last).module


def test_a_trunk_is_frozen_and_in_eval_mode():
    trunk = build_trunk("resnet18", ["layer2"])
    assert not any(module.training for module in trunk.modules())
    assert not any(parameter.requires_grad for parameter in trunk.parameters())


def test_initialisation_depends_on_the_seed_and_leaves_the_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, again, other = (build_trunk("resnet18", ["layer1"], seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.rand(2), expected)
    weight = [trunk.network.conv1.weight for trunk in (first, again, other)]
    assert torch.equal(weight[0], weight[1])
    assert not torch.equal(weight[0], weight[2])


def test_layers_come_fine_to_coarse_whatever_their_order():
    names = [layer.name for layer in sort_layers(get_backbone("resnet50"), ["layer3", "layer2"])]
    assert names == ["layer2", "layer3"]


def test_an_unknown_backbone_lists_the_known_ones():
    with pytest.raises(BackboneError, match=r"'vgg16': expected one of resnet18, .*_b7"):
        build_trunk("vgg16", ["layer2"])


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_an_unknown_layer_lists_those_of_the_backbone(name):
    text = rf"{name} has no layer 'layer5': expected one of layer1 \(.*layer4 \("
    with pytest.raises(BackboneError, match=text):
        build_trunk(name, ["layer2", "layer5"])


@pytest.mark.parametrize("layers", [[], ["layer2", "layer2"]])
def test_layers_must_be_different_names(layers):
    with pytest.raises(BackboneError, match=r"one or more different names, got"):
        build_trunk("resnet18", layers)
