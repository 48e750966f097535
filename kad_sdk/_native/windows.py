"""A board that goes through the network once, in windows: plan, search, tiles, map, regions."""

from __future__ import annotations

from ctypes import byref, c_int64, c_void_p
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kad_sdk._native.abi import BUFFER_TOO_SMALL, Handle, WindowsOptions, call
from kad_sdk._native.arguments import (
    Floats,
    Ints,
    Longs,
    array_argument,
    int_argument,
    rectangles_argument,
    threads_argument,
)
from kad_sdk._native.board import RegionRecord, find_regions

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from kad_sdk._native.search import NativeIndex


class Window(NamedTuple):
    """What the network sees of a board, and the part of it that is not halo; px."""

    x: int
    y: int
    width: int
    height: int
    core_x: int
    core_y: int
    core_width: int
    core_height: int

    @property
    def rect(self) -> tuple[int, int, int, int]:
        """(x, y, width, height) of what the network sees."""
        return self[:4]


class WindowSizes(NamedTuple):
    """Lengths in px: see ``kad_windows_options`` in ``kad/kad.h``."""

    window: int
    halo: int
    align: int
    patch: int
    label_margin: int


class NativeWindows(Handle):
    """One board: its windows, and what was found in them so far.

    Parameters
    ----------
    height, width : int
        Image size, px.
    sizes : WindowSizes
    tile : int
        Side of a tile, px.
    xy : (n, 2) int32
        Corners of the tiles that get scores.
    sigma : float
        Standard deviation of the Gaussian that smooths the map, px.
    radius : int
        Where it is cut off, px; 0: no smoothing.
    borders, labels : sequences of (x, y, width, height)
        Active areas (none: the whole image); what has no value.

    Attributes
    ----------
    windows : list of Window
    """

    def __init__(
        self,
        height: int,
        width: int,
        *,
        sizes: WindowSizes,
        tile: int,
        xy: Ints,
        sigma: float,
        radius: int,
        borders: Sequence[Sequence[int]] = (),
        labels: Sequence[Sequence[int]] = (),
    ) -> None:
        areas = rectangles_argument("borders", borders)
        dropped = rectangles_argument("labels", labels)
        xy = array_argument("xy", xy, np.int32, (None, 2))
        options = WindowsOptions(
            image_height=int_argument("height", height),
            image_width=int_argument("width", width),
            tile=int_argument("tile", tile),
            smoothing_radius=int_argument("radius", radius),
            smoothing_sigma=sigma,
            borders=areas.ctypes.data,
            n_borders=len(areas),
            labels=dropped.ctypes.data,
            n_labels=len(dropped),
            xy=xy.ctypes.data,
            n_tiles=len(xy),
            **{name: int_argument(name, value) for name, value in sizes._asdict().items()},
        )
        handle = c_void_p()
        call("kad_windows_create", byref(options), byref(handle))
        self._shape, self._patch = (height, width), sizes.patch
        self._n_tiles, self._patches = len(xy), (tile // sizes.patch) ** 2
        self._hold(handle, "windows", called="board")
        self.windows = self._plan()

    def _plan(self) -> list[Window]:
        count = c_int64()
        arguments = (self._open_handle(), None, 0, byref(count))
        call("kad_windows_plan", *arguments, accept=(BUFFER_TOO_SMALL,))
        plan = np.empty((count.value, len(Window._fields)), np.int32)
        call("kad_windows_plan", self._handle, plan.ctypes.data, len(plan), byref(count))
        return [Window(*row) for row in plan.tolist()]

    def grid(self, window: Window) -> tuple[int, int]:
        """Patches (height, width) of all that the network sees of a window."""
        return -(-window.height // self._patch), -(-window.width // self._patch)

    def score(
        self,
        number: int,
        index: NativeIndex,
        maps: Sequence[Floats],
        *,
        reweighting: str,
        neighbors: Longs | None,
        n_neighbors: int,
        threads: int = 1,
    ) -> None:
        """Search the patches of window `number`, each window once.

        Parameters
        ----------
        maps : sequence of (1, C, h, w) float32
            What the network gives for all that it sees of the window, layer by layer.
        reweighting, neighbors, n_neighbors
            As :meth:`NativeIndex.score_tiles` takes them.

        Raises
        ------
        NotFiniteError
            A feature is NaN or Inf; the window may be searched again.
        InvalidArgumentError
            The window was searched before.
        """
        index.score_window(
            self._open_handle(),
            number,
            maps,
            grid=self.grid(self.windows[number]),
            reweighting=reweighting,
            neighbors=neighbors,
            n_neighbors=n_neighbors,
            threads=threads,
        )

    def tiles(self) -> tuple[Floats, Floats, Longs]:
        """Give what was found on the tiles, once all windows were searched.

        Returns
        -------
        score : (n,) float32
        dist : (n, P) float32
            Distance of each patch to its nearest bank row; 0 at labels.
        rows : (n, P) int64
            That row; -1 at labels.
        """
        score = np.empty(self._n_tiles, np.float32)
        dist = np.empty((self._n_tiles, self._patches), np.float32)
        rows = np.empty((self._n_tiles, self._patches), np.int64)
        out = (array.ctypes.data for array in (score, dist, rows))
        call("kad_windows_tiles", self._open_handle(), *out)
        return score, dist, rows

    def map(self, kept: npt.NDArray[np.bool_] | None = None, *, threads: int = 1) -> Floats:
        """Make the board map, once all windows were searched.

        Parameters
        ----------
        kept : (n,) bool, optional
            Tiles whose patches alone count; by default all patches of the active areas do.

        Returns
        -------
        (H, W) float32
            NaN outside of active areas and at labels.
        """
        flags = None
        if kept is not None:
            flags = array_argument("kept", kept, np.bool_, (self._n_tiles,))
        out = np.empty(self._shape, dtype=np.float32)
        call(
            "kad_windows_map",
            *(self._open_handle(), None if flags is None else flags.ctypes.data),
            *(threads_argument(threads), out.ctypes.data),
        )
        return out

    def regions(
        self, board_map: Floats, *, threshold: float, min_area_px: int = 1
    ) -> list[RegionRecord]:
        """Find regions of a map that `map` gave; see :meth:`NativeBoard.regions`.

        `tile` and `patch` are -1 where the peak lies in no tile.
        """
        return find_regions(
            "kad_windows_regions",
            self._open_handle(),
            array_argument("board_map", board_map, np.float32, self._shape),
            threshold=threshold,
            min_area_px=min_area_px,
        )
