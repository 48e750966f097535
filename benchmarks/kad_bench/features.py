"""Banks and query tiles of real images, made once and kept in a cache folder.

A file of the cache holds a bank and base maps of tiles that are not in it, good ones and defective
ones. Its name carries a digest of all that it was made from, so a change makes another file.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from kad_export.coreset import k_center, select_coreset
from kad_export.data import NORMALISATIONS, training_tiles
from kad_export.patchcore import build_network

from kad_sdk._native import MapLayout, patch_features, preprocess
from kad_sdk.dataset import read_mask, scan_dataset
from kad_sdk.errors import DatasetError
from kad_sdk.images import read_image
from kad_sdk.tensors import read_tensors, write_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kad_export.patchcore import PatchCoreNetwork

    from kad_sdk.dataset import Sample

__all__ = [
    "ImageFeatures",
    "StoredFeatures",
    "base_maps",
    "data_folder",
    "joined_features",
    "write_features",
]

TILE = 224
KINDS = ("good", "defective")
_BATCH = 16  # tiles that go through the network at a time
_MAKER = 1  # raised when the same settings come to mean other features


@dataclass(frozen=True)
class StoredFeatures:
    """A bank, and base maps to query it with.

    Attributes
    ----------
    path : Path
        The file that holds them.
    what : str
        How they were made, in words.
    bank : (M, D) float32
        Mapped from the file, read-only.
    maps : dict
        Kind of tile to one base map (B, C, h, w) for each layer.
    grid, resampling
        How base maps make patches.
    """

    path: Path
    what: str
    bank: np.ndarray
    maps: dict[str, list[np.ndarray]]
    grid: tuple[int, int]
    resampling: str

    @classmethod
    def read(cls, path: Path, what: str) -> StoredFeatures:
        """Map a file that :func:`write_features` wrote."""
        tensors = read_tensors(path)
        kinds = [kind for kind in KINDS if f"{kind}_0" in tensors]
        n_layers = sum(name.startswith(f"{kinds[0]}_") for name in tensors)
        maps = {kind: [tensors[f"{kind}_{i}"] for i in range(n_layers)] for kind in kinds}
        grid = maps[kinds[0]][0].shape[2:]  # the finest layer's own: same-bilinear pooling
        return cls(path, what, tensors["bank"], maps, grid, "bilinear")

    @property
    def layout(self) -> MapLayout:
        """What the maps look like."""
        shapes = [x.shape[1:] for x in self.maps[next(iter(self.maps))]]
        return MapLayout(shapes, self.grid, self.resampling)

    def features(self, kind: str, n_tiles: int, threads: int) -> np.ndarray:
        """Patch features (n_tiles * P, D) of the first tiles of a kind."""
        maps = [x[:n_tiles] for x in self.maps[kind]]
        found = patch_features(maps, grid=self.grid, resampling=self.resampling, threads=threads)
        return found.reshape(-1, found.shape[2])


def write_features(path: Path, bank: np.ndarray, maps: dict[str, list[np.ndarray]]) -> None:
    """Write a file for :meth:`StoredFeatures.read`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    named = {f"{kind}_{i}": x for kind, layers in maps.items() for i, x in enumerate(layers)}
    write_tensors(path, {"bank": bank, **named})


