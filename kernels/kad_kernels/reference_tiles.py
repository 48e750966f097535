"""From a board to patch features and tile scores, in NumPy: what the GPU's stages must compute.

Every operation is rounded to float32 on its own, in the order that the code shows, except the
weight of a tile score, which is float64. The compiled core gives the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kad_kernels.reference import distances

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["RESAMPLINGS", "REWEIGHTINGS", "Taps", "axis_taps", "cut", "patch_features", "scale"]
__all__ += ["tile_score", "value_table", "weighted"]

RESAMPLINGS = ("bilinear", "adaptive-average")
REWEIGHTINGS = ("none", "thesis", "paper")


def value_table(mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """Normalise each of the 256 values of a channel: (3, 256), ``(value / 255 - mean) / std``."""
    values = np.arange(256, dtype=np.float32) / np.float32(255)
    middle, spread = (np.asarray(x, np.float32)[:, None] for x in (mean, std))
    table: NDArray[np.float32] = (values - middle) / spread
    return table


def cut(
    image: NDArray[np.uint8], xy: NDArray[np.int32], tile: int, table: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Cut tiles (n, 3, t, t) out of an RGB image (H, W, 3) at corners ``xy`` (n, 2)."""
    crops = np.stack([image[y : y + tile, x : x + tile] for x, y in xy.tolist()])
    return np.stack([table[c][crops[..., c]] for c in range(3)], axis=1)


@dataclass(frozen=True, eq=False)
class Taps:
    """One axis of a resampling: output i is the sum of ``weight[i, t] * input[first[i] + t]``.

    Attributes
    ----------
    first, count : (g,) int32
    weight : (g, most) float32
        Zero beyond the count.
    """

    first: NDArray[np.int32]
    count: NDArray[np.int32]
    weight: NDArray[np.float32]


def axis_taps(resampling: str, n: int, g: int) -> Taps:
    """Taps from n inputs to g outputs.

    ``"bilinear"``: half-pixel centres, clamped to the first input. ``"adaptive-average"``: means
    over ``[floor(i n / g), ceil((i + 1) n / g))``.

    Raises
    ------
    ValueError
        An unknown resampling.
    """
    i = np.arange(g, dtype=np.int64)
    if resampling == "bilinear":
        place = np.maximum(0.0, (i + 0.5) * n / g - 0.5)
        first = np.minimum(place.astype(np.int64), n - 1)
        second = np.where(first + 1 < n, place - first, 0.0).astype(np.float32)
        weight = np.stack([np.float32(1) - second, second], axis=1)
        count = np.where(second > 0, 2, 1)
    elif resampling == "adaptive-average":
        first, end = i * n // g, ((i + 1) * n + g - 1) // g
        count = end - first
        share = np.float32(1) / count.astype(np.float32)
        weight = np.where(np.arange(count.max()) < count[:, None], share[:, None], np.float32(0))
    else:
        raise ValueError(f"resampling must be one of {', '.join(RESAMPLINGS)}, got {resampling!r}")
    return Taps(first.astype(np.int32), count.astype(np.int32), weight.astype(np.float32))


def patch_features(
    maps: Sequence[NDArray[np.float32]], *, grid: tuple[int, int], resampling: str
) -> NDArray[np.float32]:
    """Bring base maps (B, C, h, w) to one grid and join them: (B, P, D)."""
    layers = [_resampled(layer, grid, resampling) for layer in maps]
    return np.concatenate(layers, axis=2)


def _resampled(
    layer: NDArray[np.float32], grid: tuple[int, int], resampling: str
) -> NDArray[np.float32]:
    rows, columns = (
        axis_taps(resampling, n, g) for n, g in zip(layer.shape[2:], grid, strict=True)
    )
    out = np.empty((layer.shape[0], *grid, layer.shape[1]), np.float32)
    for y in range(grid[0]):
        for x in range(grid[1]):
            total = None
            for a in range(rows.count[y]):
                for b in range(columns.count[x]):
                    weight = rows.weight[y, a] * columns.weight[x, b]
                    part = weight * layer[:, :, rows.first[y] + a, columns.first[x] + b]
                    total = part if total is None else total + part
            out[:, y, x] = total
    return out.reshape(len(layer), -1, layer.shape[1])


def scale(reweighting: str, dims: int) -> float:
    """Give what distances are divided by in the weight: sqrt(D), or 1 in the paper's form."""
    return 1.0 if reweighting == "paper" else math.sqrt(dims)


_exp = np.frompyfunc(math.exp, 1, 1)  # the C library's: NumPy's own may differ in the last bit


def weighted(
    score: NDArray[np.float32], away: NDArray[np.float32], a: float
) -> NDArray[np.float32]:
    """Re-weight largest patch distances (thesis, equations 4.8 and 4.9).

    ``w = 1 - exp(s / a) / sum_i exp(d_i / a)``, in float64, the largest exponent taken out so that
    nothing overflows. Where a distance overflowed float32, w is 1, its limit.

    Parameters
    ----------
    score : (n,) float32
        s, the largest patch distance of each tile.
    away : (n, K) float32
        d_i, distances of that patch to the rows around its nearest one.
    a : float
        See :func:`scale`.

    Returns
    -------
    (n,) float32
    """
    wide, far = score.astype(np.float64), away.astype(np.float64)
    largest = far.max(axis=1)
    usable = np.isfinite(largest) & np.isfinite(wide)
    shift = np.where(usable, np.maximum(wide, largest), 0.0)
    wide_or_0, far_or_0 = np.where(usable, wide, 0.0), np.where(usable[:, None], far, 0.0)
    total = np.zeros(len(wide))
    for i in range(far.shape[1]):
        total += _exp((far_or_0[:, i] - shift) / a).astype(np.float64)
    top = _exp((wide_or_0 - shift) / a).astype(np.float64)
    return np.where(usable, (1.0 - top / total) * wide_or_0, wide).astype(np.float32)


def tile_score(
    features: NDArray[np.float32],
    bank: NDArray[np.float32],
    neighbors: NDArray[np.int64],
    *,
    reweighting: str,
    n_neighbors: int,
) -> float:
    """Score a tile from its patch features (P, D): the largest distance, re-weighted.

    ``neighbors`` (M, K) are each bank row's nearest other rows; the paper's form counts the row
    itself too.
    """
    every = distances(features, bank)  # (P, M)
    nearest = every.min(axis=1)
    patch = int(nearest.argmax())
    if reweighting == "none":
        return float(nearest[patch])
    row = int(every[patch].argmin())
    around = neighbors[row, :n_neighbors].tolist()
    if reweighting == "paper":
        around = [row, *around]
    away = distances(features[patch : patch + 1], bank[around])
    return float(weighted(nearest[patch : patch + 1], away, scale(reweighting, bank.shape[1]))[0])
