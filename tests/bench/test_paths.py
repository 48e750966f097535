"""The thesis' paths against independent computations, and the checks that guard every time."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import onnx
import pytest
import torch
from kad_bench import peaks
from kad_bench.answers import WrongAnswerError
from kad_bench.board_suite import score_side_by_side
from kad_bench.cutpaste_model import MEAN, STD, CutPasteModel
from kad_bench.energy import EnergyMeter
from kad_bench.graph_cost import count_cost
from kad_bench.network_suite import check_maps
from kad_bench.process_probe import forget_files
from kad_bench.thesis_path import BoardMap, ThesisPatchCore, normalised
from kad_bench.tile_paths import Found, check_found
from kad_export.backbones import build_trunk
from kad_export.cutpaste.gradcam import ExplainedCutPasteNet
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FINE = Found(np.array([1.0, 2.0], np.float32), np.ones((2, 4, 4), np.float32))


def test_checker_accepts_rounding_and_names_what_is_wrong() -> None:
    assert check_found("x", FINE, FINE) == {"score difference": 0, "map difference": 0}
    near = FINE._replace(scores=FINE.scores * np.float32(1.00005))
    assert check_found("x", FINE, near)["score difference"] == pytest.approx(5e-5, rel=0.01)
    assert check_found("x", FINE, FINE._replace(maps=None)) == {"score difference": 0}
    far = FINE._replace(scores=np.array([1.001, 2.0], np.float32))
    with pytest.raises(WrongAnswerError, match=r"x: the score of tile 0 differs by 0\.0005"):
        check_found("x", FINE, far)
    maps = FINE.maps.copy()
    maps[1, 2, 3] += 0.01
    with pytest.raises(WrongAnswerError, match=r"the map of tile 1 differs by 0\.01 "):
        check_found("x", FINE, FINE._replace(maps=maps))
    assert check_found("x", FINE, FINE._replace(maps=maps), map_bounds=(0.02, 0.006))
    with pytest.raises(WrongAnswerError, match=r"x: half of the maps differ by 0\.005 "):
        check_found("x", FINE, FINE._replace(maps=maps), map_bounds=(0.02, 0.004))
    maps[0, 0, 0] = np.nan
    with pytest.raises(WrongAnswerError, match="the map of tile 0 differs by nan"):
        check_found("x", FINE, FINE._replace(maps=maps), map_bounds=(0.02, 0.02))


def test_base_maps_are_checked_layer_by_layer() -> None:
    maps = [np.ones((1, 2, 3, 3), np.float32), np.full((1, 2, 2, 2), 100, np.float32)]
    assert check_maps(maps, maps) == 0
    wrong = [maps[0] + np.float32(1e-3), maps[1]]
    with pytest.raises(WrongAnswerError, match=r"base maps differ by 0\.001"):
        check_maps(maps, wrong)


def test_thesis_patchcore_follows_the_equations() -> None:
    """Score and distances of a tile, computed from the trunk's maps in float64 NumPy."""
    generator = np.random.default_rng(3)
    trunk = build_trunk("resnet18", ("layer2", "layer3"), seed=1)
    bank = np.abs(generator.standard_normal((40, 384))).astype(np.float32)
    tile = generator.integers(0, 256, (224, 224, 3), np.uint8)
    path = ThesisPatchCore(trunk, bank, mean=MEAN, std=STD)
    found = path.score(tile)
    x = torch.from_numpy(((tile / 255 - MEAN) / STD).transpose(2, 0, 1)[None]).float()
    with torch.no_grad():
        fine, coarse = (m.numpy().astype(np.float64)[0] for m in trunk(x))

    def averaged(layer: np.ndarray) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(layer, (3, 3), axis=(1, 2))
        return windows.mean(axis=(3, 4))  # (C, h - 2, w - 2)

    def resized(layer: np.ndarray) -> np.ndarray:
        n = layer.shape[1]
        spans = [slice(i * n // 28, -(-(i + 1) * n // 28)) for i in range(28)]
        return np.array([[layer[:, a, b].mean(axis=(1, 2)) for b in spans] for a in spans])

    patches = np.concatenate([resized(averaged(m)) for m in (fine, coarse)], axis=2)
    dist = np.linalg.norm(patches.reshape(784, 1, 384) - bank[None].astype(float), axis=2)
    nearest = dist.min(axis=1)
    place = nearest.argmax()
    row = dist[place].argmin()
    others = np.argsort(np.linalg.norm(bank - bank[row], axis=1))[1:4]
    root = np.sqrt(384)
    away = np.exp(dist[place, others] / root).sum()
    expected = (1 - np.exp(nearest[place] / root) / away) * nearest[place]
    assert found.score == pytest.approx(expected, rel=1e-5)
    assert found.map.shape == (224, 224)
    assert nearest.min() < found.map.min() <= found.map.max() < nearest.max()


def test_float64_distances_are_the_answer_that_float32_products_round() -> None:
    generator = np.random.default_rng(5)
    trunk = build_trunk("resnet18", ("layer2", "layer3"), seed=1)
    bank = 1e3 + np.abs(generator.standard_normal((40, 384))).astype(np.float32)
    patches = torch.from_numpy(bank[:30] + np.float32(0.5))
    right = np.linalg.norm(patches.numpy()[:, None].astype(float) - bank.astype(float), axis=2)
    error = {}
    for exact in (False, True):
        path = ThesisPatchCore(trunk, bank, mean=MEAN, std=STD, exact=exact)
        error[exact] = np.abs(path._distances(patches).numpy() - right).max() / right.max()
    assert error[True] < 1e-6
    assert error[False] > 1e-3


def test_board_map_is_the_mean_where_tiles_overlap() -> None:
    board = BoardMap(4, 6)
    board.add(0, 0, np.full((4, 4), 1, np.float32))
    board.add(2, 0, np.full((4, 4), 3, np.float32))
    np.testing.assert_array_equal(board.map()[0], [1, 1, 2, 2, 3, 3])
    assert np.isnan(BoardMap(1, 1).map()).all()


def test_grad_cam_by_forward_operations_is_that_of_autograd_in_float64() -> None:
    """In float32 a ReLU's mask may flip by rounding; in float64 both ways must agree."""
    tiles = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), np.uint8)
    model = CutPasteModel("random:0", tiles)
    thesis = model.thesis(exact=True).path
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (MEAN, STD))
    x = normalised(tiles[:3], mean, std)
    explained = ExplainedCutPasteNet(model.network).double()
    with torch.no_grad():
        _, embedding, cam = explained(x)
    for i in range(3):
        right, expected = thesis.explain(x[i : i + 1])
        assert expected.max() > 0
        # The folded weights were rounded to float32 once.
        torch.testing.assert_close(embedding[i], right[0], rtol=0, atol=2e-5)
        assert (cam[i] - expected[0]).abs().max() <= 1e-5 * expected.max()


