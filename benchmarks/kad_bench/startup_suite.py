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
        model = spec.prepare(settings)
        cases.append(_measure(model, spec.weights, settings))
    return {"cases": cases, "growth": []}


def _measure(model: Model, weights: str, settings: Settings) -> dict[str, Any]:
    rounds = _ROUNDS[settings.profile]
    found: dict[str, list[dict[str, Any]]] = {KAD: [], KAD_FROM_DISK: [], THESIS: []}
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "tile.png"
        cv2.imwrite(str(image), model.labelled.tiles[0][:, :, ::-1])
        artifact = Path(model.artifact.path)
        job = Job("kad", str(artifact), str(image), weights, settings.threads, settings.provider)
        probe_process(job)  # libraries and artifact are in the page cache from here on
        for _ in range(rounds):
            found[KAD].append(probe_process(job))
            forget_files(artifact)
            found[KAD_FROM_DISK].append(probe_process(job))
            found[THESIS].append(probe_process(dataclasses.replace(job, engine="thesis")))
    right = thesis_tiles(model, device=settings.device, exact=True)(
        model.labelled.tiles[:1], Stopwatch()
    )
    accuracy = {
        name: check_found(
            name,
            right._replace(maps=None),
            Found(np.array(answers[0]["scores"]), None),
            tolerance=PRODUCT_TOLERANCE if name == THESIS else TOLERANCE,
        )
        for name, answers in found.items()
    }
    seconds = {name: [answer["total_s"] for answer in answers] for name, answers in found.items()}
    engines = {
        name: {
            "seconds": summarise(seconds[name]),
            "stages_s": _mean_stages(answers),
            "accuracy": accuracy[name],
        }
        for name, answers in found.items()
    }
    return {
        "case": model.name,
        "what": "a fresh Python process imports, opens the artifact, scores one tile",
        "unit": "start",
        "engines": engines,
        "ratios": {KAD: {THESIS: ratios(seconds[THESIS], seconds[KAD])}},
        "skipped": {},
    }


def _mean_stages(answers: list[dict[str, Any]]) -> dict[str, float]:
    found = [answer["stages_s"] for answer in answers]
    return {name: float(np.mean([stages[name] for stages in found])) for name in found[0]}
