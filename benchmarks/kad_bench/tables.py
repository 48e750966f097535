"""Any suite's results as Markdown: what each engine took, by stage, and how it grows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kad_bench.laws import law_text

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "case_name",
    "format_seconds",
    "like_with_like",
    "markdown",
    "ratio_text",
    "suite_table",
]


_TIMES = ("p50", "p90", "p99", "n", "a second", "kad is faster by")  # n: times that were taken


def case_name(case: dict[str, Any]) -> str:
    """Name of a case, which no other of its suite has."""
    parts = [case["case"], case.get("queries"), f"k = {case['k']}" if "k" in case else None]
    return ", ".join(filter(None, parts))


def like_with_like(case: dict[str, Any]) -> list[tuple[str, str, dict[str, float]]]:
    """Give for every peer which of kad's engines it is compared with, and the ratio.

    That is one that is given as many tiles at a time where there is one, else the first.
    """
    found: dict[str, tuple[str, str, dict[str, float]]] = {}
    for ours, peers in case.get("ratios", {}).items():
        for peer, ratio in peers.items():
            mine, its = (case["engines"].get(name, {}).get("batch") for name in (ours, peer))
            if peer not in found or mine == its:
                found[peer] = (ours, peer, ratio)
    return list(found.values())


def suite_table(results: dict[str, Any]) -> str:
    """Lay out the keys that all suites share; see :mod:`kad_bench.suites`."""
    cases, growth = results["cases"], results.get("growth", [])
    parts = [_engines([case for case in cases if case["engines"]]), _stages(cases)]
    parts.append(_growth(growth))
    notes = [f"- {case['case']}: {case['what']}" for case in cases]
    for case in cases:
        notes += [
            f"- {case['case']}: {name} not run: {why}" for name, why in case["skipped"].items()
        ]
        notes += [
            f"- {case['case']}: {n}: {e['notes']}"
            for n, e in case["engines"].items()
            if e.get("notes")
        ]
    return "\n\n".join([*filter(None, parts), "\n".join(dict.fromkeys(notes))])


def _engines(cases: Sequence[dict[str, Any]]) -> str:
    """One line for each engine of each case: time, rates, ratio, accuracy, memory, energy."""
    every = [figures for case in cases for figures in case["engines"].values()]
    keys = ("rates", "accuracy", "memory_bytes", "energy_j")
    extra = {key: _names(cases, key) for key in keys}
    timed = any("seconds" in figures for figures in every)
    batches = any("batch" in figures for figures in every)
    header = ["case", "engine", *(["batch"] if batches else []), *(_TIMES if timed else [])]
    header += [*extra["rates"], *extra["accuracy"]]
    header += [*(f"{name} MB" for name in extra["memory_bytes"])]
    header += [f"{name} J" for name in extra["energy_j"]]
    rows = []
    for case in cases:
        for name, figures in case["engines"].items():
            row = [case_name(case), name]
            row += [str(figures.get("batch", "–"))] if batches else []
            row += _times(case, name, figures) if timed else []
            row += [_number(figures, "rates", key, 1, ".3g") for key in extra["rates"]]
            row += [_number(figures, "accuracy", key, 1, ".4g") for key in extra["accuracy"]]
            row += [_number(figures, "memory_bytes", k, 1e-6, ".0f") for k in extra["memory_bytes"]]
            row += [_number(figures, "energy_j", key, 1, ".3g") for key in extra["energy_j"]]
            rows.append(row)
    return markdown(header, rows)


def _times(case: dict[str, Any], name: str, figures: dict[str, Any]) -> list[str]:
    seconds = figures.get("seconds")
    if seconds is None:
        return ["–"] * len(_TIMES)
    return [
        *(format_seconds(seconds[key]) for key in ("median", "p90", "p99")),
        str(seconds["n"]),
        f"{1 / seconds['median']:.3g} {case.get('unit', 'call')}s",
        ratio_text(_ours(case).get(name)),
    ]


def _stages(cases: Sequence[dict[str, Any]]) -> str:
    names = _names(cases, "stages_s")
    rows = []
    for case in cases:
        for name, figures in case["engines"].items():
            stages = figures.get("stages_s")
            if stages:
                total = sum(stages.values())
                shares = [_share(stages.get(stage), total) for stage in names]
                rows.append([case_name(case), name, *shares])
    return markdown(["time by stage", "engine", *names], rows) if rows else ""


def _share(seconds: float | None, total: float) -> str:
    if seconds is None:
        return "–"
    return f"{format_seconds(seconds)} ({100 * seconds / total:.0f} %)"


def _growth(growth: Sequence[dict[str, Any]]) -> str:
    rows = [
        [one["y"], one["x"], name, law_text(law, "")]
        for one in growth
        for name, law in one["law"].items()
    ]
    return markdown(["how this grows", "with x", "engine", "fitted law"], rows) if rows else ""


def _ours(case: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Ratios of the first of kad's engines, by peer."""
    ratios: dict[str, dict[str, dict[str, float]]] = case["ratios"]
    return next(iter(ratios.values()), {})


def _names(cases: Sequence[dict[str, Any]], key: str) -> list[str]:
    """Keys of a block of figures over all engines, in the order of their first appearance."""
    found: dict[str, None] = {}
    for case in cases:
        for figures in case["engines"].values():
            found |= dict.fromkeys(figures.get(key, {}))
    return list(found)


def _number(figures: dict[str, Any], block: str, key: str, scale: float, form: str) -> str:
    value = figures.get(block, {}).get(key)
    return "–" if value is None else format(scale * value, form)


def ratio_text(summary: dict[str, float] | None) -> str:
    """Write a ratio with the bounds of its median; of one round there are none."""
    if summary is None:
        return "–"
    if summary["n"] == 1:
        return f"{summary['median']:.1f} (one round)"
    low, high = (
        summary.get(key, summary[other]) for key, other in (("low", "min"), ("high", "max"))
    )
    return f"{summary['median']:.1f} ({low:.1f} to {high:.1f})"


def format_seconds(seconds: float) -> str:
    """Write a time with three digits, in ms below a second."""
    if seconds >= 1:
        return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:.0f} s"
    return f"{1e3 * seconds:.3g} ms"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
