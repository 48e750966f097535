"""Batches of normal and augmented tiles, cut on the fly from the boards by several threads.

A sample hangs on (seed, stream, epoch, place in the epoch) alone: each draws from a generator of
its own. So batches are the same for any number of workers, and a training that goes on after a kill
needs no generator's state.

Decoded boards are kept within a memory budget. Where all fit, an epoch is a plain permutation of
the tiles. Where they do not, the boards are taken in random order and each tile is put off at
random by up to as many boards as fit (`shuffled`): a board is decoded about once in an epoch, and
decoding is spread evenly over it.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from kad_export.cutpaste.augment import VARIANTS, augment
from kad_export.data import load_board
from kad_export.errors import MemoryBudgetError
from kad_export.report import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from kad_export.cutpaste.options import TrainingOptions
    from kad_export.features import BoardTiles

__all__ = ["Batch", "BoardCache", "TileSet", "TileStream", "Window", "shuffled"]

ORDER, SAMPLE, VALIDATION = 0, 1, 2  # streams of random numbers


@dataclass(frozen=True)
class TileSet:
    """The tiles of several boards, numbered from 0 through all of them.

    Attributes
    ----------
    boards : sequence of BoardTiles
    tile : int
        Side, px.
    """

    boards: Sequence[BoardTiles]
    tile: int

    def __len__(self) -> int:
        return int(self._ends[-1])

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum([len(board.xy) for board in self.boards])

    def board_of(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give the number of each tile's board, (n,)."""
        return np.searchsorted(self._ends, index, side="right")

    def place(self, index: int) -> tuple[int, int, int]:
        """Board, x and y of a tile."""
        board = int(self.board_of(np.int64(index)))
        xy = self.boards[board].xy
        x, y = xy[index - int(self._ends[board])]
        return board, int(x), int(y)


@dataclass(frozen=True)
class Window:
    """How many boards a memory budget holds at a time; None: all of them."""

    boards: int | None

    @classmethod
    def within(cls, memory_bytes: int, sets: Sequence[TileSet]) -> Window:
        """Settle the window for the boards of all sets.

        Raises
        ------
        MemoryBudgetError
            The budget does not hold three boards: one in use, one to come, one that leaves.
        """
        sizes = [3 * board.height * board.width for tiles in sets for board in tiles.boards]
        if sum(sizes) <= memory_bytes:
            return cls(None)
        fit = memory_bytes // max(sizes)
        if fit < 3:
            raise MemoryBudgetError(
                f"decoded boards of {format_bytes(max(sizes))} do not fit: expected room for at "
                f"least three, got {format_bytes(memory_bytes)}: raise --memory to "
                f"{format_bytes(3 * max(sizes))} or more"
            )
        return cls(int(fit) - 2)


