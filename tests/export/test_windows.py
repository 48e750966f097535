"""Windows: how far networks see, and features that are those of one pass over the whole image."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from kad_export.backbones import BACKBONES
from kad_export.errors import BackboneError, OutputMismatchError
from kad_export.onnx_export import encode_graph
from kad_export.options import LARGEST_WINDOW
from kad_export.patchcore import build_network
from kad_export.receptive_field import Reach, halo_px, receptive_fields
from kad_export.windows import activation_bytes, choose_windows, window_gate
from torch import nn

from kad_sdk._native import NativeWindows, patch_features, preprocess_window, window_features
from kad_sdk.errors import InvalidArgumentError
from kad_sdk.manifest import Preprocessing
from kad_sdk.session import NetworkSession
from kad_sdk.windows import window_sizes

SIDE = 688, 531  # px, height and width: no multiples of a cell
NORMALISED = {"mean": (0.5, 0.45, 0.4), "std": (0.25, 0.3, 0.2)}
RESNETS = ("resnet18", "resnet50", "wide_resnet50_2")
HALOS = {"resnet18": 144, "resnet50": 176, "wide_resnet50_2": 176}


def graph_of(network: nn.Module, tile: int = 224) -> bytes:
    sizes = zip(network.layers, network.channels, network.map_sizes(tile), strict=True)
    outputs = {name: (channels, *size) for name, channels, size in sizes}
    return encode_graph(network, tile=tile, outputs=outputs, dynamic=True)


@pytest.fixture(scope="module")
def built():
    """Give a backbone's network and graph; random weights, made once."""
    made: dict[str, tuple[nn.Module, bytes]] = {}

    def build(name: str) -> tuple[nn.Module, bytes]:
        if name not in made:
            network = build_network(name, ("layer2", "layer3"), "same-bilinear", "random:3")
            made[name] = (network, graph_of(network))
        return made[name]

    return build


def board() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (*SIDE, 3), dtype=np.uint8)


def windows_of(graph: bytes, window: int):
    return choose_windows(graph, tile=224, window=window, memory_bytes=2**30, label_margin=32)


def test_the_reach_is_that_of_the_layers(built):
    _, graph = built("resnet18")
    # conv1 and max pool, two layers of four 3x3 convolutions at strides 4 and 8, and the pooling.
    assert receptive_fields(graph)["layer2"] == Reach(8, 49 + 8, 49 + 8)
    assert receptive_fields(graph)["layer3"] == Reach(16, 105 + 16, 105 + 16)


@pytest.mark.parametrize("name", RESNETS)
def test_the_halo_is_the_reach_in_whole_cells(built, name):
    reaches = receptive_fields(built(name)[1])
    assert halo_px(reaches) == HALOS[name]
    coarse = reaches["layer3"]
    assert HALOS[name] - 16 < coarse.before + coarse.stride <= HALOS[name]


def test_the_reach_is_what_gradients_say(built):
    network, graph = built("resnet18")
    torch.manual_seed(1)
    pixels = torch.rand(1, 3, 400, 400, requires_grad=True)
    for (name, reach), maps in zip(receptive_fields(graph).items(), network(pixels), strict=True):
        at = 200 // reach.stride
        (gradient,) = torch.autograd.grad(maps[0, :, at, at].sum(), pixels, retain_graph=True)
        rows = torch.nonzero(gradient.abs().sum(dim=(0, 1, 3))).ravel()
        centre = at * reach.stride
        assert rows.min() >= centre - reach.before, name
        assert rows.max() <= centre + reach.after, name
        # Max pooling and ReLU may leave the outermost pixels out.
        assert rows.max() - rows.min() > reach.before + reach.after - 16, name


