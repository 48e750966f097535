"""Pictures of an evaluation: ROC and precision-recall curves, score histograms, example boards.

Each function returns the bytes of a PNG. matplotlib is imported when one is called, and used
through its objects alone: no pyplot, no state that a caller's own figures could feel.
"""

from __future__ import annotations

import importlib
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from kad_sdk.errors import MissingDependencyError
from kad_sdk.metrics import precision_recall_curve, roc_auc, roc_curve
from kad_sdk.render import shrink_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = [
    "Example",
    "Level",
    "curves_png",
    "examples_png",
    "new_figure",
    "note",
    "png",
    "require",
    "scores_png",
    "thumbnail",
]

_NORMAL = "#4477aa"
_ANOMALOUS = "#cc3311"
_TAU = "#222222"
_LEVELS = (("#4477aa", "-"), ("#ee7733", "--"))  # tiles, images
_MAP_COLOURS = "inferno"
_DPI = 120
_WIDE = 0.7  # height over width below which examples stand one in a row, else two


@dataclass(frozen=True)
class Level:
    """Labels and scores of one level: of the tiles, or of the images.

    Attributes
    ----------
    name : str
        For example "tiles".
    labels, scores : ndarray
        (n,) 0 normal, 1 anomalous; (n,) float.
    threshold : float
        tau of these scores.
    """

    name: str
    labels: NDArray[Any]
    scores: NDArray[Any]
    threshold: float

    @property
    def both_classes(self) -> bool:
        """Whether a curve can be drawn."""
        return bool(np.unique(self.labels).size == 2)


@dataclass(frozen=True)
class Example:
    """One row of the picture of examples, already small.

    Attributes
    ----------
    name, kind : str
    score : float
    anomalous : bool
        The verdict.
    image : ndarray
        (h, w, 3) uint8 RGB.
    mask : ndarray or None
        (h, w) bool; None where there is no ground truth.
    map : ndarray
        (h, w) float32, NaN where masked.
    boxes : list
        Regions as (x, y, width, height), in pixels of `image`.
    """

    name: str
    kind: str
    score: float
    anomalous: bool
    image: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None
    map: NDArray[np.float32]
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)


def thumbnail(
    image: NDArray[Any],
    mask: NDArray[np.bool_] | None,
    anomaly_map: NDArray[np.float32],
    side: int = 480,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None, NDArray[np.float32], float]:
    """Make an image, its mask and its map small enough to keep: the longer side has `side` px.

    Parameters
    ----------
    image : ndarray
        (H, W) grey or (H, W, 3) RGB, uint8 or uint16.
    mask : ndarray or None
        (H, W) bool. Every defect stays visible: a small pixel is set when any of its own is.
    anomaly_map : ndarray
        (H, W) float32, NaN where masked.

    Returns
    -------
    image, mask, map, scale
        (h, w, 3) uint8, (h, w) bool or None, (h, w) float32, and h / H.
    """
    small = shrink_image(image, side)
    size = (small.shape[1], small.shape[0])
    if mask is not None:
        share = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        mask = np.asarray(share > 0)
    heat = cv2.resize(anomaly_map, size, interpolation=cv2.INTER_AREA)
    scale = max(size) / max(image.shape[:2])
    return small, mask, np.asarray(heat, np.float32), scale


def curves_png(levels: Sequence[Level]) -> bytes:
    """Draw ROC and precision-recall curves of two levels, with the points that tau gives."""
    figure = new_figure(10, 4.6)
    roc, pr = figure.subplots(1, 2)
    for level, (colour, style) in zip(levels, _LEVELS, strict=True):
        if level.both_classes:
            _draw_curves(roc, pr, level, colour, style)
    roc.plot([0, 1], [0, 1], color="0.75", linewidth=0.8, linestyle=":")
    roc.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate")
    pr.set(title="Precision and recall", xlabel="recall", ylabel="precision")
    for axes, place in ((roc, "lower right"), (pr, "lower left")):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc=place, frameon=False, fontsize=9)
        else:
            note(axes, "needs normal and anomalous items")
        _plain(axes)
    return png(figure)


