"""Tiles: kad against the thesis' path and what others build, with the same network and bank.

Scores (and maps, where an engine makes them) are compared with the thesis' path, its distances in
float64, before any time.
Beside the comparison: kad with other batches, numbers of threads and banks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kad_bench.anomalib_path import ANOMALIB, AnomalibTiles, anomalib_missing
from kad_bench.cutpaste_model import MAP_TOLERANCE, CutPasteModel
from kad_bench.end_to_end import Engine, check_engines, ratio_figures, time_engines
from kad_bench.graph_cost import count_cost
from kad_bench.laws import fit_law
from kad_bench.measure import interleave, summarise
from kad_bench.model_cases import LIKE_ANOMALIB, MODELS, SWEEP
from kad_bench.tables import suite_table as table
from kad_bench.thesis_path import THESIS
from kad_bench.tile_paths import (
    KAD,
    PRODUCT_TOLERANCE,
    KadTiles,
    kad_tiles,
    peer_tiles,
    thesis_tiles,
)
from kad_sdk.scoring import Stopwatch

if TYPE_CHECKING:
    from kad_bench.models import Model
    from kad_bench.suites import Settings
    from kad_bench.tile_paths import TilePath

__all__ = ["KAD_ONE", "run", "search_counts", "table"]

KAD_ONE = "kad, one tile at a time"


@dataclass(frozen=True)
class Profile:
    """How much is measured.

    Attributes
    ----------
    checked, slow_tiles, fast_tiles : tuple of int
        For each model: tiles whose scores are compared, tiles in a round of the thesis' path and of
        the other engines.
    rounds : int
    batches, sweep_rows : tuple of int
        Sizes of batch and bank that kad is tried with.
    """

    checked: tuple[int, ...]
    slow_tiles: tuple[int, ...]
    fast_tiles: tuple[int, ...]
    rounds: int
    batches: tuple[int, ...]
    sweep_rows: tuple[int, ...]


PROFILES = {
    "smoke": Profile((8,), (2,), (4,), 2, (1, 4), (125, 250, 500)),
    "regular": Profile(
        *((64, 8), (16, 2), (32, 8)), 5, (1, 4, 16, 32), (1_250, 2_500, 5_000, 10_000)
    ),
    "full": Profile(
        *((64, 32), (32, 8), (64, 32)),
        *(15, (1, 2, 4, 8, 16, 32, 64), (9_000, 18_000, 36_000, 72_500)),
    ),
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
        model = spec.prepare(settings)
        cases.append(_compare(model, profile, i, settings))
    cases += _anomalib_case(profile, settings)
    model = SWEEP[settings.profile].prepare(settings)
    cases += [_cutpaste_case(model, profile, settings), _settings_case(model, profile, settings)]
    return {"cases": cases, "growth": [_bank_growth(model, profile, settings)]}


def search_counts(kad: KadTiles, n_tiles: int, graph: bytes) -> dict[str, int]:
    """Count what the search has done and holds, and the network's multiplications for a tile."""
    if kad.index is None:
        return {}
    stats = kad.index.stats()
    return {
        "queries": stats["queries"],
        "code_products": stats["narrow_products"],
        "decided_pairs": stats["decided_pairs"] + stats["dense_decided_pairs"],
        "dense_pairs": stats["dense_pairs"],
        "index_bytes": kad.index.info()["bytes"],
        "network_flop": n_tiles * count_cost(graph).flop,
    }


def _compare(model: Model, profile: Profile, i: int, settings: Settings) -> dict[str, Any]:
    """Measure one model with every engine."""
    checked, slow, fast = profile.checked[i], profile.slow_tiles[i], profile.fast_tiles[i]
    batch = min(16, fast)
    kad = _open(model, settings, batch)
    engines = {
        KAD: Engine(kad, batch, fast, f"batches of {batch}"),
        KAD_ONE: Engine(_open(model, settings, 1), 1, fast),
        THESIS: _by_products(thesis_tiles(model, device=settings.device), 1, slow),
    }
    right = Engine(thesis_tiles(model, device=settings.device, exact=True), 1, slow)
    peers, skipped = peer_tiles(model, settings.threads)
    engines |= {name: _by_products(path, min(4, slow), slow) for name, path in peers.items()}
    settings.say(f"tile: {model.name}")
    case = _measured(model, engines, right, checked, profile.rounds)
    kad_again = _open(model, settings, batch)
    kad_again(model.labelled.tiles[:checked], Stopwatch())
    counts = search_counts(kad_again, checked, model.artifact.network)
    case["engines"][KAD]["counts"] = counts
    return case | {"case": model.name, "what": model.what, "skipped": skipped}


def _measured(
    model: Model, engines: dict[str, Engine], right: Engine, checked: int, rounds: int
) -> dict[str, Any]:
    labelled = model.labelled.first(checked)
    accuracy = check_engines(engines, labelled.tiles, labelled.labels, right=right)
    figures, totals = time_engines(engines, model.labelled.tiles, rounds)
    for name, found in accuracy.items():
        figures[name]["accuracy"] = found
    ours = tuple(name for name in engines if name in (KAD, KAD_ONE))
    return {
        "unit": "tile",
        "checked_tiles": checked,
        "engines": figures,
        "ratios": ratio_figures(totals, ours),
    }


