"""Projected features on disk: one file for each group of boards."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kad_export.coreset.workers import CHUNK_ROWS, gather
from kad_sdk.errors import NotFiniteError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from kad_export.features import BoardTiles

__all__ = ["POINT_TYPES", "Shard", "ShardedPoints", "as_stored", "plan_shards", "write_shard"]

SHARD_TILES = 1_000  # a shard ends with the board that brings it there: what a kill can cost
POINT_TYPES = ("float32", "float16")


@dataclass(frozen=True)
class Shard:
    """Consecutive boards, whose features are computed and stored together.

    Attributes
    ----------
    number : int
        Counted from 0.
    boards : slice
        Of all boards.
    tiles : int
        How many they have.
    first_row, rows : int
        Its patches among all patches.
    """

    number: int
    boards: slice
    tiles: int
    first_row: int
    rows: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"points-{self.number:05}.bin"


def plan_shards(boards: Sequence[BoardTiles], patches: int) -> list[Shard]:
    """Group boards into shards of about a thousand tiles."""
    shards: list[Shard] = []
    start, first, tiles = 0, 0, 0
    for end, board in enumerate(boards, 1):
        tiles += len(board.xy)
        if tiles >= SHARD_TILES or end == len(boards):
            shards.append(
                Shard(
                    number=len(shards),
                    boards=slice(start, end),
                    tiles=tiles,
                    first_row=first * patches,
                    rows=tiles * patches,
                )
            )
            start, first, tiles = end, first + tiles, 0
    return shards


def as_stored(points: np.ndarray, dtype: str) -> np.ndarray:
    """Round points to the type they are stored in.

    Raises
    ------
    NotFiniteError
        A value is beyond half precision.
    """
    if dtype == "float32":
        return np.ascontiguousarray(points, np.float32)
    with np.errstate(over="ignore"):
        stored = points.astype(np.float16)
    if np.isfinite(points).all() and not np.isfinite(stored).all():
        raise NotFiniteError(
            f"projected features reach {np.abs(points).max():.4g}, and float16 ends at 65504: "
            "export with --points float32"
        )
    return stored


def write_shard(path: Path, blocks: Iterable[np.ndarray]) -> None:
    """Write blocks of rows one behind the other; the file has its name when it is whole.

    Raises
    ------
    OutputError
        The disk is full or the place cannot be written.
    """
    partial = path.with_suffix(".part")
    try:
        with partial.open("wb") as file:
            for block in blocks:
                file.write(np.ascontiguousarray(block).data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise OutputError(
            f"the projected features cannot be written to {path} ({error.strerror}): free some "
            "space, name another folder with --scratch, raise --memory to do without, or export "
            "with --points float16"
        ) from error


class ShardedPoints:
    """Rows (n, d) of consecutive shards, read from their files.

    The files are read, not mapped: the pages behind a mapping would count as this process' memory.

    Parameters
    ----------
    folder : Path
        Where the files are.
    shards : sequence of Shard
        Consecutive ones.
    dims : int
        d.
    dtype : str
        One of POINT_TYPES.
    """

    def __init__(self, folder: Path, shards: Sequence[Shard], dims: int, dtype: str) -> None:
        self.shape = (sum(shard.rows for shard in shards), dims)
        self.dtype = np.dtype(dtype)
        self._starts = [shard.first_row - shards[0].first_row for shard in shards]
        self._ends = [*self._starts[1:], self.shape[0]]
        self._files = [os.open(folder / s.name, os.O_RDONLY | os.O_CLOEXEC) for s in shards]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Rows of a slice or of an int64 array, in float32."""
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(self.shape[0])
            return self._range(start, stop)
        return gather(rows, self._starts, self.shape[1], self._scattered)

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.pop())

    def _range(self, start: int, stop: int) -> np.ndarray:
        points = np.empty((stop - start, self.shape[1]), np.float32)
        for i, (first, end) in enumerate(zip(self._starts, self._ends, strict=True)):
            low, high = max(start, first), min(stop, end)
            for row in range(low, high, CHUNK_ROWS):  # a whole file would be in memory twice
                n_rows = min(CHUNK_ROWS, high - row)
                points[row - start : row - start + n_rows] = self._read(i, row - first, n_rows)
        return points

    def _scattered(self, file: int, rows: np.ndarray) -> np.ndarray:
        points = np.empty((len(rows), self.shape[1]), np.float32)
        for i, row in enumerate(rows):
            points[i] = self._read(file, int(row), 1)[0]
        return points

    def _read(self, file: int, row: int, n_rows: int) -> np.ndarray:
        line = self.shape[1] * self.dtype.itemsize
        buffer = bytearray(n_rows * line)
        view, done = memoryview(buffer), 0
        while done < len(buffer):
            count = os.preadv(self._files[file], [view[done:]], row * line + done)
            if count == 0:
                raise OutputError(
                    f"a file of projected features ends {len(buffer) - done} bytes early: start "
                    "again without --resume"
                )
            done += count
        return np.frombuffer(buffer, self.dtype).reshape(n_rows, -1)
