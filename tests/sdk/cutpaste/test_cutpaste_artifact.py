"""The artifact of CutPaste: a round trip, and a named error for every way to be wrong."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from kad_sdk import Detector
from kad_sdk.artifact import Artifact, CutPasteArtifact
from kad_sdk.errors import ArtifactCorruptError, ArtifactVersionError, InvalidArgumentError
from kad_sdk.manifest import FileEntry, Manifest

FREE = {"created_by", "verification", "files", "cutpaste_training.augmentation"}


@pytest.fixture(scope="module")
def manifest(tiny_cutpaste):
    entry = FileEntry(10, "a" * 64)
    names = tiny_cutpaste.manifest.named_files()
    return dataclasses.replace(tiny_cutpaste.manifest, files=dict.fromkeys(names, entry))


@pytest.fixture
def content(manifest):
    return json.loads(manifest.to_json())


def read(content):
    return Manifest.from_json(json.dumps(content))


def parent_of(content, path):
    *parents, key = path.split(".")
    for name in parents:
        content = content[name]
    return content, key


def keys(content, prefix=""):
    for key, value in content.items():
        yield prefix + key
        if isinstance(value, dict) and prefix + key not in FREE:
            yield from keys(value, f"{prefix}{key}.")


def test_round_trip(tiny_cutpaste, cutpaste_artifact):
    artifact = Artifact.open(cutpaste_artifact)
    assert isinstance(artifact, CutPasteArtifact)
    assert dataclasses.replace(artifact.manifest, files={}) == tiny_cutpaste.manifest
    assert (artifact.network, artifact.explain) == (tiny_cutpaste.network, tiny_cutpaste.explain)
    np.testing.assert_array_equal(artifact.density.cholesky, tiny_cutpaste.density["cholesky"])
    golden = artifact.golden()
    for name in ("tiles", "score", "logits", "embedding", "cam"):
        np.testing.assert_array_equal(getattr(golden, name), tiny_cutpaste.golden[name])
    assert Manifest.from_json(artifact.manifest.to_json()) == artifact.manifest


def test_every_key_is_required(manifest):
    paths = list(keys(json.loads(manifest.to_json())))
    assert {"cutpaste.map_grid", "density.bandwidth", "cutpaste_training.seed"} < set(paths)
    for path in paths:
        content = json.loads(manifest.to_json())
        parent, key = parent_of(content, path)
        del parent[key]
        with pytest.raises((ArtifactCorruptError, ArtifactVersionError), match=key):
            read(content)


WRONG = [
    ("cutpaste.classes", 4, "cutpaste.classes: expected 2 or 3, got 4"),
    ("cutpaste.anomalous_class", 2, "cutpaste.anomalous_class: expected 0 to 1, got 2"),
    ("cutpaste.map", "saliency", "cutpaste.map: expected 'grad-cam' or 'tile-score'"),
    ("cutpaste.map", "tile-score", "cutpaste.explain_file: expected null with map 'tile-score'"),
    ("cutpaste.explain_file", None, "explain_file: expected a file name with map 'grad-cam'"),
    ("cutpaste.explain_file", "../x", "cutpaste.explain_file: expected a plain file name"),
    ("cutpaste.explain_file", "network.onnx", "files: expected a different name for each file"),
    ("cutpaste.explain_file", "other.onnx", "files: other.onnx is not listed"),
    ("cutpaste.map_grid", [0, 4], r"cutpaste.map_grid\[0\]: expected a number at least 1"),
    ("density.kind", "kernel", "density.shrinkage: expected null for a density of kind 'kernel'"),
    ("density.shrinkage", None, "density.shrinkage: expected a number for a density of kind 'ga"),
    ("density.shrinkage", 1.5, "density.shrinkage: expected a number at least 0 and at most 1"),
    ("density.bandwidth", 0.5, "density.bandwidth: expected null for a density of kind 'gaussian'"),
    ("density.samples", 0, "density.samples: expected a number at least 1"),
    ("golden.tolerance.cam", 0, "golden.tolerance.cam: expected a number above 0"),
    ("cutpaste_training.validation_accuracy", 2, "expected a number at least 0 and at most 1"),
    ("cutpaste_training.checkpoint_sha256", "1", "expected 64 hexadecimal digits"),
    ("patchcore", {}, "unknown key patchcore"),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG)
def test_wrong_values(content, path, value, message):
    parent, key = parent_of(content, path)
    parent[key] = value
    with pytest.raises(ArtifactCorruptError, match=message):
        read(content)


def test_tile_scores_have_a_grid_of_one(tiny_cutpaste, tmp_path):
    manifest, files = tiny_cutpaste.by_tile_score()
    assert (
        Artifact.open(
            tiny_cutpaste.write(tmp_path / "x.kad", manifest=manifest, files=files)
        ).explain
        is None
    )
    settings = dataclasses.replace(manifest.cutpaste, map_grid=(2, 2))
    with pytest.raises(ArtifactCorruptError, match=r"map_grid: expected \[1, 1\] with map 'tile"):
        tiny_cutpaste.write(
            tmp_path / "y.kad",
            manifest=dataclasses.replace(manifest, cutpaste=settings),
            files=files,
        )


def test_a_graph_of_grad_cam_is_asked_for_where_there_is_none(tiny_cutpaste):
    manifest, _ = tiny_cutpaste.by_tile_score()
    with pytest.raises(ValueError, match="no graph with Grad-CAM"):
        manifest.graph(explain=True)


def _changed(density, name, place, value):
    tensor = density[name].copy()
    tensor[place] = value
    return {**density, name: tensor}


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("cholesky", (2, 2), 0, "expected a diagonal above 0, got 0 in row 2"),
        ("cholesky", (1, 1), -1, "expected a diagonal above 0, got -1 in row 1"),
        ("cholesky", (0, 3), 0.5, "expected a lower triangle, got 0.5 in row 0, column 3"),
        ("cholesky", (4, 0), np.nan, "tensor 'cholesky': row 4 holds NaN or Inf"),
        ("mean", 1, np.inf, "tensor 'mean': row 1 holds NaN or Inf"),
    ],
)
def test_a_density_that_cannot_score(tiny_cutpaste, tmp_path, name, place, value, message):
    density = _changed(tiny_cutpaste.density, name, place, value)
    with pytest.raises(ArtifactCorruptError, match=message):
        tiny_cutpaste.write(tmp_path / "x.kad", files={"density.safetensors": density})
    assert not list(tmp_path.iterdir())


def _kernel(tiny, samples, *, fitted=60):
    density = dataclasses.replace(
        tiny.manifest.density, kind="kernel", shrinkage=None, bandwidth=0.1, samples=fitted
    )
    manifest = dataclasses.replace(tiny.manifest, density=density)
    return {"manifest": manifest, "files": {"density.safetensors": {"samples": samples}}}


def test_a_kernel_density_scores(tiny_cutpaste, make_board, tmp_path):
    crops = np.stack([make_board(100 + i, 32, 32, defect=False) for i in range(60)])
    samples = tiny_cutpaste.run(tiny_cutpaste.network, crops)["embedding"]
    path = tiny_cutpaste.write(tmp_path / "x.kad", **_kernel(tiny_cutpaste, samples))
    with Detector.open(path, maps=False) as detector:
        result = detector.score(make_board(1, 90, 140, defect=True))
    dist2 = np.sum((result.embeddings[:, None].astype(np.float64) - samples) ** 2, axis=2)  # (n, S)
    expected = np.sqrt(-0.02 * np.log(np.mean(np.exp(-dist2 / 0.02), axis=1)))
    np.testing.assert_allclose([t.score for t in result.tiles], expected, rtol=1e-5)
    for rows, message in ((samples[:0], "expected 1 to 60 rows"), (samples[:, :4], "any, 5")):
        with pytest.raises(ArtifactCorruptError, match=message):
            tiny_cutpaste.write(tmp_path / "y.kad", **_kernel(tiny_cutpaste, rows))
    with pytest.raises(ArtifactCorruptError, match="expected 1 to 59 rows, as many as the density"):
        tiny_cutpaste.write(tmp_path / "y.kad", **_kernel(tiny_cutpaste, samples, fitted=59))


def test_files_are_those_that_the_manifest_names(tiny_cutpaste, tmp_path):
    with pytest.raises(InvalidArgumentError, match=r"expected density\.safetensors, explain\.onnx"):
        tiny_cutpaste.write(tmp_path / "x.kad", files={"explain.onnx": None})
    with pytest.raises(InvalidArgumentError, match="expected tensors for density"):
        tiny_cutpaste.write(tmp_path / "x.kad", files={"density.safetensors": b"bytes"})


def test_golden_tiles_hold_grad_cam_where_there_is_a_graph_of_it(tiny_cutpaste, tmp_path):
    golden = {name: tensor for name, tensor in tiny_cutpaste.golden.items() if name != "cam"}
    with pytest.raises(ArtifactCorruptError, match="expected the tensors anomalous, cam, embedd"):
        tiny_cutpaste.write(tmp_path / "x.kad", files={"golden.safetensors": golden})


def test_a_graph_that_the_manifest_does_not_describe(tiny_cutpaste, tmp_path):
    swapped = {"explain.onnx": tiny_cutpaste.network}
    path = tiny_cutpaste.write(tmp_path / "x.kad", files=swapped)
    with pytest.raises(ArtifactCorruptError, match=r"explain\.onnx: expected input and outputs"):
        Detector.open(path)
    Detector.open(path, maps=False).close()  # does not touch it
