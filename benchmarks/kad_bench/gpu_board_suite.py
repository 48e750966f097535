"""Whole boards on a GPU: kad's path against the thesis' on the same GPU, from pixels to the map.

The network runs in PyTorch on both sides, without TF32: ONNX Runtime's CUDA provider is not needed,
and the table says so. kad's tile scores are compared with those of the thesis' path with distances
in float64 on the tiles that it scores. The thesis' path scores a part of the tiles, evenly spread,
and its time is scaled to all of them: tiles are independent. The stages' times are the GPU's own,
but for ``upload`` (what the host does for it) and ``map``, which the host makes while the GPU goes
on: they add up to more than the time of the board.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kad_bench.answers import WrongAnswerError
from kad_bench.gpu_boards import BoardModel, BoardSpec, read_boards
from kad_bench.gpu_parts import TORCH_DEVICE, gather, seconds_of, wait
from kad_bench.gpu_parts import gpu_table as table
from kad_bench.measure import summarise
from kad_bench.thesis_path import THESIS, BoardMap, ThesisPatchCore, spread
from kad_bench.torch_network import TorchNetwork
from kad_sdk._native import plan_tiles
from kad_sdk.cuda import CudaPatchCoreScorer, open_batches
from kad_sdk.scoring import Stopwatch

if TYPE_CHECKING:
    from kad_bench.suites import Settings
    from kad_sdk.scoring import BoardScores

__all__ = ["PROFILES", "run", "table"]

KAD, IN_A_ROW = "kad", "kad, boards in a row"
HALF = "kad, fp16 network, own bank"
TOLERANCE = 2e-3  # of a tile's score: batches of other sizes take other convolution algorithms


@dataclass(frozen=True)
class Profile:
    """What is measured: boards, tiles at a time, rounds, seconds in all.

    A board that takes longer than `slow_s` is scored once, and only by the first engine.
    """

    boards: tuple[BoardSpec, ...]
    batch: int
    rounds: int
    limit_s: float
    slow_s: float = 3.0


_BOARDS = (
    BoardSpec("resnet18", 10_000, thesis_tiles=64),
    BoardSpec("resnet50", 10_000, thesis_tiles=64),
    BoardSpec("resnet50", 72_500, thesis_tiles=32),
)
_SMALL = BoardSpec("resnet18", 40, 2, (512, 512), 16, 496, ("layer1",))
PROFILES = {
    "smoke": Profile((_SMALL,), 3, 1, 900, slow_s=600),
    "regular": Profile(_BOARDS, 64, 5, 130),
    "full": Profile(_BOARDS, 64, 20, 1_800),
}


def run(settings: Settings) -> dict[str, Any]:
    """Score the profile's boards, each with the network in float32, then in float16."""
    torch.set_num_threads(settings.threads)
    torch.backends.cudnn.benchmark = True  # on both sides
    profile = PROFILES[settings.profile]
    cases = {spec.name: partial(_measure, spec, profile, settings) for spec in profile.boards}
    return gather("gpu_board", cases, settings, profile.limit_s)


@dataclass(frozen=True)
class _Data:
    """What a case is measured on: a board, and another one for banks."""

    spec: BoardSpec
    profile: Profile
    settings: Settings
    normal: np.ndarray
    board: np.ndarray

    def model(self, *, half: bool = False) -> BoardModel:
        return BoardModel.make(self.spec, self.normal, self.settings, half=half)

    def open(self, model: BoardModel, *, half: bool = False) -> CudaPatchCoreScorer:
        batches = open_batches(model, batch=self.profile.batch)
        network = TorchNetwork(model.network, batches, half=half)
        threads = self.settings.threads
        return CudaPatchCoreScorer(network, batches, artifact=model, threads=threads)


def _measure(spec: BoardSpec, profile: Profile, settings: Settings) -> dict[str, Any]:
    normal, board = read_boards(spec.size, settings)
    data = _Data(spec, profile, settings, normal, board)
    model = data.model()
    thesis, right = _thesis(model, spec, board)
    scorer = data.open(model)
    figures, scores = _time(scorer, data)
    chosen = spread(spec.thesis_tiles, len(scores.xy))
    worst = _check(scores.scores[chosen], right)
    engines = {KAD: figures | {"accuracy": {"largest error": worst}}, THESIS: thesis}
    skipped = dict.fromkeys((IN_A_ROW, HALF), f"a board takes more than {profile.slow_s:g} s here")
    if figures["seconds"]["median"] < profile.slow_s:
        skipped = {}
        engines[IN_A_ROW] = _in_a_row(scorer, data)
    scorer.close()
    del scorer
    if not skipped:
        engines[HALF] = _half(data, scores)
    for one in engines.values():
        median = one["seconds"]["median"]
        one["rates"] = {"tiles/s": len(scores.xy) / median, "boards a minute": 60 / median}
    slower = thesis["seconds"]["median"]
    return {
        "case": spec.name,
        "what": _describe(model, spec, len(scores.xy)),
        "unit": "board",
        "tiles": len(scores.xy),
        "thesis_tiles": len(chosen),
        "engines": engines,
        "ratios": {KAD: {THESIS: summarise([slower / figures["seconds"]["median"]])}},
        "skipped": skipped,
    }


