"""The search suite's results as Markdown tables."""

from __future__ import annotations

from typing import Any

from kad_bench.peers import FAISS, TORCH_CDIST, TORCH_MATMUL
from kad_bench.tables import markdown

__all__ = ["table"]

_STAGES = ("prepare", "seed", "narrow", "wide", "decide", "dense")
_PEERS = (FAISS, TORCH_CDIST, TORCH_MATMUL)


def table(results: dict[str, Any]) -> str:
    """Lay out what :func:`kad_bench.search_suite.run` returned."""
    peak = results["sgemm_gflop_per_s"]
    notes = [
        f"Float32 matrix product on this machine: {peak:.0f} GFLOP/s. *GFLOP/s*: what a product of "
        "all pairs would take, 2 n M D, over the time; *of peak* above 1 is beyond any search that "
        "makes that product.",
        "*us of arithmetic*: the products of the codes, of coordinates and of distances that were "
        "done, at the peak of the float32 matrix product, narrower ones by their instructions: an "
        "estimate of the least time for these products. Times of stages are summed over threads; a "
        "dense query takes products of all rows; what ruled rows out is not told where every query "
        "is dense.",
        "Ratios: median of the rounds (smallest to largest), time of the peer for a query over "
        "that of kad. The peers are given patch features; joining the base maps is not charged "
        "to them.",
    ]
    cases = dict.fromkeys(f"{x['case']}: {x['what']}" for x in results["cases"])
    skipped = {f"{k} not run: {v}" for x in results["cases"] for k, v in x["skipped"].items()}
    parts = [_speed(results["cases"], peak), _work(results["cases"])]
    if results["banks"]:
        parts.append(_banks(results["banks"]))
    listed = "\n".join(f"- {text}" for text in [*cases, *sorted(skipped)])
    return "\n\n".join([*parts, *notes, listed])


def _speed(cases: list[dict[str, Any]], peak: float) -> str:
    header = ["bank", "queries", "k", "kad", "queries/s", "GFLOP/s", "of peak"]
    header += [*(f"x {peer}" for peer in _PEERS), "FAISS queries/s"]
    rows = []
    for case in cases:
        engines = case["engines"]
        faiss = f"{engines[FAISS]['queries_per_s']:,.0f}" if FAISS in engines else "–"
        for way, ratios in case["ratios"].items():
            figures = engines[way]
            rate = figures["gflop_equivalent_per_s"]
            rows.append(
                [
                    *(case["case"], case["queries"], str(case["k"]), way.removeprefix("kad ")),
                    *(f"{figures['queries_per_s']:,.0f}", f"{rate:,.0f}", f"{rate / peak:.1f}"),
                    *(_ratio(ratios.get(peer)) for peer in _PEERS),
                    faiss,
                ]
            )
    return markdown(header, rows)


def _work(cases: list[dict[str, Any]]) -> str:
    header = ["bank", "queries", "k", "kad", "8-bit products a pair", "screened out by 8 bits"]
    header += ["then by 16 bits", "candidates a query", "decided a query", "dense queries"]
    header += ["us a query and thread: " + ", ".join(_STAGES), "us a query", "us of arithmetic"]
    rows = []
    for case in cases:
        for way, work in case["work"].items():
            stages = " ".join(f"{1e6 * work['stages_s'][stage]:.1f}" for stage in _STAGES)
            rows.append(
                [
                    *(case["case"], case["queries"], str(case["k"]), way.removeprefix("kad ")),
                    *(f"{work['narrow_dims']:.1f}", _out(work["left_by_narrow"], 3)),
                    _out(work["left_by_wide"], 1),
                    *(f"{work['candidates']:.0f}", f"{work['decided']:.1f}"),
                    *(f"{work['dense_queries']:.0%}", stages),
                    f"{1e6 / case['engines'][way]['queries_per_s']:.1f}",
                    f"{1e6 * work['shortest_s']:.1f}",
                ]
            )
    return markdown(header, rows)


def _out(left: float | None, digits: int) -> str:
    return "–" if left is None else f"{1 - left:.{digits}%}"


def _banks(banks: list[dict[str, Any]]) -> str:
    header = ["bank", "bank MB", "index MB", "index bytes a row", "bank and index / bank"]
    header += ["open s, then first tile s", "the same, index stored"]
    rows = []
    for bank in banks:
        size, index = bank["bank_bytes"], bank["index_bytes"]
        memory = [f"{index / 1e6:.0f}", f"{index / bank['rows']:,.0f}"]
        memory.append(f"{(size + index) / size:.2f}")
        rows.append(
            [
                bank["case"],
                f"{size / 1e6:.0f}",
                *memory,
                *(_opening(x) for x in (bank, bank.get("stored"))),
            ]
        )
    return markdown(header, rows)


def _opening(bank: dict[str, Any] | None) -> str:
    return "–" if bank is None else f"{bank['open_s']:.2f}, {bank['first_tile_s']:.2f}"


def _ratio(summary: dict[str, float] | None) -> str:
    if summary is None:
        return "–"
    return f"{summary['median']:.1f} ({summary['min']:.1f} to {summary['max']:.1f})"
