"""Look at every image before anything is computed: tiles, sizes, statistics; bad ones fail here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kad_export.data import NORMALISATIONS, load_training_board, tile_statistics
from kad_export.features import BoardTiles
from kad_sdk._native import default_threads
from kad_sdk.dataset import read_mask
from kad_sdk.errors import DatasetError, ImageTooSmallError
from kad_sdk.images import read_image
from kad_sdk.manifest import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kad_export.cutpaste.options import TrainingOptions
    from kad_export.data import Blocks
    from kad_export.options import PatchCoreOptions
    from kad_export.report import Silent
    from kad_sdk.dataset import Sample

__all__ = ["measure_normalisation", "survey_boards"]


def survey_boards(
    learn: Sequence[Sample],
    judge: Sequence[Sample],
    options: PatchCoreOptions,
    console: Silent,
    *,
    blocks: Blocks | None = None,
    fixed: str | None = None,
) -> list[BoardTiles]:
    """Plan the training tiles of every board, and check the boards that set the thresholds.

    Parameters
    ----------
    learn, judge, options, console
        The boards to learn from and those that set the thresholds; how; who is told.
    blocks : Blocks, optional
        Of boards that are scored in windows.
    fixed : str, optional
        Where tile and resize are not the caller's to choose: what they are, and what to do about
        boards that do not suit them.

    Returns
    -------
    list of BoardTiles
        Of the boards to learn from that have a tile.

    Raises
    ------
    ImageReadError, AnnotationError
        An image or a mask cannot be read, a rectangle leaves its image.
    ImageTooSmallError
        An image is smaller than one tile.
    DatasetError
        No tile passes the filters.
    """
    boards = []
    with (
        console.step("images"),
        console.progress("images", len(learn) + len(judge), "boards") as bar,
    ):
        for sample in learn:
            boards.append(_plan(sample, options, blocks, fixed))
            bar.advance()
        for sample in judge:
            _plan(sample, options, blocks, fixed)
            if sample.mask_path:
                read_mask(sample, *read_image(sample.path).shape[:2])
            bar.advance()
    used = [board for board in boards if len(board.xy)]
    if not used:
        raise DatasetError(
            f"none of the tiles of the {len(learn)} training images passes the filters: they are "
            "too dark (a mean grey level above 31 of 255 is expected), touch a label, or are "
            "larger than the area to inspect; check the images' exposure and annotations.json"
            + (f". {fixed}" if fixed else ", or use a smaller --tile")
        )
    return used


def _plan(
    sample: Sample, options: PatchCoreOptions, blocks: Blocks | None, fixed: str | None
) -> BoardTiles:
    try:
        image, xy = load_training_board(
            sample,
            tile=options.tile,
            stride=options.train_stride or options.stride,
            resize=options.resize,
            denoise=None,  # it hardly moves a tile's mean, and takes longest of all
            threads=options.threads or default_threads(),
            blocks=blocks,
        )
    except ImageTooSmallError as error:
        advice = fixed or "Bring all boards to one size with --resize, or use a smaller --tile"
        raise ImageTooSmallError(f"{sample.path}: {error}. {advice}") from error
    return BoardTiles(sample, xy, *image.shape[:2])


def measure_normalisation(
    samples: Sequence[Sample],
    options: PatchCoreOptions | TrainingOptions,
    console: Silent,
    *,
    stride: int | None = None,
) -> Preprocessing:
    """Settle mean and standard deviation, and with them how boards become tiles.

    `stride`, px, is that of the tiles whose statistics are taken; None: that of training.
    """
    train_stride = options.train_stride or options.stride
    if options.normalisation != "dataset":
        mean, std = NORMALISATIONS[options.normalisation]
    else:
        with (
            console.step("statistics"),
            console.progress("statistics", len(samples), "boards") as bar,
        ):
            mean, std, _ = tile_statistics(
                samples,
                tile=options.tile,
                stride=stride or train_stride,
                resize=options.resize,
                denoise=options.denoise,
                threads=options.threads or default_threads(),
                progress=bar.advance,
            )
    return Preprocessing(
        tile=options.tile,
        stride=options.stride,
        train_stride=train_stride,
        resize=options.resize,
        mean=tuple(float(np.float32(v)) for v in mean),
        std=tuple(float(np.float32(v)) for v in std),
        normalisation=options.normalisation,
        denoise=options.denoise,
    )
