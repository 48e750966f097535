"""Training boards: tiles by the thesis' formulas, statistics against NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from kad_export.data import (
    NORMALISATIONS,
    Blocks,
    load_board,
    load_training_board,
    tile_statistics,
    training_tiles,
)

from kad_sdk.annotations import Annotation, Rect
from kad_sdk.dataset import Sample
from kad_sdk.errors import AnnotationError, DatasetError, ImageTooSmallError

if TYPE_CHECKING:
    from pathlib import Path


def noise(height: int, width: int, *, seed: int = 5, channels: int = 3) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(60, 256, (height, width, channels), dtype=np.uint8).squeeze()


def stored(path: Path, image: np.ndarray, annotation: Annotation | None = None) -> Sample:
    cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)
    return Sample(path, path.name, "train", "good", 0, None, annotation)


@pytest.mark.parametrize(
    ("size", "tile", "stride", "counts"),
    [
        ((4730, 4074), 224, 112, (41, 35)),
        ((4730, 4074), 224, 512, (9, 8)),
        ((224, 224), 224, 112, (1, 1)),
        ((447, 448), 224, 224, (1, 2)),
        ((100, 61), 7, 5, (19, 11)),
    ],
)
def test_the_grid_is_that_of_the_thesis(
    size: tuple[int, int], tile: int, stride: int, counts: tuple[int, int]
) -> None:
    rows, columns = counts
    xy = training_tiles(np.full(size, 200, np.uint8), tile=tile, stride=stride)
    expected = [(stride * i, stride * j) for j in range(rows) for i in range(columns)]
    assert [tuple(corner) for corner in xy.tolist()] == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_tile_is_dropped_when_its_mean_grey_is_not_above_31(dtype: type, channels: int) -> None:
    full = np.iinfo(dtype).max
    board = np.full((20, 50, channels), full // 255 * 31, dtype).squeeze()
    assert len(training_tiles(board, tile=10, stride=10)) == 0
    board[5, 25] = full
    assert training_tiles(board, tile=10, stride=10).tolist() == [[20, 0]]


def test_dark_tiles_are_dark_also_when_the_whole_board_is() -> None:
    """16-bit values that use a small part of the range are not stretched to it."""
    board = noise(64, 64).astype(np.uint16)
    assert len(training_tiles(board, tile=32, stride=32)) == 0
    assert len(training_tiles(board * 257, tile=32, stride=32)) == 4


def test_tiles_that_touch_a_label_are_dropped() -> None:
    board = np.full((40, 40), 200, np.uint8)
    kept = training_tiles(
        board, tile=10, stride=10, labels=[Rect(9, 9, 2, 1), Rect(30, 30, 10, 10)]
    )
    dropped = {(0, 0), (10, 0), (30, 30)}
    assert {tuple(corner) for corner in kept.tolist()} == {
        (x, y) for x in range(0, 40, 10) for y in range(0, 40, 10)
    } - dropped


def test_a_board_smaller_than_a_tile_is_an_error() -> None:
    with pytest.raises(ImageTooSmallError):
        training_tiles(np.full((223, 300), 200, np.uint8), tile=224, stride=112)


def test_a_board_is_loaded_as_it_is(tmp_path: Path) -> None:
    board = noise(30, 40)
    np.testing.assert_array_equal(load_board(stored(tmp_path / "a.png", board)), board)


def test_labels_are_scaled_with_the_board(tmp_path: Path) -> None:
    sample = stored(tmp_path / "a.png", noise(80, 120), Annotation(labels=(Rect(60, 40, 1, 1),)))
    image, xy = load_training_board(sample, tile=10, stride=10, resize=(40, 60))
    assert image.shape == (40, 60, 3)
    assert len(xy) == 24 - 1
    assert [30, 20] not in xy.tolist()


@pytest.mark.parametrize("blocks", [None, Blocks(8, 0)])
def test_a_board_too_small_once_resized_is_told_in_both_sizes(
    tmp_path: Path, blocks: Blocks | None
) -> None:
    sample = stored(tmp_path / "a.png", noise(30, 300))
    with pytest.raises(
        ImageTooSmallError,
        match=r"^the image is 30 x 300 px, brought to 15 x 150 px \(height x width\) by resize "
        r"0\.5, smaller than one tile of 16 x 16 px$",
    ):
        load_training_board(sample, tile=16, stride=8, resize=0.5, blocks=blocks)


def test_a_label_outside_the_board_is_an_error(tmp_path: Path) -> None:
    sample = stored(tmp_path / "a.png", noise(80, 120), Annotation(labels=(Rect(60, 40, 61, 1),)))
    with pytest.raises(AnnotationError, match=r"a\.png: labels\[0\]"):
        load_training_board(sample, tile=10, stride=10)


def expected_statistics(
    boards: list[np.ndarray], tile: int, stride: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """All tiles stacked, grey three times, in units of full scale."""
    tiles = []
    for board in boards:
        scaled = board / np.iinfo(board.dtype).max
        colour = scaled if scaled.ndim == 3 else np.repeat(scaled[..., None], 3, axis=2)
        tiles += [
            colour[y : y + tile, x : x + tile]
            for x, y in training_tiles(board, tile=tile, stride=stride)
        ]
    stacked = np.stack(tiles)
    return stacked.mean(axis=(0, 1, 2)), stacked.std(axis=(0, 1, 2)), len(tiles)


def test_statistics_are_those_of_all_tiles_stacked(tmp_path: Path) -> None:
    boards = [
        noise(70, 90),
        noise(64, 64, seed=6, channels=1),
        noise(80, 66, seed=7).astype(np.uint16) * 257,
    ]
    boards[0][:40, :40] = 3  # a dark corner: some of its tiles are dropped
    samples = [stored(tmp_path / f"{index}.png", board) for index, board in enumerate(boards)]
    steps: list[int] = []
    mean, std, n_tiles = tile_statistics(samples, tile=32, stride=16, progress=steps.append)
    expected_mean, expected_std, expected_n = expected_statistics(boards, 32, 16)
    assert n_tiles == expected_n
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-12)
    np.testing.assert_allclose(std, expected_std, rtol=1e-12)
    assert steps == [1, 1, 1]


def test_statistics_need_tiles(tmp_path: Path) -> None:
    black = stored(tmp_path / "black.png", np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(DatasetError, match="no tile of the 1 training images passes the filters"):
        tile_statistics([black], tile=32, stride=32)
    plain = stored(tmp_path / "plain.png", np.full((64, 64, 3), 128, np.uint8))
    with pytest.raises(DatasetError, match="one single value"):
        tile_statistics([plain], tile=32, stride=32)


def test_the_presets_are_the_published_ones() -> None:
    assert NORMALISATIONS["white"] == ((0.5815, 0.5940, 0.5015), (0.2716, 0.2812, 0.2710))
    assert NORMALISATIONS["white-with-edges"] == ((0.6384, 0.6557, 0.55), (0.2846, 0.2897, 0.2772))
    assert NORMALISATIONS["imagenet"] == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
