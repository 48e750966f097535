"""A board from its file to written results: what kad does, and what the thesis' path does.

Each is called once a round and gives a :class:`Round`. The thesis' path scores a part of the tiles,
evenly spread, and its time and energy are scaled to all of them: tiles are independent.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kad_bench.energy import EnergyMeter
from kad_bench.thesis_path import BoardMap, spread
from kad_bench.tile_paths import Found, check_found
from kad_sdk._native import plan_tiles
from kad_sdk.annotations import Annotation
from kad_sdk.cli_score import Job, Outputs, score_job
from kad_sdk.defaults import PICTURE_SIDE
from kad_sdk.images import read_image
from kad_sdk.render import map_png
from kad_sdk.scoring import Stopwatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kad_bench.tile_paths import ThesisTiles
    from kad_sdk.detector import Detector
    from kad_sdk.manifest import Preprocessing

__all__ = ["BoardFile", "KadBoard", "Round", "ThesisBoard", "check_board"]

_ONCE = ("read", "average", "encode")  # stages of the thesis' path that a board has once


@dataclass(frozen=True)
class Round:
    """What one board took, and what was found: scores (n,) and, of whole boards, the map (1, H, W).

    The scores are those of the tiles that both engines score.
    """

    stages_s: dict[str, float]
    energy_j: dict[str, float]
    found: Found

    @property
    def seconds(self) -> float:
        """Of the whole board."""
        return sum(self.stages_s.values())


@dataclass(frozen=True)
class BoardFile:
    """A board's image, and the tiles of it that both engines score.

    Attributes
    ----------
    path, annotation
        The file, and what of it is inspected.
    size : (height, width)
        Px.
    side : int
        Of a tile, px.
    xy : (T, 2) int32
        Corners of all tiles that kad scores.
    chosen : (n,) int64
        Those of them that the thesis' path scores.
    """

    path: Path
    annotation: Annotation | None
    size: tuple[int, int]
    side: int
    xy: NDArray[np.int32]
    chosen: NDArray[np.int64]

    @staticmethod
    def plan(
        path: Path, annotation: Annotation | None, settings: Preprocessing, n_tiles: int | None
    ) -> BoardFile:
        """Plan the tiles of an image file; `n_tiles` for the thesis' path, None: all."""
        height, width = read_image(path).shape[:2]
        given = annotation or Annotation()
        xy = plan_tiles(
            *(height, width),
            tile=settings.tile,
            stride=settings.stride,
            borders=given.borders,
            labels=given.labels,
        )
        chosen = spread(n_tiles, len(xy))
        return BoardFile(path, annotation, (height, width), settings.tile, xy, chosen)

    @property
    def whole(self) -> bool:
        """Whether both engines score all tiles."""
        return len(self.chosen) == len(self.xy)

    @property
    def megapixels(self) -> float:
        """Of the image."""
        return self.size[0] * self.size[1] / 1e6

    def found(self, scores: NDArray[np.float32], board_map: NDArray[np.float32]) -> Found:
        """Give what is compared: the map too, where both engines have all of it."""
        return Found(scores, np.nan_to_num(board_map)[None] if self.whole else None)


class KadBoard:
    """kad, as ``kad score`` does it: overlay, 16-bit map and JSON on disk."""

    def __init__(self, detector: Detector, board: BoardFile, folder: Path) -> None:
        self._detector, self._board = detector, board
        self._outputs = Outputs(
            folder, maps=True, npy=False, hot=False, overlay=True, heat=False, max_side=PICTURE_SIDE
        )
        detector.score(np.ascontiguousarray(read_image(board.path)[:600, :600]))  # warms up

    def __call__(self) -> Round:
        """Score the board."""
        meter = EnergyMeter()
        board, start = self._board, time.perf_counter()
        job = Job(board.path, Path(board.path.stem), board.annotation)
        result, timings = score_job(self._detector, job, self._outputs)
        seconds = time.perf_counter() - start
        timings.pop("total")
        stages = {stage: ms / 1e3 for stage, ms in timings.items()}
        stages["other"] = max(0.0, seconds - sum(stages.values()))
        tiles = {(tile.x, tile.y): tile.score for tile in result.tiles}
        scores = [tiles[int(x), int(y)] for x, y in board.xy[board.chosen]]
        found = board.found(np.array(scores, np.float32), result.need_map())
        return Round(stages, meter.read_j(), found)


class ThesisBoard:
    """The thesis' path on the chosen tiles: board read, tiles scored, maps averaged and encoded."""

    def __init__(self, thesis: ThesisTiles, board: BoardFile) -> None:
        self._thesis, self._board = thesis, board

    def __call__(self) -> Round:
        """Score the tiles."""
        meter = EnergyMeter()
        board, side, watch = self._board, self._board.side, Stopwatch()
        with watch.stage("read"):
            image = read_image(board.path)
        board_map = BoardMap(*board.size)
        scores = []
        for x, y in board.xy[board.chosen]:
            tile = self._thesis.path.score(image[y : y + side, x : x + side], watch)
            with watch.stage("map"):
                board_map.add(x, y, tile.map)
            scores.append(tile.score)
        with watch.stage("average"):
            mean = board_map.map()
        with watch.stage("encode"):
            map_png(mean, high=float(np.nanmax(mean)))
        found = board.found(np.array(scores, np.float32), mean)
        return self._scaled(watch, meter.read_j(), found)

    def _scaled(self, watch: Stopwatch, energy_j: dict[str, float], found: Found) -> Round:
        """Scale what was spent on a part of the tiles to all of them."""
        scale = len(self._board.xy) / len(self._board.chosen)
        spent = {stage: ms / 1e3 for stage, ms in watch.ms.items()}
        stages = {stage: s * (1 if stage in _ONCE else scale) for stage, s in spent.items()}
        share = sum(stages.values()) / sum(spent.values())
        return Round(stages, {name: j * share for name, j in energy_j.items()}, found)


def check_board(engine: str, right: Found, found: Found, tolerance: float) -> dict[str, float]:
    """Compare tile scores (n,) and, of whole boards, the one map (1, H, W).

    Raises
    ------
    WrongAnswerError
        They differ.
    """
    tiles = (right._replace(maps=None), found._replace(maps=None))
    worst = check_found(engine, *tiles, tolerance=tolerance)
    if right.maps is not None and found.maps is not None:
        peaks = [Found(np.array([maps.max()]), maps) for maps in (right.maps, found.maps)]
        both = check_found(engine, *peaks, tolerance=tolerance)
        worst["map difference"] = both["map difference"]
    return worst
