"""Tiles: kad against the thesis' path and what others build, with the same network and bank.

Scores (and maps, where an engine makes them) are compared with the thesis' path, its distances in
float64, before any time. kad and those whom others build are given batches of the same size.
Beside the comparison: kad with other batches, numbers of threads and banks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kad_bench.anomalib_path import ANOMALIB, AnomalibTiles, anomalib_missing
from kad_bench.cutpaste_model import MAP_BOUNDS, CutPasteModel
from kad_bench.end_to_end import AUROC, Engine, check_engines, ratio_figures, time_engines
from kad_bench.graph_cost import count_cost
from kad_bench.laws import growth
from kad_bench.model_cases import LIKE_ANOMALIB, MODELS, SWEEP
from kad_bench.models import TILE, LabelledTiles
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
    checked, thesis_tiles, batch : tuple of int
        For each model: tiles whose scores are compared; tiles in a round of the thesis' path; tiles
        that every other engine is given at a time, in one call a round.
    rounds : int
    batches, sweep_rows : tuple of int
        Sizes of batch and bank that kad is tried with.
    sweep_tiles : int
        In a round of kad with a part of the bank; the thesis' path gets a quarter.
    cutpaste : (n, side)
        Of the tiles that CutPaste scores: how many, and px.
    """

    checked: tuple[int, ...]
    thesis_tiles: tuple[int, ...]
    batch: tuple[int, ...]
    rounds: int
    batches: tuple[int, ...]
    sweep_rows: tuple[int, ...]
    sweep_tiles: int = 8
    cutpaste: tuple[int, int] = (64, TILE)


