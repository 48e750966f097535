"""Whole boards, from the image file to the written results: kad against the thesis' path.

Both run in turn, round by round. The scores of the tiles that both score are compared, of every
round, with those of the thesis' path with distances in float64 before a time is given; the map too,
where every tile was scored. Beside the boards: how the time of both grows with a board's area.
"""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch

from kad_bench.board_runs import BoardFile, KadBoard, ThesisBoard, check_board
from kad_bench.environment import collect
from kad_bench.laws import growth
from kad_bench.measure import interleave, ratios, summarise
from kad_bench.model_cases import MODELS, SWEEP
from kad_bench.tables import suite_table as table
from kad_bench.thesis_path import THESIS
from kad_bench.tile_paths import KAD, PRODUCT_TOLERANCE, TOLERANCE, thesis_tiles
from kad_sdk.detector import Detector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kad_bench.board_runs import Round
    from kad_bench.models import Model
    from kad_bench.suites import Settings
    from kad_sdk.annotations import Annotation

__all__ = ["board_figures", "run", "score_side_by_side", "table"]


@dataclass(frozen=True)
class Profile:
    """How much is measured: for each model, rounds, and tiles of the thesis' path (None: all).

    `rows` are the first rows of pixels that growth with area is measured on, as shares, in
    `area_rounds` rounds, with `area_tiles` for the thesis' path.
    """

    rounds: tuple[int, ...]
    thesis_tiles: tuple[int | None, ...]
    rows: tuple[float, ...]
    area_rounds: int
    area_tiles: int


PROFILES = {
    "smoke": Profile((1,), (None,), (0.6, 0.8, 1.0), 1, 1),
    "regular": Profile((5, 3), (32, 8), (1 / 16, 1 / 8, 1 / 4, 1 / 2), 3, 8),
    "full": Profile((10, 5), (128, 32), (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0), 5, 8),
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
        build_engine=settings.provider == "tensorrt",
        threads=settings.threads,
        device_id=device,
    )


def _compare(model: Model, rounds: int, n_tiles: int | None, settings: Settings) -> dict[str, Any]:
    """Measure one model on its board."""
    board = BoardFile.plan(
        model.board, model.annotation, model.artifact.manifest.preprocessing, n_tiles
    )
    with _open(model, settings) as detector:
        taken, accuracy = _measure(model, detector, board, rounds, settings)
        batch = detector.batch
    engines = {
        name: board_figures(found, board, settings) | {"accuracy": accuracy[name]}
        for name, found in taken.items()
    }
    part = f"{len(board.chosen)} of {len(board.xy):,} tiles, scaled to all; "
    engines[KAD] |= {"batch": batch, "notes": "overlay, 16-bit map and JSON written"}
    engines[THESIS] |= {"batch": 1, "notes": f"{'' if board.whole else part}16-bit map encoded"}
    seconds = {name: [one.seconds for one in found] for name, found in taken.items()}
    _add_gpus(model, rounds, engines, settings)
    return {
        "case": model.name,
        "what": f"{model.what}; {len(board.xy):,} tiles",
        "unit": "board",
        "tiles": len(board.xy),
        "thesis_tiles": len(board.chosen),
        "engines": engines,
        "ratios": {KAD: {THESIS: ratios(seconds[THESIS], seconds[KAD])}},
        "skipped": {},
    }


def _measure(
    model: Model, detector: Detector, board: BoardFile, rounds: int, settings: Settings
) -> tuple[dict[str, list[Round]], dict[str, dict[str, float]]]:
    """Let both score a board, in turn; their rounds, and how far they are from the right answer.

    Raises
    ------
    WrongAnswerError
        An answer of any round is wrong.
    """
    right = ThesisBoard(thesis_tiles(model, device=settings.device, exact=True), board)().found
    with tempfile.TemporaryDirectory() as folder:
        engines = {
            KAD: KadBoard(detector, board, Path(folder)),
            THESIS: ThesisBoard(thesis_tiles(model, device=settings.device), board),
        }
        engines[THESIS]()  # warms up
        taken: dict[str, list[Round]] = {name: [] for name in engines}
        calls = {name: lambda name=name: taken[name].append(engines[name]()) for name in engines}
        interleave(calls, rounds)
    accuracy = {}
    for name, tolerance in ((KAD, TOLERANCE), (THESIS, PRODUCT_TOLERANCE)):
        found = [check_board(name, right, one.found, tolerance) for one in taken[name]]
        accuracy[name] = {key: max(worst[key] for worst in found) for key in found[0]}
    return taken, accuracy


def board_figures(taken: list[Round], board: BoardFile, settings: Settings) -> dict[str, Any]:
    """Say what an engine's rounds took, and what that means for a line."""
    seconds = summarise([one.seconds for one in taken])
    median = seconds["median"]
    return {
        "seconds": seconds,
        "stages_s": _means([one.stages_s for one in taken]),
        "energy_j": _means([one.energy_j for one in taken]),
        "rates": {
            "boards a minute": 60 / median,
            "tiles/s": len(board.xy) / median,
            "MP/s": board.megapixels / median,
            f"of a takt of {settings.takt_s:g} s": median / settings.takt_s,
        },
    }


def _means(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def _add_gpus(model: Model, rounds: int, engines: dict[str, Any], settings: Settings) -> None:
    """Measure as many detectors as there are GPUs, side by side, when there are several."""
    n = len(collect()["gpus"])
    if settings.provider == "cpu" or n < 2:
        return
    detectors = [_open(model, settings, device) for device in range(n)]
    board = model.read_board()
    score_side_by_side(detectors, board, model.annotation)  # warms up
    seconds = [score_side_by_side(detectors, board, model.annotation) for _ in range(rounds)]
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
    """Measure both on the board's upper part, without annotation, so that area is what counts."""
    image = model.read_board()
    by_area: dict[str, list[list[float]]] = {KAD: [], THESIS: []}
    by_tiles: dict[str, list[list[float]]] = {KAD: [], THESIS: []}
    with tempfile.TemporaryDirectory() as folder, _open(model, settings) as detector:
        for share in profile.rows:
            part = image[: max(300, round(share * len(image)))]
            path = Path(folder) / f"{len(part)}{model.board.suffix}"
            cv2.imwrite(str(path), part[:, :, ::-1])
            board = BoardFile.plan(
                path, None, model.artifact.manifest.preprocessing, profile.area_tiles
            )
            taken, _ = _measure(model, detector, board, profile.area_rounds, settings)
            for name, found in taken.items():
                seconds = float(np.median([one.seconds for one in found]))
                by_area[name].append([board.megapixels, seconds])
                by_tiles[name].append([len(board.xy), seconds])
    y = "seconds of a board"
    return [growth("megapixels", y, by_area), growth("tiles", y, by_tiles)]
