"""Charts of the report as inline SVG: curves, histograms, scatter plots.

Colours come from the page's style sheet by class, so that a chart is readable in light and dark.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["Axis", "Curve", "curves", "histogram", "scatter"]

_WIDTH, _HEIGHT = 440, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 46
_STEP = 0.6  # units of the picture that a curve moves before it gets another point


@dataclass(frozen=True)
class Axis:
    """An axis: its name and range."""

    name: str
    low: float
    high: float

    def ticks(self) -> list[float]:
        """Round numbers in the range, four to nine of them."""
        raw = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]


@dataclass(frozen=True)
class Curve:
    """A curve: the style's class, its name, its points, and the point that tau gives."""

    style: str
    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    at: tuple[float, float] | None


class _Plot:
    """A frame with axes; places are in the axes' units."""

    def __init__(self, x: Axis, y: Axis) -> None:
        self._x, self._y = x, y
        self.parts: list[str] = []
        for tick in y.ticks():
            v = self.at_y(tick)
            self.parts.append(f'<path class="grid" d="M{_LEFT} {v:.1f}H{_WIDTH - _RIGHT}"/>')
            self._text(_LEFT - 7, v + 4.5, f"{tick:.4g}", "end")
        for tick in x.ticks():
            self._text(self.at_x(tick), _HEIGHT - _BOTTOM + 18, f"{tick:.4g}", "middle")
        self._text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, x.name, "middle")
        middle = (_TOP + _HEIGHT - _BOTTOM) / 2
        self.parts.append(
            f'<text transform="translate(13 {middle:.1f}) rotate(-90)" text-anchor="middle">'
            f"{escape(y.name)}</text>"
        )

    def at_x(self, value: Any) -> Any:
        share = (value - self._x.low) / (self._x.high - self._x.low)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def at_y(self, value: Any) -> Any:
        share = (value - self._y.low) / (self._y.high - self._y.low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    def _text(self, x: float, y: float, text: str, anchor: str) -> None:
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def line(self, style: str, x: ArrayLike, y: ArrayLike) -> None:
        points = np.stack([self.at_x(np.asarray(x)), self.at_y(np.asarray(y))], axis=1)
        path = "L".join(f"{a:.1f} {b:.1f}" for a, b in _thinned(points).tolist())
        self.parts.append(f'<path class="line {style}" d="M{path}"/>')

    def dot(self, style: str, at: tuple[float, float]) -> None:
        x, y = self.at_x(at[0]), self.at_y(at[1])
        self.parts.append(f'<circle class="dot {style}" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>')

    def svg(self, label: str) -> str:
        return (
            f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
            f'aria-label="{escape(label)}">{"".join(self.parts)}</svg>'
        )


def _thinned(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Leave out points that cannot be seen apart from the last one kept; corners stay."""
    keep, last = [0], points[0]
    for i in range(1, len(points) - 1):
        if np.abs(points[i] - last).max() >= _STEP:
            keep.append(i)
            last = points[i]
    return points[[*keep, len(points) - 1]] if len(points) > 1 else points


def curves(label: str, x_name: str, y_name: str, drawn: Sequence[Curve], *, chance: bool) -> str:
    """Draw curves over 0..1 with the points that tau gives.

    Parameters
    ----------
    label
        What the chart says, for those who do not see it.
    chance
        Whether the diagonal, a guess's ROC curve, is drawn.
    """
    plot = _Plot(Axis(x_name, 0, 1), Axis(y_name, 0, 1))
    if chance:
        plot.line("chance", [0, 1], [0, 1])
    for curve in drawn:
        plot.line(curve.style, curve.x, curve.y)
    for curve in drawn:
        if curve.at is not None:
            plot.dot(curve.style, curve.at)
    return plot.svg(label)


def histogram(
    label: str, x_name: str, classes: Sequence[tuple[str, NDArray[np.float64]]], tau: float
) -> str:
    """Draw the score histogram of each class, in shares of the class, with tau marked.

    Parameters
    ----------
    classes
        The style's class and the scores (n,) of each; at least one score in all.
    """
    values = np.concatenate([*(scores for _, scores in classes), [tau]])
    pad = 0.03 * float(np.ptp(values)) or 0.5
    edges = np.linspace(values.min() - pad, values.max() + pad, 45)
    shares = [np.histogram(s, edges)[0] / max(1, s.size) for _, s in classes]
    tallest = max(float(share.max()) for share in shares)
    x = Axis(x_name, float(edges[0]), float(edges[-1]))
    plot = _Plot(x, Axis("share of the class", 0, 1.08 * tallest))
    for (style, _), share in zip(classes, shares, strict=True):
        corners = np.repeat(edges, 2)[1:-1], np.repeat(share, 2)
        plot.line(f"area {style}", np.r_[edges[0], corners[0], edges[-1]], np.r_[0, corners[1], 0])
    plot.line("tau", [tau, tau], [0, 1.08 * tallest])
    return plot.svg(label)


def scatter(label: str, groups: Sequence[tuple[str, NDArray[np.float32]]]) -> str:
    """Draw points (n, 2) of several groups, without axes: their units mean nothing."""
    everything = np.concatenate([points for _, points in groups])
    low, high = everything.min(axis=0), everything.max(axis=0)
    scale = np.array([_WIDTH - 16, _HEIGHT - 16]) / np.maximum(high - low, 1e-9)
    parts = []
    for style, points in groups:
        at = ((points - low) * scale + 8).tolist()
        dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in at)  # round ends make dots
        parts.append(f'<path class="points {style}" d="{dots}"/>')
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
