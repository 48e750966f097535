"""What a training learns from and is judged by: the boards, their tiles, and their digest."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kad_export.cutpaste.data import TileSet, Window
from kad_export.describe import describe_training
from kad_export.errors import TrainingError
from kad_export.holdout import split_board, split_holdout
from kad_export.survey import measure_normalisation, survey_boards

if TYPE_CHECKING:
    from kad_export.cutpaste.options import TrainingOptions
    from kad_export.report import Silent
    from kad_export.weights import Weights
    from kad_sdk.dataset import Dataset, Sample
    from kad_sdk.manifest import Preprocessing

__all__ = ["MIN_TILES", "Material", "prepare", "split_boards"]

MIN_TILES = 16
"""Fewest tiles to learn from, and fewest to be judged by."""

NOT_COMPARED = (
    *("resume", "device", "memory_bytes", "workers", "threads", "checkpoint_seconds"),
    "weights",  # by digest instead
)
"""Options that may be others when a run goes on."""


@dataclass(frozen=True)
class Material:
    """Boards, surveyed and split.

    Attributes
    ----------
    options : TrainingOptions
    dataset : Dataset
    learn, held : TileSet
        Tiles to learn from, and those held out; no pixel is in both.
    window : Window
        How many boards are decoded at a time.
    preprocessing : Preprocessing
        How boards become tiles.
    """

    options: TrainingOptions
    dataset: Dataset
    learn: TileSet
    held: TileSet
    window: Window
    preprocessing: Preprocessing

    def settings(self, weights: Weights) -> dict[str, Any]:
        """Give all that decides what the training computes, as JSON values.

        Images and weights are named by digests, so that neither moving nor renaming their folder
        makes another training of it.
        """
        given = dataclasses.asdict(self.options)
        kept = {name: value for name, value in given.items() if name not in NOT_COMPARED}
        return kept | {
            "weights": {"source": weights.source, "name": weights.name, "sha256": weights.sha256},
            "boards_in_memory": self.window.boards,
            "mean": self.preprocessing.mean,
            "std": self.preprocessing.std,
            "learn": dataclasses.asdict(describe_training(self.dataset, self.learn.boards)),
            "held_out": dataclasses.asdict(describe_training(self.dataset, self.held.boards)),
        }


def prepare(dataset: Dataset, options: TrainingOptions, console: Silent) -> Material:
    """Look at every training board, split them, plan their tiles, measure their statistics.

    Raises
    ------
    TrainingError
        Too few tiles to learn from or to judge by.
    MemoryBudgetError
        Not even three boards fit into memory.
    KadError
        A board cannot be read or does not fit its annotation.
    """
    learn, held = split_boards(dataset, options)
    tiles = _plan(learn, options, console, "tiles to learn from", "smaller")
    judged = _plan(held, options, console, "tiles held out to judge by", "larger")
    preprocessing = measure_normalisation(learn, options, console)
    window = Window.within(options.memory_bytes, (tiles, judged))
    return Material(options, dataset, tiles, judged, window, preprocessing)


def split_boards(dataset: Dataset, options: TrainingOptions) -> tuple[list[Sample], list[Sample]]:
    """Split the training boards into those to learn from and those held out.

    Whole boards are held out where there are several; of a single one, its far end.

    Raises
    ------
    CalibrationError
        The only board is too small to be split.
    """
    if len(dataset.train) > 1:
        return split_holdout(dataset.train, options.holdout, options.seed)
    first, second = split_board(dataset.train[0], options.holdout, options.tile, options.resize)
    return [first], [second]


def _plan(
    samples: list[Sample], options: TrainingOptions, console: Silent, what: str, share: str
) -> TileSet:
    tiles = TileSet(survey_boards(samples, [], options, console), options.tile)
    if len(tiles) < MIN_TILES:
        raise TrainingError(
            f"{what}: expected at least {MIN_TILES}, got {len(tiles)} from {len(samples)} boards: "
            "add normal boards, lower --train-stride "
            f"({options.train_stride or options.stride} px), or use a smaller --tile or a {share} "
            f"--holdout ({options.holdout:g})"
        )
    return tiles