def _draw_curves(roc: Any, pr: Any, level: Level, colour: str, style: str) -> None:
    flagged, truth = level.scores >= level.threshold, level.labels == 1
    found = float(np.mean(flagged[truth]))
    line = {"color": colour, "linewidth": 1.6, "linestyle": style}
    curve = roc_curve(level.labels, level.scores)
    label = f"{level.name}, AUROC {roc_auc(level.labels, level.scores):.4f}"
    roc.plot(curve.x, curve.y, **line, label=label)
    roc.plot(float(np.mean(flagged[~truth])), found, "o", color=colour, label=f"{level.name} at τ")
    curve = precision_recall_curve(level.labels, level.scores)
    pr.plot(curve.x, curve.y, **line, label=level.name)
    if flagged.any():
        precision = float(np.mean(truth[flagged]))
        pr.plot(found, precision, "o", color=colour, label=f"{level.name} at τ")


def scores_png(levels: Sequence[Level]) -> bytes:
    """Draw each level's score histogram by class, with its tau marked."""
    figure = new_figure(10, 1.0 + 2.8 * len(levels))
    rows = np.ravel(figure.subplots(len(levels), 1, sharex=True))
    taus = [level.threshold for level in levels]
    edges = _edges(np.concatenate([*(level.scores for level in levels), taus]))
    for axes, level in zip(rows, levels, strict=True):
        axes.set(title=f"Scores of {level.name}", ylabel="share of the class")
        if level.scores.size:
            _draw_histogram(axes, level, edges)
        else:
            note(axes, f"no {level.name} with a known label")
        _plain(axes)
    rows[-1].set_xlabel("score")
    return png(figure)


def _edges(values: NDArray[Any]) -> NDArray[Any]:
    low, high = float(values.min()), float(values.max())
    pad = 0.02 * (high - low) or 0.5
    return np.linspace(low - pad, high + pad, 51)


def _draw_histogram(axes: Any, level: Level, edges: NDArray[Any]) -> None:
    for value, name, colour in ((0, "normal", _NORMAL), (1, "anomalous", _ANOMALOUS)):
        scores = level.scores[level.labels == value]
        if scores.size:
            share = np.full(scores.size, 1 / scores.size)
            label = f"{name} ({scores.size:,})"
            axes.hist(scores, edges, weights=share, color=colour, alpha=0.55, label=label)
    tau = level.threshold
    axes.axvline(tau, color=_TAU, linewidth=1.2, linestyle="--", label=f"τ = {tau:.4g}")
    axes.legend(frameon=False, fontsize=9)


