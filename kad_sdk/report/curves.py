"""Sections of the page about all boards together: kinds, curves, scores, time, facts."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from kad_sdk.metrics import precision_recall_curve, roc_auc, roc_curve
from kad_sdk.report import charts

if TYPE_CHECKING:
    from kad_sdk.plots import Level
    from kad_sdk.report.page import Content

__all__ = ["curve_charts", "embeddings", "facts", "histograms", "kinds", "times"]

_NAMES = {"tiles": "tiles", "images": "boards"}  # level to what the page calls it
_NO_CURVES = '<p class="soft">A curve takes both normal and defective boards.</p>'


def kinds(content: Content) -> str:
    """Recall of each kind of defect: of boards, of defects, of tiles."""
    found = {k: v for k, v in content.figures["kinds"].items() if "image_recall" in v}
    if not found:
        return '<p class="soft">No board is known to be defective.</p>'
    rows = "".join(_kind(kind, facts) for kind, facts in found.items())
    return (
        "<p>What is missed most, by kind. A board with defects of several kinds counts in each. "
        "Tiles overlap, so a defect lies in several.</p>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Recall of each kind">'
        '<table class="sorts"><thead><tr><th>kind</th><th>defects found</th>'
        '<th>boards flagged</th><th class="wide">tiles flagged</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _kind(kind: str, facts: dict[str, Any]) -> str:
    tiles = facts["defect_tiles"]
    hit = 0 if facts["tile_recall"] is None else round(facts["tile_recall"] * tiles)
    cells = (
        _share(facts["found_defects"], facts["defects"]),
        _share(facts["flagged"], facts["images"]),
        _share(hit, tiles, "wide"),
    )
    return f'<tr><th scope="row">{escape(kind)}</th>{"".join(cells)}</tr>'


def _share(part: int, whole: int, style: str = "") -> str:
    if not whole:
        return f'<td class="{style}" data-v="-1">–</td>'
    share = part / whole
    return (
        f'<td class="{style}" data-v="{share:.6f}"><span class="bar">'
        f'<i style="width:{100 * share:.1f}%"></i></span> {part:,} of {whole:,}</td>'
    )


def curve_charts(content: Content) -> str:
    """ROC and precision-recall curves with the operating point."""
    levels = [level for level in content.levels if level.both_classes]
    if not levels:
        return _NO_CURVES
    roc = charts.curves(
        "ROC curves", "false positive rate", "recall", [_roc(le) for le in levels], chance=True
    )
    pr = charts.curves(
        "Precision and recall", "recall", "precision", [_pr(le) for le in levels], chance=False
    )
    areas = "".join(
        f'<li class="{_NAMES[le.name]}"><i></i>{_NAMES[le.name]}, ROC-AUC '
        f"{roc_auc(le.labels, le.scores):.4f}</li>"
        for le in levels
    )
    return (
        "<p>Every threshold gives a point; the dots are the thresholds in use.</p>"
        f'<ul class="key">{areas}<li class="point"><i></i>at τ</li></ul><div class="charts">'
        f"<figure>{roc}<figcaption><b>ROC</b>: the share of good ones flagged wrongly against the "
        "share of defective ones found; the upper left corner is perfect.</figcaption></figure>"
        f"<figure>{pr}<figcaption><b>Precision and recall</b>: of what is flagged, the share that "
        "is defective, against the share of defective ones found; the upper right corner is "
        "perfect.</figcaption></figure></div>"
    )


def _roc(level: Level) -> charts.Curve:
    flagged, truth = level.scores >= level.threshold, level.labels == 1
    curve = roc_curve(level.labels, level.scores)
    at = (float(np.mean(flagged[~truth])), float(np.mean(flagged[truth])))
    return charts.Curve(_NAMES[level.name], level.name, curve.x, curve.y, at)


def _pr(level: Level) -> charts.Curve:
    flagged, truth = level.scores >= level.threshold, level.labels == 1
    curve = precision_recall_curve(level.labels, level.scores)
    recall = float(np.mean(flagged[truth]))
    at = (recall, float(np.mean(truth[flagged]))) if flagged.any() else None
    return charts.Curve(_NAMES[level.name], level.name, curve.x, curve.y, at)


def histograms(content: Content) -> str:
    """Score histograms of tiles and of boards."""
    figures = []
    for level in content.levels:
        name = _NAMES[level.name]
        if not level.scores.size:
            figures.append(f'<p class="soft">No {name} with a known label.</p>')
            continue
        good, bad = (level.scores[level.labels == value] for value in (0, 1))
        chart = charts.histogram(
            f"Scores of {name}",
            f"score of {name}",
            [("normal", good), ("anomalous", bad)],
            level.threshold,
        )
        figures.append(
            f"<figure>{chart}<figcaption><b>{name.capitalize()}</b>: {good.size:,} good, "
            f"{bad.size:,} defective, τ = {level.threshold:.4g}</figcaption></figure>"
        )
    return (
        "<p>Where the two heaps lie apart, a threshold between them makes no mistake. Good ones "
        "right of τ are false alarms, defective ones left of it are missed.</p>"
        '<ul class="key"><li class="normal"><i></i>good</li><li class="anomalous"><i></i>defective'
        '</li><li class="tau"><i></i>threshold τ</li></ul>'
        f'<div class="charts">{"".join(figures)}</div>'
    )


def embeddings(content: Content) -> str:
    """t-SNE of the tiles' embeddings, where the method has some."""
    if content.places is None:
        method = content.figures["artifact"]["method"]
        why = (
            "PatchCore compares patches and has no embedding of a whole tile"
            if method == "patchcore"
            else "too few tiles have a known label"
        )
        return f'<p class="soft">No picture: {why}.</p>'
    places, names = content.places[0], np.array(content.places[1])
    order = sorted({*content.places[1]}, key=lambda name: (name != "normal", name))
    styles = {name: "" if name == "normal" else f"k{(i - 1) % 10}" for i, name in enumerate(order)}
    groups = [(styles[name], places[names == name]) for name in order]
    chart = charts.scatter("t-SNE of tile embeddings", groups)
    key = "".join(
        f'<li class="point {styles[name]}"><i></i>{escape(name)} ({int((names == name).sum()):,})'
        "</li>"
        for name in order
    )
    return (
        "<p>Each point is a tile, laid out by t-SNE so that tiles with like embeddings lie close. "
        "Kinds that lie among the normal tiles are those that the network cannot tell from them. "
        f'Distances between far groups mean nothing.</p><ul class="key">{key}</ul>{chart}'
    )


