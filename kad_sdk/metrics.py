"""Figures of merit over scores, labels, maps and masks.

Tile and image figures come from scikit-learn, which is imported only when one is asked for.

Pixel figures are computed here, in one streaming pass and in bounded memory, since the maps of a
board data set (19 million float32 values each) do not fit in memory together. Float32 values sort
like their bit patterns, so a histogram over the leading bits of those patterns is a histogram over
the sorted order: each octave (power of two) has 2^20 equally wide bins, a millionth of the value.
Inside a bin the order is unknown and the curve is taken as straight, as it is for ties. The area
can be off by at most half the product of the bin's shares of both classes; their sum is returned
beside each figure as its error bound, in practice about 1e-7.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from kad_sdk.errors import InvalidArgumentError, MissingDependencyError, NotFiniteError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "AUPRO_FPR_LIMIT",
    "Area",
    "Classification",
    "Curve",
    "PixelMetrics",
    "classify",
    "precision_recall_curve",
    "require",
    "roc_auc",
    "roc_curve",
]

AUPRO_FPR_LIMIT = 0.3  # Bergmann et al. 2021, MVTec AD, section 5.2

_DROPPED_BITS = 3  # of the 23 bits of a float32's mantissa
_BINS = 1 << 8  # of a block; blocks are made where values occur
_BLOCKS = 1 << (32 - _DROPPED_BITS - 8)
_STRIP_PX = 1 << 21  # pixels worked on at once: bounds the temporaries to some 50 MB


class Curve(NamedTuple):
    """Points of a ROC curve (false and true positive rate) or PR curve (recall and precision)."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]


class Area(NamedTuple):
    """An area under a curve: the value and its error bound, or why there is none."""

    value: float | None
    error_bound: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Classification:
    """Figures of one level, tiles or images, where an item is flagged at ``score >= threshold``.

    A figure is None when the data cannot give it; ``reasons`` then says why, by name of the field.
    ``confusion_matrix`` is ``[[true negatives, false alarms], [missed, found]]``.
    """

    roc_auc: float | None
    average_precision: float | None
    best_f1: float | None
    best_f1_threshold: float | None
    accuracy: float | None
    precision: float | None
    recall: float | None
    confusion_matrix: list[list[int]] | None
    threshold: float
    reasons: dict[str, str] = field(default_factory=dict)


