"""A tiny CutPaste artifact made without PyTorch: two fixed ONNX graphs, a density by NumPy."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import tiny_artifacts
from onnx import helper, numpy_helper

from kad_sdk.artifact import write_artifact
from kad_sdk.manifest import (
    CutPasteGolden,
    CutPasteManifest,
    CutPasteTolerance,
    CutPasteTraining,
    Density,
    MapSettings,
    Thresholds,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TILE = 32
CHANNELS, DIMS, CLASSES, SIDE = 6, 5, 2, 16
MEAN, STD = (0.5, 0.45, 0.4), (0.25, 0.3, 0.2)
OUTPUTS = {
    "logits": (CLASSES,),
    "embedding": (DIMS,),
    "cam": (1, SIDE, SIDE),
}
TAU = 6.0


def _graph(*, explain: bool) -> bytes:
    """Convolution, ReLU, mean, two linear layers; as Grad-CAM a weighted sum of the first."""
    generator = np.random.default_rng(3)
    constants = [
        numpy_helper.from_array((generator.standard_normal(shape) / 2).astype(np.float32), name)
        for name, shape in {
            "w0": (CHANNELS, 3, 3, 3),
            "w1": (CHANNELS, DIMS),
            "w2": (DIMS, CLASSES),
            "w3": (1, CHANNELS, 1, 1),
        }.items()
    ]
    nodes = [
        helper.make_node("Conv", ["tiles", "w0"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w1"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "w2"], ["logits"]),
    ]
    names = ["logits", "embedding"]
    if explain:
        nodes.append(helper.make_node("Conv", ["a", "w3"], ["s"]))
        nodes.append(helper.make_node("Relu", ["s"], ["cam"]))
        names.append("cam")
    used = constants if explain else constants[:3]
    return tiny_artifacts.model(nodes, {name: OUTPUTS[name] for name in names}, used)


def _run(network: bytes, tiles: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Outputs by name, for RGB tiles (B, t, t, 3)."""
    scaled = (tiles.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    inputs = np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), np.float32)
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"tiles": inputs}), strict=True))


@dataclass(frozen=True)
class TinyCutPaste:
    """What :func:`write_artifact` takes, and the NumPy implementation it was made with."""

    manifest: CutPasteManifest
    network: bytes
    explain: bytes
    density: dict[str, NDArray[Any]]
    golden: dict[str, NDArray[Any]]

    def write(self, path: Path, **changes: Any) -> Path:
        files = {
            "network.onnx": self.network,
            "explain.onnx": self.explain,
            "density.safetensors": self.density,
            "golden.safetensors": self.golden,
            **changes.pop("files", {}),
        }
        manifest = changes.pop("manifest", self.manifest)
        kept = {name: content for name, content in files.items() if content is not None}
        return write_artifact(path, manifest, kept, **changes)

    def run(self, network: bytes, tiles: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Outputs of a graph by name, for RGB tiles (B, t, t, 3)."""
        return _run(network, tiles)

    def score(self, tiles: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Mahalanobis distances (B,) of RGB tiles."""
        embedding = _run(self.network, tiles)["embedding"].astype(np.float64)
        factor = self.density["cholesky"].astype(np.float64)
        z = np.linalg.solve(factor, (embedding - self.density["mean"]).T)
        return np.linalg.norm(z, axis=0)

    def by_tile_score(self) -> tuple[CutPasteManifest, dict[str, Any]]:
        """Manifest and files of the same with the map of tile scores."""
        settings = dataclasses.replace(
            self.manifest.cutpaste, map="tile-score", explain_file=None, map_grid=(1, 1)
        )
        golden = {name: tensor for name, tensor in self.golden.items() if name != "cam"}
        manifest = dataclasses.replace(self.manifest, cutpaste=settings)
        return manifest, {"explain.onnx": None, "golden.safetensors": golden}


@pytest.fixture(scope="session")
def tiny_cutpaste(make_board) -> TinyCutPaste:
    network, explain = _graph(explain=False), _graph(explain=True)
    crops = np.stack([make_board(100 + i, TILE, TILE, defect=False) for i in range(60)])
    embedding = _run(network, crops)["embedding"].astype(np.float64)
    covariance = np.cov(embedding.T) + 1e-4 * np.eye(DIMS)
    density = {
        "mean": embedding.mean(axis=0).astype(np.float32),
        "cholesky": np.linalg.cholesky(covariance).astype(np.float32),
    }
    board = make_board(5, 60, 100, defect=True)
    golden_tiles = np.concatenate([crops[:2], board[24 : 24 + TILE, 60 : 60 + TILE][None]])
    partial = TinyCutPaste(_manifest(), network, explain, density, {})
    score = partial.score(golden_tiles).astype(np.float32)
    found = _run(explain, golden_tiles)
    golden = {
        "tiles": golden_tiles,
        "score": score,
        "anomalous": (score >= TAU).astype(np.uint8),
        "logits": found["logits"],
        "embedding": found["embedding"],
        "cam": found["cam"][:, 0],
    }
    assert golden["anomalous"].tolist() == [0, 0, 1], score
    return dataclasses.replace(partial, golden=golden)


def _manifest() -> CutPasteManifest:
    manifest, _ = tiny_artifacts.cutpaste()
    settings = dataclasses.replace(manifest.cutpaste, embedding_dims=DIMS, map_grid=(SIDE, SIDE))
    return dataclasses.replace(
        manifest,
        cutpaste=settings,
        map=MapSettings(sigma=1.0, radius=4),
        density=Density("gaussian", "density.safetensors", 60, 0.01, None),
        thresholds=Thresholds("largest-tile", TAU, 1.0, TAU, 1.0, "fixed", 60, 1),
        golden=CutPasteGolden("golden.safetensors", 3, CutPasteTolerance(1e-4, 1e-4, 1e-4)),
        cutpaste_training=CutPasteTraining(
            epochs=3,
            best_epoch=2,
            steps=20,
            batch=8,
            optimizer="sgd",
            learning_rate=0.1,
            seed=3,
            augmentation={"variant": "thesis", "transparency": 15.0},
            validation_accuracy=0.875,
            checkpoint_sha256="1" * 64,
        ),
    )


@pytest.fixture(scope="session")
def cutpaste_artifact(tiny_cutpaste, tmp_path_factory) -> Path:
    """Path of a valid artifact; not to be changed: copy it first."""
    return tiny_cutpaste.write(tmp_path_factory.mktemp("cutpaste") / "tiny.kad")
