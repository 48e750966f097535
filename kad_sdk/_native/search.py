"""Search: patch features, the index of a memory bank, PatchCore scores."""

from __future__ import annotations

from ctypes import byref, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kad_sdk._native.abi import (
    BUFFER_TOO_SMALL,
    BaseMaps,
    Handle,
    IndexFacts,
    ScoreOptions,
    SearchStatsRecord,
    Struct,
    call,
)
from kad_sdk._native.arguments import (
    Bytes,
    Floats,
    Longs,
    array_argument,
    choice,
    int_argument,
    rectangles_argument,
    sides_argument,
    threads_argument,
)
from kad_sdk.errors import ArtifactCorruptError, InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

_NO_COUNTS = ("struct_size", "reserved")
_RESAMPLINGS = {"bilinear": 0, "adaptive-average": 1, "aligned-bilinear": 2}
_REWEIGHTINGS = {"none": 0, "thesis": 1, "paper": 2}


@dataclass(frozen=True)
class MapLayout:
    """What base maps look like.

    Attributes
    ----------
    layers : sequence of (channels, height, width)
        One for each layer.
    grid : (height, width)
        The grid of patches.
    resampling : "bilinear", "adaptive-average" or "aligned-bilinear"
        How maps come to the grid: half-pixel centres; means over
        ``[floor(i*n/g), ceil((i+1)*n/g))``; half-pixel centres of cells that are 1, 2, 4 ...
        patches wide.
    """

    layers: Sequence[tuple[int, int, int]]
    grid: tuple[int, int]
    resampling: str

    def checked_layers(self) -> list[tuple[int, ...]]:
        """Give the layers, at least one, of integers that fit the C struct."""
        if len(self.layers) == 0:
            raise InvalidArgumentError("layers: expected at least one layer, got none")
        return [
            sides_argument(f"layers[{i}]", layer, "channels, height, width")
            for i, layer in enumerate(self.layers)
        ]

    def struct(self, n_tiles: int = 0, data: Sequence[int] | None = None) -> BaseMaps:
        """Make the C struct of maps that lie at `data`, or of none."""
        layers, n = self.checked_layers(), len(self.layers)
        sides = [(c_int32 * n)(*column) for column in zip(*layers, strict=True)]
        height, width = sides_argument("grid", self.grid, "height, width")
        return BaseMaps(
            resampling=choice("resampling", self.resampling, _RESAMPLINGS),
            grid_height=height,
            grid_width=width,
            n_tiles=n_tiles,
            n_layers=n,
            data=None if data is None else (c_void_p * n)(*data),
            channels=sides[0],
            heights=sides[1],
            widths=sides[2],
        )


class _Maps:
    """Base maps as the C struct, with everything it points to kept alive."""

    def __init__(self, maps: Sequence[Floats], grid: tuple[int, int], resampling: str) -> None:
        if not maps:
            raise InvalidArgumentError("maps must hold the maps of at least one layer, got none")
        n_tiles = len(maps[0]) if isinstance(maps[0], np.ndarray) and maps[0].ndim else None
        self.arrays = [
            array_argument(f"maps[{i}]", m, np.float32, (n_tiles, None, None, None))
            for i, m in enumerate(maps)
        ]
        self.n_tiles = self.arrays[0].shape[0]
        self.dims = sum(m.shape[1] for m in self.arrays)
        height, width = sides_argument("grid", grid, "height, width")
        self.patches = max(height * width, 0)
        layout = MapLayout([m.shape[1:] for m in self.arrays], grid, resampling)
        self.struct = layout.struct(self.n_tiles, [m.ctypes.data for m in self.arrays])


def patch_features(
    maps: Sequence[Floats], *, grid: tuple[int, int], resampling: str, threads: int = 1
) -> Floats:
    """Patch features: base maps brought to one grid and concatenated.

    Parameters
    ----------
    maps : sequence of (B, C, h, w) float32
        One base map for each layer.
    grid : (height, width)
        The grid of patches, P = height * width.
    resampling : "bilinear", "adaptive-average" or "aligned-bilinear"
        As :class:`MapLayout` has it.

    Returns
    -------
    (B, P, D) float32
        D is the sum of the layers' channels.
    """
    base = _Maps(maps, grid, resampling)
    out = np.empty((base.n_tiles, base.patches, base.dims), dtype=np.float32)
    call("kad_patch_features", byref(base.struct), threads_argument(threads), out.ctypes.data)
    return out


