"""From a folder of images to an artifact: what is in it, and what makes an export fail."""

from __future__ import annotations

import dataclasses
import json
import shutil

import cv2
import numpy as np
import parity
import pytest
from convert_once import convert_once
from kad_export import pipeline
from kad_export.errors import MemoryBudgetError, ParityError
from kad_export.options import PatchCoreOptions
from kad_export.pipeline import export_patchcore

from kad_sdk import Detector
from kad_sdk._native import NativeIndex
from kad_sdk.artifact import Artifact
from kad_sdk.errors import (
    CalibrationError,
    DatasetError,
    InvalidArgumentError,
    OutputError,
    UnsupportedImageError,
)
from kad_sdk.images import read_image
from kad_sdk.manifest import Denoise
from kad_sdk.patchcore import map_layout
from kad_sdk.verify import verify_artifact


@pytest.fixture
def dataset(tmp_path, small_dataset):
    """A copy of the small data set that a test may spoil."""
    return shutil.copytree(small_dataset, tmp_path / "data")


@pytest.fixture
def export(monkeypatch, tmp_path, quick_options, graphs):
    """Export a folder with the quick options, changed as told; nothing may be left on failure."""
    convert_once(graphs, monkeypatch)

    def run(data, **changes):
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        options = PatchCoreOptions(**{**quick_options, "scratch": scratch, **changes})
        try:
            return export_patchcore(data, tmp_path / "out.kad", options)
        except BaseException:
            assert not (tmp_path / "out.kad").exists()
            raise
        finally:
            assert not list(scratch.iterdir())
            assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]

    return run


def test_artifact_says_how_it_was_made(small_artifact, small_dataset):
    manifest = Artifact.open(small_artifact).manifest
    assert manifest.network.weights.source == "random"
    assert manifest.network.layers == ("layer2", "layer3")
    assert manifest.preprocessing.train_stride == 32
    assert manifest.preprocessing.normalisation == "imagenet"
    assert manifest.patchcore.grid == (8, 8)
    assert (manifest.patchcore.reweighting, manifest.patchcore.n_neighbors) == ("thesis", 3)
    assert manifest.training.images == 3  # one of four is held out
    assert manifest.training.tiles == 3 * 4 * 3
    assert manifest.bank.coreset.candidates == 3 * 4 * 3 * 64
    assert manifest.bank.rows == round(0.05 * 3 * 4 * 3 * 64)
    assert manifest.bank.coreset.radius == manifest.bank.coreset.separation > 0
    assert manifest.bank.coreset.ratio == 2  # what greedy k-center promises
    assert manifest.thresholds.method == "normal-max=1.05"
    assert manifest.golden.count == 8
    assert manifest.verification["decisions"]["flipped"] == 0
    assert set(manifest.bank.images) < {f"train/good/{i:03}.png" for i in range(4)}


