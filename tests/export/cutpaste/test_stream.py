"""Batches cut on the fly: every tile once, few boards in memory, the same for any workers."""

from __future__ import annotations

import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from kad_export.cutpaste.augment import VARIANTS, augment
from kad_export.cutpaste.data import (
    SAMPLE,
    VALIDATION,
    BoardCache,
    TileSet,
    TileStream,
    Window,
    generator,
    shuffled,
    to_8_bits,
)
from kad_export.data import load_board
from kad_export.errors import MemoryBudgetError
from kad_export.report import Silent
from kad_export.survey import survey_boards

from kad_sdk.dataset import scan_dataset

ALL, FEW = Window(None), Window(2)


@pytest.fixture(scope="module")
def tiles(small_dataset, train_options):
    boards = survey_boards(scan_dataset(small_dataset).train, [], train_options, Silent())
    return TileSet(boards, train_options.tile)


def test_tiles_are_numbered_through_the_boards(tiles):
    assert len(tiles) == sum(len(board.xy) for board in tiles.boards) == 4 * 20
    places = [tiles.place(i) for i in range(len(tiles))]
    expected = [(b, *xy) for b, board in enumerate(tiles.boards) for xy in board.xy.tolist()]
    assert places == expected


@pytest.mark.parametrize("window", [ALL, FEW])
def test_an_epoch_has_every_tile_once_in_random_order(tiles, window):
    order = shuffled(tiles, window, np.random.default_rng(1))
    assert np.array_equal(np.sort(order), np.arange(80))
    assert not np.array_equal(order, np.arange(80))
    assert not np.array_equal(order, shuffled(tiles, window, np.random.default_rng(2)))


@pytest.mark.parametrize("window", [ALL, FEW])
@pytest.mark.parametrize("count", [7, 80, 200])
def test_a_count_of_tiles_is_drawn_evenly(tiles, window, count):
    times = np.bincount(shuffled(tiles, window, np.random.default_rng(3), count), minlength=80)
    assert times.sum() == count
    assert times.max() - times.min() <= 1


def test_few_boards_are_in_use_at_a_time(tiles):
    """Between a board's first and last tile only so many other boards begin."""
    order = tiles.board_of(shuffled(tiles, FEW, np.random.default_rng(4)))
    for board in range(4):
        first, last = np.flatnonzero(order == board)[[0, -1]]
        others = {b for b in range(4) if first < np.flatnonzero(order == b)[0] <= last}
        assert len(others - {board}) <= FEW.boards


def test_boards_are_decoded_once_an_epoch_within_the_window(tiles, train_options):
    stream = TileStream(tiles, train_options, FEW, workers=2)
    order = shuffled(tiles, FEW, np.random.default_rng(5))
    with stream.batches(order, SAMPLE, 0) as batches:
        assert sum(1 for _ in batches) == 80 // 4
    assert stream.cache.decoded <= 5  # of 4 boards: one may be asked for late


def test_a_window_is_settled_by_memory(tiles):
    board = 3 * 160 * 128
    assert Window.within(4 * board, [tiles]) == Window(None)
    assert Window.within(4 * board - 1, [tiles]) == Window(1)
    with pytest.raises(
        MemoryBudgetError, match=r"at least three, got 180\.0 KB: raise --memory to"
    ):
        Window.within(3 * board - 1, [tiles])


def test_batches_are_tiles_as_they_are_and_augmented(tiles, train_options):
    stream = TileStream(tiles, train_options, ALL, workers=1)
    order = np.array([3, 77, 20, 41, 9])
    with stream.batches(order, VALIDATION, 2) as batches:
        first, last = batches
    assert first.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert last.labels.tolist() == [0, 1]  # a smaller last batch is for judging
    for i, index in enumerate(order[:4].tolist()):
        board, x, y = tiles.place(index)
        grey = load_board(tiles.boards[board].sample)[y : y + 32, x : x + 32].reshape(32, 32, -1)
        assert np.array_equal(first.tiles[i], np.broadcast_to(grey, (32, 32, 3)))
        rng = generator(train_options.seed, VALIDATION, 2, i)
        marked, _ = augment(first.tiles[i], rng, train_options.augmentation)
        assert np.array_equal(first.tiles[4 + i], marked)


def test_three_ways_make_three_classes(tiles, train_options):
    options = dataclasses.replace(train_options, variant="3-way", batch=9)
    stream = TileStream(tiles, options, ALL, workers=1)
    with stream.batches(np.arange(7), SAMPLE, 0) as batches:
        (batch, _) = batches  # the last tile alone is no batch to learn from
    assert batch.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    rng = generator(options.seed, SAMPLE, 0, 1)
    first, second = (
        augment(batch.tiles[1], rng, options.augmentation, scenarios)[0]
        for scenarios in VARIANTS["3-way"]
    )
    assert np.array_equal(batch.tiles[4], first)
    assert np.array_equal(batch.tiles[7], second)


def _batches(tiles, options, workers, window=ALL, start=0):
    stream = TileStream(tiles, options, window, workers)
    with stream.batches(np.arange(40), SAMPLE, 1, start) as batches:
        return [batch.tiles.tobytes() for batch in batches]


def test_batches_hang_on_their_place_alone(tiles, train_options):
    """Neither on workers, nor on what is kept in memory, nor on where an epoch is entered."""
    expected = _batches(tiles, train_options, 1)
    assert len(set(expected)) == 10
    assert _batches(tiles, train_options, 5, FEW) == expected
    assert _batches(tiles, train_options, 2, start=6) == expected[6:]


def test_threads_end_with_the_block(tiles, train_options):
    before = threading.active_count()
    stream = TileStream(tiles, train_options, ALL, workers=3)
    with stream.batches(np.arange(80), SAMPLE, 0) as batches:
        next(batches)
    assert threading.active_count() == before


def test_threads_that_miss_the_same_board_wait_for_one():
    def load(board):
        time.sleep(0.05)
        return np.full((2, 2), board, np.uint8)

    cache = BoardCache(load, None)
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(cache.__getitem__, [3] * 8))
    assert cache.decoded == 1
    assert all(image is images[0] for image in images)


def test_the_least_recently_used_board_leaves():
    cache = BoardCache(lambda board: np.array([board]), 2)
    for board in (0, 1, 0, 2, 0, 1):
        assert cache[board] == board
    assert cache.decoded == 4  # 1 had left when it came again
    cache.clear()
    assert (cache[1], cache.decoded) == (1, 5)


def test_a_board_that_cannot_be_read_is_told_and_tried_again():
    errors = iter([OSError("gone")])

    def load(board):
        error = next(errors, None)
        if error:
            raise error
        return board

    cache = BoardCache(load, None)
    with pytest.raises(OSError, match="gone"):
        cache[5]
    assert cache[5] == 5


def test_sixteen_bits_become_eight_by_rounding():
    values = np.arange(65536, dtype=np.uint16)
    expected = np.floor(values / 257 + 0.5)
    assert np.array_equal(to_8_bits(values), expected.astype(np.uint8))
    assert to_8_bits(values.astype(np.uint8)).dtype == np.uint8
