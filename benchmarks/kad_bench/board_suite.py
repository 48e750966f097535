"""Whole boards, from the image file to the written results: kad against the thesis' path.

kad does what ``kad score`` does. The thesis' path scores a stated part of the tiles, evenly spread,
and its time is scaled to all of them: tiles are independent. The scores of these tiles are compared
with those of the thesis' path with distances in float64 before a time is given; the map too, where
every tile was scored.
"""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kad_bench.energy import EnergyMeter
from kad_bench.environment import collect
from kad_bench.laws import fit_law
from kad_bench.measure import ratios, summarise
from kad_bench.model_cases import MODELS, SWEEP
from kad_bench.tables import suite_table as table
from kad_bench.thesis_path import THESIS, BoardMap
from kad_bench.tile_paths import (
    KAD,
    PRODUCT_TOLERANCE,
    TOLERANCE,
    Found,
    ThesisTiles,
    check_found,
    thesis_tiles,
)
from kad_sdk.cli_score import Job, Outputs, score_job
from kad_sdk.detector import Detector
from kad_sdk.render import map_png
from kad_sdk.scoring import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kad_bench.models import Model
    from kad_bench.suites import Settings
    from kad_sdk.annotations import Annotation
    from kad_sdk.result import Result, TileScore

__all__ = ["run", "score_side_by_side", "table"]


_ONCE = ("read", "encode")  # stages of the thesis' path that a board has once


@dataclass(frozen=True)
class Profile:
    """How much is measured: for each model, rounds of kad and tiles of the thesis' path.

    `rows` are the first rows of pixels that kad's growth with area is measured on, as shares.
    """

    rounds: tuple[int, ...]
    thesis_tiles: tuple[int | None, ...]
    rows: tuple[float, ...]


PROFILES = {
    "smoke": Profile((1,), (None,), (0.4, 0.7, 1.0)),
    "regular": Profile((3, 1), (32, 4), (1 / 16, 1 / 8, 1 / 4, 1 / 2)),
    "full": Profile((10, 5), (128, 32), (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)),
}


def run(settings: Settings) -> dict[str, Any]:
    """Measure every model of the profile.

    Returns
    -------
    dict
        ``cases``, ``growth``; see :mod:`kad_bench.suites`.
    """
    torch.set_num_threads(settings.threads)
    profile = PROFILES[settings.profile]
    cases = []
    for i, spec in enumerate(MODELS[settings.profile]):
        settings.say(f"board: {spec.name}")
        model = spec.prepare(settings)
        cases.append(_compare(model, profile.rounds[i], profile.thesis_tiles[i], settings))
    model = SWEEP[settings.profile].prepare(settings)
    settings.say("board: area")
    return {"cases": cases, "growth": _area_growth(model, profile, settings)}


def _open(model: Model, settings: Settings, device: int = 0) -> Detector:
    return Detector.open(
        model.artifact.path,
        provider=settings.provider,
        threads=settings.threads,
        device_id=device,
    )


def _compare(model: Model, rounds: int, n_tiles: int | None, settings: Settings) -> dict[str, Any]:
    """Measure one model on its board."""
    board = model.read_board()
    with _open(model, settings) as detector:
        kad, result = _run_kad(detector, model, board, rounds)
    of = len(result.tiles)
    chosen = np.linspace(0, of - 1, min(n_tiles or of, of)).astype(np.int64)
    part = _Part(model, [result.tiles[i] for i in chosen], of)
    right, _ = part.score(thesis_tiles(model, device=settings.device, exact=True))
    accuracy = _compare_found(KAD, right, part.of_result(result), TOLERANCE)
    peer = _run_thesis(thesis_tiles(model, device=settings.device), part, right, rounds)
    engines = {
        KAD: _figures(kad, of, board, settings) | {"accuracy": accuracy},
        THESIS: _figures(peer, of, board, settings),
    }
    found = {KAD: {THESIS: ratios(peer.seconds, kad.seconds)}}
    _add_gpus(model, kad, engines, settings)
    return {
        "case": model.name,
        "what": f"{model.what}; {of:,} tiles",
        "unit": "board",
        "tiles": of,
        "thesis_tiles": len(chosen),
        "engines": engines,
        "ratios": found,
        "skipped": {},
    }


@dataclass(frozen=True)
class _Run:
    """What an engine did: seconds of a board by round, and by stage."""

    seconds: list[float]
    stages_s: dict[str, float]
    accuracy: dict[str, float]
    energy_j: dict[str, float]
    notes: str


@dataclass(frozen=True)
class _Part:
    """The tiles of a board that the thesis' path scores: `tiles` of `of`."""

    model: Model
    tiles: Sequence[TileScore]
    of: int

    @property
    def whole(self) -> bool:
        """Whether these are all of the board's tiles."""
        return len(self.tiles) == self.of

    def score(self, thesis: ThesisTiles, first: int | None = None) -> tuple[Found, Stopwatch]:
        """Read the board, score its tiles (or the `first`), average their maps, write a PNG.

        What is found has a map (1, height, width) where these are all tiles.
        """
        watch = Stopwatch()
        with watch.stage("read"):
            board = self.model.read_board()
        side = self.model.artifact.manifest.preprocessing.tile
        board_map = BoardMap(*board.shape[:2])
        scores = []
        for tile in self.tiles[:first]:
            found = thesis.path.score(board[tile.y : tile.y + side, tile.x : tile.x + side], watch)
            with watch.stage("map"):
                board_map.add(tile.x, tile.y, found.map)
            scores.append(found.score)
        whole = board_map.map()
        with watch.stage("encode"):
            map_png(whole, high=float(np.nanmax(whole)))
        return Found(np.array(scores, np.float32), self._map(whole)), watch

    def of_result(self, result: Result) -> Found:
        """Give what kad found for the same tiles."""
        scores = np.array([tile.score for tile in self.tiles], np.float32)
        return Found(scores, self._map(result.need_map()) if self.whole else None)

    def _map(self, board_map: NDArray[np.float32]) -> NDArray[np.float32] | None:
        return np.nan_to_num(board_map)[None] if self.whole else None


