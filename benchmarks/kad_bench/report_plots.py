"""The pictures of a report: speed-up bars, latency, growth, roofline, time by stage.

Each is drawn twice, for wide and for narrow screens; the page turns the colours round where it is
dark. matplotlib is used through its objects alone, as :mod:`kad_sdk.plots` does.
"""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from kad_bench.laws import law_text
from kad_bench.tables import case_name, format_seconds, like_with_like

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

__all__ = ["Look", "Plot", "plots_of"]

# Neither light nor dark: they stand out from a white ground, and from a dark one when turned round.
_COLOURS = ("#4477aa", "#dd6622", "#228833", "#aa3377", "#2090a8", "#a08a10", "#888888", "#cc3311")
_MARKS = "osD^vP*X"
# A stage has one colour in all pictures: the first are plain, the others hatched.
_STAGES = (
    *("read", "network", "search", "map", "preprocess", "explain", "encode", "prepare"),
    *("upload", "features", "scores", "copy", "density", "write", "average", "other"),
)


_INK = "#222222"


@dataclass(frozen=True)
class Look:
    """How a picture is drawn: for a narrow screen, or a wide one."""

    narrow: bool

    @property
    def width(self) -> float:
        """Inches, at which text of 9 points is about as large as the page's."""
        return 4.0 if self.narrow else 9.6


@dataclass(frozen=True)
class Plot:
    """A picture: its file's name without suffix, its text, and the PNGs of both widths."""

    name: str
    title: str
    wide: bytes
    narrow: bytes


def _plot(name: str, title: str, draw: Callable[[Look], Figure]) -> Plot:
    wide, narrow = (_png(draw(Look(narrow))) for narrow in (False, True))
    return Plot(name, title, wide, narrow)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140, facecolor="white")
    return buffer.getvalue()


def plots_of(document: dict[str, Any]) -> Iterator[Plot]:
    """Draw the pictures of a run's document, suite by suite."""
    for suite, results in document["suites"].items():
        cases = results["cases"]
        bars = _bars(cases)
        if bars:
            title = f"{suite}: how many times faster kad is"
            yield _plot(f"{suite}-speedup", title, lambda look, b=bars: _draw_bars(look, b))
        staged = _staged(cases)
        if staged:
            title = f"{suite}: share of each stage"
            yield _plot(f"{suite}-stages", title, lambda look, s=staged: _draw_stages(look, s))
        yield from _latency_plots(suite, cases)
        for i, growth in enumerate(results.get("growth", [])):
            title = f"{suite}: {growth['y']} against {growth['x']}"
            yield _plot(f"{suite}-growth-{i}", title, lambda look, g=growth: _draw_growth(look, g))
        if results.get("roofline"):
            yield _plot(
                f"{suite}-roofline",
                f"{suite}: against this machine's measured peaks",
                lambda look, r=results["roofline"]: _draw_roofline(look, r),
            )


