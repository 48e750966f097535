"""Patch features of real images, all of them, kept in the cache folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from kad_export.data import training_tiles
from kad_export.patchcore import build_network

from kad_bench.features import TILE, base_maps, data_folder, joined_features
from kad_sdk.dataset import scan_dataset
from kad_sdk.errors import DatasetError
from kad_sdk.images import read_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kad_export.patchcore import PatchCoreNetwork

__all__ = ["RealPatches"]

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
        data = data_folder(self.data)
        network = build_network("resnet18", ("layer2", "layer3"), "same-bilinear", "imagenet")
        made_from = json.dumps([_MAKER, asdict(self), network.weights.sha256, str(data.parent)])
        path = cache / f"patches-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}.npy"
        if not path.is_file():
            say(f"making {path.name}: {self.what}")
            torch.set_num_threads(threads)
            features = self._make(network, data, threads)
            cache.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".part.npy")
            np.save(partial, features)
            partial.replace(path)
        return np.load(path, mmap_mode="r")

    def _make(self, network: PatchCoreNetwork, data: Path, threads: int) -> np.ndarray:
        found, n = [], 0
        for maps in base_maps(network, self._tiles(data), threads):
            features = joined_features(network, maps, threads)
            found.append(features.reshape(-1, features.shape[2]))
            n += len(found[-1])
            if n >= self.points:
                return np.concatenate(found)[: self.points]
        raise DatasetError(
            f"expected {self.points:,} patches in {data}, found {n:,}: the data set must be "
            "complete"
        )

    def _tiles(self, data: Path) -> Iterator[np.ndarray]:
        for sample in scan_dataset(data).train:
            image = read_image(sample.path)
            if self.whole:
                yield cv2.resize(image, (TILE, TILE), interpolation=cv2.INTER_AREA)
                continue
            for x, y in training_tiles(image, tile=TILE, stride=TILE):
                yield image[y : y + TILE, x : x + TILE]
