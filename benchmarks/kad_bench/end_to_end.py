"""Engines that score tiles, timed side by side: what the suites tile and board have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kad_bench.measure import interleave, ratios, summarise
from kad_bench.tile_paths import KAD, TOLERANCE, Found, check_found
from kad_sdk.metrics import roc_auc
from kad_sdk.scoring import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from kad_bench.tile_paths import TilePath

__all__ = ["AUROC", "Engine", "check_engines", "ratio_figures", "time_engines"]

AUROC = "AUROC on labelled tiles of boards unlike those learnt from"


@dataclass
class Engine:
    """A way to score tiles, and how it is timed.

    Attributes
    ----------
    path : TilePath
        Scores a batch.
    batch : int
        Tiles in one call.
    tiles : int
        How many of the given tiles it scores in each round, a multiple of `batch`: slow engines get
        fewer, tiles being independent.
    tolerance : float
        Largest difference of its scores and maps from the right ones.
    """

    path: TilePath
    batch: int
    tiles: int
    tolerance: float = TOLERANCE
    watch: Stopwatch = field(default_factory=Stopwatch)
    calls_s: list[float] = field(default_factory=list)


def check_engines(
    engines: Mapping[str, Engine],
    tiles: NDArray[np.uint8],
    labels: NDArray[np.uint8] | None,
    *,
    right: Engine,
    map_bounds: tuple[float, float] | None = None,
) -> dict[str, dict[str, float]]:
    """Let every engine score all tiles, which also warms it up, and compare it with the right one.

    Parameters
    ----------
    engines : mapping of str to Engine
    tiles : (n, t, t, 3) uint8
    labels : (n,) uint8 or None
        Of the tiles; None where nothing was learnt that could tell them apart.
    right : Engine
        Gives the right answers.
    map_bounds : (float, float) or None
        As for :func:`kad_bench.tile_paths.check_found`.

    Returns
    -------
    dict
        Engine to ``tile AUROC`` (with `labels` alone), ``score difference`` and
        ``map difference``.

    Raises
    ------
    WrongAnswerError
        An engine differs.
    """
    expected = _score_all(right, tiles)
    accuracy = {}
    for name, engine in engines.items():
        found = expected if engine is right else _score_all(engine, tiles)
        accuracy[name] = {} if labels is None else {"tile AUROC": roc_auc(labels, found.scores)}
        if engine is not right:
            accuracy[name] |= check_found(
                *(name, expected, found), tolerance=engine.tolerance, map_bounds=map_bounds
            )
    return accuracy


def _score_all(engine: Engine, tiles: NDArray[np.uint8]) -> Found:
    parts = [
        engine.path(tiles[start : start + engine.batch], Stopwatch())
        for start in range(0, len(tiles), engine.batch)
    ]
    maps = None if parts[0].maps is None else np.concatenate([x.maps for x in parts])  # type: ignore[misc]
    return Found(np.concatenate([x.scores for x in parts]), maps)


def time_engines(
    engines: Mapping[str, Engine], tiles: NDArray[np.uint8], rounds: int
) -> tuple[dict[str, dict[str, Any]], dict[str, list[float]]]:
    """Time all engines in turn.

    Returns
    -------
    figures : dict
        Engine to ``seconds`` (of a tile; the spread is that of single calls), ``stages_s``,
        ``latency_s`` (of a call of `batch` tiles) and ``batch``.
    totals : dict
        Engine to seconds of a tile, round by round.
    """

    def score(engine: Engine) -> None:
        for start in range(0, engine.tiles, engine.batch):
            one = Stopwatch()
            with one.stage("call"):
                engine.path(tiles[start : start + engine.batch], engine.watch)
            engine.calls_s.append(one.ms["call"] / 1e3)

    calls = {name: lambda engine=engine: score(engine) for name, engine in engines.items()}
    seconds = interleave(calls, rounds)
    totals = {name: [s / engines[name].tiles for s in values] for name, values in seconds.items()}
    return {name: _figures(engine, rounds) for name, engine in engines.items()}, totals


def _figures(engine: Engine, rounds: int) -> dict[str, Any]:
    each = 1e3 * rounds * engine.tiles  # ms over all rounds to s of one tile
    stages = {stage: ms / each for stage, ms in engine.watch.ms.items() if ms}
    # What lies between the stages: arrays made and thrown away, Python.
    stages["other"] = max(0.0, sum(engine.calls_s) * 1e3 / each - sum(stages.values()))
    return {
        "seconds": summarise([s / engine.batch for s in engine.calls_s]),
        "stages_s": stages,
        "latency_s": summarise(engine.calls_s),
        "batch": engine.batch,
    }


def ratio_figures(
    totals: Mapping[str, list[float]], ours: tuple[str, ...] = (KAD,)
) -> dict[str, dict[str, dict[str, float]]]:
    """Say how many times as long each peer takes, for each of kad's engines."""
    return {
        mine: {peer: ratios(totals[peer], totals[mine]) for peer in totals if peer not in ours}
        for mine in ours
    }
