"""PatchCore in plain PyTorch: the oracle of the parity gate and of the tests.

Written to be read next to the paper (arXiv 2106.08265) and the thesis, and independent of the
compiled core: it joins base maps with PyTorch's own functions and computes in float64. It is not
fast, and nothing that scores boards uses it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

__all__ = [
    "TileScores",
    "board_map",
    "nearest",
    "patch_features",
    "score_tiles",
    "tile_map",
]

CHUNK_BYTES = 64 * 2**20  # of one block of distances
SPARE = 8  # candidates beyond k that the screen passes on


class TileScores(NamedTuple):
    """Scores of a batch of tiles."""

    dist: torch.Tensor  # (B, P) float64, distance of each patch to its nearest bank row
    index: torch.Tensor  # (B, P) int64, that row
    score: torch.Tensor  # (B,) float64


def patch_features(
    maps: tuple[torch.Tensor, ...], *, grid: tuple[int, int], resampling: str
) -> torch.Tensor:
    """Bring base maps to one grid and concatenate them.

    Parameters
    ----------
    maps
        One (B, C, h, w) float32 for each layer.
    grid
        (height, width); P = height * width.
    resampling
        ``"bilinear"`` (half-pixel centres), ``"adaptive-average"``, or ``"aligned-bilinear"``:
        enlarged by a power of 2, and cut off behind the grid.

    Returns
    -------
    torch.Tensor
        (B, P, D) float32, D the sum of the channels.
    """
    resized = []
    for layer in maps:
        if resampling == "bilinear":
            resized.append(F.interpolate(layer, size=grid, mode="bilinear", align_corners=False))
        elif resampling == "adaptive-average":
            resized.append(F.adaptive_avg_pool2d(layer, grid))
        elif resampling == "aligned-bilinear":
            resized.append(_enlarged(layer, grid))
        else:
            known = "bilinear, adaptive-average or aligned-bilinear"
            raise ValueError(f"resampling must be {known}, got {resampling!r}")
    joined = torch.cat(resized, dim=1)  # (B, D, h, w)
    return joined.flatten(2).transpose(1, 2)  # (B, P, D)


def _enlarged(layer: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Enlarge a map (B, C, h, w) by the least power of 2 that covers the grid, and cut it off."""
    factor = 1
    while factor * layer.shape[2] < grid[0] or factor * layer.shape[3] < grid[1]:
        factor *= 2
    larger = F.interpolate(layer, scale_factor=factor, mode="bilinear", align_corners=False)
    return larger[:, :, : grid[0], : grid[1]]