def times(content: Content) -> str:
    """Time of the mean board, by stage."""
    timings = dict(content.figures["timings_ms"])
    total = timings.pop("score_total")["mean"]
    whole = total + timings["read"]["mean"]
    rows = "".join(
        f'<tr><th scope="row">{escape(stage)}</th>'
        f'<td class="n" data-v="{facts["mean"]:.6g}">{facts["mean"]:,.0f}</td>'
        f'<td data-v="{facts["mean"]:.6g}"><span class="bar">'
        f'<i style="width:{100 * facts["mean"] / whole:.1f}%"></i></span> '
        f"{100 * facts['mean'] / whole:.1f} %</td></tr>"
        for stage, facts in timings.items()
    )
    run = content.figures["runtime"]
    return (
        f"<p>The mean board takes {whole / 1e3:.2f} s from file to verdict, on {run['device']} "
        f"({run['precision']}), {run['threads']} threads. Other work on the "
        "machine at the time counts in.</p>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Time by stage">'
        '<table class="sorts"><thead><tr><th>stage</th><th class="n">ms a board</th>'
        f"<th>share</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def facts(content: Content) -> str:
    """Say what was judged, on what."""
    lines: list[list[str]] = []
    for name, text in content.facts:
        if name:
            lines.append([name, text])
        else:
            lines[-1][1] += f"; {text}"
    data, counts = content.figures["data"], content.figures["counts"]
    run = content.figures["runtime"]
    lines += [
        [
            "in use",
            f"thresholds of tiles {run['tile_threshold']:.6g}, map {run['map_threshold']:.6g}",
        ],
        [
            "data",
            f"{data['name']} ({data['layout']} layout): {counts['normal_images']:,} good, "
            f"{counts['anomalous_images']:,} defective, {counts['unlabelled_images']:,} unlabelled",
        ],
        ["data's SHA-256", data["fingerprint"]],
    ]
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in lines)
    reasons = "".join(
        f"<dt>no {escape(name)}</dt><dd>{escape(reason)}</dd>"
        for name, reason in content.figures["reasons"].items()
    )
    return f"<dl>{items}{reasons}</dl>"
