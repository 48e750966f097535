"""Peak memory of a fresh process, by board area, batch and rows of the bank."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from kad_bench.laws import fit_law
from kad_bench.measure import summarise
from kad_bench.model_cases import MODELS, SWEEP
from kad_bench.process_probe import Job, probe_process
from kad_bench.tables import suite_table as table
from kad_bench.thesis_path import THESIS
from kad_bench.tile_paths import KAD

if TYPE_CHECKING:
    from kad_bench.models import Model
    from kad_bench.suites import Settings

__all__ = ["run", "table"]


@dataclass(frozen=True)
class Profile:
    """Sides of square boards, px; tiles at a time; rows of the bank."""

    sides: tuple[int, ...]
    batches: tuple[int, ...]
    rows: tuple[int, ...]


PROFILES = {
    "smoke": Profile((224, 448, 600), (), ()),
    "regular": Profile((500, 1000, 2000, 2800), (1, 4, 16), (1_250, 2_500, 5_000, 10_000)),
    "full": Profile((500, 1000, 2000, 4000), (1, 4, 16, 64), (9_000, 18_000, 36_000, 72_500)),
}


def run(settings: Settings) -> dict[str, Any]:
    """Measure every model of the profile, and how memory grows.

    Returns
    -------
    dict
        ``cases``, ``growth``; see :mod:`kad_bench.suites`.
    """
    profile = PROFILES[settings.profile]
    with tempfile.TemporaryDirectory() as folder:
        cases = []
        for spec in MODELS[settings.profile]:
            settings.say(f"memory: {spec.name}")
            model = spec.prepare(settings)
            jobs = _jobs(model, spec.weights, Path(folder), profile.sides[0], settings)
            cases.append(_measure(model, jobs, profile.sides[0]))
        spec = SWEEP[settings.profile]
        model = spec.prepare(settings)
        growth = _growth(model, spec.weights, Path(folder), profile, settings)
    return {"cases": cases, "growth": growth}


def _jobs(
    model: Model, weights: str, folder: Path, side: int, settings: Settings
) -> dict[str, Job]:
    """Give the job of each engine on the board's middle, `side` px wide and high."""
    path = folder / f"{side}.png"
    board = model.read_board()
    top, left = ((size - side) // 2 for size in board.shape[:2])
    cv2.imwrite(str(path), board[top : top + side, left : left + side, ::-1])
    job = Job(
        "kad", str(model.artifact.path), str(path), weights, settings.threads, settings.provider
    )
    return {KAD: job, THESIS: dataclasses.replace(job, engine="thesis")}


def _measure(model: Model, jobs: dict[str, Job], side: int) -> dict[str, Any]:
    """Measure both engines on a small board; the thesis' path on its first tile."""
    engines: dict[str, dict[str, Any]] = {}
    for name, job in jobs.items():
        found = probe_process(job)
        kinds = {"peak": found["peak_bytes"], "opened": found["opened_bytes"]}
        kinds["device"] = found["device_bytes"]
        engines[name] = {
            "seconds": summarise([found["total_s"]]),
            "memory_bytes": {kind: size for kind, size in kinds.items() if size is not None},
        }
    engines[THESIS]["notes"] = "one tile"
    bank = model.artifact.bank
    return {
        "case": model.name,
        "what": f"a fresh process scores {side} x {side} px; the bank alone takes "
        f"{bank.nbytes / 1e6:.0f} MB",
        "unit": "start",
        "engines": engines,
        "ratios": {},
        "skipped": {},
    }


def _growth(
    model: Model, weights: str, folder: Path, profile: Profile, settings: Settings
) -> list[dict[str, Any]]:
    if not Path("/proc/self/status").is_file():
        return []  # this system does not say how much memory a process has
    settings.say("memory: area, batch, bank size")
    areas = []
    rows: dict[str, list[list[float]]] = {KAD: [], THESIS: []}
    for side in profile.sides:
        job = _jobs(model, weights, folder, side, settings)[KAD]
        areas.append([side * side / 1e6, _peak_mb(job)])
    middle = _jobs(model, weights, folder, profile.sides[1], settings)[KAD]
    batches = [
        [batch, _peak_mb(dataclasses.replace(middle, batch=batch))] for batch in profile.batches
    ]
    small = _jobs(model, weights, folder, profile.sides[0], settings)
    for n in profile.rows:
        for engine, job in small.items():
            rows[engine].append([n, _peak_mb(dataclasses.replace(job, rows=n))])
    found = [("megapixels of the board", {KAD: areas})]
    found += [("tiles at a time", {KAD: batches})] if batches else []
    found += [("rows of the bank", rows)] if rows[KAD] else []
    return [
        {
            "x": x,
            "y": "peak memory, MB",
            "points": points,
            "law": {name: fit_law(np.array(values)) for name, values in points.items()},
        }
        for x, points in found
    ]


def _peak_mb(job: Job) -> float:
    return float(probe_process(job)["peak_bytes"]) / 1e6