@dataclass(frozen=True)
class ImageFeatures:
    """Features of a data set's images, and what the bank takes of them.

    Attributes
    ----------
    name : str
        Begins the file's name.
    data : str
        Folder below KAD_DATA_DIR, in MVTec layout.
    backbone, layers, weights : str, tuple of str, str
        As for :func:`kad_export.patchcore.build_network`.
    rows, candidates : int
        Rows of the bank, chosen by greedy k-center from so many features of the training images,
        which are drawn at random, the same number from every tile.
    projected : bool
        k-center on a sparse random projection, as kad-export does, or on the features themselves.
    tiles : int
        Query tiles of each kind.
    """

    name: str
    data: str
    backbone: str
    layers: tuple[str, ...]
    weights: str
    rows: int
    candidates: int
    projected: bool
    tiles: int

    @property
    def what(self) -> str:
        """The features in words."""
        weights = "ImageNet weights" if self.weights == "imagenet" else f"{self.weights} weights"
        space = "a random projection of " if self.projected else ""
        return (
            f"{self.backbone} {'+'.join(self.layers)}, {weights}, {self.data}; bank by greedy "
            f"k-center on {space}{self.candidates:,} candidates"
        )

    def prepare(self, cache: Path, threads: int, say: Callable[[str], None]) -> StoredFeatures:
        """Take the features from the cache, or make them (minutes).

        Raises
        ------
        DatasetError
            KAD_DATA_DIR is not set, or the data set has no such tiles.
        """
        data = data_folder(self.data)
        network = build_network(self.backbone, self.layers, "same-bilinear", self.weights)
        path = cache / f"{self.name}-{self._digest(network, data)}.safetensors"
        if not path.is_file():
            say(f"making {path.name}: {self.what}")
            self._make(path, network, data, threads)
        return StoredFeatures.read(path, self.what)

    def _digest(self, network: PatchCoreNetwork, data: Path) -> str:
        images = [(s.name, s.path.stat().st_size) for s in _samples(data)]
        made_from = [_MAKER, asdict(self), network.weights.sha256, images]
        return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:16]

    def _make(self, path: Path, network: PatchCoreNetwork, data: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        train = [sample for sample in _samples(data) if sample.split == "train"]
        good = [s for s in _samples(data) if s.split == "test" and s.kind == "good"]
        bad = [s for s in _samples(data) if s.split == "test" and s.kind != "good"]
        candidates = self._candidates(network, train, threads)
        if self.projected:
            rows = select_coreset(candidates, self.rows, threads=threads)
        else:
            rows = k_center(candidates, self.rows, threads=threads).index
        tiles = {"good": _evenly(_tiles(good), self.tiles), "defective": _worst(bad, self.tiles)}
        maps = {kind: _join(base_maps(network, _cut(chosen))) for kind, chosen in tiles.items()}
        write_features(path, candidates[rows], maps)

    def _candidates(
        self, network: PatchCoreNetwork, train: Sequence[Sample], threads: int
    ) -> np.ndarray:
        """Random patches of every tile, (candidates, D)."""
        tiles = [(sample, xy) for sample, xy, _ in _tiles(train)]
        per_tile = -(-self.candidates // len(tiles))
        generator = np.random.default_rng(0)
        found = []
        for maps in base_maps(network, _cut(tiles)):
            features = joined_features(network, maps, threads)
            patches = [generator.permutation(features.shape[1])[:per_tile] for _ in features]
            found += [tile[chosen] for tile, chosen in zip(features, patches, strict=True)]
        return np.concatenate(found)[generator.permutation(len(found) * per_tile)][
            : self.candidates
        ]


@torch.inference_mode()
def base_maps(
    network: PatchCoreNetwork, tiles: Iterator[np.ndarray], threads: int = 1
) -> Iterator[list[np.ndarray]]:
    """Compute base maps of tiles (224, 224, 3) uint8, batch by batch."""
    mean, std = NORMALISATIONS["imagenet"]
    corner = np.zeros((1, 2), np.int32)
    while batch := [
        preprocess(tile, corner, tile=TILE, mean=mean, std=std, threads=threads)
        for tile in islice(tiles, _BATCH)
    ]:
        yield [x.numpy() for x in network(torch.from_numpy(np.concatenate(batch)))]


def joined_features(
    network: PatchCoreNetwork, maps: Sequence[np.ndarray], threads: int
) -> np.ndarray:
    """Join a network's base maps to patch features (B, P, D), on the finest layer's grid."""
    grid = maps[0].shape[2:]
    return patch_features(maps, grid=grid, resampling=network.resampling, threads=threads)


def _cut(tiles: Sequence[tuple[Sample, np.ndarray]]) -> Iterator[np.ndarray]:
    """Cut tiles, given as image and corner (2,)."""
    for sample, (x, y) in tiles:
        yield read_image(sample.path)[y : y + TILE, x : x + TILE]


def data_folder(name: str) -> Path:
    """Give a folder below KAD_DATA_DIR; a DatasetError where that is not set."""
    folder = os.environ.get("KAD_DATA_DIR")
    if not folder:
        raise DatasetError(
            f"KAD_DATA_DIR is not set: it must name the folder that holds {name} in MVTec layout; "
            "--profile smoke needs no images"
        )
    return Path(folder) / name


def _samples(data: Path) -> list[Sample]:
    dataset = scan_dataset(data)
    return [*dataset.train, *dataset.test]


def _tiles(samples: Sequence[Sample]) -> list[tuple[Sample, np.ndarray, float]]:
    """Tiles of images side by side: sample, corner (2,), share of it that is defective."""
    found = []
    for sample in samples:
        image = read_image(sample.path)
        mask = read_mask(sample, *image.shape[:2]) if sample.mask_path else None
        for x, y in training_tiles(image, tile=TILE, stride=TILE):
            share = 0.0 if mask is None else float(mask[y : y + TILE, x : x + TILE].mean())
            found.append((sample, np.array([x, y], np.int32), share))
    return found


def _evenly(tiles: list[Any], n: int) -> list[tuple[Sample, np.ndarray]]:
    """Return n tiles, spread over all of them."""
    _check_enough(len(tiles), n, "good")
    return [tiles[i][:2] for i in np.linspace(0, len(tiles) - 1, n).astype(int)]


def _worst(samples: Sequence[Sample], n: int) -> list[tuple[Sample, np.ndarray]]:
    """Return the n tiles with the largest defects."""
    tiles = sorted(_tiles(samples), key=lambda tile: -tile[2])
    _check_enough(sum(share > 0 for _, _, share in tiles), n, "defective")
    return [tile[:2] for tile in tiles[:n]]


def _check_enough(found: int, n: int, kind: str) -> None:
    if found < n:
        raise DatasetError(f"expected {n} {kind} tiles in the test images, found {found}")


def _join(batches: Iterator[list[np.ndarray]]) -> list[np.ndarray]:
    """Batches of base maps to one array for each layer."""
    return [np.concatenate(layer) for layer in zip(*batches, strict=True)]
