"""Training boards: loaded as scoring loads them, cut into tiles, their colours measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from kad_sdk._native import plan_tiles
from kad_sdk.annotations import Annotation
from kad_sdk.errors import DatasetError, ImageTooSmallError
from kad_sdk.images import full_scale, read_image
from kad_sdk.manifest import Preprocessing
from kad_sdk.prepare import bright_tiles, frame_size, prepare_image, too_small

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kad_sdk.annotations import Rect
    from kad_sdk.dataset import Sample
    from kad_sdk.manifest import Denoise

    Triple = tuple[float, float, float]

__all__ = [
    "NORMALISATIONS",
    "Blocks",
    "Preprocessing",
    "load_board",
    "load_training_board",
    "tile_statistics",
    "training_tiles",
]


@dataclass(frozen=True)
class Blocks:
    """What training takes of boards that are scored in windows; px.

    Attributes
    ----------
    side : int
        Of a block of patches.
    label_margin : int
        Stickers are so much larger to each side.
    """

    side: int
    label_margin: int


NORMALISATIONS: dict[str, tuple[Triple, Triple]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "white": ((0.5815, 0.5940, 0.5015), (0.2716, 0.2812, 0.2710)),
    "white-with-edges": ((0.6384, 0.6557, 0.5500), (0.2846, 0.2897, 0.2772)),
}
"""Published (mean, std), RGB in units of full scale: ImageNet's, and thesis 5.2."""