PROFILES = {
    "smoke": Profile((4,), (1,), (2,), 1, (1, 2), (125, 250, 500), 4, (16, 64)),
    "regular": Profile(
        *((64, 8), (16, 2), (16, 8)), 5, (1, 4, 16, 32), (1_250, 2_500, 5_000, 10_000)
    ),
    "full": Profile(
        *((64, 32), (32, 8), (16, 16)),
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
    cases.append(_anomalib_case(profile, settings))
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
    checked, batch = profile.checked[i], profile.batch[i]
    kad = _open(model, settings, batch)
    engines = {
        KAD: Engine(kad, batch, batch),
        KAD_ONE: Engine(_open(model, settings, 1), 1, batch),
        THESIS: _by_products(
            thesis_tiles(model, device=settings.device), 1, profile.thesis_tiles[i]
        ),
    }
    peers, skipped = peer_tiles(model, settings)
    engines |= {name: _by_products(path, batch, batch) for name, path in peers.items()}
    settings.say(f"tile: {model.name}")
    labelled = model.labelled.first(checked)
    right = _right(model, settings)
    figures, totals = _measure(engines, right, labelled, profile.rounds, judged=model.learnt)
    kad_again = _open(model, settings, batch)
    kad_again(labelled.tiles, Stopwatch())
    figures[KAD]["counts"] = search_counts(kad_again, checked, model.artifact.network)
    found = ratio_figures(totals, (KAD, KAD_ONE))
    what = f"{model.what}; {AUROC}" if model.learnt else model.what
    case = _case(model.name, what, figures, found)
    return case | {"checked_tiles": checked, "skipped": skipped}


def _measure(
    engines: dict[str, Engine],
    right: Engine,
    labelled: LabelledTiles,
    rounds: int,
    *,
    judged: bool,
    **bounds: Any,
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Check and then time engines; their figures and their seconds of a tile, round by round.

    Where `judged` is not set, nothing was learnt, and no AUROC is given.
    """
    labels = labelled.labels if judged else None
    accuracy = check_engines(engines, labelled.tiles, labels, right=right, **bounds)
    figures, totals = time_engines(engines, labelled.tiles, rounds)
    for name, found in accuracy.items():
        figures[name]["accuracy"] = found
    return figures, totals


def _right(model: Model, settings: Settings, rows: int | None = None) -> Engine:
    """Give the right answers: the thesis' path, its distances in float64."""
    return Engine(thesis_tiles(model, device=settings.device, rows=rows, exact=True), 1, 1)


def _by_products(path: TilePath, batch: int, tiles: int) -> Engine:
    """Make an engine of a path that subtracts products for its distances."""
    return Engine(path, batch, tiles, tolerance=PRODUCT_TOLERANCE)


def _open(model: Model, settings: Settings, batch: int, **options: Any) -> KadTiles:
    given = {"threads": settings.threads, "provider": settings.provider, **options}
    return kad_tiles(model.artifact, batch=batch, **given)


def _anomalib_case(profile: Profile, settings: Settings) -> dict[str, Any]:
    """Measure anomalib on an artifact that pools and re-weights as it does; none without it."""
    spec = LIKE_ANOMALIB[settings.profile]
    name = f"{spec.name}, as anomalib"
    missing = anomalib_missing(settings.device)
    if missing:  # nothing to compare kad with: no time of kad's either
        what = f"{spec.pooling} pooling, {spec.reweighting} re-weighting"
        return _case(name, what, {}, {KAD: {}}) | {"skipped": {ANOMALIB: missing}}
    model = spec.prepare(settings)
    settings.say(f"tile: {name}")
    batch = profile.batch[0]
    kad = Engine(_open(model, settings, batch), batch, batch)
    engines = {KAD: kad, ANOMALIB: Engine(AnomalibTiles(model), batch, batch)}
    labelled = model.labelled.first(profile.checked[0])
    figures, totals = _measure(engines, kad, labelled, profile.rounds, judged=model.learnt)
    return _case(name, model.what, figures, ratio_figures(totals))


def _cutpaste_case(model: Model, profile: Profile, settings: Settings) -> dict[str, Any]:
    """Measure CutPaste with Grad-CAM."""
    settings.say("tile: CutPaste")
    n, side = profile.cutpaste
    tiles = np.ascontiguousarray(model.labelled.tiles[:n, :side, :side])
    labels = model.labelled.labels[:n]
    weights = SWEEP[settings.profile].weights
    cutpaste = CutPasteModel(weights, tiles)
    batch = profile.batch[0]
    kad = cutpaste.kad(threads=settings.threads, batch=batch, provider=settings.provider)
    engines = {
        KAD: Engine(kad, batch, batch),
        THESIS: Engine(cutpaste.thesis(settings.device), 1, profile.thesis_tiles[0]),
    }
    right = Engine(cutpaste.thesis(settings.device, exact=True), 1, 1)
    figures, totals = _measure(
        *(engines, right, LabelledTiles(tiles, labels), profile.rounds),
        judged=False,  # the head is not trained
        map_bounds=MAP_BOUNDS,
    )
    return _case("CutPaste with Grad-CAM", cutpaste.what, figures, ratio_figures(totals))


def _case(name: str, what: str, figures: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    parts = {"case": name, "what": what, "unit": "tile", "engines": figures, "ratios": found}
    return parts | {"skipped": {}}


def _settings_case(model: Model, profile: Profile, settings: Settings) -> dict[str, Any]:
    """Try kad with every batch, on one thread and on all."""
    settings.say("tile: batches and threads")
    n = min(max(profile.batches), len(model.labelled.tiles))
    engines = {}
    for threads in sorted({1, settings.threads}):
        for batch in profile.batches:
            name = f"kad, batch {batch}, {threads} thread{'s' if threads > 1 else ''}"
            size = min(batch, n)
            engines[name] = Engine(_open(model, settings, size, threads=threads), size, n)
    labelled = model.labelled.first(n)
    right = _right(model, settings)
    figures, _ = _measure(engines, right, labelled, profile.rounds, judged=model.learnt)
    what = f"kad on {model.name}, other batches and threads"
    return _case("batches and threads", what, figures, {})


def _bank_growth(model: Model, profile: Profile, settings: Settings) -> dict[str, Any]:
    """Time kad and the thesis' path with the first rows of the bank."""
    settings.say("tile: bank size")
    points: dict[str, list[list[float]]] = {KAD: [], THESIS: []}
    n = min(profile.sweep_tiles, len(model.labelled.tiles))
    for rows in profile.sweep_rows:
        thesis = thesis_tiles(model, device=settings.device, rows=rows)
        engines = {
            KAD: Engine(_open(model, settings, n, rows=rows), n, n),
            THESIS: _by_products(thesis, 1, n // 4),
        }
        right = _right(model, settings, rows)
        labelled = model.labelled.first(n)
        _, totals = _measure(engines, right, labelled, profile.rounds, judged=False)
        for name, seconds in totals.items():
            points[name].append([rows, float(np.median(seconds))])
    return growth("rows of the bank", "seconds of a tile", points)