def classify(
    labels: ArrayLike, scores: ArrayLike, *, threshold: float, items: str = "items"
) -> Classification:
    """Compute every figure of one level.

    Parameters
    ----------
    labels
        (n,) 0 normal, 1 anomalous.
    scores
        (n,) finite; the larger, the more anomalous.
    threshold
        tau; an item counts as flagged when its score is at least tau.
    items
        What the items are called in the reasons, for example "tiles".

    Raises
    ------
    InvalidArgumentError
        Lengths differ, or a label is neither 0 nor 1.
    NotFiniteError
        A score is NaN or infinite.
    MissingDependencyError
        scikit-learn is not installed.
    """
    truth, values = _checked(labels, scores)
    reasons: dict[str, str] = {}
    ranked = _ranked(truth, values, items, reasons)
    at_tau = _at_threshold(truth, values >= threshold, items, reasons)
    return Classification(**ranked, **at_tau, threshold=float(threshold), reasons=reasons)


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Area under the ROC curve; None unless both classes are there."""
    truth, values = _checked(labels, scores)
    if np.unique(truth).size < 2:
        return None
    return float(_sklearn_metrics().roc_auc_score(truth, values))


def roc_curve(labels: ArrayLike, scores: ArrayLike) -> Curve:
    """Trace the false and true positive rate, both rising; both classes must be there."""
    truth, values = _checked(labels, scores)
    fpr, tpr, _ = _sklearn_metrics().roc_curve(truth, values)
    return Curve(fpr, tpr)


def precision_recall_curve(labels: ArrayLike, scores: ArrayLike) -> Curve:
    """Trace recall, falling, and precision; both classes must be there."""
    truth, values = _checked(labels, scores)
    precision, recall, _ = _sklearn_metrics().precision_recall_curve(truth, values)
    return Curve(recall, precision)


def require() -> None:
    """Raise MissingDependencyError where scikit-learn is not installed."""
    _sklearn_metrics()


def _sklearn_metrics() -> Any:
    try:
        return importlib.import_module("sklearn.metrics")
    except ImportError as error:
        raise MissingDependencyError(
            "scikit-learn is needed to compute metrics and is not installed; "
            "install it with: pip install 'kad-sdk[evaluate]'"
        ) from error


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    truth = np.asarray(labels)
    values = np.asarray(scores, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != values.shape:
        raise InvalidArgumentError(
            "labels and scores must be one-dimensional and of one length; "
            f"got shapes {truth.shape} and {values.shape}"
        )
    if not np.isin(truth, (0, 1)).all():
        raise InvalidArgumentError("labels must be 0 (normal) or 1 (anomalous)")
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise NotFiniteError(f"score {bad[0]} is {values[bad[0]]}; scores must be finite")
    return truth.astype(np.int64), values


def _ranked(
    truth: NDArray[np.int64], values: NDArray[np.float64], items: str, reasons: dict[str, str]
) -> dict[str, Any]:
    """Figures of the ranking, whatever the threshold."""
    names = ("roc_auc", "average_precision", "best_f1", "best_f1_threshold")
    n_anomalous = int(truth.sum())
    if n_anomalous in (0, truth.size):
        reasons |= dict.fromkeys(names, _one_class(n_anomalous, truth.size, items))
        return dict.fromkeys(names)
    metrics = _sklearn_metrics()
    precision, recall, thresholds = metrics.precision_recall_curve(truth, values)
    # F1 = 2 P R / (P + R); the curve's last point (P = 1, R = 0) has no threshold.
    total = precision[:-1] + recall[:-1]
    f1 = 2 * precision[:-1] * recall[:-1] / np.where(total > 0, total, 1)
    best = int(np.argmax(f1))
    return {
        "roc_auc": roc_auc(truth, values),
        "average_precision": float(metrics.average_precision_score(truth, values)),
        "best_f1": float(f1[best]),
        "best_f1_threshold": float(thresholds[best]),
    }


def _one_class(n_anomalous: int, n: int, items: str) -> str:
    if n == 0:
        return f"there are no {items} with a known label"
    kind = "anomalous" if n_anomalous else "normal"
    return f"all {n} {items} are {kind}; it takes both classes"


def _at_threshold(
    truth: NDArray[np.int64], flagged: NDArray[np.bool_], items: str, reasons: dict[str, str]
) -> dict[str, Any]:
    """Figures of the decisions."""
    if truth.size == 0:
        names = ("accuracy", "precision", "recall", "confusion_matrix")
        reasons |= dict.fromkeys(names, _one_class(0, 0, items))
        return dict.fromkeys(names)
    matrix = _sklearn_metrics().confusion_matrix(truth, flagged.astype(np.int64), labels=[0, 1])
    (tn, fp), (fn, tp) = matrix.tolist()
    if tp + fp == 0:
        reasons["precision"] = f"none of the {truth.size} {items} reaches the threshold"
    if tp + fn == 0:
        reasons["recall"] = _one_class(0, truth.size, items)
    return {
        "accuracy": (tp + tn) / truth.size,
        "precision": tp / (tp + fp) if tp + fp else None,
        "recall": tp / (tp + fn) if tp + fn else None,
        "confusion_matrix": [[tn, fp], [fn, tp]],
    }


class PixelMetrics:
    """Pixel AUROC and AUPRO over any number of maps, in one pass (see the module's head).

    Memory is at most 25 MB for each octave that the values span, plus one map. Pixels where the map
    is NaN (masked) are left out everywhere.

    AUPRO (Bergmann et al. 2021) is the area under the per-region overlap, up to a false positive
    rate of 0.3, divided by 0.3. The overlap at a threshold is the mean, over the ground truth's
    8-connected regions of all images, of the share of the region's pixels that reach it: a ROC
    curve whose positive pixels weigh 1 / (pixels of their region). A region with masked pixels
    counts with the others it has; one that is wholly masked is left out.
    """

    def __init__(self) -> None:
        self.n_normal_px = 0
        self.n_defect_px = 0
        self.n_masked_px = 0
        self.n_regions = 0
        self.n_masked_regions = 0
        self._slots = np.full(_BLOCKS, -1, dtype=np.int32)  # block -> its place below
        self._normal = np.zeros(0, dtype=np.int64)  # (n_blocks * _BINS,) pixels
        self._defect = np.zeros(0, dtype=np.int64)
        self._overlap = np.zeros(0, dtype=np.float64)  # sums of 1 / (pixels of the region)

    def add(self, anomaly_map: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        """Add one image: its map (H, W) float32, NaN where masked, and ground truth (H, W) bool.

        Raises
        ------
        InvalidArgumentError
            The shapes differ or are not two-dimensional.
        NotFiniteError
            The map holds an infinite value.
        """
        values = np.asarray(anomaly_map, dtype=np.float32)
        if values.ndim != 2 or values.shape != mask.shape:
            raise InvalidArgumentError(
                "map and ground truth must be (H, W) and of one size; "
                f"got {values.shape} and {mask.shape}"
            )
        if np.isinf(values).any():
            raise NotFiniteError("the anomaly map holds an infinite value; expected finite or NaN")
        mask = np.asarray(mask, dtype=bool)
        regions, weights = self._regions(mask, values) if mask.any() else (None, None)
        rows = max(1, _STRIP_PX // max(1, values.shape[1]))
        for top in range(0, values.shape[0], rows):
            strip = slice(top, top + rows)
            valid = ~np.isnan(values[strip])
            bins = self._bins(values[strip][valid])
            self.n_masked_px += valid.size - bins.size
            if regions is None or weights is None:
                self._normal += np.bincount(bins, minlength=self._normal.size)
                continue
            self._add_defects(bins, regions[strip][valid], weights)
        self.n_normal_px = int(self._normal.sum())
        self.n_defect_px = int(self._defect.sum())

    def _regions(
        self, mask: NDArray[np.bool_], values: NDArray[np.float32]
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Give each pixel its region's number (0: none), and each region its pixels' weight."""
        n, found = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        regions = np.asarray(found, dtype=np.int32)
        sizes = np.bincount(regions[mask & ~np.isnan(values)], minlength=n)[1:]
        self.n_regions += int(np.count_nonzero(sizes))
        self.n_masked_regions += int(np.count_nonzero(sizes == 0))
        return regions, np.concatenate([[0.0], 1.0 / np.maximum(sizes, 1)])

    def _add_defects(
        self,
        bins: NDArray[np.int64],
        regions: NDArray[np.int32],
        weights: NDArray[np.float64],
    ) -> None:
        inside = regions > 0
        size = self._normal.size
        self._normal += np.bincount(bins[~inside], minlength=size)
        self._defect += np.bincount(bins[inside], minlength=size)
        self._overlap += np.bincount(bins[inside], weights=weights[regions[inside]], minlength=size)

    def _bins(self, values: NDArray[np.float32]) -> NDArray[np.int64]:
        """Bin of each value; makes room for blocks that are new."""
        # Adding zero turns -0 into +0. Non-negative floats sort like their bits, negative ones in
        # reverse and below them.
        bits = (values + np.float32(0)).view(np.uint32)
        keys = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)) >> _DROPPED_BITS
        blocks = keys // _BINS
        occurs = np.zeros(_BLOCKS, dtype=bool)
        occurs[blocks] = True
        new = np.flatnonzero(occurs & (self._slots < 0))
        self._slots[new] = self._normal.size // _BINS + np.arange(new.size)
        room = np.zeros(new.size * _BINS, dtype=np.int64)
        self._normal = np.concatenate([self._normal, room])
        self._defect = np.concatenate([self._defect, room])
        self._overlap = np.concatenate([self._overlap, room.astype(np.float64)])
        bins: NDArray[np.int64] = self._slots[blocks].astype(np.int64) * _BINS + keys % _BINS
        return bins

    def roc_auc(self) -> Area:
        """Pixel AUROC, with its error bound."""
        if reason := self._no_curve():
            return Area(None, reason=reason)
        return self._area(self._defect / self.n_defect_px, limit=1.0)

    def aupro(self, limit: float = AUPRO_FPR_LIMIT) -> Area:
        """Area under the per-region overlap up to a false positive rate, over that rate."""
        if reason := self._no_curve():
            return Area(None, reason=reason)
        return self._area(self._overlap / self.n_regions, limit=limit)

    def _no_curve(self) -> str:
        if self.n_normal_px + self.n_defect_px == 0:
            return "there are no images with a ground truth for their pixels"
        if self.n_defect_px == 0:
            return "no scored pixel is marked as a defect in the ground truth"
        if self.n_normal_px == 0:
            return "every scored pixel is marked as a defect in the ground truth"
        return ""

    def _area(self, shares: NDArray[np.float64], limit: float) -> Area:
        """Area under cumulated shares over the false positive rate, from 0 to limit, over limit."""
        slots = self._slots[self._slots >= 0][::-1]  # largest values first
        dx = (self._normal / self.n_normal_px).reshape(-1, _BINS)[slots, ::-1].ravel()
        dy = shares.reshape(-1, _BINS)[slots, ::-1].ravel()
        used = (dx > 0) | (dy > 0)
        dx, dy = dx[used], dy[used]
        x0 = np.cumsum(dx) - dx  # where each bin's piece of the curve begins
        y0 = np.cumsum(dy) - dy
        # Share of each piece that lies left of the limit; vertical pieces have no area.
        part = np.clip((limit - x0) / np.where(dx > 0, dx, 1.0), 0.0, 1.0)
        area = float(np.sum(dx * part * (y0 + dy * part / 2)))
        # A monotone curve between a piece's corners is off by at most half their rectangle, where
        # the piece is cut by at most the rectangle left of the cut.
        bound = float(np.sum(dx * dy * np.where(part < 1, part, 0.5)))
        return Area(area / limit, bound / limit)