@pytest.mark.parametrize(("name", "window"), [("resnet18", 336), *((n, 256) for n in RESNETS)])
def test_windowed_features_are_those_of_the_whole_image(built, name, window):
    network, graph = built(name)
    image, windows = board(), windows_of(graph, window)
    patch = windows.patch_px
    grid = (-(-SIDE[0] // patch), -(-SIDE[1] // patch))
    with torch.inference_mode():
        pixels = preprocess_window(image, (0, 0, SIDE[1], SIDE[0]), **NORMALISED)
        whole = [maps.numpy() for maps in network(torch.from_numpy(pixels))]
    options = {"resampling": "aligned-bilinear"}
    expected = patch_features(whole, grid=grid, **options).reshape(*grid, -1)
    plan = NativeWindows(
        *SIDE,
        sizes=window_sizes(windows),
        tile=224,
        xy=np.zeros((0, 2), np.int32),
        sigma=4.0,
        radius=16,
    )
    assert len(plan.windows) > 3
    session, got = NetworkSession(graph, threads=2), np.full_like(expected, np.nan)
    for w in plan.windows:
        maps = session.run(preprocess_window(image, w.rect, **NORMALISED))
        rows, columns = (
            (at // patch, -(-(at + side) // patch))
            for at, side in ((w.core_y, w.core_height), (w.core_x, w.core_width))
        )
        rect = (
            *(columns[0] - w.x // patch, rows[0] - w.y // patch),
            *(columns[1] - columns[0], rows[1] - rows[0]),
        )
        got[slice(*rows), slice(*columns)] = window_features(
            maps, rect, grid=plan.grid(w), **options
        )
    centres = [int(np.ceil(side / patch - 0.5)) for side in SIDE]  # the last one is off the image
    got, expected = (x[: centres[0], : centres[1]] for x in (got, expected))
    assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", RESNETS[:2])
def test_a_halo_of_one_cell_less_does_not_do(built, name):
    """In float64, where rounding is far below what a pixel at the end of the reach is worth."""
    network = built(name)[0]
    network = build_network(name, network.layers, "same-bilinear", "random:3").double()
    torch.manual_seed(2)
    pixels = torch.rand(1, 3, 640, 96, dtype=torch.float64)
    halo, begin = HALOS[name], 320

    def difference(shift: int) -> float:
        first = begin - halo + shift
        with torch.inference_mode():
            whole, part = network(pixels)[1], network(pixels[:, :, first:])[1]
        # The outermost position that a patch at the begin of the core takes its values from.
        position = begin // 16 - 1
        return float((whole[:, :, position] - part[:, :, position - first // 16]).abs().max())

    scale = 1e-12
    assert difference(0) < scale
    assert difference(16) > scale


@pytest.mark.parametrize("name", [name for name in BACKBONES if name.startswith("efficientnet_b0")])
def test_networks_that_look_at_the_whole_image_are_refused(name):
    network = build_network(name, ("layer2", "layer3"), "same-bilinear", "random:0")
    with pytest.raises(BackboneError, match="averages over the whole image"):
        receptive_fields(graph_of(network))


def test_pooling_without_padding_is_refused():
    network = build_network("resnet18", ("layer2", "layer3"), "valid-adaptive", "random:0")
    with pytest.raises(BackboneError, match="--pooling same-bilinear"):
        receptive_fields(graph_of(network))


def test_a_node_of_another_kind_is_refused():
    node = onnx.helper.make_node("Softmax", ["tiles"], ["layer2"])
    ports = [
        onnx.helper.make_tensor_value_info(name, 1, ["b", 3, "h", "w"])
        for name in ("tiles", "layer2")
    ]
    graph = onnx.helper.make_graph([node], "g", ports[:1], ports[1:])
    with pytest.raises(BackboneError, match="Softmax"):
        receptive_fields(onnx.helper.make_model(graph).SerializeToString())


def test_the_window_follows_the_memory(built):
    graph = built("resnet18")[1]
    # What conv1 gives at half the resolution, and max pooling makes of it, in float32.
    assert activation_bytes(graph) == 4 * (64 / 4 + 64 / 16)
    common = {"tile": 224, "window": None, "label_margin": 32}
    small = choose_windows(graph, memory_bytes=2**27, **common)
    assert small.window_px % 16 == 0
    assert 2 * activation_bytes(graph) * (small.window_px + 2 * 144) ** 2 <= 2**27
    assert choose_windows(graph, memory_bytes=2**50, **common).window_px == LARGEST_WINDOW
    with pytest.raises(InvalidArgumentError, match="--window-memory"):
        choose_windows(graph, memory_bytes=2**20, **common)


@pytest.mark.parametrize(
    ("change", "match"),
    [({"window": 250}, "multiple of 16"), ({"tile": 200}, "tile"), ({"tile": 80}, "at least 96")],
)
def test_sizes_that_do_not_fit_the_network_are_refused(built, change, match):
    given = {"tile": 224, "window": 256, "memory_bytes": 2**30, "label_margin": 32} | change
    with pytest.raises(InvalidArgumentError, match=match):
        choose_windows(built("resnet18")[1], **given)


def test_the_gate_compares_windows_with_one_pass(built):
    network, graph = built("resnet18")
    windows, session = windows_of(graph, 256), NetworkSession(graph, threads=1)
    settings = Preprocessing(
        tile=224,
        stride=112,
        train_stride=224,
        resize=None,
        normalisation="dataset",
        denoise=None,
        **NORMALISED,
    )
    given = {"windows": windows, "preprocessing": settings, "tolerance": 1e-4}
    figures = window_gate(network, session, board(), precision="fp32", **given)
    assert set(figures) == {"layer2", "layer3"}
    assert max(f["max_rel"] for f in figures.values()) < 1e-5

    class Coarse:
        """A graph of another precision; `wrong` is what windows miss of the whole image."""

        def __init__(self, wrong: float) -> None:
            self._wrong = wrong

        def run(self, pixels):
            whole = pixels.shape[2:] == SIDE
            return [1.1 * maps + (not whole) * self._wrong for maps in session.run(pixels)]

    window_gate(network, Coarse(0.0), board(), precision="int8", **given)
    for coarse, precision in ((Coarse(0.0), "fp32"), (Coarse(0.1), "int8")):
        with pytest.raises(OutputMismatchError, match="layer2 in a window"):
            window_gate(network, coarse, board(), precision=precision, **given)