def _describe(model: BoardModel, spec: BoardSpec, n_tiles: int) -> str:
    layers, weights = "+".join(spec.layers), model.weights.rsplit("/", 1)[-1]
    return (
        f"{spec.backbone} {layers} in PyTorch on both sides (no ONNX Runtime), no TF32, weights "
        f"{weights}; bank of {spec.rows:,} patches of another board, drawn at random; board "
        f"{spec.size[1]} x {spec.size[0]} px, {n_tiles:,} tiles; from pixels in memory to scores "
        "and map"
    )


def _time(scorer: CudaPatchCoreScorer, data: _Data) -> tuple[dict[str, Any], BoardScores]:
    """Time boards one by one, only one where that is slow; and what was found on the first."""
    found: list[BoardScores] = []

    def score() -> None:
        found.append(scorer.score(data.board))
        found[-1].board.close()

    side = 2 * data.spec.tile
    scorer.score(np.ascontiguousarray(data.board[:side, :side])).board.close()  # compiles
    seconds = seconds_of(score, 1)
    if seconds[0] < data.profile.slow_s:
        seconds = seconds_of(score, data.profile.rounds)
    stages = [one.timings for one in found[-len(seconds) :]]
    mean = {name: float(np.mean([one[name] for one in stages])) / 1e3 for name in stages[0]}
    figures = {"seconds": summarise(seconds), "stages_s": mean, "batch": data.profile.batch}
    return figures, found[0]


def _in_a_row(scorer: CudaPatchCoreScorer, data: _Data) -> dict[str, Any]:
    """Time a row of boards, each sent ahead while the one before is scored; time over boards."""
    boards = [data.board.copy() for _ in range(1 + data.profile.rounds)]

    def score() -> None:
        for i, one in enumerate(boards):
            if i + 1 < len(boards):
                scorer.send_ahead(boards[i + 1])
            scorer.score(one).board.close()

    score()
    seconds = [value / len(boards) for value in seconds_of(score, 2, limit_s=data.profile.slow_s)]
    return {
        "seconds": summarise(seconds),
        "batch": data.profile.batch,
        "notes": f"{len(boards)} boards, the next one uploaded meanwhile",
    }


def _half(data: _Data, exact: BoardScores) -> dict[str, Any]:
    """Time the network in float16, with a bank that it made itself; the search is exact as ever."""
    scorer = data.open(data.model(half=True), half=True)
    figures, scores = _time(scorer, data)
    scorer.close()
    away = np.abs(scores.scores - exact.scores) / exact.scores.max()
    return figures | {
        "accuracy": {"largest error": float(away.max())},
        "notes": "another model: its bank is made with it; error against float32's scores",
    }


def _thesis(
    model: BoardModel, spec: BoardSpec, board: np.ndarray
) -> tuple[dict[str, Any], np.ndarray]:
    """Time the thesis' path, scaled to all tiles; and the right scores of its tiles (n,)."""
    settings, side = model.manifest.preprocessing, spec.tile
    given = {"mean": settings.mean, "std": settings.std, "device": TORCH_DEVICE}
    corners = plan_tiles(*board.shape[:2], tile=side, stride=spec.stride)
    chosen = corners[spread(spec.thesis_tiles, len(corners))]
    tiles = [(x, y, board[y : y + side, x : x + side]) for x, y in chosen.tolist()]
    exact = ThesisPatchCore(model.network.trunk, model.bank, **given, exact=True)
    right = np.array([exact.score(tile).score for _, _, tile in tiles], np.float32)
    del exact
    path = ThesisPatchCore(model.network.trunk, model.bank, **given)
    for _, _, tile in tiles[:2]:
        path.score(tile)
    wait()
    watch, board_map, start = Stopwatch(), BoardMap(*board.shape[:2]), time.perf_counter()
    for x, y, tile in tiles:
        found = path.score(tile, watch)
        with watch.stage("map"):
            board_map.add(x, y, found.map)
    wait()
    scale = len(corners) / len(tiles)
    scaled = scale * (time.perf_counter() - start)
    figures = {
        "seconds": summarise([scaled]),
        "stages_s": {name: scale * ms / 1e3 for name, ms in watch.ms.items()},
        "batch": 1,
        "notes": f"{len(tiles)} of {len(corners):,} tiles, scaled to all",
    }
    return figures, right


def _check(found: np.ndarray, right: np.ndarray) -> float:
    """Compare tile scores; the largest error in shares of the score.

    Raises
    ------
    WrongAnswerError
        It is too large.
    """
    worst = float((np.abs(found - right) / np.abs(right)).max())
    if not worst <= TOLERANCE:
        raise WrongAnswerError(
            f"kad's tile scores differ by {worst:.2g} of the score, expected at most {TOLERANCE:g}"
        )
    return worst
