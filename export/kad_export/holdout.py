"""Boards whose tiles set the thresholds: held out of training, or labelled ones of the test split.

The same tiles give the golden tiles of an artifact: real crops the bank has not seen.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kad_sdk.annotations import Annotation, Rect
from kad_sdk.dataset import read_mask, resize_mask, tile_labels
from kad_sdk.errors import CalibrationError, InvalidArgumentError
from kad_sdk.images import read_image
from kad_sdk.prepare import bright_tiles, frame_size, prepare_image
from kad_sdk.thresholds import TileScores, tile_peaks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kad_export.report import Silent
    from kad_sdk.dataset import Sample
    from kad_sdk.manifest import Preprocessing
    from kad_sdk.scoring import BoardScorer
    from kad_sdk.thresholds import Calibration

__all__ = [
    "ScoredTile",
    "crop_tiles",
    "is_clear",
    "pick_golden",
    "score_boards",
    "split_board",
    "split_holdout",
]

N_GOLDEN = 8


@dataclass(frozen=True)
class ScoredTile:
    """A tile whose score is known: where it lies and what it is."""

    sample: Sample
    x: int
    y: int
    score: float
    defect: bool


def split_holdout(
    samples: Sequence[Sample], share: float, seed: int
) -> tuple[list[Sample], list[Sample]]:
    """Split training images at random into those to learn from and those held out.

    Parameters
    ----------
    samples : sequence of Sample
        Two or more.
    share : float
        Share to hold out, between 0 and 1; at least one image, and never all.
    seed : int
        Seed of the draw.

    Returns
    -------
    kept, held : list of Sample
        Both in the order given.
    """
    if not 0 < share < 1:
        raise InvalidArgumentError(f"holdout must lie between 0 and 1, got {share}: use 0.1")
    n_held = min(max(1, round(share * len(samples))), len(samples) - 1)
    held = set(np.random.default_rng(seed).permutation(len(samples))[:n_held].tolist())
    return (
        [sample for i, sample in enumerate(samples) if i not in held],
        [sample for i, sample in enumerate(samples) if i in held],
    )


def split_board(
    sample: Sample, share: float, tile: int, resize: tuple[int, int] | float | None = None
) -> tuple[Sample, Sample]:
    """Split the only training image in two: a part to learn from, and its far end held out.

    The cut runs across the longer side. Both parts are the same image; to each, the other one is a
    label, which no tile may touch.

    Raises
    ------
    CalibrationError
        The image is too small to give a tile to both parts.
    """
    height, width = read_image(sample.path).shape[:2]
    axis = int(width > height)
    length, working_length = (height, width)[axis], frame_size((height, width), resize)[axis]
    margin = 0 if resize is None else 2  # px, lost where a label grows to whole pixels
    held = max(tile + margin, round(share * working_length))
    if working_length - held < tile + margin:
        raise CalibrationError(
            f"{sample.name} is the only training image, and it is too small to hold tiles of "
            f"{tile} px out of it: add normal images, or calibrate on labelled test images with "
            "--threshold f1"
        )
    cut = length - round(held * length / working_length)
    near = Rect(0, 0, width, cut) if axis == 0 else Rect(0, 0, cut, height)
    far = Rect(0, cut, width, height - cut) if axis == 0 else Rect(cut, 0, width - cut, height)
    given = sample.annotation or Annotation()
    first, second = (
        dataclasses.replace(sample, annotation=Annotation(given.borders, (*given.labels, other)))
        for other in (far, near)
    )
    return first, second


def score_boards(
    samples: Sequence[Sample],
    scorer: BoardScorer,
    preprocessing: Preprocessing,
    console: Silent,
) -> tuple[TileScores, list[ScoredTile]]:
    """Score boards and label their tiles by ground truth.

    Tiles as dark as those that training leaves out are left out here too: the bank knows no black
    surround, and a threshold that spared it would spare everything.

    Returns
    -------
    TileScores
        What thresholds are calibrated on.
    list of ScoredTile
        The same tiles, and where they lie.
    """
    tiles, places, dark, tile = TileScores(), [], 0, preprocessing.tile
    with console.progress("threshold", len(samples), "boards") as bar:
        for sample in samples:
            image = read_image(sample.path)
            board = scorer.score(image, sample.annotation)
            # Denoising hardly moves a tile's mean, and takes longest of all: spare it here.
            plain = prepare_image(image, resize=preprocessing.resize, denoise=None)
            keep = bright_tiles(plain, board.xy, tile)
            dark += int((~keep).sum())
            xy, score = board.xy[keep], board.scores[keep]
            mask = resize_mask(read_mask(sample, *image.shape[:2]), board.map.shape)
            defect = tile_labels(mask, xy, tile).astype(bool)
            tiles.add(score, tile_peaks(scorer.map_of(board, keep), xy, tile), defect)
            places += [
                ScoredTile(sample, int(x), int(y), float(s), bool(d))
                for (x, y), s, d in zip(xy, score, defect, strict=True)
            ]
            bar.advance()
    if dark:
        console.warn(
            f"{dark:,} tiles of the boards used for the threshold are as dark as the surround that "
            "training leaves out, and were left out; in scoring they would count as anomalous. "
            "Name the boards' active areas in annotations.json"
        )
    return tiles, places


def pick_golden(tiles: Sequence[ScoredTile], calibration: Calibration) -> list[ScoredTile]:
    """Choose the golden tiles: up to eight, half of them defects where there are any.

    They are spread evenly over the scores, from the lowest to the highest. Tiles within 1 % of the
    threshold are left out: another processor's rounding may decide those differently.
    """
    clear = [t for t in tiles if is_clear(np.array(t.score), calibration.tile)]
    defects = _spread([t for t in clear if t.defect], N_GOLDEN // 2)
    normals = _spread([t for t in clear if not t.defect], N_GOLDEN - len(defects))
    if not normals + defects:
        raise CalibrationError(
            f"no tile's score lies clear of the threshold {calibration.tile:g}: the images hold "
            "nothing that tells tiles apart; check the images and the weights"
        )
    return normals + defects


def is_clear(score: np.ndarray, tau: float) -> np.ndarray:
    """Tell which tile scores are farther than 1 % from the threshold."""
    return np.abs(score - tau) > 0.01 * tau


def crop_tiles(
    tiles: Sequence[ScoredTile], load: Callable[[Sample], np.ndarray], tile: int
) -> np.ndarray:
    """Cut tiles out of their boards, as RGB in 8 bits: (n, t, t, 3) uint8."""
    crops = np.empty((len(tiles), tile, tile, 3), np.uint8)
    for name in {place.sample.name for place in tiles}:
        here = [i for i, place in enumerate(tiles) if place.sample.name == name]
        image = load(tiles[here[0]].sample)
        for i in here:
            crop = image[tiles[i].y : tiles[i].y + tile, tiles[i].x : tiles[i].x + tile]
            crops[i] = _rgb8(crop)
    return crops


def _rgb8(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint16:
        image = (image.astype(np.uint32) + 128) // 257  # 65535 / 255
    return np.broadcast_to(image.reshape(*image.shape[:2], -1), (*image.shape[:2], 3))


def _spread(tiles: list[ScoredTile], n: int) -> list[ScoredTile]:
    """Up to ``n`` tiles at even steps of rank, the lowest and the highest score included."""
    ranked = sorted(tiles, key=lambda t: (t.score, t.sample.name, t.y, t.x))
    if len(ranked) <= n:
        return ranked
    return [ranked[i] for i in np.linspace(0, len(ranked) - 1, n).round().astype(int)]