def _figure(look: Look, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(look.width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for spine in axes.spines.values():
        spine.set_color(_INK)
    axes.tick_params(colors=_INK, which="both", labelsize=9)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    axes.grid(color=_INK, alpha=0.15, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _legend(figure: Figure, axes: Axes, look: Look) -> None:
    """Put the legend below the axes, where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    labels = [textwrap.fill(label, 44 if look.narrow else 100) for label in labels]
    figure.legend(
        handles,
        labels,
        loc="outside lower left",
        ncols=1 if look.narrow else min(2, len(labels)),
        fontsize=8.5,
        frameon=False,
        labelcolor=_INK,
    )


def _plain_numbers(*axes: Axis) -> None:
    """Mark logarithmic axes at 1, 2, 5, 10, written out."""
    for axis in axes:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _wrap(label: str, look: Look) -> str:
    return textwrap.fill(label, 20 if look.narrow else 44)


def _bars(cases: list[dict[str, Any]]) -> list[tuple[str, dict[str, float]]]:
    """Label and ratio of every peer, each against the engine of kad's that is like it."""
    return [
        (f"{case_name(case)}: {peer}", ratio)
        for case in cases
        for _, peer, ratio in like_with_like(case)
    ]


def _draw_bars(look: Look, bars: list[tuple[str, dict[str, float]]]) -> Figure:
    labels = [_wrap(label, look) for label, _ in bars]
    lines = sum(label.count("\n") + 1 for label in labels)
    figure, axes = _figure(look, 1.0 + 0.17 * lines + 0.12 * len(bars))
    values = np.array([ratio["median"] for _, ratio in bars])
    low = np.array([ratio.get("low", ratio["min"]) for _, ratio in bars])
    high = np.array([ratio.get("high", ratio["max"]) for _, ratio in bars])
    y = np.arange(len(bars))[::-1]
    axes.barh(y, values, color=_COLOURS[0], height=0.62)
    spread = np.stack([values - low, high - values])
    axes.errorbar(values, y, xerr=spread, fmt="none", ecolor=_INK, elinewidth=1, capsize=2)
    for value, top, place in zip(values, high, y, strict=True):
        axes.annotate(
            f"{value:.1f}",
            (top, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=_INK,
        )
    axes.axvline(1, color=_COLOURS[7], linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(min(0.7, 0.7 * low.min()), 1.8 * max(2.0, high.max()))
    _plain_numbers(axes.xaxis)
    axes.set_ylim(-0.6, len(bars) - 0.4)
    axes.set_yticks(y, labels, fontsize=8.5)
    axes.set_xlabel("time of the other over time of kad")
    axes.grid(visible=False, axis="y")
    return figure


def _staged(cases: list[dict[str, Any]]) -> list[tuple[str, dict[str, float]]]:
    return [
        (f"{case_name(case)}: {name}", figures["stages_s"])
        for case in cases
        for name, figures in case["engines"].items()
        if figures.get("stages_s")
    ]


def _draw_stages(look: Look, staged: list[tuple[str, dict[str, float]]]) -> Figure:
    names = list(dict.fromkeys(stage for _, stages in staged for stage in stages))
    labels = [
        _wrap(f"{label}, {format_seconds(sum(stages.values()))}", look) for label, stages in staged
    ]
    lines = sum(label.count("\n") + 1 for label in labels)
    legend = len(names) * (0.2 if look.narrow else 0.1)
    figure, axes = _figure(look, 1.0 + legend + 0.17 * lines + 0.12 * len(staged))
    y = np.arange(len(staged))[::-1]
    left = np.zeros(len(staged))
    for name in names:
        share = np.array([100 * s.get(name, 0) / sum(s.values()) for _, s in staged])
        i = _STAGES.index(name) if name in _STAGES else len(_STAGES) + names.index(name)
        hatch = ("", "//", "..")[min(i // len(_COLOURS), 2)]
        colour = _COLOURS[i % len(_COLOURS)]
        axes.barh(y, share, left=left, color=colour, height=0.62, label=name, hatch=hatch)
        left += share
    axes.set_xlim(0, 100)
    axes.set_ylim(-0.6, len(staged) - 0.4)
    axes.set_yticks(y, labels, fontsize=8.5)
    axes.set_xlabel("% of the time")
    axes.grid(visible=False, axis="y")
    _legend(figure, axes, look)
    return figure


def _latency_plots(suite: str, cases: list[dict[str, Any]]) -> Iterator[Plot]:
    for i, case in enumerate(cases):
        engines = {n: e for n, e in case["engines"].items() if e.get("latency_s")}
        if len(engines) > 2:
            title = f"{suite}: {case_name(case)}: latency of a call against throughput"
            yield _plot(
                f"{suite}-latency-{i}", title, lambda look, e=engines: _draw_latency(look, e)
            )


def _draw_latency(look: Look, engines: dict[str, Any]) -> Figure:
    figure, axes = _figure(look, 3.2 + len(engines) * (0.22 if look.narrow else 0.11))
    for i, (name, figures) in enumerate(engines.items()):
        latency = figures["latency_s"]
        rate = 1 / figures["seconds"]["median"]
        p50, p99 = 1e3 * latency["median"], 1e3 * latency["p99"]
        colour, mark = _COLOURS[i % len(_COLOURS)], _MARKS[i // len(_COLOURS) % len(_MARKS)]
        times = [format_seconds(latency[key]) for key in ("median", "p99")]
        label = f"{name}: {times[0]}, p99 {times[1]}"
        axes.errorbar(
            [rate], [p50], yerr=[[0], [p99 - p50]], fmt=mark, color=colour, capsize=3, label=label
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain_numbers(axes.xaxis, axes.yaxis)
    axes.set_xlabel("tiles a second")
    axes.set_ylabel("ms for a call: median to p99")
    _legend(figure, axes, look)
    return figure


def _draw_growth(look: Look, growth: dict[str, Any]) -> Figure:
    figure, axes = _figure(look, 3.2 + len(growth["points"]) * (0.4 if look.narrow else 0.2))
    for i, (name, points) in enumerate(growth["points"].items()):
        x, y = np.array(points).T
        law = growth["law"].get(name)  # none of too few points
        label = f"{name}: {law_text(law, '')}" if law else name
        axes.plot(x, y, _MARKS[i], color=_COLOURS[i], label=label)
        if law:
            line = np.geomspace(x.min(), x.max(), 100)
            axes.plot(line, law["a"] + law["b"] * line, color=_COLOURS[i], linewidth=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain_numbers(axes.xaxis, axes.yaxis)
    axes.set_xlabel(growth["x"])
    axes.set_ylabel(textwrap.fill(growth["y"], 24))
    _legend(figure, axes, look)
    return figure


def _draw_roofline(look: Look, roofline: dict[str, Any]) -> Figure:
    peaks, points = roofline["peaks"], roofline["points"]
    figure, axes = _figure(look, 3.4 + len(points) * (0.3 if look.narrow else 0.11))
    intensity = np.geomspace(1, 1000, 200)  # FLOP a byte
    roof = np.minimum(peaks["gflop_per_s"], intensity * peaks["gb_per_s"])
    text = f"roof: {peaks['gflop_per_s']:.0f} GFLOP/s, {peaks['gb_per_s']:.1f} GB/s"
    axes.plot(intensity, roof, color=_INK, linewidth=1.4, label=text)
    for i, (name, point) in enumerate(points.items()):
        rate = point["flop"] / point["seconds"] / 1e9
        colour, mark = _COLOURS[i % len(_COLOURS)], _MARKS[i // len(_COLOURS) % len(_MARKS)]
        label = f"{name}: {100 * rate / peaks['gflop_per_s']:.0f} % of the peak"
        axes.plot([point["flop"] / point["bytes"]], [rate], mark, color=colour, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain_numbers(axes.xaxis, axes.yaxis)
    axes.set_xlabel("FLOP for each byte of weights, inputs and outputs")
    axes.set_ylabel("GFLOP/s")
    _legend(figure, axes, look)
    return figure
