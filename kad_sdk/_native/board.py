"""The board: tile maps to a board map, and its defect regions."""

from __future__ import annotations

from ctypes import byref, c_int64, c_void_p, sizeof
from typing import NamedTuple

import numpy as np

from kad_sdk._native.abi import BUFFER_TOO_SMALL, BoardOptions, Handle, Region, call
from kad_sdk._native.arguments import (
    Floats,
    Ints,
    Longs,
    array_argument,
    int_argument,
    threads_argument,
)
from kad_sdk.errors import InvalidArgumentError


class RegionRecord(NamedTuple):
    """A defect region: its box, its peak, and the patch that explains the peak."""

    x: int
    y: int
    width: int
    height: int
    peak_x: int
    peak_y: int
    peak: float
    distance: float
    area_px: int
    tile: int
    patch: int
    bank_row: int


class NativeBoard(Handle):
    """An empty board that accumulates tile maps.

    A tile map is the grid of patch distances, bilinearly enlarged to the tile (half-pixel centres)
    and smoothed with a Gaussian (reflect-101 at the tile's edge).

    Parameters
    ----------
    height, width, tile : int
        Image size and tile side, px.
    grid : (height, width)
        The grid of patches of a tile, P = height * width.
    sigma : float
        Standard deviation of the Gaussian, px.
    radius : int
        Where the Gaussian is cut off, px; 0: no smoothing.
    """

    def __init__(
        self,
        height: int,
        width: int,
        *,
        tile: int,
        grid: tuple[int, int],
        sigma: float,
        radius: int,
    ) -> None:
        options = BoardOptions(
            image_height=int_argument("height", height),
            image_width=int_argument("width", width),
            tile=int_argument("tile", tile),
            grid_height=int_argument("grid height", grid[0]),
            grid_width=int_argument("grid width", grid[1]),
            smoothing_radius=int_argument("radius", radius),
            smoothing_sigma=sigma,
        )
        handle = c_void_p()
        call("kad_board_create", byref(options), byref(handle))
        self._shape = (height, width)
        self._patches = grid[0] * grid[1]
        self._hold(handle, "board", called="board")

    def add(self, xy: Ints, dist: Floats, index: Longs | None = None, *, threads: int = 1) -> None:
        """Add tiles.

        Parameters
        ----------
        xy : (n, 2) int32
            Top-left corners, px.
        dist : (n, P) float32
            Patch distances.
        index : (n, P) int64, optional
            The nearest bank row of each patch, for the regions' `bank_row`.

        Raises
        ------
        NotFiniteError
            A distance is NaN or Inf; no tile was added.
        """
        xy = array_argument("xy", xy, np.int32, (None, 2))
        dist = array_argument("dist", dist, np.float32, (len(xy), self._patches))
        if index is not None:
            index = array_argument("index", index, np.int64, (len(xy), self._patches))
        call(
            "kad_board_add",
            *(self._open_handle(), xy.ctypes.data, len(xy), dist.ctypes.data),
            *(None if index is None else index.ctypes.data, threads_argument(threads)),
        )

    def map(self, *, threads: int = 1) -> Floats:
        """Average the tile maps where they overlap.

        Returns
        -------
        (H, W) float32
            NaN where no tile lies.
        """
        out = np.empty(self._shape, dtype=np.float32)
        call("kad_board_map", self._open_handle(), threads_argument(threads), out.ctypes.data)
        return out

    def regions(
        self, board_map: Floats, *, threshold: float, min_area_px: int = 1
    ) -> list[RegionRecord]:
        """Find the 8-connected components of map >= threshold, by falling peak.

        Parameters
        ----------
        board_map : (H, W) float32
            What `map` gave.
        threshold : float
            Not rounded: a value of the map reaches it as a float64 would.
        min_area_px : int
            Smaller regions are left out.
        """
        return find_regions(
            "kad_board_regions",
            self._open_handle(),
            array_argument("board_map", board_map, np.float32, self._shape),
            threshold=threshold,
            min_area_px=min_area_px,
        )


def find_regions(
    function: str, handle: c_void_p, board_map: Floats, *, threshold: float, min_area_px: int
) -> list[RegionRecord]:
    """Call a function of the core that finds regions, with as much room as they need."""
    min_area_px = int_argument("min_area_px", min_area_px, 64)
    threshold = _float32_at_least(threshold)
    capacity = 64
    while True:
        found, count = (Region * capacity)(), c_int64()
        status = call(
            function,
            *(handle, board_map.ctypes.data, threshold, min_area_px),
            *(sizeof(Region), found, capacity, byref(count)),
            accept=(BUFFER_TOO_SMALL,),
        )
        if status != BUFFER_TOO_SMALL:
            return [_record(region) for region in found[: count.value]]
        capacity = count.value


def _float32_at_least(value: float) -> float:
    nearest = np.float32(value)
    return float(np.nextafter(nearest, np.float32(np.inf)) if float(nearest) < value else nearest)


def _record(region: Region) -> RegionRecord:
    return RegionRecord(*(getattr(region, name) for name in RegionRecord._fields))


def resize_map(board_map: Floats, height: int, width: int, *, threads: int = 1) -> Floats:
    """Bring a map to another size, bilinearly (half-pixel centres).

    Parameters
    ----------
    board_map : (H, W) float32
        NaN counts for nothing.

    Returns
    -------
    (height, width) float32
        The weighted mean of the values around each pixel; NaN where they have less than half of
        the weight.
    """
    board_map = array_argument("board_map", board_map, np.float32, (None, None))
    if int_argument("height", height) < 1 or int_argument("width", width) < 1:
        raise InvalidArgumentError(f"size must be at least 1 x 1, got {height} x {width}")
    out = np.empty((height, width), dtype=np.float32)
    sizes = (*board_map.shape, height, width, threads_argument(threads))
    call("kad_map_resize", board_map.ctypes.data, *sizes, out.ctypes.data)
    return out