def examples_png(examples: Sequence[Example], map_threshold: float) -> bytes:
    """Draw examples: image, ground truth and anomaly map with its regions, side by side.

    All maps share one colour scale; a white line follows the map's threshold.
    """
    shapes = [example.image.shape[0] / example.image.shape[1] for example in examples] or [1.0]
    groups = 2 if len(examples) > 1 and np.median(shapes) >= _WIDE else 1
    n_rows = -(-len(shapes) // groups)
    tallest = 1.4 if np.median(shapes) < 1.4 else 3.0
    ratios = [min(max(shapes[groups * i : groups * (i + 1)]), tallest) for i in range(n_rows)]
    cell = 3.0 if groups == 1 else 1.8  # inches
    figure = new_figure(3 * groups * cell, cell * sum(ratios) + 0.55 * n_rows + 0.9)
    grid = figure.subplots(n_rows, 3 * groups, squeeze=False, height_ratios=ratios)
    for axes in grid.ravel():
        axes.set(xticks=[], yticks=[], anchor="N")
        axes.spines[:].set_visible(False)
    limits = _map_range(examples, map_threshold)
    shown = None
    for i, example in enumerate(examples):
        left = 3 * (i % groups)
        panels = grid[i // groups, left : left + 3]
        shown = _draw_example(panels, example, limits, map_threshold)
    if shown is not None:
        _draw_scale(figure, shown, grid, map_threshold)
    return png(figure)


def _draw_scale(figure: Any, shown: Any, grid: Any, map_threshold: float) -> None:
    place = {"ax": grid.ravel().tolist(), "orientation": "horizontal", "location": "bottom"}
    bar = figure.colorbar(shown, **place, fraction=0.03, aspect=60, pad=0.02, panchor=False)
    bar.set_label(f"anomaly map; white line: threshold {map_threshold:.4g}")
    bar.ax.axvline(map_threshold, color="white", linewidth=1.5)
    bar.outline.set_visible(False)


def _map_range(examples: Sequence[Example], map_threshold: float) -> tuple[float, float]:
    values = [e.map[np.isfinite(e.map)] for e in examples]
    joined = np.concatenate([*values, np.array([map_threshold])])
    return float(joined.min()), float(joined.max())


def _draw_example(
    panels: Sequence[Any], example: Example, limits: tuple[float, float], map_threshold: float
) -> Any:
    plain, truth, heat = panels
    low, high = limits
    verdict = "anomalous" if example.anomalous else "normal"
    plain.imshow(example.image)
    plain.set_title(f"{_short(example.name)}\n{example.kind}", fontsize=8, loc="left")
    if example.mask is None:
        note(truth, "no ground truth")
    else:
        truth.imshow(_tinted(example.image, example.mask))
        words = "ground truth" if example.mask.any() else "ground truth: none"
        truth.set_title(words, fontsize=8, loc="left")
    heat.set_title(f"score {example.score:.4g}\nverdict: {verdict}", fontsize=8, loc="left")
    shown = heat.imshow(example.map, cmap=_MAP_COLOURS, vmin=low, vmax=high)
    heat.set_facecolor("0.85")
    if np.nanmax(example.map, initial=-np.inf) >= map_threshold:
        heat.contour(
            np.nan_to_num(example.map, nan=low), [map_threshold], colors="white", linewidths=0.7
        )
    for x, y, width, height in example.boxes:
        corners = ([x, x + width, x + width, x, x], [y, y, y + height, y + height, y])
        heat.plot(*corners, color="#33ddee", linewidth=1.2)
    heat.set(xlim=(-0.5, example.map.shape[1] - 0.5), ylim=(example.map.shape[0] - 0.5, -0.5))
    return shown


def _tinted(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Show a mask in red over a pale grey image."""
    grey = image.mean(axis=2, keepdims=True).repeat(3, axis=2) * 0.6 + 90
    red = np.array([204, 51, 17], dtype=np.float64)
    return np.where(mask[:, :, None], red, np.minimum(grey, 255)).astype(np.uint8)


def _short(name: str) -> str:
    return name if len(name) <= 22 else f"…{name[-21:]}"


def require() -> None:
    """Raise MissingDependencyError where matplotlib is not installed."""
    _matplotlib("figure")


def _matplotlib(name: str) -> Any:
    try:
        return importlib.import_module(f"matplotlib.{name}")
    except ImportError as error:
        raise MissingDependencyError(
            "matplotlib is needed to draw the figures and is not installed; "
            "install it with: pip install 'kad-sdk[evaluate]'"
        ) from error


def new_figure(width: float, height: float) -> Any:
    """Make an empty figure of so many inches."""
    return _matplotlib("figure").Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)


def note(axes: Any, text: str) -> None:
    """Write where a curve would be why there is none."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="0.45")


def png(figure: Any) -> bytes:
    """Encode a figure: the same one gives the same bytes."""
    _matplotlib("backends.backend_agg").FigureCanvasAgg(figure)
    data = io.BytesIO()
    # Without the version and date that matplotlib adds: the same figures give the same bytes.
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()
