"""From a trained checkpoint to a verified artifact, against PyTorch, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from types import SimpleNamespace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import parity
import pytest
import torch
from click.testing import CliRunner
from convert_once import convert_once
from kad_export.cli import main as kad_export
from kad_export.cutpaste import gradcam, pipeline
from kad_export.cutpaste.checkpoint import load_checkpoint
from kad_export.cutpaste.gradcam import ExplainedCutPasteNet
from kad_export.cutpaste.options import ExportOptions
from kad_export.cutpaste.pipeline import export_checkpoint, export_cutpaste
from kad_export.cutpaste.verify import expected_scores, grad_cam, parity_gate, steady
from kad_export.errors import CheckpointError, DensityError, OutputMismatchError
from kad_export.onnx_export import encode_graph
from kad_export.report import Silent

from kad_sdk._native import preprocess
from kad_sdk.artifact import Artifact
from kad_sdk.cli import main as kad
from kad_sdk.cutpaste import CutPasteScorer
from kad_sdk.images import read_image
from kad_sdk.session import NetworkSession
from kad_sdk.verify import verify_artifact

if TYPE_CHECKING:
    from kad_sdk.density import NormalDensity

PLAIN = ExportOptions(map="tile-score", threads=1)
CHANCE = "no better than chance"
pytestmark = pytest.mark.filterwarnings(f"ignore:.*{CHANCE}")  # tiny trainings may learn nothing


def _run(main, *words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def crops(small_dataset, exported):
    """Normalised tiles of the test boards, which neither training nor thresholds have seen."""
    settings = Artifact.open(exported).manifest.preprocessing
    cut = {"tile": settings.tile, "mean": settings.mean, "std": settings.std}
    xy = np.array([[0, 0], [32, 48], [40, 100], [96, 7]], np.int32)
    paths = sorted((small_dataset / "test").glob("*/*.png"))
    return np.concatenate([preprocess(read_image(path), xy, **cut) for path in paths])


def largest(got, want):
    return np.abs(got - want).max() / np.abs(want).max()


def test_the_artifact_gives_what_pytorch_gives(exported, trained, crops):
    """Logits, embedding, Mahalanobis distance and map of tiles that no one has looked at."""
    network = load_checkpoint(trained / "best.safetensors").network()
    artifact = Artifact.open(exported)
    tiles = crops[steady(network, crops)]
    assert len(tiles) >= len(crops) / 2
    with torch.inference_mode():
        logits, embedding = (output.numpy() for output in network(torch.from_numpy(tiles)))
    cam = grad_cam(network, torch.from_numpy(tiles)).numpy()
    score = _mahalanobis(artifact.density, embedding)

    for graph in (artifact.network, artifact.explain):
        found = NetworkSession(graph, threads=1).run(tiles)
        assert largest(found[0], logits) < 1e-4
        assert largest(found[1], embedding) < 1e-4
    assert largest(found[2][:, 0], cam) < 1e-4
    scorer = CutPasteScorer.open(artifact, maps=True, threads=1, batch=16)
    findings = scorer.score_tiles(tiles)
    assert largest(findings.scores, score) < 1e-4
    shares = (cam / cam.max(axis=(1, 2), keepdims=True)).reshape(len(cam), -1)
    assert largest(findings.patches, shares * score[:, None]) < 2e-4
    plain = CutPasteScorer.open(artifact, maps=False, threads=1, batch=16)
    assert largest(plain.score_tiles(tiles).scores, score) < 1e-4


def _mahalanobis(density, embedding):
    """By NumPy in float64."""
    difference = embedding.astype(np.float64) - density.mean
    return np.linalg.norm(
        np.linalg.solve(density.cholesky.astype(np.float64), difference.T), axis=0
    )


def test_the_manifest_has_the_largest_differences(exported):
    manifest = Artifact.open(exported).manifest
    outputs = manifest.verification["outputs"]
    assert sorted(outputs) == [
        *("cam", "embedding", "explained embedding", "explained logits", "logits")
    ]
    figures = [*outputs.values(), manifest.verification["score"]]
    for figure in figures:
        assert 0 <= figure["max_rel"] < 1e-4
        assert figure["max_abs"] >= 0
    assert manifest.verification["tiles"] == manifest.golden.count
    assert manifest.verification["drawn"] >= manifest.golden.count
    assert manifest.verification["choice"] in ("all", "steady", "alike")
    assert manifest.verification["decisions"]["flipped"] == 0


def test_the_manifest_tells_the_training(exported, trained):
    manifest = Artifact.open(exported).manifest
    told = manifest.cutpaste_training
    assert (told.epochs, told.batch, told.optimizer, told.seed) == (2, 8, "sgd", 5)
    assert told.augmentation["variant"] == "thesis"
    assert told.augmentation["transparency"] == 15.0
    assert (
        told.checkpoint_sha256
        == load_checkpoint(trained / "best.safetensors").run.checkpoint_sha256
    )
    assert (manifest.density.kind, manifest.density.samples) == ("gaussian", 60)
    assert manifest.cutpaste.map_grid == (16, 16)


def test_golden_tiles_score_the_same_again(exported):
    found = verify_artifact(exported, threads=1)
    assert found.passed
    assert {check.name for check in found.checks} >= {"logits", "embedding", "Grad-CAM"}


def test_the_commands_of_the_runtime_serve_it(exported, small_dataset, tmp_path):
    out = tmp_path / "evaluation"
    done = _run(kad, "evaluate", exported, small_dataset, "--out", out, "--threads", 1)
    assert done.exit_code == 0, done.output
    picture = cv2.imread(str(out / "tsne.png"))
    assert picture is not None
    assert picture.std() > 1
    assert json.loads((out / "metrics.json").read_text())["tile_roc_auc"] is not None
    board = small_dataset / "test" / "spot" / "000.png"
    done = _run(kad, "score", exported, board, "--out", tmp_path / "scores", "--hot")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "scores" / "000_hot.png").is_file()


# ---- broken on purpose --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gate(exported, trained, crops):
    """Run the parity gate of a trained network on the graph that `ExplainedCutPasteNet` gives."""
    network = load_checkpoint(trained / "best.safetensors").network()
    tiles = crops[steady(network, crops)][:6]
    artifact = Artifact.open(exported)
    plain = NetworkSession(artifact.network, threads=1)
    given = expected_scores(network, tiles, _Plain(artifact.density), tau=1e9, explain=True)
    outputs = {"logits": (2,), "embedding": (128,), "cam": (1, 16, 16)}

    def run():
        graph = encode_graph(ExplainedCutPasteNet(network), tile=32, outputs=outputs)
        session = NetworkSession(graph, threads=1)
        return parity_gate(given, plain, session, tiles, artifact.density, tau=1e9)

    return run


@dataclasses.dataclass
class _Plain:
    """The reference that the gate compares with."""

    density: NormalDensity

    def score(self, embeddings):
        return _mahalanobis(self.density, embeddings)


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("_masked", lambda gradient, output: gradient + 0 * output.sum()),
        ("_routed", lambda gradient, pooled: torch.where(pooled.flip(3) > 0, gradient, 0.0)),
    ],
)
def test_the_gate_stops_a_graph_with_wrong_masks_or_routes(monkeypatch, gate, name, broken):
    monkeypatch.setattr(gradcam, name, broken)
    with pytest.raises(OutputMismatchError, match="cam") as error:
        gate()
    assert "explained" not in str(error.value)  # logits and embedding are right


# ---- what is refused ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def without_map(tmp_path_factory, graphs, small_dataset, trained):
    """Give an artifact with a kernel density, and the tile's score as its map."""
    options = dataclasses.replace(PLAIN, density="kernel", density_tiles=40)
    out = tmp_path_factory.mktemp("without_map") / "k.kad"
    with pytest.MonkeyPatch.context() as patch:
        convert_once(graphs, patch)
        return export_checkpoint(small_dataset, trained / "best.safetensors", out, options)


