"""What an inspector sets, applied to maps and tiles; the board's score by its map."""

from __future__ import annotations

from ctypes import byref, c_float
from typing import TYPE_CHECKING

import numpy as np

from kad_sdk._native.abi import MapRules, Zone, call
from kad_sdk._native.arguments import (
    Floats,
    Ints,
    array_argument,
    int_argument,
    rectangles_argument,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    Rectangle = Sequence[int]


class MapJudge:
    """Rules for maps of one size; rectangles (x, y, width, height) may reach outside.

    Parameters
    ----------
    height, width : int
        Size of the map, px.
    ignored : sequence of rectangles
        Nothing is judged in them.
    zones : sequence of (rectangle, float)
        Places whose threshold is so many times the board's; where they overlap, the smallest
        factor counts.
    edge_margin : (int, int)
        x and y, px: so near to the edge of its active area nothing is judged.
    borders : sequence of rectangles
        Active areas; none: the whole map.
    """

    def __init__(
        self,
        height: int,
        width: int,
        *,
        ignored: Sequence[Rectangle] = (),
        zones: Sequence[tuple[Rectangle, float]] = (),
        edge_margin: tuple[int, int] = (0, 0),
        borders: Sequence[Rectangle] = (),
    ) -> None:
        self._shape = (int_argument("height", height), int_argument("width", width))
        self._ignored = rectangles_argument("ignored", ignored)
        self._borders = rectangles_argument("borders", borders)
        places = rectangles_argument("zones", [place for place, _ in zones]).tolist()
        self._zones = (Zone * len(zones))(
            *(Zone(*place, factor) for place, (_, factor) in zip(places, zones, strict=True))
        )
        self._rules = MapRules(
            edge_margin_x=int_argument("edge_margin", edge_margin[0]),
            edge_margin_y=int_argument("edge_margin", edge_margin[1]),
            borders=self._borders.ctypes.data,
            n_borders=len(self._borders),
            ignored=self._ignored.ctypes.data,
            n_ignored=len(self._ignored),
            zones=self._zones,
            n_zones=len(zones),
        )

    def map(self, board_map: Floats) -> Floats:
        """Judge a map (H, W) float32: NaN where it is not, divided by the factor in zones."""
        judged = array_argument("board_map", board_map, np.float32, self._shape).copy()
        call("kad_map_judge", judged.ctypes.data, *self._shape, byref(self._rules))
        return judged

    def tiles(self, xy: Ints, tile: int) -> Floats:
        """Give the smallest factor of each tile's judged pixels, (n,) float32.

        Parameters
        ----------
        xy : (n, 2) int32
            Top-left corners, px.
        tile : int
            Side, px.

        Returns
        -------
        (n,) float32
            1 outside of zones; 0 where nothing of the tile is judged.
        """
        xy = array_argument("xy", xy, np.int32, (None, 2))
        factors = np.empty(len(xy), np.float32)
        places = (xy.ctypes.data, len(xy), int_argument("tile", tile))
        call("kad_tiles_judge", byref(self._rules), *self._shape, *places, factors.ctypes.data)
        return factors


def map_peak(board_map: Floats, *, min_area_px: int = 1) -> float:
    """Give the highest threshold at which a map has a region of at least `min_area_px` pixels.

    Parameters
    ----------
    board_map : (H, W) float32
        0 or above; NaN counts for nothing.
    min_area_px : int
        1: the largest value.

    Returns
    -------
    float
        0 where no threshold gives such a region; NaN where the map has no value at all.
    """
    board_map = array_argument("board_map", board_map, np.float32, (None, None))
    peak = c_float()
    area = int_argument("min_area_px", min_area_px, 64)
    call("kad_map_peak", board_map.ctypes.data, *board_map.shape, area, byref(peak))
    return peak.value