def load_board(
    sample: Sample,
    *,
    resize: tuple[int, int] | float | None = None,
    denoise: Denoise | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Read a board and prepare it exactly as scoring does.

    Parameters
    ----------
    sample : Sample
    resize : (height, width) or factor, optional
        Bring the board to this size first; None keeps its own.
    denoise : Denoise, optional
    threads : int

    Returns
    -------
    ndarray
        (H, W, 3) RGB or (H, W) grey, uint8 or uint16.
    """
    return prepare_image(read_image(sample.path), resize=resize, denoise=denoise, threads=threads)


def load_training_board(
    sample: Sample,
    *,
    tile: int,
    stride: int,
    resize: tuple[int, int] | float | None = None,
    denoise: Denoise | None = None,
    threads: int = 1,
    blocks: Blocks | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Load a board and plan its training tiles; stickers are scaled along with the board.

    Parameters
    ----------
    sample, tile, stride, resize, denoise, threads
        As for :func:`training_tiles` and :func:`load_board`.
    blocks : Blocks, optional
        The board is scored in windows: blocks of patches take the place of tiles. They cover all
        of the active areas, the far edges too.

    Returns
    -------
    image : ndarray
        As `load_board` gives it.
    xy : ndarray
        (n, 2) int32, top-left corners in that image.

    Raises
    ------
    AnnotationError
        A sticker lies outside the board.
    ImageTooSmallError
        The board is smaller than one tile.
    """
    image = read_image(sample.path)
    height, width = image.shape[:2]
    annotation = sample.annotation or Annotation()
    annotation.check(height, width, sample.name)
    if resize is not None:
        annotation = annotation.resized((height, width), frame_size((height, width), resize))
    image = prepare_image(image, resize=resize, denoise=denoise, threads=threads)
    try:
        if blocks is not None:
            return image, _training_blocks(image, annotation, tile, stride, blocks)
        return image, training_tiles(image, tile=tile, stride=stride, labels=annotation.labels)
    except ImageTooSmallError as error:
        raise ImageTooSmallError(too_small(error, (height, width), resize, tile)) from error


def _training_blocks(
    image: np.ndarray, annotation: Annotation, tile: int, stride: int, blocks: Blocks
) -> np.ndarray:
    """Plan blocks (n, 2): dark ones are those in the middle of a dark tile."""
    height, width = image.shape[:2]
    if tile > min(height, width):
        raise ImageTooSmallError(f"the image is {height} x {width} px, one tile {tile} x {tile}")
    xy = plan_tiles(
        height,
        width,
        tile=blocks.side,
        stride=stride,
        borders=annotation.borders,
        labels=[_grown(label, blocks.label_margin, height, width) for label in annotation.labels],
    )
    beside = (tile - blocks.side) // 2
    around = np.clip(xy - beside, 0, [width - tile, height - tile])
    return xy[bright_tiles(image, around, tile)]  # (n, 2)


def _grown(label: Rect, margin: int, height: int, width: int) -> tuple[int, int, int, int]:
    left, top = max(label.x - margin, 0), max(label.y - margin, 0)
    right = min(label.x + label.width + margin, width)
    bottom = min(label.y + label.height + margin, height)
    return left, top, right - left, bottom - top


def training_tiles(
    image: np.ndarray, *, tile: int, stride: int, labels: Sequence[Rect] = ()
) -> np.ndarray:
    """Plan the training tiles of a board: the plain grid, without dark tiles and stickers.

    The grid has ``floor((W - t) / s) + 1`` columns and likewise rows over the whole image (thesis
    3.2.1); what keeps the black surround out is the mean grey level, which has to be above 31 of
    255, whatever the dtype.

    Parameters
    ----------
    image : ndarray
        (H, W, 3) RGB or (H, W) grey, uint8 or uint16.
    tile, stride : int
        px.
    labels : sequence of Rect
        Tiles that intersect one of these are dropped.

    Returns
    -------
    ndarray
        (n, 2) int32 top-left corners (x, y), row by row; n may be 0.
    """
    height, width = image.shape[:2]
    xy = plan_tiles(height, width, tile=tile, stride=stride, labels=labels, cover_edges=False)
    return xy[bright_tiles(image, xy, tile)]  # (n, 2)


def tile_statistics(
    samples: Sequence[Sample],
    *,
    tile: int,
    stride: int,
    resize: tuple[int, int] | float | None = None,
    denoise: Denoise | None = None,
    threads: int = 1,
    progress: Callable[[int], object] | None = None,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Measure mean and standard deviation over all training tiles, in one pass over the boards.

    As in thesis 5.2 a pixel counts once for every tile it lies in. One board is in memory at a
    time; the sums are float64.

    Parameters
    ----------
    samples : sequence of Sample
    tile, stride : int
        px; the thesis uses 224 and 112.
    resize, denoise, threads
        As for `load_board`.
    progress : callable, optional
        Called with 1 after each board.

    Returns
    -------
    mean, std : ndarray
        (3,) float64, RGB in units of full scale; a grey board counts for all three.
    n_tiles : int

    Raises
    ------
    DatasetError
        No tile passes the filters, or the tiles are all of one value.
    """
    sums, squares, n_tiles = np.zeros(3), np.zeros(3), 0
    for sample in samples:
        image, xy = load_training_board(
            sample, tile=tile, stride=stride, resize=resize, denoise=denoise, threads=threads
        )
        for x, y in xy:
            mean, std = cv2.meanStdDev(image[y : y + tile, x : x + tile])  # (C, 1) float64 each
            mean, std = mean[:, 0] / full_scale(image), std[:, 0] / full_scale(image)
            sums += mean
            squares += std**2 + mean**2
        n_tiles += len(xy)
        if progress is not None:
            progress(1)
    if n_tiles == 0:
        raise DatasetError(
            f"no tile of the {len(samples)} training images passes the filters (mean grey above 31 "
            "of 255, no label touched); check the images' exposure and the annotations"
        )
    mean = sums / n_tiles
    std = np.sqrt(np.maximum(squares / n_tiles - mean**2, 0))
    if not std.all():
        raise DatasetError(
            f"the {n_tiles} training tiles have a channel of one single value {mean.round(4)}: "
            "nothing can be learnt from it; check the images"
        )
    return mean, std, n_tiles