def test_other_densities_and_maps(without_map):
    manifest = Artifact.open(without_map).manifest
    assert (manifest.density.kind, manifest.density.samples) == ("kernel", 40)
    assert manifest.density.bandwidth > 0
    assert (manifest.cutpaste.map, manifest.cutpaste.map_grid) == ("tile-score", (1, 1))
    assert sorted(p.name for p in without_map.iterdir()) == [
        *("density.safetensors", "golden.safetensors", "manifest.json", "network.onnx")
    ]


@pytest.mark.parametrize("name", ["exported", "without_map"])
def test_both_doors_score_boards_alike(request, small_dataset, tmp_path, name):
    board = read_image(small_dataset / "test" / "spot" / "000.png")
    case = parity.Case(pixel_format="grey8", padding=5, threads=2, batch=5)
    parity.check(case, request.getfixturevalue(name), board, tmp_path)


def test_constant_images_lose_the_artifact_and_keep_the_training(tmp_path, train_options):
    boards = tmp_path / "boards"
    boards.mkdir()
    for i in range(3):
        cv2.imwrite(str(boards / f"{i}.png"), np.full((160, 160, 3), 180, np.uint8))
    training = dataclasses.replace(train_options, epochs=1)
    with pytest.raises(DensityError, match=r"all but the same.*Constant images give this"):
        export_cutpaste(boards, tmp_path / "c.kad", training, PLAIN)
    assert not (tmp_path / "c.kad").exists()
    load_checkpoint(tmp_path / "c.run" / "best.safetensors")


