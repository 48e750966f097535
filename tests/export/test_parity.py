"""The parity gate: what agrees passes with figures, each kind of disagreement has its own error."""

import dataclasses
import functools
import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from kad_export import reference
from kad_export.bank import nearest_rows
from kad_export.errors import (
    BatchDependenceError,
    DecisionFlipError,
    OutputMismatchError,
    ScoreMismatchError,
)
from kad_export.onnx_export import export_onnx
from kad_export.patchcore import build_network
from kad_export.verify import Expected, expected_scores, parity_gate

from kad_sdk._native import NativeBoard, NativeIndex, patch_features, preprocess
from kad_sdk.manifest import PatchCore
from kad_sdk.session import NetworkSession

LAYERS = ("layer2", "layer3")
TILE = 64
N_TILES, N_ROWS = 5, 120
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@dataclasses.dataclass(frozen=True)
class Case:
    """Everything the gate needs; `gate` runs it with some of that replaced."""

    network: torch.nn.Module
    graph: Path
    session: NetworkSession
    tiles: np.ndarray
    bank: np.ndarray
    neighbors: np.ndarray
    settings: PatchCore

    def expected(self, tau: float = 0.0) -> Expected:
        return expected_scores(
            self.network,
            self.tiles,
            bank=self.bank,
            neighbors=self.neighbors,
            settings=self.settings,
            tau=tau,
        )

    def gate(self, *, tau: float = 0.0, session=None, bank=None, expected=None) -> dict:
        index = NativeIndex(self.bank if bank is None else bank)
        return parity_gate(
            expected or self.expected(tau),
            session or self.session,
            index,
            self.tiles,
            layers=self.network.layers,
            neighbors=self.neighbors,
            settings=self.settings,
            tau=tau,
        )

    def scores(self) -> np.ndarray:
        """What the runtime gives."""
        options = dataclasses.asdict(self.settings)
        for name in ("pooling", "mode", "windows"):
            del options[name]
        maps = self.session.run(self.tiles)
        return NativeIndex(self.bank).score_tiles(maps, neighbors=self.neighbors, **options)[2]


def _case(network, tiles, training, folder, *, n_rows=N_ROWS, reweighting="thesis", n_neighbors=3):
    """A bank of evenly spaced features of the training tiles."""
    tile = tiles.shape[-1]
    grid = network.grid(tile)
    maps = network(torch.from_numpy(training))
    features = reference.patch_features(maps, grid=grid, resampling=network.resampling)
    flat = features.reshape(-1, features.shape[2])
    bank = flat[torch.linspace(0, len(flat) - 1, n_rows).long()].contiguous()
    graph = folder / "network.onnx"
    export_onnx(network, graph, tile=tile)
    return Case(
        network,
        graph,
        NetworkSession(graph.read_bytes(), threads=1),
        tiles,
        bank.numpy(),
        nearest_rows(bank.numpy(), 1),
        PatchCore(network.resampling, network.pooling, grid, reweighting, n_neighbors),
    )


def _textures(n, seed, blobs=0):
    """Smooth noise, with bright blobs for tiles that should stand out; normalised."""
    rng = np.random.default_rng(seed)
    tiles = []
    for i in range(n):
        image = cv2.GaussianBlur(rng.random((TILE, TILE, 3)).astype(np.float32), (0, 0), 2)
        if i < blobs:
            cv2.circle(image, (20 + 5 * i, 30), 6, (1.0, 0.9, 0.2), -1)
        tiles.append((image - 0.5) * 6)
    return np.ascontiguousarray(np.stack(tiles).transpose(0, 3, 1, 2))


@functools.cache
def _network(pooling):
    return build_network("resnet18", LAYERS, pooling, "random:0")


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("same")
    return _case(_network("same-bilinear"), _textures(N_TILES, 1, blobs=2), _textures(6, 2), folder)


@pytest.fixture(scope="module")
def valid_case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("valid")
    network = _network("valid-adaptive")
    return _case(network, _textures(N_TILES, 1, blobs=2), _textures(6, 2), folder)


def _between(scores):
    """A threshold in the widest gap between scores."""
    ordered = np.sort(scores.astype(np.float64))
    gap = int(np.argmax(np.diff(ordered)))
    return float((ordered[gap] + ordered[gap + 1]) / 2)


