"""How far overlapping tiles disagree about the same spot.

Two tiles see a spot with different surroundings: near the edge of the one, in the middle of the
other. Where their values differ by as much as the threshold, the verdict there is a matter of
which tile is asked, and the board map's average hides it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Disagreement", "disagreement"]


@dataclass(frozen=True)
class Disagreement:
    """Spread of the tiles' own values over a board.

    Attributes
    ----------
    spread : ndarray
        (h, w) float32, largest less smallest value of the tiles at each cell; NaN where fewer than
        two tiles lie.
    n_lone
        Cells where a tile's value reaches the threshold and the tiles' mean does not.
    """

    spread: NDArray[np.float32]
    n_lone: int

    def quantile(self, q: float) -> float | None:
        """Give a quantile of the spread; None where no two tiles overlap."""
        values = self.spread[~np.isnan(self.spread)]
        return float(np.quantile(values, q)) if values.size else None


def disagreement(
    xy: NDArray[np.integer],
    patches: NDArray[np.float32],
    *,
    grid: tuple[int, int],
    tile: int,
    stride: int,
    frame: tuple[int, int],
    threshold: float,
) -> Disagreement:
    """Compare the values of overlapping tiles, before smoothing, cell by cell.

    A cell is a patch's share of the tile, 8 px of 224; where the grid is coarser than the stride it
    is cut smaller. A tile that does not begin on a cell's edge, such as one flush with a border, is
    taken to begin on the nearest.

    Parameters
    ----------
    xy
        (n, 2) top-left corners of the tiles in the frame, px.
    patches
        (n, P) each tile's map, row by row.
    grid
        (height, width) of that map, P = height * width.
    tile, stride
        px.
    frame
        (height, width) px.
    threshold
        tau of the map.
    """
    rows, columns = (max(1, -(-tile // (side * stride))) for side in grid)  # cut so fine
    maps = patches.reshape(-1, *grid).repeat(rows, axis=1).repeat(columns, axis=2)
    height, width = maps.shape[1:]
    begins = np.rint(np.asarray(xy)[:, ::-1] * (height, width) / tile).astype(np.int64)  # (n, yx)
    shape = np.maximum(
        np.ceil(np.array(frame) * (height, width) / tile).astype(np.int64),
        begins.max(axis=0) + np.array([height, width]),
    )
    low, high = np.full(shape, np.inf, np.float32), np.full(shape, -np.inf, np.float32)
    total, count = np.zeros(shape), np.zeros(shape, np.int64)
    for (top, left), values in zip(begins.tolist(), maps, strict=True):
        cells = np.s_[top : top + height, left : left + width]
        np.minimum(low[cells], values, out=low[cells])
        np.maximum(high[cells], values, out=high[cells])
        total[cells] += values
        count[cells] += 1
    several = count >= 2
    spread = np.full(shape, np.nan, np.float32)
    spread[several] = high[several] - low[several]
    lone = several & (high >= threshold) & (total < threshold * count)
    return Disagreement(spread, int(lone.sum()))
