"""Base maps: pooling, grids, and that trained weights are in use."""

import functools

import pytest
import torch
import torch.nn.functional as F
import torchvision
from kad_export.errors import BackboneError, WeightsError
from kad_export.patchcore import build_network

from kad_sdk.tensors import read_tensors

LAYERS = ("layer2", "layer3")


@functools.cache
def _network(pooling):
    return build_network("resnet18", LAYERS, pooling, "random:0")


def _tiles(n=2, tile=64):
    return torch.randn(n, 3, tile, tile, generator=torch.Generator().manual_seed(0))


def _mean_of_nine(x, padding):
    """3x3 pooling by nine shifted additions; zeros of the padding count."""
    x = F.pad(x, (padding,) * 4)
    height, width = x.shape[2] - 2, x.shape[3] - 2
    shifts = [x[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return torch.stack(shifts).sum(dim=0) / 9


@pytest.mark.parametrize(("pooling", "padding"), [("same-bilinear", 1), ("valid-adaptive", 0)])
def test_base_maps_are_the_layers_pooled_over_nine_cells(pooling, padding):
    network = _network(pooling)
    tiles = _tiles()
    layers = network.trunk(tiles)
    for layer, base_map in zip(layers, network(tiles), strict=True):
        torch.testing.assert_close(base_map, _mean_of_nine(layer, padding), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("pooling", "tile", "sizes", "grid"),
    [
        ("same-bilinear", 224, ((28, 28), (14, 14)), (28, 28)),
        ("valid-adaptive", 224, ((26, 26), (12, 12)), (28, 28)),
        ("same-bilinear", 100, ((13, 13), (7, 7)), (13, 13)),
        ("valid-adaptive", 100, ((11, 11), (5, 5)), (13, 13)),
    ],
)
def test_the_grid_is_the_finest_layers_before_pooling(pooling, tile, sizes, grid):
    network = _network(pooling)
    assert network.map_sizes(tile) == sizes
    assert network.grid(tile) == grid


def test_the_network_says_what_it_is():
    network = build_network("resnet18", ("layer3", "layer2"), "valid-adaptive", "random:2")
    assert (network.backbone, network.layers, network.channels) == ("resnet18", LAYERS, (128, 256))
    assert (network.pooling, network.resampling) == ("valid-adaptive", "adaptive-average")
    assert network.weights.name == "random:2"
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_tile_too_small_to_pool_is_refused():
    network = _network("valid-adaptive")
    with pytest.raises(BackboneError, match=r"tiles of 32 px are too small for resnet18 up to lay"):
        network.map_sizes(32)


def test_an_unknown_pooling_lists_the_known_ones():
    with pytest.raises(BackboneError, match=r"'max': expected one of same-bilinear, valid-adap"):
        build_network("resnet18", LAYERS, "max", "random:0")


def test_trained_features_are_in_use(weights_file):
    tiles = _tiles()
    trained = build_network("resnet18", LAYERS, "same-bilinear", str(weights_file))
    whole = torchvision.models.resnet18(weights=None).eval()
    state = {name: torch.tensor(value) for name, value in read_tensors(weights_file).items()}
    assert not whole.load_state_dict(state, strict=False).unexpected_keys
    with torch.no_grad():
        x = whole.maxpool(whole.relu(whole.bn1(whole.conv1(tiles))))
        layer2 = whole.layer2(whole.layer1(x))
        expected = [_mean_of_nine(layer, 1) for layer in (layer2, whole.layer3(layer2))]
    random = _network("same-bilinear")(tiles)
    for got, want, other in zip(trained(tiles), expected, random, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
        assert (got - other).abs().max() > 0.5


def test_real_weights_do_not_fit_another_backbone(weights_file):
    with pytest.raises(WeightsError, match=r"resnet18_trunk\.safetensors do not belong"):
        build_network("resnet50", LAYERS, "same-bilinear", str(weights_file))