def window_features(
    maps: Sequence[Floats],
    patches: Sequence[int],
    *,
    grid: tuple[int, int],
    resampling: str,
    threads: int = 1,
) -> Floats:
    """Patch features of a rectangle of patches alone.

    Parameters
    ----------
    maps : sequence of (1, C, h, w) float32
    patches : (x, y, width, height)
        Of the grid.
    grid, resampling
        As for `patch_features`.

    Returns
    -------
    (height, width, D) float32
    """
    base = _Maps(maps, grid, resampling)
    rects = rectangles_argument("patches", [patches])
    height, width = (max(int(side), 0) for side in (rects[0, 3], rects[0, 2]))
    if height > grid[0] or width > grid[1]:
        raise InvalidArgumentError(f"patches: expected a part of the grid {grid}, got {patches}")
    out = np.empty((height, width, base.dims), dtype=np.float32)
    call(
        "kad_window_features",
        *(byref(base.struct), rects.ctypes.data, threads_argument(threads), out.ctypes.data),
    )
    return out


@dataclass(frozen=True, eq=False)
class StoredIndex:
    """What :meth:`NativeIndex.store` gave.

    Attributes
    ----------
    data : (n,) uint8
    bank_sha256 : str
        SHA-256 of the file that the bank lies in, 64 hexadecimal digits.
    name : str
        What errors call it.
    """

    data: Bytes
    bank_sha256: str
    name: str = "the index"


