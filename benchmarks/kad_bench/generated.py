"""Patch features of boards that do not exist: the right number and dimension, a realistic spread.

A feature is ``s (sqrt(a) t + sqrt(1 - a) z) sqrt(v)``: z is normal for every patch, t for every
tile, s log-normal for every patch, and v falls as ``(i + 8)^-1.6`` with the dimension i. The
parameters are those of ResNet-18 features of KolektorSDD (layers 2 and 3, 384 channels): their
leading 16, 32, 64 and 96 principal components hold 52, 69, 82 and 89 % of the variance, these 55,
70, 82 and 87 %; a tile's mean has 5 % of it; the 99th percentile of the length is 1.6 times the
median.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from kad_export.features import BoardTiles

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["GeneratedExtractor", "generated_boards", "generated_features"]

TILE_SHARE, LENGTH_SPREAD = 0.05, 0.21
PATCHES = 28 * 28


def generated_boards(tiles: int, per_board: int = 100) -> list[BoardTiles]:
    """Boards of so many tiles in all; a tile's corner is its number."""
    corners = np.stack([np.arange(tiles), np.zeros(tiles)], axis=1).astype(np.int32)
    return [
        BoardTiles(SimpleNamespace(name=f"{first}.png"), corners[first : first + per_board], 1, 1)
        for first in range(0, tiles, per_board)
    ]


def generated_features(tile: int, dims: int) -> np.ndarray:
    """Features (784, dims) float32 of one tile, the same whenever they are asked for."""
    generator = np.random.Generator(np.random.SFC64([tile, dims]))
    spread = ((np.arange(dims) + 8.0) ** -0.8).astype(np.float32)
    spread *= np.float32(np.sqrt(dims / 384)) / np.linalg.norm(spread)
    common = generator.standard_normal(dims, np.float32)
    length = np.exp(LENGTH_SPREAD * generator.standard_normal((PATCHES, 1), np.float32))
    features = generator.standard_normal((PATCHES, dims), np.float32)
    features *= np.float32(np.sqrt(1 - TILE_SHARE))
    features += np.float32(np.sqrt(TILE_SHARE)) * common
    features *= spread
    features *= length
    return features


@dataclass(frozen=True)
class GeneratedExtractor:
    """Stands where :class:`kad_export.features.PatchExtractor` does.

    Attributes
    ----------
    dims : int
        Channels.
    threads, batch : int
        Of the native stages; tiles at a time.
    """

    dims: int = 384
    threads: int = 1
    batch: int = 16
    patches: int = PATCHES

    def load(self, sample: Any) -> Any:
        """Return the image: there is none."""
        return sample

    def __call__(self, image: Any, xy: np.ndarray) -> Iterator[np.ndarray]:
        """Patch features of tiles, batch by batch: (b, P, D) float32."""
        del image
        for start in range(0, len(xy), self.batch):
            tiles = xy[start : start + self.batch, 0]
            yield np.stack([generated_features(int(tile), self.dims) for tile in tiles])

    def centre(self, tile_xy: np.ndarray, patch: np.ndarray) -> np.ndarray:
        """Tile and patch, in place of a position."""
        return np.stack([tile_xy[:, 0], patch], axis=1).astype(np.int32)
