"""Exact nearest-neighbour search against FAISS and PyTorch, answers checked before any time."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from kad_bench.answers import check_answer, find_truth
from kad_bench.bank_probe import probe_bank
from kad_bench.cases import PROFILES
from kad_bench.measure import interleave, ratios, summarise
from kad_bench.peaks import sgemm_gflop_per_s
from kad_bench.peers import make_peers
from kad_bench.search_report import table
from kad_bench.search_work import measure_work, shortest_time
from kad_sdk.search import SearchIndex

if TYPE_CHECKING:
    from collections.abc import Callable

    from kad_bench.answers import Truth
    from kad_bench.cases import Case, Profile
    from kad_bench.features import StoredFeatures
    from kad_bench.peers import Answer
    from kad_bench.suites import Settings

__all__ = ["KAD_MAPS", "KAD_VECTORS", "NEIGHBOURS", "run", "table"]

KAD = KAD_VECTORS, KAD_MAPS = "kad query", "kad query_maps"
NEIGHBOURS = (1, 3)


def run(settings: Settings) -> dict[str, Any]:
    """Measure every case of the profile.

    Returns
    -------
    dict
        ``sgemm_gflop_per_s``, the machine's float32 matrix product; ``banks``, one for each stored
        bank; ``cases``, one for each kind of query and k.

    Raises
    ------
    WrongAnswerError
        An engine's answer is wrong.
    """
    profile = PROFILES[settings.profile]
    peaks = [sgemm_gflop_per_s(settings.threads)]
    banks: dict[str, dict[str, Any]] = {}
    results = []
    for entry in profile.entries:
        for case in entry.cases(settings):
            if case.stored and case.name not in banks:
                banks[case.name] = _measure_bank(case, case.stored, settings)
            results += measure_case(case, profile, settings)
    peaks.append(sgemm_gflop_per_s(settings.threads))
    _add_limits(results, max(peaks))
    return {"sgemm_gflop_per_s": max(peaks), "banks": list(banks.values()), "cases": results}


def measure_case(case: Case, profile: Profile, settings: Settings) -> list[dict[str, Any]]:
    """Check and time all engines on a case; one result for each number of neighbours."""
    truth = find_truth(case.queries, case.bank, max(NEIGHBOURS), _sample(case, profile.checked))
    peers, skipped = make_peers(case.bank, settings.threads)
    few = case.queries[: case.peer_queries]
    results = []
    indexes = _make_indexes(case, settings.threads)
    engines = {name: _kad_engine(name, index, case) for name, index in indexes.items()}
    engines |= {name: partial(search, few) for name, search in peers.items()}
    counts = {name: len(few) if name in peers else len(case.queries) for name in engines}
    for k in NEIGHBOURS:
        settings.say(f"{case.name}, {case.kind}, k = {k}")
        errors = _check(engines, k, truth, counts)
        work = {n: measure_work(index, partial(engines[n], k)) for n, index in indexes.items()}
        seconds = interleave({n: partial(e, k) for n, e in engines.items()}, profile.rounds)
        figures = _engine_figures(seconds, counts, errors, case.bank.size)
        for name, done in work.items():
            figures[name]["counts"] = done.pop("counts")
        results.append(
            _describe(case, k, truth)
            | {
                "engines": figures,
                "work": work,
                "ratios": _ratio_figures(seconds, counts),
                "skipped": skipped,
            }
        )
    for index in indexes.values():
        index.close()
    return results


def _add_limits(results: list[dict[str, Any]], gflop_per_s: float) -> None:
    for case in results:
        for work in case["work"].values():
            work["shortest_s"] = shortest_time(work, gflop_per_s)


def _check(
    engines: dict[str, Callable[[int], Answer]], k: int, truth: Truth, counts: dict[str, int]
) -> dict[str, float]:
    """Let every engine answer, which also warms it up; its largest error."""
    return {
        name: check_answer(name, truth.first(counts[name]), *answer(k), direct=name in KAD)
        for name, answer in engines.items()
    }


def _describe(case: Case, k: int, truth: Truth) -> dict[str, Any]:
    rows, dims = case.bank.shape
    return {
        "case": case.name,
        "what": case.what,
        "queries": case.kind,
        "rows": rows,
        "dims": dims,
        "k": k,
        "checked_queries": len(truth.sample),
    }


def _make_indexes(case: Case, threads: int) -> dict[str, SearchIndex]:
    """One that takes vectors, and one that knows the maps."""
    indexes = {KAD_VECTORS: SearchIndex(case.bank, threads=threads)}
    if case.stored:
        indexes[KAD_MAPS] = SearchIndex(case.bank, layout=case.stored.layout, threads=threads)
    return indexes


def _kad_engine(name: str, index: SearchIndex, case: Case) -> Callable[[int], Answer]:
    if name == KAD_VECTORS or not (case.stored and case.maps):
        return partial(index.query, case.queries)
    stored, maps = case.stored, case.maps

    def query_maps(k: int) -> Answer:
        dist, rows = index.query_maps(
            maps, k, grid=stored.grid, resampling=stored.resampling
        )  # (B, P, k)
        return dist.reshape(-1, k), rows.reshape(-1, k)

    return query_maps


def _sample(case: Case, n: int) -> np.ndarray:
    """Choose n queries to check: half of them among those of the peers, half among the others."""
    ends = sorted({0, case.peer_queries, len(case.queries)})
    each = n // (len(ends) - 1)
    parts = [
        np.linspace(start, end - 1, min(each, end - start)).astype(np.int64)
        for start, end in pairwise(ends)
    ]
    return np.concatenate(parts)


def _measure_bank(case: Case, stored: StoredFeatures, settings: Settings) -> dict[str, Any]:
    rows, dims = case.bank.shape
    size = {"rows": rows, "dims": dims, "bank_bytes": case.bank.nbytes}
    return {"case": case.name, **size, **probe_bank(stored.path, settings.threads)}


def _engine_figures(
    seconds: dict[str, list[float]], counts: dict[str, int], errors: dict[str, float], size: int
) -> dict[str, dict[str, Any]]:
    """Say what each engine did and how long it took; `size` is that of the bank, M * D."""
    figures = {}
    for name, values in seconds.items():
        summary, n = summarise(values), counts[name]
        figures[name] = {
            "queries": n,
            "gflop_equivalent": 2e-9 * n * size,
            "largest_error_of_allowed": errors[name],
            "seconds": summary,
            "queries_per_s": n / summary["median"],
            "gflop_equivalent_per_s": 2e-9 * n * size / summary["median"],
        }
    return figures


def _ratio_figures(
    seconds: dict[str, list[float]], counts: dict[str, int]
) -> dict[str, dict[str, dict[str, float]]]:
    """Say how many times as long a peer takes for a query, for each way of kad."""
    each = {name: [s / counts[name] for s in values] for name, values in seconds.items()}
    return {
        ours: {peer: ratios(each[peer], each[ours]) for peer in each if peer not in KAD}
        for ours in each
        if ours in KAD
    }
