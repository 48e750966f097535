"""A tiny artifact made without PyTorch: a fixed ONNX graph, a bank of its features, NumPy."""

from __future__ import annotations

import dataclasses
import math
import shutil
import subprocess
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tiny_artifacts
from search_oracle import at_level, levels_here

from kad_sdk.artifact import write_artifact
from kad_sdk.manifest import PatchCoreGolden, PatchCoreManifest, Thresholds, Tolerance

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TILE, TAU = 32, 0.3
CHANNELS, SIDES = (5, 6), (8, 4)  # of the two base maps
ROWS = 40


def _enlarge(n_in: int, n_out: int) -> NDArray[np.float64]:
    """Bilinear interpolation with half-pixel centres as a matrix (n_out, n_in)."""
    matrix = np.zeros((n_out, n_in))
    for i in range(n_out):
        x = min(max((i + 0.5) * n_in / n_out - 0.5, 0), n_in - 1)
        low = math.floor(x)
        matrix[i, low] += 1 - (x - low)
        matrix[i, min(low + 1, n_in - 1)] += x - low
    return matrix


def _features(maps: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Patch features (B, P, D) of base maps."""
    side = SIDES[0]
    same = []
    for array in maps:
        matrix = _enlarge(array.shape[2], side)
        same.append(np.einsum("ih,bchw,jw->bijc", matrix, array, matrix))
    features = np.concatenate(same, axis=-1).astype(np.float32)
    return features.reshape(len(features), side * side, -1)


def _distances(queries: NDArray[np.float32], bank: NDArray[np.float32]) -> NDArray[np.float64]:
    difference = queries[:, None, :].astype(np.float64) - bank[None]
    return np.sqrt((difference**2).sum(-1))


def _tile_score(
    features: NDArray[np.float32], bank: NDArray[np.float32], neighbors: NDArray[np.int64], n: int
) -> tuple[NDArray[np.float32], float]:
    """Patch distances (P,) and the score re-weighted as in the thesis."""
    distances = _distances(features, bank)
    nearest = distances.min(axis=1)
    patch = int(nearest.argmax())
    around = bank[neighbors[distances[patch].argmin(), :n]]
    root = math.sqrt(bank.shape[1])
    others = _distances(features[patch : patch + 1], around)[0]
    weight = 1 - math.exp(nearest[patch] / root) / np.exp(others / root).sum()
    return nearest.astype(np.float32), float(nearest[patch] * weight)


def _bank(features: NDArray[np.float32], generator: np.random.Generator) -> dict[str, NDArray[Any]]:
    """The bank's tensors: rows drawn from features (B, P, D), said to come from two images."""
    pool = features.reshape(-1, sum(CHANNELS))
    bank = pool[np.sort(generator.choice(len(pool), ROWS, replace=False))]
    between = _distances(bank, bank)
    np.fill_diagonal(between, np.inf)
    return {
        "bank": bank,
        "neighbors": np.argsort(between, axis=1, kind="stable")[:, :8].astype(np.int64),
        "source_image": generator.integers(0, 2, ROWS).astype(np.int32),
        "source_xy": generator.integers(0, 100, (ROWS, 2)).astype(np.int32),
    }


@dataclass(frozen=True)
class Tiny:
    """What :func:`write_artifact` takes, and the NumPy implementation it was made with."""

    manifest: PatchCoreManifest
    network: bytes
    bank: dict[str, NDArray[Any]]
    golden: dict[str, NDArray[Any]]

    def write(self, path: Path, **options: Any) -> Path:
        files = {
            "network.onnx": options.pop("network", self.network),
            "bank.safetensors": options.pop("bank", self.bank),
            "golden.safetensors": options.pop("golden", self.golden),
        }
        return write_artifact(path, options.pop("manifest", self.manifest), files, **options)

    def bank_of(self, tiles: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """A bank for boards of another kind: drawn from the features of RGB tiles."""
        return _bank(_features(_run(self.network, normalise(tiles))), np.random.default_rng(0))

    def score(self, tiles: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Distances (B, P) and scores (B,) of RGB tiles, in NumPy but for the network itself."""
        features = _features(_run(self.network, normalise(tiles)))
        found = [_tile_score(f, self.bank["bank"], self.bank["neighbors"], 3) for f in features]
        return np.stack([d for d, _ in found]), np.array([s for _, s in found], np.float32)


MEAN, STD = (0.5, 0.45, 0.4), (0.25, 0.3, 0.2)


def normalise(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    scaled = (tiles.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), dtype=np.float32)


def _run(network: bytes, tiles: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    return session.run(None, {"tiles": tiles})


def _make_board(seed: int, height: int, width: int, *, defect: bool) -> NDArray[np.uint8]:
    """A bright board with faint noise; the defect is a dark square of 12 px at (70, 40)."""
    generator = np.random.default_rng(seed)
    board = 200 + generator.integers(-8, 9, (height, width, 3))
    if defect:
        board[40:52, 70:82] = 20
    return board.astype(np.uint8)


@pytest.fixture(params=levels_here())
def level(request):
    """Each instruction-set level of this processor; the summary says which ones it lacks."""
    with at_level(request.param):
        yield request.param


@pytest.fixture(scope="session")
def make_board():
    return _make_board


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    manifest = dataclasses.replace(
        tiny_artifacts.patchcore(rows=ROWS)[0],
        thresholds=Thresholds("map-peak", TAU, 0.1, TAU, 0.1, "fixed", 8, 4),
        golden=PatchCoreGolden("golden.safetensors", 3, Tolerance(1e-4, 1e-4)),
    )
    generator = np.random.default_rng(7)
    weights = [generator.standard_normal((n, 3, 3, 3)).astype(np.float32) / 3 for n in CHANNELS]
    network = tiny_artifacts.base_map_graph(weights, SIDES)
    generator = np.random.default_rng(11)
    crops = np.stack([_make_board(100 + i, TILE, TILE, defect=False) for i in range(8)])
    maps = _run(network, normalise(crops))
    tensors = _bank(_features(maps), generator)
    golden_tiles = np.concatenate(
        [crops[:2], _make_board(5, 60, 100, defect=True)[24 : 24 + TILE, 60 : 60 + TILE][None]]
    )
    partial = Tiny(manifest, network, tensors, {})
    dist, score = partial.score(golden_tiles)
    golden = {
        "tiles": golden_tiles,
        "dist": dist,
        "score": score,
        "anomalous": (score >= TAU).astype(np.uint8),
        **{f"base_map_{i}": m for i, m in enumerate(_run(network, normalise(golden_tiles)))},
    }
    assert golden["anomalous"].tolist() == [0, 0, 1], score
    return dataclasses.replace(partial, golden=golden)


@pytest.fixture(scope="session")
def tiny_artifact(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a valid artifact; not to be changed: copy it first."""
    return tiny.write(tmp_path_factory.mktemp("artifact") / "tiny.kad")


@pytest.fixture
def mount(request):
    """Show a folder at another place too, as a container does."""

    def make(folder, place, *options):
        for words in (["--bind", folder, place], *options):
            done = subprocess.run(["mount", *map(str, words)], capture_output=True, check=False)
            if done.returncode:
                pytest.skip("nothing can be mounted here")
            if words[0] == "--bind":
                umount = ["umount", "-l", str(place)]  # what is mapped of it may last longer
                request.addfinalizer(partial(subprocess.run, umount, check=True))

    if shutil.which("mount") is None:
        pytest.skip("nothing can be mounted here")
    return make