class NativeIndex(Handle):
    """Exact nearest-neighbour search in a memory bank.

    Parameters
    ----------
    bank : (M, D) float32
        Borrowed: it must not be changed while the index lives.
    layout : MapLayout, optional
        The maps that the bank's features come from: queries with such maps are then faster.
    threads : int
        Threads that build the index.
    stored : StoredIndex, optional
        The index of this bank and layout as it was stored, borrowed like the bank: it is not built
        then, and the bank's values are not looked at.

    Raises
    ------
    InvalidArgumentError
        The layout's channels do not add up to D.
    NotFiniteError
        The bank holds NaN or Inf.
    ArtifactCorruptError
        What was stored is damaged, or of another bank or layout.
    """

    def __init__(
        self,
        bank: Floats,
        *,
        layout: MapLayout | None = None,
        threads: int = 1,
        stored: StoredIndex | None = None,
    ) -> None:
        self._bank = array_argument("bank", bank, np.float32, (None, None))
        self.rows, self.dims = self._bank.shape
        handle = c_void_p()
        values, threads = self._bank.ctypes.data, threads_argument(threads)
        if stored is not None and layout is None:
            raise InvalidArgumentError("layout: expected that of the stored index, got none")
        if layout is None:
            call("kad_index_create", values, self.rows, self.dims, threads, byref(handle))
        else:
            channels = sum(layer[0] for layer in layout.checked_layers())
            if channels != self.dims:
                raise InvalidArgumentError(
                    f"layout: expected {self.dims} channels together, the bank's dimensions, got "
                    f"{channels}"
                )
            maps = layout.struct()
            if stored is None:
                call(
                    "kad_index_create_for_maps",
                    *(values, self.rows, byref(maps), threads, byref(handle)),
                )
            else:
                self._restore(stored, maps, threads, handle)
        self._hold(handle, "index", called="index")

    def _restore(self, stored: StoredIndex, maps: BaseMaps, threads: int, handle: c_void_p) -> None:
        self._stored = array_argument("stored", stored.data, np.uint8, (None,))
        try:
            call(
                "kad_index_create_stored",
                *(self._bank.ctypes.data, self.rows, byref(maps)),
                *(stored.bank_sha256.encode(), self._stored.ctypes.data, self._stored.size),
                *(threads, byref(handle)),
            )
        except ArtifactCorruptError as error:
            raise ArtifactCorruptError(f"{stored.name}: {error}") from error

    def store(self, bank_sha256: str, *, threads: int = 1) -> Bytes | None:
        """Give what takes long to build, to be kept with the bank.

        Parameters
        ----------
        bank_sha256 : str
            SHA-256 of the file that the bank lies in, 64 hexadecimal digits.

        Returns
        -------
        (n,) uint8
            A function of the bank and of the layout alone, built anew in arithmetic that is the
            same on every processor; None where the bank is so small that nothing is worth storing.
        """
        size = c_int64()
        arguments = (self._open_handle(), bank_sha256.encode(), threads_argument(threads))
        call("kad_index_store", *arguments, None, 0, byref(size), accept=(BUFFER_TOO_SMALL,))
        out = np.empty(size.value, np.uint8)
        call("kad_index_store", *arguments, out.ctypes.data, out.size, byref(size))
        return out[: size.value].copy() if size.value else None

    def info(self) -> dict[str, int]:
        """Return the fields of ``kad_index_facts``."""
        facts = IndexFacts()
        call("kad_index_info", self._open_handle(), byref(facts))
        return counts(facts)

    def stats(self) -> dict[str, int]:
        """Return the fields of ``kad_search_stats``."""
        stats = SearchStatsRecord()
        call("kad_index_stats", self._open_handle(), byref(stats))
        return counts(stats)

    def query(self, queries: Floats, k: int, *, threads: int = 1) -> tuple[Floats, Longs]:
        """Find the k nearest bank rows of each query, nearest first, ties to the lowest row.

        Parameters
        ----------
        queries : (n, D) float32
        k : int
            1 to min(16, M).

        Returns
        -------
        dist : (n, k) float32
            Euclidean distances.
        index : (n, k) int64
            Bank rows.
        """
        queries = array_argument("queries", queries, np.float32, (None, self.dims))
        n = len(queries)
        dist, index = _neighbours((n,), k)
        call(
            "kad_index_query",
            *(self._open_handle(), queries.ctypes.data, n, k, threads_argument(threads)),
            *(dist.ctypes.data, index.ctypes.data),
        )
        return dist, index

    def query_maps(
        self,
        maps: Sequence[Floats],
        k: int,
        *,
        grid: tuple[int, int],
        resampling: str,
        threads: int = 1,
    ) -> tuple[Floats, Longs]:
        """Query with the patch features of base maps; see `patch_features` and `query`.

        Returns
        -------
        dist : (B, P, k) float32
        index : (B, P, k) int64
        """
        base = _Maps(maps, grid, resampling)
        dist, index = _neighbours((base.n_tiles, base.patches), k)
        call(
            "kad_index_query_maps",
            *(self._open_handle(), byref(base.struct), k, threads_argument(threads)),
            *(dist.ctypes.data, index.ctypes.data),
        )
        return dist, index

    def score_tiles(
        self,
        maps: Sequence[Floats],
        *,
        grid: tuple[int, int],
        resampling: str,
        reweighting: str,
        neighbors: Longs | None,
        n_neighbors: int,
        threads: int = 1,
    ) -> tuple[Floats, Longs, Floats]:
        """Patch distances and tile scores (thesis, equations 4.7 to 4.9).

        Parameters
        ----------
        maps : sequence of (B, C, h, w) float32
        reweighting : "none", "thesis" or "paper"
        neighbors : (M, K) int64, or None without re-weighting
            Each bank row's nearest other rows, nearest first.
        n_neighbors : int
            How many of them to use.

        Returns
        -------
        dist : (B, P) float32
            Distance of each patch to its nearest bank row.
        index : (B, P) int64
            That row.
        score : (B,) float32
        """
        base = _Maps(maps, grid, resampling)
        options, _alive = self._score_options(reweighting, neighbors, n_neighbors)
        dist = np.empty((base.n_tiles, base.patches), dtype=np.float32)
        index = np.empty((base.n_tiles, base.patches), dtype=np.int64)
        score = np.empty(base.n_tiles, dtype=np.float32)
        call(
            "kad_score_tiles",
            *(self._open_handle(), byref(base.struct), byref(options), threads_argument(threads)),
            *(dist.ctypes.data, index.ctypes.data, score.ctypes.data),
        )
        return dist, index, score

    def _score_options(
        self, reweighting: str, neighbors: Longs | None, n_neighbors: int
    ) -> tuple[ScoreOptions, Longs | None]:
        """Make the C struct, and give the array that it points into, which must outlive it."""
        options = ScoreOptions(
            reweighting=choice("reweighting", reweighting, _REWEIGHTINGS),
            n_neighbors=int_argument("n_neighbors", n_neighbors, 64),
        )
        if neighbors is not None:
            neighbors = array_argument("neighbors", neighbors, np.int64, (self.rows, None))
            options.neighbors = neighbors.ctypes.data
            options.neighbor_columns = neighbors.shape[1]
        return options, neighbors

    def score_window(
        self,
        board: c_void_p,
        number: int,
        maps: Sequence[Floats],
        *,
        grid: tuple[int, int],
        reweighting: str,
        neighbors: Longs | None,
        n_neighbors: int,
        threads: int = 1,
    ) -> None:
        """Search a window of a board; see :meth:`kad_sdk._native.windows.NativeWindows.score`."""
        base = _Maps(maps, grid, "aligned-bilinear")
        options, _alive = self._score_options(reweighting, neighbors, n_neighbors)
        call(
            "kad_windows_score",
            *(board, int_argument("number", number, 64), self._open_handle()),
            *(byref(base.struct), byref(options), threads_argument(threads)),
        )


def counts(struct: Struct) -> dict[str, int]:
    names = [field[0] for field in struct._fields_]
    return {name: getattr(struct, name) for name in names if name not in _NO_COUNTS}


def _neighbours(shape: tuple[int, ...], k: int) -> tuple[Floats, Longs]:
    if not 1 <= int_argument("k", k) <= 16:
        raise InvalidArgumentError(f"k must be 1 to 16, got {k}")
    return np.empty((*shape, k), dtype=np.float32), np.empty((*shape, k), dtype=np.int64)