@pytest.mark.parametrize(
    ("right", "classes", "warned"),
    [
        (0.5, 2, True),
        (0.55, 2, True),
        (0.551, 2, False),
        (0.38, 3, True),
        (0.39, 3, False),
        (None, 2, False),
    ],
)
def test_a_network_that_learnt_nothing_is_told(
    monkeypatch, tmp_path, small_dataset, trained, right, classes, warned
):
    best = load_checkpoint(trained / "best.safetensors")
    run = dataclasses.replace(best.run, validation_accuracy=right)
    config = dataclasses.replace(best.config, classes=classes)
    console, said = Silent(), []
    monkeypatch.setattr(console, "warn", said.append)
    pipeline._warn_of_chance(dataclasses.replace(best, run=run, config=config), console)
    assert len(said) == warned
    assert all(
        f"classifies {right:.3f} of held-out" in text
        and f"{CHANCE}, which is {1 / classes:.3f} for {classes} classes" in text
        and "--epochs" in text
        and "docs/cutpaste.md" in text
        for text in said
    )
    if right == 0.5:  # an export tells it, and is made
        untaught = dataclasses.replace(best, run=run)
        monkeypatch.setattr(pipeline, "load_checkpoint", lambda _path: untaught)
        out = tmp_path / "n.kad"
        export_checkpoint(small_dataset, "best", out, PLAIN, console=console)
        assert out.exists()
        assert len(said) == 2


def test_a_checkpoint_of_other_boards_is_refused(tmp_path, small_dataset, trained, monkeypatch):
    monkeypatch.setattr(pipeline, "encode_graph", lambda *_a, **_k: pytest.fail("too late"))
    data = shutil.copytree(small_dataset, tmp_path / "data")
    for path in (data / "train" / "good").iterdir():
        cv2.imwrite(str(path), cv2.imread(str(path))[::-1])
    with pytest.raises(CheckpointError, match="was not trained on the 3 boards"):
        export_checkpoint(data, trained / "best.safetensors", tmp_path / "o.kad", PLAIN)
    assert not (tmp_path / "o.kad").exists()


def test_golden_tiles_whose_map_hangs_on_rounding_are_left_out(monkeypatch, trained):
    """Where all do, those are left that come out the same; where none does, the export fails."""
    best = load_checkpoint(trained / "best.safetensors")
    fitted = SimpleNamespace(
        network=SimpleNamespace(module=best.network(), explaining=_Runtime(best.network())),
        trained=best,
    )
    golden = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    monkeypatch.setattr(pipeline, "steady", lambda *_: np.array([True, False, True]))
    kept, choice = pipeline._comparable(golden, fitted)
    assert np.array_equal(kept, golden[[0, 2]])
    assert choice == "steady"
    monkeypatch.setattr(pipeline, "steady", lambda *_: np.zeros(3, bool))
    fitted.network.explaining.broken = [1]
    kept, choice = pipeline._comparable(golden, fitted)
    assert np.array_equal(kept, golden[[0, 2]])
    assert choice == "alike"
    fitted.network.explaining.broken = [0, 1, 2]
    with pytest.raises(OutputMismatchError, match="none of 3 golden tiles is the same"):
        pipeline._comparable(golden, fitted)


class _Runtime:
    """A graph's stand-in whose map of some tiles is wrong."""

    def __init__(self, network):
        self.network, self.broken = network, []

    def run(self, tiles):
        cam = grad_cam(self.network, torch.from_numpy(tiles)).numpy()
        cam[self.broken] += 1e-3 * cam.max()
        return [None, None, cam[:, None]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--checkpoint", "best.safetensors", "--seed", "3"], "--seed is for a training"),
        (["--augment", "size=3"], "no size 'size': expected one of transparency"),
        (["--augment", "scar-width=a"], "--augment"),
        (["--augment", "scar-width=5"], "expected two whole numbers (low, high), got 5"),
        (["--augment", "scar-width=1.5,6"], "expected two whole numbers (low, high), got (1.5, 6)"),
        (["--augment", "transparency=5,9"], "transparency: expected one number, got (5, 9)"),
        (["--batch", "3"], "3 is not in the range x>=4"),
        (["--threshold", "best"], "threshold method 'best' is none of"),
    ],
)
def test_wrong_usage_is_told(tmp_path, small_dataset, words, message):
    done = _run(kad_export, "cutpaste", small_dataset, "--out", tmp_path / "x.kad", *words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_options_reach_training_and_export(monkeypatch, tmp_path):
    seen = {}

    def record(data, out, training, options, *, run_dir, console):
        seen.update(training=training, options=options, run_dir=run_dir)

    monkeypatch.setattr("kad_export.cutpaste.pipeline.export_cutpaste", record)
    words = (
        *("--backbone", "resnet50", "--variant", "3-way", "--augment", "scar-width=3,9"),
        *("--augment", "transparency=20", "--optimizer", "adam", "--resize", "none", "--memory"),
        *("2GB", "--resume", "--density", "kernel", "--map", "tile-score", "--score-batch", "3"),
    )
    done = _run(kad_export, "cutpaste", tmp_path, "--out", tmp_path / "x.kad", *words)
    assert done.exit_code == 0, done.output
    training, options = seen["training"], seen["options"]
    assert (training.backbone, training.variant, training.optimizer) == (
        "resnet50",
        "3-way",
        "adam",
    )
    assert (training.augmentation.scar_width, training.augmentation.transparency) == ((3, 9), 20.0)
    assert (training.resize, training.memory_bytes, training.resume) == (None, 2 << 30, True)
    assert (options.density, options.map, options.score_batch) == ("kernel", "tile-score", 3)