def test_bank_rows_are_features_of_the_patches_they_name(small_artifact, small_dataset):
    """Score a training board: a named patch's own feature is in the bank, so its distance is 0."""
    artifact = Artifact.open(small_artifact)
    row = 5
    x, y = artifact.source_xy[row]
    name = artifact.manifest.bank.images[artifact.source_image[row]]
    image = cv2.imread(str(small_dataset / name), cv2.IMREAD_GRAYSCALE)
    # Training tiles start at multiples of 32: cut the one whose patch centre it is.
    distances = []
    for left in range(0, 128 - 63, 32):
        for top in range(0, 160 - 63, 32):
            if 0 <= x - left < 64 and 0 <= y - top < 64:
                tile = np.ascontiguousarray(image[top : top + 64, left : left + 64])
                scores = Detector.open(small_artifact, threads=2)._scorer.score(tile)
                distances.append(scores.tiles.patches[0, (y - top) // 8 * 8 + (x - left) // 8])
    assert min(distances) == pytest.approx(0, abs=1e-5)


def test_artifact_verifies_and_tells_spots_from_normal_boards(small_artifact, small_dataset):
    verify_artifact(small_artifact)
    detector = Detector.open(small_artifact, threads=2)
    good, spot = (
        [detector.score(path).score for path in sorted((small_dataset / "test" / kind).iterdir())]
        for kind in ("good", "spot")
    )
    assert max(good) < min(spot)


def test_every_option_reaches_the_artifact(export, small_dataset):
    out = export(
        small_dataset,
        backbone="efficientnet_b0",
        layers=("layer2",),
        pooling="valid-adaptive",
        weights="random:3",
        stride=64,
        train_stride=None,
        resize=(128, 128),
        denoise=Denoise(3.0, 3.0, 3, 5),
        normalisation="dataset",
        coreset=0.2,
        max_bank=30,
        trim_outliers=4,
        points="float16",
        seed=7,
        threshold="f1",
        reweighting="paper",
        batch=5,
        memory_bytes=64 << 30,
    )
    manifest = Artifact.open(out).manifest
    assert manifest.network.backbone == "efficientnet_b0"
    assert manifest.network.layers == ("layer2",)
    assert manifest.patchcore.pooling == "valid-adaptive"
    assert manifest.patchcore.resampling == "adaptive-average"
    assert manifest.preprocessing.resize == (128, 128)
    assert manifest.preprocessing.train_stride == 64
    assert manifest.preprocessing.denoise == Denoise(3.0, 3.0, 3, 5)
    assert manifest.preprocessing.mean != (0.485, 0.456, 0.406)
    assert manifest.bank.rows == manifest.bank.coreset.max_rows == 30
    assert manifest.bank.coreset.seed == 7
    assert (manifest.bank.coreset.trimmed, manifest.bank.coreset.points) == (4, "float16")
    assert manifest.thresholds.method == "f1"
    assert manifest.training.images == 4  # nothing is held out when labels set the threshold
    assert (manifest.patchcore.reweighting, manifest.patchcore.n_neighbors) == ("paper", 8)
    assert Artifact.open(out).golden().anomalous.any()


@pytest.mark.parametrize("pooling", ["same-bilinear", "valid-adaptive"])
def test_both_doors_score_boards_alike(export, small_dataset, small_artifact, tmp_path, pooling):
    artifact = small_artifact
    if pooling == "valid-adaptive":
        network = {"backbone": "efficientnet_b0", "layers": ("layer2",), "weights": "random:3"}
        artifact = export(small_dataset, pooling=pooling, reweighting="paper", **network)
    for kind in ("good", "spot"):
        board = read_image(small_dataset / "test" / kind / "000.png")
        case = parity.Case(pixel_format="grey8", padding=5, threads=2, batch=5)
        parity.check(case, artifact, board, tmp_path)


def test_a_large_bank_comes_with_its_index(export, small_artifact, small_dataset):
    assert Artifact.open(small_artifact).stored_index is None
    artifact = Artifact.open(export(small_dataset, coreset=0.5))
    assert artifact.manifest.bank.index_file == "index.safetensors"
    layout = map_layout(artifact.manifest.network.outputs, artifact.manifest.patchcore)
    index = NativeIndex(artifact.bank, layout=layout, stored=artifact.stored_index)
    assert index.info()["wide_dims"] > 0
    assert index.query(artifact.bank[::100], 1)[1].ravel().tolist() == list(
        range(0, artifact.manifest.bank.rows, 100)
    )
    assert verify_artifact(artifact.path).passed


def test_only_image_is_split(export, dataset):
    for path in sorted((dataset / "train" / "good").iterdir())[1:]:
        path.unlink()
    manifest = Artifact.open(export(dataset)).manifest
    assert manifest.training.images == 1
    assert manifest.training.tiles < 4 * 3
    assert manifest.thresholds.samples >= 2


def test_boards_with_annotations(export, tmp_path, small_dataset):
    folder = tmp_path / "boards"
    (folder / "train").mkdir(parents=True)
    names = []
    for path in (small_dataset / "train" / "good").iterdir():
        board = cv2.copyMakeBorder(cv2.imread(str(path)), 0, 0, 64, 64, cv2.BORDER_CONSTANT)
        cv2.imwrite(str(folder / "train" / path.name), board)
        names.append(path.name)
    entry = {"borders": [[64, 0, 128, 160]], "labels": [[64, 0, 20, 20]]}
    (folder / "annotations.json").write_text(json.dumps(dict.fromkeys(names, entry)))

    manifest = Artifact.open(export(folder)).manifest

    assert manifest.training.layout == "boards"
    assert manifest.thresholds.map < 10


def test_dark_surround_without_annotations_is_told(export, tmp_path, small_dataset):
    folder = tmp_path / "boards"
    folder.mkdir()
    for path in (small_dataset / "train" / "good").iterdir():
        board = cv2.copyMakeBorder(cv2.imread(str(path)), 0, 0, 128, 0, cv2.BORDER_CONSTANT)
        cv2.imwrite(str(folder / path.name), board)
    with pytest.warns(UserWarning, match="tiles of the boards used for the threshold are as dark"):
        export(folder)


def _large_mask(dataset):
    cv2.imwrite(str(dataset / "ground_truth/spot/000_mask.png"), np.zeros((10, 10), np.uint8))


def test_mask_of_another_size_is_named_before_anything_is_computed(monkeypatch, export, dataset):
    monkeypatch.setattr(pipeline, "export_onnx", lambda *_a, **_k: pytest.fail("too late"))
    _large_mask(dataset)
    with pytest.raises(DatasetError, match=r"000_mask\.png: the mask is 10 x 10 px"):
        export(dataset, threshold="f1")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"memory_bytes": 1 << 20}, MemoryBudgetError, "memory budget of 1.0 MB cannot hold"),
        ({"denoise": Denoise(3.0, 3.0, 7, 21), "sixteen": True}, UnsupportedImageError, "16"),
    ],
)
def test_options_that_cannot_be_met(export, dataset, changes, error, message):
    if changes.pop("sixteen", False):
        for path in (dataset / "train" / "good").iterdir():
            cv2.imwrite(str(path), cv2.imread(str(path), 0).astype(np.uint16) * 257)
    with pytest.raises(error, match=message):
        export(dataset, **changes)