class Sides(TorchFunctionMode):
    """Notes every ReLU's input; after `replay`, ReLUs keep the sides of 0 of the first run."""

    def __init__(self) -> None:
        super().__init__()
        self._noted: list[torch.Tensor] = []
        self._given: Iterator[torch.Tensor] | None = None

    def replay(self) -> Self:
        self._given = iter([x > 0 for x in self._noted])
        return self

    def flip_nearest(self) -> float:
        """Put the head's input nearest to 0 on the other side: its share of the standard deviation.

        The head's are the inputs with two dimensions.
        """
        of_head = [x for x in self._noted if x.ndim == 2]
        layer = min(of_head, key=lambda x: x.abs().min())
        place = divmod(int(layer.abs().argmin()), layer.shape[1])
        share = float(layer[place].abs() / layer.std())
        layer[place] = -layer[place] or 1.0
        return share

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        if function is not torch.nn.functional.relu:
            return function(*args, **(kwargs or {}))
        (x,) = args
        if self._given is None:
            self._noted.append(x.clone())
            return function(x)
        return torch.where(next(self._given), x.clamp_min(1e-30), 0)


def test_grad_cam_s_rounding_is_that_of_the_relus_sides() -> None:
    """With ReLUs on the same sides float32 is as good as float64; one that changes is enough."""
    tiles = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), np.uint8)
    model = CutPasteModel("random:0", tiles)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    x = normalised(tiles, mean, std)
    single = ExplainedCutPasteNet(model.network)
    double, sides = copy.deepcopy(single).double(), Sides()
    with torch.no_grad():
        with sides:
            found = single(x)[2]
        with sides.replay():
            right = double(x.double())[2]
        share = sides.flip_nearest()
        with sides.replay():
            flipped = double(x.double())[2]
    # The map's own ReLU, the last one, is among them.
    assert (found - right).abs().max() <= 1e-5 * right.max()
    assert share < 1e-3
    assert (flipped - right).abs().max() > 10 * share * right.max()


def test_costs_are_counted_from_the_graph(tmp_path: Path) -> None:
    helper, batch = onnx.helper, "n"
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["y"], ["z"]),
    ]
    weight = onnx.numpy_helper.from_array(np.ones((5, 3, 3, 3), np.float32), "w")
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("z", kind, [batch, 5, 4, 4])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    cost = count_cost(model.SerializeToString())
    assert cost.flop == 2 * (5 * 4 * 4) * (3 * 3 * 3)
    assert cost.weight_bytes == 4 * 5 * 27
    assert cost.activation_bytes == 4 * (3 * 64 + 5 * 16)


def test_peaks_are_those_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "_BYTES", 1 << 20)
    found = peaks.measure_peaks(1)
    assert 0.1 < found["gflop_per_s"] < 1e5
    assert 0.1 < found["gb_per_s"] < 1e5


def test_energy_is_the_counter_s_difference_also_when_it_wraps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    zone = tmp_path / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "max_energy_range_uj").write_text("10000000\n")
    (zone / "energy_uj").write_text("9000000\n")
    meter = EnergyMeter(tmp_path)
    (zone / "energy_uj").write_text("9500000\n")
    assert meter.read_j() == {"processor 0": 0.5}
    (zone / "energy_uj").write_text("2000000\n")
    assert meter.read_j() == {"processor 0": 3.0}
    assert EnergyMeter(tmp_path / "nothing").read_j() == {}


def test_gpus_tell_their_energy_by_nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([1000, 2500])
    nvml = SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda i: i,
        nvmlDeviceGetTotalEnergyConsumption=lambda _: next(readings),  # mJ
    )
    monkeypatch.setitem(__import__("sys").modules, "pynvml", nvml)
    meter = EnergyMeter(tmp_path)
    assert meter.read_j() == {"GPU 0": 1.5}


def test_detectors_side_by_side_score_at_the_same_time() -> None:
    import threading

    meeting = threading.Barrier(3, timeout=10)  # breaks when they come one after the other
    detector = SimpleNamespace(score=lambda board, annotation: meeting.wait())
    assert score_side_by_side([detector] * 3, np.zeros((1, 1, 3), np.uint8), None) > 0


def test_forgotten_files_are_read_again_unchanged(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 10_000)
    forget_files(tmp_path)
    assert (tmp_path / "a").read_bytes() == b"x" * 10_000