# ---- agreement ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fixture", ["case", "valid_case"])
@pytest.mark.parametrize(("reweighting", "n_neighbors"), [("none", 0), ("thesis", 3), ("paper", 8)])
def test_a_true_export_passes_with_figures(request, fixture, reweighting, n_neighbors):
    exported = request.getfixturevalue(fixture)
    settings = dataclasses.replace(
        exported.settings, reweighting=reweighting, n_neighbors=n_neighbors
    )
    true = dataclasses.replace(exported, settings=settings)
    figures = true.gate(tau=_between(true.scores()))
    assert figures["tiles"] == N_TILES
    assert list(figures["outputs"]) == list(LAYERS)
    compared = [*figures["outputs"].values(), figures["dist"], figures["score"]]
    for one in (*compared, figures["batch_invariance"]):
        assert 0 <= one["max_rel"] < 1e-5
    patches = N_TILES * settings.grid[0] * settings.grid[1]
    assert sum(figures["dist"]["histogram"]["counts"]) == patches
    assert figures["decisions"]["flipped"] == 0
    assert 0 < figures["decisions"]["anomalous"] < N_TILES
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_the_tiles_with_blobs_stand_out(case):
    score = case.expected().score
    assert score[:2].min() > score[2:].max()


def test_expected_scores_have_the_shapes_of_the_golden_file(case):
    expected = case.expected(tau=1e9)
    shapes = [base_map.shape for base_map in expected.base_maps]
    assert shapes == [(N_TILES, 128, 8, 8), (N_TILES, 256, 4, 4)]
    assert expected.dist.shape == (N_TILES, 64)
    dtypes = [array.dtype.name for array in (expected.dist, expected.score, expected.anomalous)]
    assert dtypes == ["float32", "float32", "uint8"]
    assert not expected.anomalous.any()
    assert case.expected(tau=0.0).anomalous.all()


def test_a_decision_at_the_threshold_is_anomalous(case):
    score = case.expected().score
    tau = float(score[2])
    assert case.expected(tau).anomalous.tolist() == (score >= tau).astype(int).tolist()
    assert case.expected(tau).anomalous[2] == 1


# ---- the core against the oracle ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("resampling", "grid"), [("bilinear", (7, 9)), ("adaptive-average", (6, 5))]
)
def test_the_core_joins_base_maps_as_pytorch_does(resampling, grid):
    rng = np.random.default_rng(0)
    maps = [rng.random((3, c, h, w), np.float32) for c, h, w in ((5, 7, 9), (4, 3, 5), (2, 11, 4))]
    got = patch_features(maps, grid=grid, resampling=resampling)
    tensors = tuple(map(torch.from_numpy, maps))
    expected = reference.patch_features(tensors, grid=grid, resampling=resampling)
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_the_core_makes_board_maps_as_pytorch_does():
    rng = np.random.default_rng(0)
    xy = np.array([[0, 0], [20, 4], [31, 30]], np.int32)
    dist = rng.random((3, 49)).astype(np.float32)
    board = NativeBoard(70, 80, tile=32, grid=(7, 7), sigma=4.0, radius=16)
    board.add(xy, dist)
    maps = reference.tile_map(torch.from_numpy(dist), grid=(7, 7), tile=32, sigma=4.0, radius=16)
    expected = reference.board_map(maps, torch.from_numpy(xy), height=70, width=80)
    np.testing.assert_allclose(board.map(), expected.numpy(), rtol=1e-5)


# ---- disagreement -------------------------------------------------------------------------------


def test_other_weights_in_the_graph_are_found(case):
    model = onnx.load(case.graph)
    weight = next(x for x in model.graph.initializer if "layer3.1.conv2.weight" in x.name)
    values = onnx.numpy_helper.to_array(weight).copy()
    values[7] *= 1.01
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    session = NetworkSession(model.SerializeToString(), threads=1)
    with pytest.raises(OutputMismatchError) as caught:
        case.gate(session=session)
    text = str(caught.value)
    assert text.startswith("layer3: tile ")
    assert "at (7, " in text  # only that channel differs
    for part in ("expected", "got", "tolerance 0.0001"):
        assert part in text


class _Spoiled:
    """A session whose base maps pass through a function of (tiles, maps)."""

    def __init__(self, session, spoil):
        self.session, self.spoil = session, spoil

    def run(self, tiles):
        return self.spoil(tiles, self.session.run(tiles))


