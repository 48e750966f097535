"""Training boards to patch features, and from there to projected ones and bank rows."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kad_export.data import load_board
from kad_sdk._native import patch_features, preprocess
from kad_sdk.session import NetworkSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kad_export.coreset import Projection
    from kad_sdk.dataset import Sample
    from kad_sdk.manifest import Preprocessing, Windows

__all__ = ["BoardTiles", "ExtractorSpec", "PatchExtractor", "bank_rows", "projected_features"]


@dataclass(frozen=True)
class BoardTiles:
    """A training board and the tiles of it that are used.

    Attributes
    ----------
    sample : Sample
        The image.
    xy : (n, 2) int32
        Top-left corners of the tiles, px.
    height, width : int
        Of the prepared image, px.
    """

    sample: Sample
    xy: np.ndarray
    height: int
    width: int


class PatchExtractor:
    """Boards to patch features, by the runtime's own stages and the exported graph.

    Parameters
    ----------
    session : NetworkSession
        The exported graph.
    load : callable
        Sample to prepared image.
    tile : int
        Side, px.
    mean, std : three floats
        Normalisation, in units of full scale.
    grid : (int, int)
        Patches of a tile, height and width.
    resampling : str
        How base maps come to the grid.
    batch, threads : int
        Tiles computed at a time; threads of the native stages.
    """

    def __init__(
        self,
        session: NetworkSession,
        load: Callable[[Sample], np.ndarray],
        *,
        tile: int,
        mean: Sequence[float],
        std: Sequence[float],
        grid: tuple[int, int],
        resampling: str,
        batch: int = 16,
        threads: int = 1,
    ) -> None:
        self.session, self.load = session, load
        self.tile, self.grid, self.batch, self.threads = tile, grid, batch, threads
        self._mean, self._std, self._resampling = mean, std, resampling

    @property
    def patches(self) -> int:
        """Patches of a tile."""
        return self.grid[0] * self.grid[1]

    @property
    def batch_bytes(self) -> int:
        """Bytes of a batch as the network takes it."""
        return 4 * 3 * self.tile**2 * self.batch

    def set_up(self, image: np.ndarray) -> None:
        """Take what memory a board needs at the most, so that it can be seen before the start."""

    def __call__(self, image: np.ndarray, xy: np.ndarray) -> Iterator[np.ndarray]:
        """Patch features of the tiles ``xy`` (n, 2), batch by batch: (b, P, D) float32."""
        for start in range(0, len(xy), self.batch):
            tiles = preprocess(
                image,
                xy[start : start + self.batch],
                tile=self.tile,
                mean=self._mean,
                std=self._std,
                threads=self.threads,
            )  # (b, 3, t, t)
            maps = self.session.run(tiles)
            yield patch_features(
                maps, grid=self.grid, resampling=self._resampling, threads=self.threads
            )

    def centre(self, tile_xy: np.ndarray, patch: np.ndarray) -> np.ndarray:
        """Centres (n, 2) int32, px, of patches ``patch`` (n,) of tiles at ``tile_xy`` (n, 2)."""
        height, width = self.grid
        column, row = patch % width, patch // width
        offset = np.stack(
            [
                (2 * column + 1) * self.tile // (2 * width),
                (2 * row + 1) * self.tile // (2 * height),
            ],
            axis=1,
        )
        return (tile_xy + offset).astype(np.int32)


@dataclass(frozen=True)
class ExtractorSpec:
    """All that a :class:`PatchExtractor` is made of, as values that can be sent elsewhere.

    Attributes
    ----------
    graph : bytes
        The exported graph.
    preprocessing : Preprocessing
        How boards become tiles.
    grid : (int, int)
        Patches of a tile, height and width.
    resampling : str
        How base maps come to the grid.
    batch, threads : int
        Tiles computed at a time; threads of network and native stages.
    windows : Windows or None
        How boards are cut into windows; None: they are computed in tiles.
    """

    graph: bytes
    preprocessing: Preprocessing
    grid: tuple[int, int]
    resampling: str
    batch: int
    threads: int
    windows: Windows | None = None

    def build(self, session: NetworkSession | None = None) -> PatchExtractor:
        """Make the extractor, with a session of the graph if there is one already."""
        prep = self.preprocessing

        def load(sample: Sample) -> np.ndarray:
            return load_board(
                sample, resize=prep.resize, denoise=prep.denoise, threads=self.threads
            )

        make: Callable[..., PatchExtractor] = PatchExtractor
        if self.windows is not None:
            from kad_export.windows import WindowExtractor  # noqa: PLC0415 - it builds on this

            make = functools.partial(WindowExtractor, self.windows)
        return make(
            session or NetworkSession(self.graph, threads=self.threads),
            load,
            tile=prep.tile,
            mean=prep.mean,
            std=prep.std,
            grid=self.grid,
            resampling=self.resampling,
            batch=self.batch,
            threads=self.threads,
        )


def projected_features(
    boards: Sequence[BoardTiles],
    extract: PatchExtractor,
    project: Projection,
    advance: Callable[[int], object],
) -> Iterator[np.ndarray]:
    """Projected features (b * P, d) of all tiles, batch by batch; ``advance`` is told the tiles."""
    for board in boards:
        for features in extract(extract.load(board.sample), board.xy):
            yield project(features.reshape(-1, features.shape[2]))
            advance(len(features))


def bank_rows(
    boards: Sequence[BoardTiles],
    extract: PatchExtractor,
    selected: np.ndarray,
    dims: int,
    advance: Callable[[int], object],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of selected patches, computed once more.

    Parameters
    ----------
    boards : sequence of BoardTiles
    extract : PatchExtractor
    selected : (M,) int64
        Patches, counted over all tiles of ``boards``.
    dims : int
        D.
    advance : callable
        Told the tiles that have been computed.

    Returns
    -------
    bank : (M, D) float32
    image : (M,) int32
        Into ``boards``.
    xy : (M, 2) int32
        Patch centres, px.
    """
    first_tile = np.cumsum([0, *(len(board.xy) for board in boards)])
    tile, patch = np.divmod(selected, extract.patches)
    image = (np.searchsorted(first_tile, tile, side="right") - 1).astype(np.int32)
    bank = np.empty((len(selected), dims), np.float32)
    xy = np.empty((len(selected), 2), np.int32)
    for board_index in np.unique(image):
        board = boards[board_index]
        rows = np.flatnonzero(image == board_index)
        local = tile[rows] - first_tile[board_index]
        xy[rows] = extract.centre(board.xy[local], patch[rows])
        wanted = np.unique(local)
        done = 0
        for features in extract(extract.load(board.sample), board.xy[wanted]):
            batch = wanted[done : done + len(features)]
            here = np.isin(local, batch)
            slot = np.searchsorted(batch, local[here])
            bank[rows[here]] = features[slot, patch[rows[here]]]
            done += len(features)
            advance(len(features))
    return bank, image, xy