def _by_products(path: TilePath, batch: int, tiles: int, notes: str = "") -> Engine:
    """Make an engine of a path that subtracts products for its distances."""
    return Engine(path, batch, tiles, notes, tolerance=PRODUCT_TOLERANCE)


def _open(model: Model, settings: Settings, batch: int, **options: Any) -> KadTiles:
    given = {"threads": settings.threads, "provider": settings.provider, **options}
    return kad_tiles(model.artifact, batch=batch, **given)


def _anomalib_case(profile: Profile, settings: Settings) -> list[dict[str, Any]]:
    """Measure anomalib on an artifact that pools and re-weights as it does; none without it."""
    model = LIKE_ANOMALIB[settings.profile].prepare(settings)
    name = f"{model.name}, as anomalib"
    kad = Engine(_open(model, settings, 16), 16, 16)
    missing = anomalib_missing()
    if missing:
        kad.path(model.labelled.tiles[:16], Stopwatch())
        figures, _ = time_engines({KAD: kad}, model.labelled.tiles, profile.rounds)
        skipped = {ANOMALIB: missing}
        return [_case(name, model.what, figures, {KAD: {}}) | {"skipped": skipped}]
    settings.say(f"tile: {name}")
    tiles = profile.slow_tiles[0]
    batch = min(8, tiles)
    engines = {
        KAD: kad,
        ANOMALIB: Engine(AnomalibTiles(model), batch, tiles, f"batches of {batch}"),
    }
    labelled = model.labelled.first(profile.checked[0])
    accuracy = check_engines(engines, labelled.tiles, labelled.labels, right=kad)
    figures, totals = time_engines(engines, model.labelled.tiles, profile.rounds)
    for engine, found in accuracy.items():
        figures[engine]["accuracy"] = found
    return [_case(name, model.what, figures, ratio_figures(totals))]


def _cutpaste_case(model: Model, profile: Profile, settings: Settings) -> dict[str, Any]:
    """Measure CutPaste with Grad-CAM."""
    settings.say("tile: CutPaste")
    tiles, labels = model.labelled.tiles, model.labelled.labels
    weights = SWEEP[settings.profile].weights
    cutpaste = CutPasteModel(weights, tiles)
    slow = profile.slow_tiles[0]
    kad = cutpaste.kad(threads=settings.threads, batch=16, provider=settings.provider)
    engines = {
        KAD: Engine(kad, 16, 16, "batches of 16"),
        THESIS: Engine(cutpaste.thesis(settings.device), 1, slow),
    }
    accuracy = check_engines(
        engines, tiles, labels, right=engines[THESIS], map_tolerance=MAP_TOLERANCE
    )
    figures, totals = time_engines(engines, tiles, profile.rounds)
    for name, found in accuracy.items():
        found.pop("tile AUROC")  # of an untrained head: it would say nothing
        figures[name]["accuracy"] = found
    return _case("CutPaste with Grad-CAM", cutpaste.what, figures, ratio_figures(totals))


def _case(name: str, what: str, figures: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    parts = {"case": name, "what": what, "unit": "tile", "engines": figures, "ratios": found}
    return parts | {"skipped": {}}


def _settings_case(model: Model, profile: Profile, settings: Settings) -> dict[str, Any]:
    """Try kad with every batch, on one thread and on all."""
    settings.say("tile: batches and threads")
    n = max(profile.batches)
    n = min(n, len(model.labelled.tiles))
    engines = {}
    for threads in sorted({1, settings.threads}):
        for batch in profile.batches:
            name = f"kad, batch {batch}, {threads} thread{'s' if threads > 1 else ''}"
            size = min(batch, n)
            engines[name] = Engine(_open(model, settings, size, threads=threads), size, n)
    for engine in engines.values():
        engine.path(model.labelled.tiles[: engine.batch], Stopwatch())
    figures, _ = time_engines(engines, model.labelled.tiles, profile.rounds)
    what = f"kad on {model.name}, other batches and threads"
    return _case("batches and threads", what, figures, {})


def _bank_growth(model: Model, profile: Profile, settings: Settings) -> dict[str, Any]:
    """Time kad and the thesis' path with the first rows of the bank."""
    settings.say("tile: bank size")
    points: dict[str, list[list[float]]] = {KAD: [], THESIS: []}
    n = min(8, len(model.labelled.tiles))
    tiles = model.labelled.tiles
    for rows in profile.sweep_rows:
        kad = _open(model, settings, n, rows=rows)
        thesis = thesis_tiles(model, device=settings.device, rows=rows)
        calls = {
            KAD: lambda kad=kad: kad(tiles[:n], Stopwatch()),
            THESIS: lambda thesis=thesis: thesis(tiles[:2], Stopwatch()),
        }
        for call in calls.values():
            call()
        seconds = interleave(calls, profile.rounds)
        for name, count in ((KAD, n), (THESIS, 2)):
            points[name].append([rows, summarise(seconds[name])["median"] / count])
    laws = {name: fit_law(np.array(found)) for name, found in points.items()}
    return {
        "x": "rows of the bank",
        "y": "seconds of a tile",
        "points": points,
        "law": laws,
    }
