"""Patch features of boards that do not exist: the right number and dimension, a realistic spread.

A feature is ``s_c (sqrt(a) m_c + sqrt(1 - a) z) sqrt(v)``: z is normal for every patch; every patch
is of one of 500 kinds c, the i-th with a share of 1/i; a kind has a centre m_c, normal too, and a
length s_c, log-normal; v falls as ``(i + 8)^-1.6`` with the dimension i. The parameters give the
selection about as much to do as ResNet-18 features of KolektorSDD do (layers 2 and 3, 384
channels): for 600 of 60,000 points, with a pool of 2,048, 4 passes here and 6 there, 20 and 27
million pairs screened, 1.4 and 3.2 million measured, a covering radius of 1.81 and 1.79.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from kad_export.features import BoardTiles

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["GeneratedExtractor", "generated_boards", "generated_features"]

KINDS, KIND_SHARE, LENGTH_SPREAD = 500, 0.5, 0.1
PATCHES = 28 * 28


def generated_boards(tiles: int, per_board: int = 100) -> list[BoardTiles]:
    """Boards of so many tiles in all; a tile's corner is its number."""
    corners = np.stack([np.arange(tiles), np.zeros(tiles)], axis=1).astype(np.int32)
    return [
        BoardTiles(SimpleNamespace(name=f"{first}.png"), corners[first : first + per_board], 1, 1)
        for first in range(0, tiles, per_board)
    ]


@cache
def _kinds(dims: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres (500, dims), spread of the rest (500, dims), and cumulated shares (500,)."""
    generator = np.random.default_rng(dims)
    spread = ((np.arange(dims) + 8.0) ** -0.8).astype(np.float32)
    spread *= np.float32(1.4 * np.sqrt(dims / 384)) / np.linalg.norm(spread)
    length = np.exp(LENGTH_SPREAD * generator.standard_normal((KINDS, 1), np.float32)) * spread
    centres = length * generator.standard_normal((KINDS, dims), np.float32)
    shares = np.cumsum(1 / np.arange(1.0, KINDS + 1))
    own, common = np.float32(np.sqrt(1 - KIND_SHARE)), np.float32(np.sqrt(KIND_SHARE))
    return common * centres, own * length, shares / shares[-1]


def generated_features(tile: int, dims: int) -> np.ndarray:
    """Features (784, dims) float32 of one tile, the same whenever they are asked for."""
    generator = np.random.Generator(np.random.SFC64([tile, dims]))
    centres, spread, shares = _kinds(dims)
    kind = np.searchsorted(shares, generator.random(PATCHES))
    features = generator.standard_normal((PATCHES, dims), np.float32)
    features *= spread[kind]
    features += centres[kind]
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
    patches, batch_bytes : int
        Of a tile; of the pixels of a batch.
    """

    dims: int = 384
    threads: int = 1
    batch: int = 16
    patches: int = PATCHES
    batch_bytes: int = 0

    def load(self, sample: Any) -> Any:
        """Return the image: there is none."""
        return sample

    def set_up(self, image: Any) -> None:
        """Need no memory beforehand."""

    def __call__(self, image: Any, xy: np.ndarray) -> Iterator[np.ndarray]:
        """Patch features of tiles, batch by batch: (b, P, D) float32."""
        del image
        for start in range(0, len(xy), self.batch):
            tiles = xy[start : start + self.batch, 0]
            yield np.stack([generated_features(int(tile), self.dims) for tile in tiles])

    def centre(self, tile_xy: np.ndarray, patch: np.ndarray) -> np.ndarray:
        """Tile and patch, in place of a position."""
        return np.stack([tile_xy[:, 0], patch], axis=1).astype(np.int32)
