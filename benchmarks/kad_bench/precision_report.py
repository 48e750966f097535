"""The precision suite's results as Markdown: quality beside quality, time beside time."""

from __future__ import annotations

from typing import Any

from kad_bench.tables import format_seconds, markdown, ratio_text

__all__ = ["table"]

_FIGURES = {
    "image_roc_auc": "image AUROC",
    "pixel_roc_auc": "pixel AUROC",
    "aupro": "AUPRO",
    "tile_roc_auc": "tile AUROC",
}
_FIRST = "kad fp32"


def table(results: dict[str, Any]) -> str:
    """Lay out what :func:`kad_bench.precision_suite.run` returned."""
    cases = results["cases"]
    notes = [
        "In brackets: the difference from fp32. *fp32, seed 1* is float32 once more, with another "
        "draw of boards held out and bank rows: what differs by no more than it says nothing of "
        "the precision. *Off fp32*: base maps of the golden tiles against float32 PyTorch's, the "
        "largest difference over the largest value, and the root mean square over that of the "
        "values.",
        "Time of a tile in a batch, from the network's input to its score, without its map; "
        "taken in turn, round by round, after every artifact has reproduced its golden tiles. "
        "*Faster*: float32's time over this one's, the median of the rounds (its bounds, 95 %).",
    ]
    listed = "\n".join(f"- {case['case']}: {case['what']}" for case in cases)
    return "\n\n".join([_quality(cases), notes[0], _speed(cases), notes[1], listed])


def _quality(cases: list[dict[str, Any]]) -> str:
    header = ["data", "precision", *_FIGURES.values(), "off fp32: largest", "rms"]
    rows = []
    for case in cases:
        first = case["engines"][_FIRST]["accuracy"]
        for name, figures in case["engines"].items():
            found = figures["accuracy"]
            rms = figures["off"].get("rms")
            rows.append(
                [
                    *(case["case"], name.removeprefix("kad ")),
                    *(_figure(found.get(k), first.get(k), name == _FIRST) for k in _FIGURES),
                    *(f"{figures['off']['largest']:.1e}", "–" if rms is None else f"{rms:.1e}"),
                ]
            )
    return markdown(header, rows)


def _figure(value: float | None, first: float | None, plain: bool) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if plain or first is None else f"{value:.4f} ({value - first:+.4f})"


def _speed(cases: list[dict[str, Any]]) -> str:
    header = ["data", "bank", "batch", "precision", "network", "search", "whole tile"]
    header += ["network faster", "tile faster", "network MB", "artifact MB"]
    rows = []
    for case in cases:
        for name, figures in case["engines"].items():
            if "seconds" not in figures:
                continue
            stages, sizes = figures["stages_s"], figures["size_bytes"]
            tile = case["ratios"].get(name, {}).get(_FIRST)
            rows.append(
                [
                    *(case["case"], f"{figures['bank_rows']:,}", str(figures["batch"])),
                    name.removeprefix("kad "),
                    *(format_seconds(stages[stage]) for stage in ("network", "search")),
                    format_seconds(figures["seconds"]["median"]),
                    *(_ratio(r) for r in (case["network_ratios"].get(name), tile)),
                    *(f"{sizes[kind] / 1e6:.1f}" for kind in ("network", "artifact")),
                ]
            )
    return markdown(header, rows)


def _ratio(summary: dict[str, float] | None) -> str:
    if summary is None:
        return "1"
    if summary["median"] >= 1:
        return ratio_text(summary)
    low, high = summary["low"], summary["high"]
    return f"{summary['median']:.2f} ({low:.2f} to {high:.2f})"