@pytest.mark.parametrize("threshold", ["f1", "youden", "recall=0.9"])
def test_labelled_methods_need_labelled_defects(monkeypatch, export, dataset, threshold):
    """Told before the work: test/ has defects, but no ground truth that shows where."""
    monkeypatch.setattr(pipeline, "build_network", lambda *_a, **_k: pytest.fail("too late"))
    shutil.rmtree(dataset / "ground_truth")
    with pytest.raises(CalibrationError, match="needs boards with labelled defects"):
        export(dataset, threshold=threshold)


def test_parity_gate_stops_the_export(monkeypatch, export, small_dataset):
    tight = dataclasses.replace(pipeline.TOLERANCE, base_map=1e-12)
    monkeypatch.setattr(pipeline, "TOLERANCE", tight)
    with pytest.raises(ParityError, match="layer2"):
        export(small_dataset)


def test_force_replaces_artifacts_alone(tmp_path, small_dataset, quick_options, small_artifact):
    (tmp_path / "mine.kad").mkdir()
    options = PatchCoreOptions(**quick_options, force=True)
    with pytest.raises(OutputError, match="is not an artifact, so it is not replaced"):
        export_patchcore(small_dataset, tmp_path / "mine.kad", options)
    old = shutil.copytree(small_artifact, tmp_path / "old.kad")
    options = dataclasses.replace(options, seed=5)
    assert (
        Artifact.open(export_patchcore(small_dataset, old, options)).manifest.bank.coreset.seed == 5
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tile": 0}, "tile: expected 1 to 4096 px, got 0"),
        ({"stride": 0}, "stride: expected at least 1 px"),
        ({"resize": 9}, "resize: expected None"),
        ({"resize": (256, 0)}, "resize: expected None"),
        ({"resize": 9.0}, "resize: expected None"),
        ({"train_stride": 0}, "train_stride: expected at least 1 px"),
        ({"coreset": 0.0}, "coreset: expected a fraction"),
        ({"max_bank": 0}, "max_bank: expected at least 1 row"),
        ({"holdout": 1.0}, "holdout: expected a share"),
        ({"batch": 0}, "batch: expected at least 1 tile"),
        ({"threads": 0}, "threads: expected at least 1"),
        ({"seed": -1}, "seed: expected 0 to"),
        ({"trim_outliers": -1}, "trim_outliers: expected at least 0"),
        ({"points": "bfloat16"}, "points: expected float32, float16"),
        ({"resume": True}, "--resume needs --scratch DIR: the folder"),
        ({"engine": "spark"}, "engine: expected local, ray"),
        ({"workers": 0}, "workers: expected at least 1"),
        ({"workers": 2}, "--workers 2 needs --engine ray: --engine local works in this process"),
        ({"window": 512}, "--window needs --mode windows"),
        ({"window_memory_bytes": 1 << 30}, "--window-memory needs --mode windows"),
        ({"holdout": 0.1, "threshold": "f1"}, "--holdout 0.1 holds images out for .*leave one out"),
        ({"reweighting": "some"}, "reweighting: expected none, thesis, paper, got 'some'"),
        ({"normalisation": "mine"}, "normalisation: expected dataset, imagenet"),
        ({"threshold": "best"}, "threshold method 'best' is none of"),
    ],
)
def test_options_out_of_range(changes, message):
    with pytest.raises(InvalidArgumentError, match=message):
        PatchCoreOptions(**changes)