def nearest(
    queries: torch.Tensor, bank: torch.Tensor, k: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k nearest bank rows of each query, by Euclidean distance (equation 4.7).

    A product in float64, whose rounding is 1e-13 of the distances here, screens the bank; what it
    passes on is decided by the direct difference in float64, ties by the lowest row.

    Parameters
    ----------
    queries
        (n, D).
    bank
        (M, D), M at least k.
    k
        How many.

    Returns
    -------
    dist, index : torch.Tensor
        (n, k) float64, nearest first; (n, k) int64.
    """
    bank = bank.double()
    squares = bank.square().sum(dim=1)  # (M,)
    step = max(1, CHUNK_BYTES // (8 * max(len(bank), (k + SPARE) * bank.shape[1])))
    parts = [_nearest_chunk(q.double(), bank, squares, k) for q in queries.split(step)]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _nearest_chunk(
    queries: torch.Tensor, bank: torch.Tensor, squares: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    screen = squares - 2 * queries @ bank.T  # (n, M), squared distance less |q|^2
    candidates = screen.topk(min(k + SPARE, len(bank)), largest=False).indices  # (n, k + SPARE)
    candidates = candidates.sort(dim=1).values  # so that the stable sort below breaks ties by row
    dist = (queries[:, None] - bank[candidates]).square().sum(dim=2).sqrt()
    dist, order = dist.sort(dim=1, stable=True)
    return dist[:, :k], candidates.gather(1, order)[:, :k]


def score_tiles(
    features: torch.Tensor,
    bank: torch.Tensor,
    *,
    reweighting: str,
    neighbors: torch.Tensor | None = None,
    n_neighbors: int = 0,
) -> TileScores:
    """Score tiles by their most anomalous patch.

    s* is the largest patch distance, at patch q with nearest bank row m*. The tile's score is w s*,

    - ``none``: w = 1 (equation 4.9);
    - ``thesis``: w = 1 - exp(s* / sqrt D) / sum_i exp(|q - m_i| / sqrt D), m_i the `n_neighbors`
      nearest rows of m*, without m*;
    - ``paper``: w = 1 - exp(s*) / sum_i exp(|q - m_i|), m_i those rows and m* itself
      (arXiv 2106.08265, equation 7).

    Parameters
    ----------
    features
        (B, P, D).
    bank
        (M, D).
    reweighting
        ``"none"``, ``"thesis"`` or ``"paper"``.
    neighbors
        (M, at least `n_neighbors`) int64, each row's nearest other rows, nearest first; not needed
        for ``"none"``.
    n_neighbors
        How many of these columns to use.
    """
    n_tiles, n_patches, n_dims = features.shape
    dist, index = nearest(features.reshape(-1, n_dims), bank)
    dist, index = dist.reshape(n_tiles, n_patches), index.reshape(n_tiles, n_patches)
    s_star, patch = dist.max(dim=1)  # (B,), (B,)
    if reweighting == "none":
        return TileScores(dist, index, s_star)
    tiles = torch.arange(n_tiles)
    m_star = index[tiles, patch]  # (B,)
    if reweighting == "thesis":
        m_i, unit = neighbors[m_star, :n_neighbors], math.sqrt(n_dims)  # (B, K)
    elif reweighting == "paper":
        m_i = torch.cat([m_star[:, None], neighbors[m_star, :n_neighbors]], dim=1)  # (B, K + 1)
        unit = 1.0
    else:
        raise ValueError(f"reweighting must be none, thesis or paper, got {reweighting!r}")
    q = features[tiles, patch].double()  # (B, D)
    to_neighbors = (q[:, None] - bank[m_i].double()).square().sum(dim=2).sqrt()  # (B, K)
    # exp(s*) / sum_i exp(d_i), with exp(s*) divided out so that nothing overflows.
    weight = 1 - 1 / ((to_neighbors - s_star[:, None]) / unit).exp().sum(dim=1)
    return TileScores(dist, index, weight * s_star)


def tile_map(
    dist: torch.Tensor, *, grid: tuple[int, int], tile: int, sigma: float, radius: int
) -> torch.Tensor:
    """Anomaly maps of tiles: patch distances enlarged to the tile and smoothed.

    Parameters
    ----------
    dist
        (B, P).
    grid
        (height, width) of the patches.
    tile
        Side of the tile, px.
    sigma, radius
        The Gaussian and where it is cut off, px; the edge is reflected without repeating it.
        Radius 0: no smoothing.

    Returns
    -------
    torch.Tensor
        (B, tile, tile) float64.
    """
    grids = dist.double().reshape(-1, 1, *grid)  # (B, 1, h, w)
    maps = F.interpolate(grids, size=(tile, tile), mode="bilinear", align_corners=False)
    if radius > 0:
        offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
        kernel = (-0.5 * (offsets / sigma).square()).exp()
        kernel /= kernel.sum()  # (2 radius + 1,)
        maps = F.pad(maps, (radius,) * 4, mode="reflect")
        maps = F.conv2d(F.conv2d(maps, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return maps[:, 0]


def board_map(maps: torch.Tensor, xy: torch.Tensor, *, height: int, width: int) -> torch.Tensor:
    """Average tile maps where they overlap.

    Parameters
    ----------
    maps
        (n, tile, tile).
    xy
        (n, 2) top-left corners, px.
    height, width
        Size of the board, px.

    Returns
    -------
    torch.Tensor
        (height, width) float64, NaN where no tile lies.
    """
    tile = maps.shape[-1]
    total = torch.zeros(height, width, dtype=torch.float64)
    count = torch.zeros(height, width, dtype=torch.float64)
    for one, (x, y) in zip(maps, xy.tolist(), strict=True):
        total[y : y + tile, x : x + tile] += one
        count[y : y + tile, x : x + tile] += 1
    return total / count  # 0 / 0 is NaN