def shuffled(
    tiles: TileSet, window: Window, rng: np.random.Generator, count: int | None = None
) -> NDArray[np.int64]:
    """Draw the order of an epoch.

    Parameters
    ----------
    tiles : TileSet
    window : Window
        Boards that are in memory at a time.
    rng : numpy.random.Generator
    count : int, optional
        Draw only so many tiles, evenly: each one ``count // len(tiles)`` times or once more. None:
        every tile once.

    Returns
    -------
    ndarray
        (count,) int64 tile numbers.
    """
    n = len(tiles)
    rounds = -(-count // n) if count else 1
    chosen = np.concatenate([rng.permutation(n) for _ in range(rounds)])[: count or n]
    if window.boards is None:
        return chosen
    rank = rng.permutation(len(tiles.boards))[tiles.board_of(chosen)]  # the board's turn
    return chosen[np.argsort(rank + rng.uniform(0, window.boards, len(chosen)), kind="stable")]


class BoardCache:
    """Decoded boards, the least recently used ones dropped first; shared by threads.

    Parameters
    ----------
    load : callable
        Number of a board to its image (H, W, 3) or (H, W), uint8.
    boards : int or None
        Most boards kept; None: all.
    """

    def __init__(self, load: Callable[[int], NDArray[np.uint8]], boards: int | None) -> None:
        self._load, self._boards = load, boards
        self._images: OrderedDict[int, Future[NDArray[np.uint8]]] = OrderedDict()
        self._lock = threading.Lock()
        self.decoded = 0

    def __getitem__(self, board: int) -> NDArray[np.uint8]:
        """Image of a board; of several threads that miss it one decodes it, the others wait."""
        with self._lock:
            future = self._images.get(board)
            missing = future is None
            if missing:
                future = self._images[board] = Future()
                self.decoded += 1
                while self._boards is not None and len(self._images) > self._boards:
                    self._images.popitem(last=False)
            self._images.move_to_end(board)
        if missing:
            try:
                future.set_result(self._load(board))
            except BaseException as error:
                with self._lock:
                    self._images.pop(board, None)
                future.set_exception(error)
                raise
        return future.result()

    def clear(self) -> None:
        """Forget all boards where not all may be kept, to make room for others."""
        with self._lock:
            if self._boards is not None:
                self._images.clear()


@dataclass(frozen=True)
class Batch:
    """Tiles as they are and augmented.

    Attributes
    ----------
    tiles : (B, t, t, 3) uint8
        RGB; first all tiles as they are, then all of class 1, then all of class 2.
    labels : (B,) int64
    """

    tiles: NDArray[np.uint8]
    labels: NDArray[np.int64]


class TileStream:
    """Tile numbers to batches, made ahead by a few threads, in order.

    Parameters
    ----------
    tiles : TileSet
    options : TrainingOptions
        Tile, preprocessing of the boards, variant and sizes of augmentations, batch, seed.
    window : Window
        As for `shuffled`.
    workers : int
        Threads.
    """

    def __init__(
        self, tiles: TileSet, options: TrainingOptions, window: Window, workers: int
    ) -> None:
        self.tiles, self._options, self._workers = tiles, options, workers
        self._variants = VARIANTS[options.variant]
        kept = None if window.boards is None else window.boards + 2
        self.cache = BoardCache(self._decode, kept)

    @contextmanager
    def batches(
        self, order: NDArray[np.int64], stream: int, epoch: int, start: int = 0
    ) -> Iterator[Iterator[Batch]]:
        """Make the batches of an order, from batch `start` on; the threads end with the block.

        A last smaller batch is for judging only: batch norm would learn too much from its few.
        """
        size = min(self._options.tiles_per_batch, len(order))
        stop = len(order) if stream == VALIDATION else len(order) - size + 1
        starts = range(start * size, stop, size)
        pool = ThreadPoolExecutor(self._workers, "tiles")
        try:
            jobs = (
                lambda first=first: self._batch(order[first : first + size], stream, epoch, first)
                for first in starts
            )
            yield _ahead(pool, jobs, 2 * self._workers)
        finally:
            pool.shutdown(cancel_futures=True)

    def crop(self, index: int) -> NDArray[np.uint8]:
        """Cut a tile out of its board, (t, t, 3) RGB."""
        board, x, y = self.tiles.place(index)
        side = self.tiles.tile
        crop = self.cache[board][y : y + side, x : x + side]
        return np.broadcast_to(crop.reshape(side, side, -1), (side, side, 3))

    def _batch(self, indices: NDArray[np.int64], stream: int, epoch: int, first: int) -> Batch:
        n, side = len(indices), self.tiles.tile
        tiles = np.empty((1 + len(self._variants), n, side, side, 3), np.uint8)
        for i, index in enumerate(indices.tolist()):
            tiles[0, i] = self.crop(index)
            rng = generator(self._options.seed, stream, epoch, first + i)
            for label, scenarios in enumerate(self._variants, 1):
                tiles[label, i] = augment(tiles[0, i], rng, self._options.augmentation, scenarios)[
                    0
                ]
        labels = np.repeat(np.arange(len(tiles)), n)
        return Batch(tiles.reshape(-1, side, side, 3), labels)

    def _decode(self, board: int) -> NDArray[np.uint8]:
        sample = self.tiles.boards[board].sample
        image = load_board(sample, resize=self._options.resize, denoise=self._options.denoise)
        return to_8_bits(image)


def _ahead(
    pool: ThreadPoolExecutor, jobs: Iterator[Callable[[], Batch]], count: int
) -> Iterator[Batch]:
    """Results of the jobs in their order, `count` of them computed ahead."""
    waiting: deque[Future[Batch]] = deque()
    for job in jobs:
        waiting.append(pool.submit(job))
        if len(waiting) > count:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def generator(seed: int, *branch: int) -> np.random.Generator:
    """Give the generator of one draw: what it yields hangs on the seed and the branch alone."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=branch))


def to_8_bits(image: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Bring an image of 16 bits to 8, rounding; training needs no more."""
    if image.dtype == np.uint8:
        return image
    return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 / 255


def default_workers() -> int:
    """Threads that cut tiles where none are asked for; more than a few wait for the interpreter."""
    return min(4, len(os.sched_getaffinity(0)))