def _run_kad(
    detector: Detector, model: Model, board: NDArray[np.uint8], rounds: int
) -> tuple[_Run, Result]:
    detector.score(np.ascontiguousarray(board[:600, :600]))  # warms up
    seconds: list[float] = []
    watch = Stopwatch()
    meter = EnergyMeter()
    with tempfile.TemporaryDirectory() as folder:
        outputs = Outputs(
            Path(folder), maps=True, npy=False, hot=False, overlay=True, heat=False, max_side=None
        )
        for i in range(rounds):
            job = Job(model.board, Path(f"board{i}"), model.annotation)
            start = time.perf_counter()
            result, timings = score_job(detector, job, outputs)
            seconds.append(time.perf_counter() - start)
            timings.pop("total")
            for stage, ms in timings.items():
                watch.ms[stage] += ms / rounds
    run = _Run(
        seconds,
        {stage: ms / 1e3 for stage, ms in watch.ms.items()},
        {},
        {name: joules / rounds for name, joules in meter.read_j().items()},
        f"batches of {detector.batch}; overlay, 16-bit map and JSON written",
    )
    return run, result


def _run_thesis(thesis: ThesisTiles, part: _Part, right: Found, rounds: int) -> _Run:
    """Score a part of a board, and compare with what is right."""
    part.score(thesis, 1)  # warms up
    seconds: list[float] = []
    stages: dict[str, float] = {}
    scale = part.of / len(part.tiles)
    for _ in range(rounds):
        found, watch = part.score(thesis)
        spent = {s: ms / 1e3 * (1 if s in _ONCE else scale) for s, ms in watch.ms.items()}
        seconds.append(sum(spent.values()))
        stages = {stage: stages.get(stage, 0) + s / rounds for stage, s in spent.items()}
    accuracy = _compare_found(THESIS, right, found, PRODUCT_TOLERANCE)
    notes = f"{len(part.tiles)} of {part.of:,} tiles, scaled to all"
    return _Run(seconds, stages, accuracy, {}, "16-bit map written" if part.whole else notes)


def _compare_found(engine: str, right: Found, found: Found, tolerance: float) -> dict[str, float]:
    """Compare tile scores (n,) and, where every tile was scored, the one map (1, H, W)."""
    tiles = (right._replace(maps=None), found._replace(maps=None))
    worst = check_found(engine, *tiles, tolerance=tolerance)
    if right.maps is not None and found.maps is not None:
        peaks = [Found(np.array([x.maps.max()]), x.maps) for x in (right, found)]  # type: ignore[union-attr]
        both = check_found(engine, *peaks, tolerance=tolerance)
        worst["map difference"] = both["map difference"]
    return worst


def _figures(
    run: _Run, n_tiles: int, board: NDArray[np.uint8], settings: Settings
) -> dict[str, Any]:
    """Say what a run took, and what that means for a line."""
    seconds = summarise(run.seconds)
    median = seconds["median"]
    return {
        "seconds": seconds,
        "stages_s": run.stages_s,
        "accuracy": run.accuracy,
        "energy_j": run.energy_j,
        "rates": {
            "boards a minute": 60 / median,
            "tiles/s": n_tiles / median,
            "MP/s": board.shape[0] * board.shape[1] / 1e6 / median,
            f"of a takt of {settings.takt_s:g} s": median / settings.takt_s,
        },
        "notes": run.notes,
    }


def _add_gpus(model: Model, kad: _Run, engines: dict[str, Any], settings: Settings) -> None:
    """Measure as many detectors as there are GPUs, side by side, when there are several."""
    n = len(collect()["gpus"])
    if settings.provider == "cpu" or n < 2:
        return
    detectors = [_open(model, settings, device) for device in range(n)]
    board = model.read_board()
    score_side_by_side(detectors, board, model.annotation)  # warms up
    seconds = [score_side_by_side(detectors, board, model.annotation) for _ in kad.seconds]
    for detector in detectors:
        detector.close()
    engines[f"kad, {n} GPUs side by side"] = {
        "seconds": summarise([s / n for s in seconds]),
        "notes": "from pixels in memory to regions, a board on each GPU; time over boards",
    }


def score_side_by_side(
    detectors: Sequence[Detector], board: NDArray[np.uint8], annotation: Annotation
) -> float:
    """Let each detector score a board at the same time; seconds until the last has finished."""
    with ThreadPoolExecutor(len(detectors)) as pool:
        start = time.perf_counter()
        list(pool.map(lambda detector: detector.score(board, annotation), detectors))
        return time.perf_counter() - start


def _area_growth(model: Model, profile: Profile, settings: Settings) -> list[dict[str, Any]]:
    """Time kad on the board's upper part, without annotation, so that area is what counts."""
    board = model.read_board()
    areas, tiles = [], []
    with _open(model, settings) as detector:
        for share in profile.rows:
            part = np.ascontiguousarray(board[: max(300, round(share * board.shape[0]))])
            start = time.perf_counter()
            result = detector.score(part)
            seconds = time.perf_counter() - start
            areas.append([part.shape[0] * part.shape[1] / 1e6, seconds])
            tiles.append([len(result.tiles), seconds])
    return [
        {"x": x, "y": "seconds of a board", "points": {KAD: points}, "law": {KAD: fit_law(points)}}
        for x, points in (("megapixels", areas), ("tiles", tiles))
    ]
