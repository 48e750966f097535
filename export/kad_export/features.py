"""Training boards to patch features, and a store for more of them than memory holds."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kad_sdk._native import patch_features, preprocess
from kad_sdk.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from kad_sdk.dataset import Sample
    from kad_sdk.session import NetworkSession

__all__ = ["BoardTiles", "PatchExtractor", "PointStore"]


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


class PointStore:
    """Rows (N, d) float32, appended once, then read in slices; in memory, or in one file.

    The file is read, not mapped: the pages behind a mapping would count as this process' memory.
    """

    def __init__(self, rows: int, dims: int, path: Path | None = None) -> None:
        self.shape = (rows, dims)
        self._path = path
        self._filled = 0
        self._array = np.empty(self.shape, np.float32) if path is None else None
        self._file = path.open("wb") if path else None

    def append(self, block: np.ndarray) -> None:
        """Add rows (n, d)."""
        if self._array is not None:
            self._array[self._filled : self._filled + len(block)] = block
        else:
            self._write(np.ascontiguousarray(block, np.float32))
        self._filled += len(block)

    def _write(self, block: np.ndarray) -> None:
        try:
            self._file.write(block.data)
            if self._filled + len(block) == self.shape[0]:
                self._file.close()
        except OSError as error:
            raise OutputError(
                f"the projected features cannot be written to {self._path} ({error.strerror}): "
                "name another folder with --scratch, or raise --memory to do without"
            ) from error

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Rows of a slice or of an int64 array."""
        if self._array is not None:
            return self._array[rows]
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(self.shape[0])
            return self._read(start, stop - start)
        return np.concatenate([self._read(row, 1) for row in rows])

    def _read(self, start: int, n_rows: int) -> np.ndarray:
        dims = self.shape[1]
        flat = np.fromfile(self._path, np.float32, n_rows * dims, offset=4 * int(start) * dims)
        return flat.reshape(n_rows, dims)

    def close(self) -> None:
        """Forget the rows."""
        self._array = None
        if self._file:
            with suppress(OSError):  # what is still buffered is not wanted any more
                self._file.close()
            self._path.unlink(missing_ok=True)