def test_a_value_that_is_not_a_number_is_found(case):
    def spoil(_tiles, maps):
        maps[0][3, 2, 1, 0] = np.nan
        return maps

    with pytest.raises(OutputMismatchError, match=r"layer2: tile 3 at \(2, 1, 0\): .* got nan"):
        case.gate(session=_Spoiled(case.session, spoil))


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda _tiles, maps: maps[:1], "the graph has 1 outputs, expected 2"),
        (
            lambda _tiles, maps: [maps[0][:, :, 1:], maps[1]],
            r"layer2: expected shape \(5, 128, 8, 8\), got \(5, 128, 7, 8\)",
        ),
    ],
)
def test_a_missing_output_and_another_shape_are_found(case, spoil, text):
    with pytest.raises(OutputMismatchError, match=text):
        case.gate(session=_Spoiled(case.session, spoil))


def test_another_bank_row_is_found(case):
    maps = case.session.run(case.tiles)
    grid, resampling = case.settings.grid, case.settings.resampling
    _, used = NativeIndex(case.bank).query_maps(maps, 1, grid=grid, resampling=resampling)
    bank = case.bank.copy()
    bank[used[0, 0, 0]] *= 0.5
    expected = dataclasses.replace(case, bank=bank).expected()
    with pytest.raises(ScoreMismatchError, match=r"dist: tile \d at \(\d+,\): expected .* got"):
        case.gate(bank=case.bank, expected=expected)


def test_another_neighbour_table_is_found(case):
    expected = dataclasses.replace(case, neighbors=case.neighbors[:, ::-1].copy()).expected()
    with pytest.raises(ScoreMismatchError, match=r"score: tile \d: expected .* tolerance 0\.0001"):
        case.gate(expected=expected)


def test_a_threshold_within_rounding_of_a_score_is_found(case):
    expected, got = case.expected().score, case.scores()
    differing = np.flatnonzero(expected != got)
    assert len(differing), "float64 and float32 agree to the last bit: the test needs other tiles"
    tile = differing[0]
    tau = float(max(expected[tile], got[tile]))
    with pytest.raises(DecisionFlipError, match=rf"first tile {tile}: expected .* choose one betw"):
        case.gate(tau=tau)


@pytest.mark.parametrize(
    ("batch", "condition"),
    [
        ("each tile alone", lambda tiles, _all: len(tiles) == 1),
        ("reversed", lambda tiles, all_: len(tiles) == N_TILES and (tiles[0] != all_[0]).any()),
        ("padded", lambda tiles, _all: len(tiles) > N_TILES),
    ],
)
def test_a_score_that_depends_on_its_batch_is_found(case, batch, condition):
    def spoil(tiles, maps):
        return [x * 1.01 for x in maps] if condition(tiles, case.tiles) else maps

    with pytest.raises(BatchDependenceError, match=rf"score: tile \d: expected .* batch '{batch}'"):
        case.gate(session=_Spoiled(case.session, spoil))


# ---- real weights, real images ------------------------------------------------------------------


def _crops(folder, n, tile):
    """One crop of each of the first images, ImageNet-normalised."""
    crops = []
    for path in sorted(folder.iterdir())[:n]:
        image = cv2.imread(str(path))[:, :, ::-1]
        place = np.array([[(image.shape[1] - tile) // 2, (image.shape[0] - tile) // 2]], np.int32)
        crops.append(preprocess(image, place, tile=tile, **IMAGENET))
    return np.concatenate(crops)


def test_real_weights_on_real_images_pass(weights_file, data_dir, tmp_path):
    network = build_network("resnet18", LAYERS, "same-bilinear", str(weights_file))
    training = _crops(data_dir / "kolektor_sdd" / "train" / "good", 6, 224)
    normal = _crops(data_dir / "kolektor_sdd" / "test" / "good", 2, 224)
    cracked = _crops(data_dir / "kolektor_sdd" / "test" / "crack", 2, 224)
    tiles = np.concatenate([normal, cracked])
    real = _case(network, tiles, training, tmp_path, n_rows=500)
    figures = real.gate(tau=_between(real.scores()))
    assert max(output["max_rel"] for output in figures["outputs"].values()) < 1e-5
    assert figures["dist"]["max_rel"] < 1e-5
    # The graph holds the trained weights: it is not what an untrained network computes.
    untrained = build_network("resnet18", LAYERS, "same-bilinear", "random:0")
    with pytest.raises(OutputMismatchError, match="layer2"):
        real.gate(expected=dataclasses.replace(real, network=untrained).expected())
