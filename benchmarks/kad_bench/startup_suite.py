"""From nothing to the first score: a fresh process that imports, opens and scores one tile."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from kad_bench.measure import ratios, summarise
from kad_bench.model_cases import MODELS
from kad_bench.models import save_weights
from kad_bench.process_probe import Job, forget_files, probe_process
from kad_bench.tables import suite_table as table
from kad_bench.thesis_path import THESIS
from kad_bench.tile_paths import (
    KAD,
    PRODUCT_TOLERANCE,
    TOLERANCE,
    Found,
    check_found,
    thesis_tiles,
)
from kad_sdk.scoring import Stopwatch

if TYPE_CHECKING:
    from kad_bench.models import Model
    from kad_bench.suites import Settings

__all__ = ["KAD_FROM_DISK", "run", "table"]

KAD_FROM_DISK = "kad, artifact read from disk"
_ROUNDS = {"smoke": 1, "regular": 3, "full": 10}


def run(settings: Settings) -> dict[str, Any]:
    """Measure every model of the profile.

    Returns
    -------
    dict
        ``cases``; see :mod:`kad_bench.suites`.
    """
    cases = []
    for spec in MODELS[settings.profile]:
        settings.say(f"startup: {spec.name}")
        cases.append(_measure(spec.prepare(settings), settings))
    return {"cases": cases, "growth": []}


def _measure(model: Model, settings: Settings) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "tile.png"
        cv2.imwrite(str(image), model.labelled.tiles[0][:, :, ::-1])
        weights = save_weights(model, Path(folder) / "weights.pth")
        paths = [str(model.artifact.path), str(image), str(weights)]
        job = Job("kad", *paths, settings.threads, settings.provider)
        found = _probe_in_turn(job, _ROUNDS[settings.profile])
    right = thesis_tiles(model, device=settings.device, exact=True)(
        model.labelled.tiles[:1], Stopwatch()
    )
    engines = {name: _figures(name, right, answers) for name, answers in found.items()}
    seconds = {name: [answer["total_s"] for answer in answers] for name, answers in found.items()}
    return {
        "case": model.name,
        "what": "a fresh Python process imports, opens the artifact (thesis path: loads weights "
        "and bank), scores one tile",
        "unit": "start",
        "engines": engines,
        "ratios": {KAD: {THESIS: ratios(seconds[THESIS], seconds[KAD])}},
        "skipped": {},
    }


def _probe_in_turn(job: Job, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Start each engine in turn, its files in the page cache unless it is to read them."""
    thesis = dataclasses.replace(job, engine="thesis")
    found: dict[str, list[dict[str, Any]]] = {KAD: [], KAD_FROM_DISK: [], THESIS: []}
    if rounds > 1:  # libraries and files are in the page cache from here on
        for one in (job, thesis):
            probe_process(one)
    for _ in range(rounds):
        found[KAD].append(probe_process(job))
        forget_files(Path(job.artifact))
        found[KAD_FROM_DISK].append(probe_process(job))
        found[THESIS].append(probe_process(thesis))
    return found


def _figures(engine: str, right: Found, answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Check the score of every start, and sum their times up."""
    scores = np.array([answer["scores"][0] for answer in answers])
    expected = Found(np.repeat(right.scores, len(scores)), None)
    tolerance = PRODUCT_TOLERANCE if engine == THESIS else TOLERANCE
    return {
        "accuracy": check_found(engine, expected, Found(scores, None), tolerance=tolerance),
        "seconds": summarise([answer["total_s"] for answer in answers]),
        "stages_s": _mean_stages(answers),
    }


def _mean_stages(answers: list[dict[str, Any]]) -> dict[str, float]:
    found = [answer["stages_s"] for answer in answers]
    return {name: float(np.mean([stages[name] for stages in found])) for name in found[0]}
