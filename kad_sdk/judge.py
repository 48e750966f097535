"""The rules in force, applied to what the stages found on a board."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from kad_sdk._native import map_peak
from kad_sdk.annotations import Annotation
from kad_sdk.dataset import tile_labels
from kad_sdk.errors import AnnotationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kad_sdk.rules import Rules
    from kad_sdk.scoring import BoardScores

__all__ = ["judge_board", "told_tiles"]


def judge_board(
    scores: BoardScores,
    rules: Rules,
    *,
    size: tuple[int, int],
    annotation: Annotation | None,
    tile: int,
    by_map: bool,
) -> BoardScores:
    """Give what was found as the rules let it be seen; the same object where there are none.

    Parameters
    ----------
    scores
        What the stages found.
    rules
        In px of the image.
    size
        (height, width) of the image, px.
    annotation
        Its active areas, px of the image.
    tile
        Side of a tile, px.
    by_map
        Whether the map's peak decides the board, or its largest tile.

    Raises
    ------
    AnnotationError
        Nothing of what decides the board is left to judge.
    """
    if not rules:
        return scores
    areas = annotation or Annotation()
    if scores.frame != size:
        areas = areas.resized(size, scores.frame)
    placed = rules.placed(size, scores.frame, areas.borders)
    factors = placed.judge.tiles(scores.xy, tile)
    board_map = None if scores.map is None else placed.judge.map(scores.map)
    # In windows the one does not tell the other: labels blank the map inside of tiles, and it has
    # values outside of all tiles.
    left = bool(factors.any())
    if by_map and board_map is not None:
        left = not np.isnan(map_peak(board_map))
    if not left:
        raise AnnotationError(
            f"the rules set on site leave nothing to judge of this board of {size[1]} x {size[0]} "
            "px: see them with kad rules, and give back a part of the ignored places or of the "
            "edge margin"
        )
    return dataclasses.replace(
        scores, map=board_map, factors=factors, min_area_px=placed.min_area_px
    )


def told_tiles(
    mask: NDArray[np.bool_], judged: NDArray[np.bool_], xy: NDArray[np.integer], tile: int
) -> NDArray[np.bool_]:
    """Say which tiles the ground truth tells good or defective ones; returns (n,).

    Not those with defects only where nothing is judged: the rules call them good, their scores may
    well not.

    Parameters
    ----------
    mask, judged
        (H, W), where a defect is marked, and where the map has a value.
    xy
        (n, 2) top-left corners, px.
    tile
        Side, px.
    """
    return np.asarray(tile_labels(mask, xy, tile) == tile_labels(mask & judged, xy, tile))
