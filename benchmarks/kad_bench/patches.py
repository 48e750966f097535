"""Patch features of real images, all of them, kept in the cache folder."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from kad_export.data import NORMALISATIONS, training_tiles
from kad_export.patchcore import build_network

from kad_sdk._native import patch_features, preprocess
from kad_sdk.dataset import scan_dataset
from kad_sdk.errors import DatasetError
from kad_sdk.images import read_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kad_export.patchcore import PatchCoreNetwork

__all__ = ["RealPatches"]

TILE = 224
_BATCH = 16
_MAKER = 1  # raised when the same settings come to mean other features


@dataclass(frozen=True)
class RealPatches:
    """All patches of training tiles, until there are enough.

    Attributes
    ----------
    data : str
        Folder below KAD_DATA_DIR, in MVTec layout.
    points : int
        How many patches.
    whole : bool
        A tile is a whole image, resized; otherwise images are cut into tiles side by side.
    """

    data: str
    points: int
    whole: bool

    @property
    def what(self) -> str:
        """The features in words."""
        cut = "whole images resized to 224 px" if self.whole else "tiles of 224 px"
        return f"ResNet-18 layer2+layer3, ImageNet weights, {self.data}, {cut}, every patch"

    def prepare(self, cache: Path, threads: int, say: Callable[[str], None]) -> np.ndarray:
        """Take the features (points, 384) float32 from the cache, or make them.

        Raises
        ------
        DatasetError
            KAD_DATA_DIR is not set, or there are too few images.
        """
        folder = os.environ.get("KAD_DATA_DIR")
        if not folder:
            raise DatasetError(
                f"KAD_DATA_DIR is not set: it must name the folder that holds {self.data} in "
                "MVTec layout; --profile smoke needs no images"
            )
        network = build_network("resnet18", ("layer2", "layer3"), "same-bilinear", "imagenet")
        made_from = json.dumps([_MAKER, asdict(self), network.weights.sha256, folder])
        path = cache / f"patches-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}.npy"
        if not path.is_file():
            say(f"making {path.name}: {self.what}")
            torch.set_num_threads(threads)
            features = self._make(network, Path(folder) / self.data, threads)
            cache.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".part.npy")
            np.save(partial, features)
            partial.replace(path)
        return np.load(path, mmap_mode="r")

    @torch.inference_mode()
    def _make(self, network: PatchCoreNetwork, data: Path, threads: int) -> np.ndarray:
        mean, std = NORMALISATIONS["imagenet"]
        corner = np.zeros((1, 2), np.int32)
        found: list[np.ndarray] = []
        batch: list[np.ndarray] = []
        for tile in self._tiles(data):
            batch.append(preprocess(tile, corner, tile=TILE, mean=mean, std=std, threads=threads))
            if len(batch) == _BATCH:
                found.append(_features(network, batch, threads))
                batch = []
            if sum(map(len, found)) >= self.points:
                return np.concatenate(found)[: self.points]
        if batch:
            found.append(_features(network, batch, threads))
        n = sum(map(len, found))
        if n < self.points:
            raise DatasetError(
                f"expected {self.points:,} patches in {data}, found {n:,}: the data set must be "
                "complete"
            )
        return np.concatenate(found)[: self.points]

    def _tiles(self, data: Path) -> Iterator[np.ndarray]:
        for sample in scan_dataset(data).train:
            image = read_image(sample.path)
            if self.whole:
                yield cv2.resize(image, (TILE, TILE), interpolation=cv2.INTER_AREA)
                continue
            for x, y in training_tiles(image, tile=TILE, stride=TILE):
                yield np.ascontiguousarray(image[y : y + TILE, x : x + TILE])


def _features(network: PatchCoreNetwork, tiles: list[np.ndarray], threads: int) -> np.ndarray:
    maps = [x.numpy() for x in network(torch.from_numpy(np.concatenate(tiles)))]
    features = patch_features(
        maps, grid=maps[0].shape[2:], resampling=network.resampling, threads=threads
    )
    return features.reshape(-1, features.shape[2])
