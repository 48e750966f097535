"""What is kept of each scored image, and the figures that come of it.

Of an image only its scores, its part in the pixel histograms and, for a few, a small picture are
kept, so a data set of any size fits.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kad_sdk import metrics, plots
from kad_sdk.dataset import read_mask, resize_mask, tile_labels
from kad_sdk.defects import masks_by_kind
from kad_sdk.errors import KadError
from kad_sdk.gallery import Gallery
from kad_sdk.images import read_image
from kad_sdk.judge import told_tiles
from kad_sdk.regions import match_regions
from kad_sdk.tsne import EmbeddingSample

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kad_sdk.dataset import Sample
    from kad_sdk.detector import Detector
    from kad_sdk.regions import MarkedDefect, RegionMatch
    from kad_sdk.result import Result

__all__ = ["Row", "Scored", "Tally"]

_LEVELS = {
    "tile_roc_auc": "tile",
    "image_roc_auc": "image",
    "pixel_roc_auc": "pixel",
    "aupro": "pixel",
    "average_precision": "tile",
    "best_f1": "tile",
    "best_f1_threshold": "tile",
    "accuracy": "tile",
    "precision": "tile",
    "recall": "tile",
    "confusion_matrix": "tile",
    "threshold": "tile",
}
_NOTES = {
    "confusion_matrix": "[[true negatives, false positives], [false negatives, true positives]]",
    "threshold": "an item is flagged when its score is at least this",
    "best_f1": "largest F1 over all thresholds, chosen on these very data: an upper bound",
    "aupro": "per-region overlap up to a false positive rate of 0.3, over 0.3; "
    "regions are 8-connected",
    "regions": "a defect is found when a region overlaps it; a region that overlaps none is false",
}


@dataclass(frozen=True)
class Row:
    """What is kept of an image."""

    sample: Sample
    size: tuple[int, int]
    score: float
    normalised_score: float
    anomalous: bool
    n_regions: int
    tile_scores: NDArray[np.float64]  # (n,)
    tile_truth: NDArray[np.uint8] | None  # (n,), None where there is no mask
    kinds: dict[str, NDArray[np.uint8] | None]  # its kinds, and which tiles (n,) show each
    match: RegionMatch | None  # None where there is no mask
    timings_ms: dict[str, float]


@dataclass(frozen=True)
class Scored:
    """An image as it passes by, with all that is not kept: pixels, ground truth, map."""

    sample: Sample
    image: NDArray[Any]
    mask: NDArray[np.bool_] | None  # (H, W), None where there is none
    result: Result
    match: RegionMatch | None


@dataclass
class Tally:
    """Everything that grows while the images pass by.

    Attributes
    ----------
    tile_threshold, image_threshold : float
        tau of tiles, and of images.
    tile : int
        Side of a tile, px.
    observe : callable or None
        Shown each image while its pixels are there; results then hold the tiles' own maps too.
    """

    tile_threshold: float
    image_threshold: float
    tile: int
    observe: Callable[[Scored], None] | None = None
    rows: list[Row] = field(default_factory=list)
    pixels: metrics.PixelMetrics = field(default_factory=metrics.PixelMetrics)
    fingerprint: Any = field(default_factory=hashlib.sha256)
    gallery: Gallery = field(default_factory=Gallery)
    embeddings: EmbeddingSample = field(default_factory=EmbeddingSample)

    def add(self, sample: Sample, detector: Detector) -> None:
        """Score an image and take in what its figures need."""
        start = time.perf_counter()
        image = read_image(sample.path)
        read = time.perf_counter()
        try:
            result = detector.score(image, sample.annotation, keep_patches=self.observe is not None)
        except KadError as error:
            raise type(error)(f"{sample.name}: {error}") from error
        done = time.perf_counter()
        known = sample.label is not None and (sample.label == 0 or sample.mask_path is not None)
        mask = read_mask(sample, *image.shape[:2]) if known else None
        match = None
        if mask is not None:
            self.pixels.add(result.need_map(), mask)
            match = match_regions(sample, result, mask)
        self.gallery.offer(sample, image, mask, result)
        self._fingerprint(sample)
        scores = result.judged_scores()
        framed = None if mask is None else resize_mask(mask, result.frame_size)
        kept = ~np.isnan(scores) & self._told_tiles(result, mask, framed)
        whole = None if framed is None else self._tile_truth(result, framed)
        truth = None if whole is None else whole[kept]
        kinds = {
            kind: None if tiles is None else tiles[kept]
            for kind, tiles in self._tile_kinds(sample, result, mask, whole).items()
        }
        if truth is not None and result.embeddings is not None:
            self.embeddings.add(result.embeddings[kept], truth, kinds)
        self.rows.append(
            Row(
                sample=sample,
                size=(image.shape[0], image.shape[1]),
                score=float(result.score),
                normalised_score=float(result.normalised_score),
                anomalous=bool(result.anomalous),
                n_regions=len(result.regions),
                tile_scores=scores[kept],
                tile_truth=truth,
                kinds=kinds,
                match=match,
                timings_ms={
                    "read": 1e3 * (read - start),
                    **result.timings_ms,
                    "score_total": 1e3 * (done - read),
                },
            )
        )
        if self.observe is not None:
            self.observe(Scored(sample, image, mask, result, match))

    def _tile_truth(self, result: Result, framed: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Label the tiles by a mask in the frame that they were cut from."""
        return tile_labels(framed, _corners(result), self.tile)

    def _told_tiles(
        self,
        result: Result,
        mask: NDArray[np.bool_] | None,
        framed: NDArray[np.bool_] | None,
    ) -> NDArray[np.bool_]:
        """Which tiles the ground truth, of the image and in the frame, tells good or defective."""
        if mask is None or framed is None or not result.rules:
            return np.ones(len(result.tiles), bool)
        judged = resize_mask(mask & ~np.isnan(result.need_map()), result.frame_size)
        return told_tiles(framed, judged, _corners(result), self.tile)

    def _tile_kinds(
        self,
        sample: Sample,
        result: Result,
        mask: NDArray[np.bool_] | None,
        truth: NDArray[np.uint8] | None,
    ) -> dict[str, NDArray[np.uint8] | None]:
        """Say for each kind of the image which tiles show it; None where there is no mask.

        `truth` says which tiles show any.
        """
        if sample.label is None:
            return {}
        if mask is None or not mask.any():
            return {sample.kind: None}
        if not sample.defects:
            return {sample.kind: truth}
        parts = masks_by_kind(sample.defects, mask, sample.name)
        return {
            kind: self._tile_truth(result, resize_mask(part, result.frame_size))
            for kind, part in parts.items()
        }

    def _fingerprint(self, sample: Sample) -> None:
        """Take in the names and contents of the image and its mask."""
        for path in (sample.path, sample.mask_path):
            digest = hashlib.sha256(path.read_bytes()).hexdigest() if path else "none"
            self.fingerprint.update(f"{sample.name}\0{digest}\n".encode())

    def tiles(self) -> plots.Level:
        """Labels and scores of all tiles with a ground truth."""
        known = [row for row in self.rows if row.tile_truth is not None]
        labels = [row.tile_truth for row in known if row.tile_truth is not None]
        scores = [row.tile_scores for row in known]
        return plots.Level("tiles", _joined(labels), _joined(scores), self.tile_threshold)

    def images(self) -> plots.Level:
        """Labels and scores of all images with a known label."""
        known = [row for row in self.rows if row.sample.label is not None]
        labels = np.array([row.sample.label for row in known], dtype=np.int64)
        scores = np.array([row.score for row in known])
        return plots.Level("images", labels, scores, self.image_threshold)

    def figures(self) -> dict[str, Any]:
        """Compute all figures, with the reason for each that is missing."""
        of_tiles, of_images = (
            vars(
                metrics.classify(
                    level.labels, level.scores, threshold=level.threshold, items=level.name
                )
            )
            for level in (self.tiles(), self.images())
        )
        roc, aupro = self.pixels.roc_auc(), self.pixels.aupro()
        found = {
            **of_tiles,
            "tile_roc_auc": of_tiles["roc_auc"],
            "image_roc_auc": of_images["roc_auc"],
            "pixel_roc_auc": roc.value,
            "aupro": aupro.value,
        }
        reasons = {
            **{"tile_roc_auc" if k == "roc_auc" else k: v for k, v in of_tiles["reasons"].items()},
            "image_roc_auc": of_images["reasons"].get("roc_auc", ""),
            "pixel_roc_auc": roc.reason,
            "aupro": aupro.reason,
        }
        return {
            **{name: found[name] for name in _LEVELS},
            "levels": dict(_LEVELS),
            "notes": dict(_NOTES),
            "reasons": {name: reason for name, reason in reasons.items() if reason},
            "image": of_images,
            "pixel": self._pixel_facts(roc, aupro),
            "regions": self._region_facts(),
            "kinds": self._kinds(),
            "counts": self._counts(),
            "timings_ms": self._timings(),
        }

    def _pixel_facts(self, roc: metrics.Area, aupro: metrics.Area) -> dict[str, Any]:
        return {
            "roc_auc_error_bound": roc.error_bound,
            "aupro_error_bound": aupro.error_bound,
            "aupro_fpr_limit": metrics.AUPRO_FPR_LIMIT,
            "normal_px": self.pixels.n_normal_px,
            "defect_px": self.pixels.n_defect_px,
            "masked_px": self.pixels.n_masked_px,
            "regions": self.pixels.n_regions,
            "masked_regions": self.pixels.n_masked_regions,
        }

    def _region_facts(self) -> dict[str, Any]:
        """Defects found by a region, and false regions, on the images with a ground truth."""
        known = [(row, row.match) for row in self.rows if row.match is not None]
        good = [match for row, match in known if row.sample.label == 0]
        defects = [defect for _, match in known for defect in match.defects]
        n_false = sum(len(match.false_regions) for _, match in known)
        n_false_on_good = sum(len(match.false_regions) for match in good)
        return {
            **_found(defects),
            "unscored_defects": sum(not defect.scored for defect in defects),
            "images": len(known),
            "false_regions": n_false,
            "false_regions_per_image": n_false / len(known) if known else None,
            "false_regions_on_normal_images": n_false_on_good,
            "false_regions_per_normal_image": n_false_on_good / len(good) if good else None,
        }

    def _kinds(self) -> dict[str, dict[str, Any]]:
        """Figures of each kind; an AUROC is that of what shows the kind against what is good.

        An image with defects of several kinds counts in each.
        """
        groups: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows:
            for kind in row.kinds:
                groups[kind].append(row)
        level = self.tiles()
        good = (
            np.array([row.score for row in self.rows if row.sample.label == 0]),
            level.scores[level.labels == 0],
        )
        return {kind: self._kind(kind, rows, *good) for kind, rows in sorted(groups.items())}

    def _kind(
        self, kind: str, rows: list[Row], good: NDArray[Any], good_tiles: NDArray[Any]
    ) -> dict[str, Any]:
        n, flagged = len(rows), sum(row.anomalous for row in rows)
        if rows[0].sample.label == 0:
            return {"images": n, "flagged": flagged, "false_alarm_rate": flagged / n}
        shown = [(row.tile_scores, row.kinds[kind]) for row in rows]
        defective = _joined([scores[tiles == 1] for scores, tiles in shown if tiles is not None])
        return {
            "images": n,
            "flagged": flagged,
            "image_recall": flagged / n,
            "image_roc_auc": _roc_auc(good, np.array([row.score for row in rows])),
            "defect_tiles": defective.size,
            "tile_recall": _share(defective >= self.tile_threshold),
            "tile_roc_auc": _roc_auc(good_tiles, defective),
            **_found([d for row in rows if row.match for d in row.match.defects if d.kind == kind]),
        }

    def _counts(self) -> dict[str, int]:
        labels = [row.sample.label for row in self.rows]
        tile = self.tiles()
        return {
            "images": len(labels),
            "normal_images": labels.count(0),
            "anomalous_images": labels.count(1),
            "unlabelled_images": labels.count(None),
            "anomalous_images_without_mask": sum(
                row.sample.label == 1 and row.tile_truth is None for row in self.rows
            ),
            "tiles": int(tile.labels.size),
            "normal_tiles": int(np.sum(tile.labels == 0)),
            "anomalous_tiles": int(np.sum(tile.labels == 1)),
        }

    def _timings(self) -> dict[str, Any]:
        """Time of the mean image, by stage, and of all images."""
        stages = dict.fromkeys(stage for row in self.rows for stage in row.timings_ms)
        return {
            stage: {
                "mean": sum(row.timings_ms.get(stage, 0.0) for row in self.rows) / len(self.rows),
                "total": sum(row.timings_ms.get(stage, 0.0) for row in self.rows),
            }
            for stage in stages
        }


def _corners(result: Result) -> NDArray[np.int64]:
    return np.array([(tile.x, tile.y) for tile in result.tiles], dtype=np.int64)


def _roc_auc(normal: NDArray[Any], anomalous: NDArray[Any]) -> float | None:
    labels = np.repeat([0, 1], [normal.size, anomalous.size])
    return metrics.roc_auc(labels, np.concatenate([normal, anomalous]))


def _found(defects: list[MarkedDefect]) -> dict[str, Any]:
    """Count the defects that were scored, and those of them that a region overlaps."""
    found = [defect.found for defect in defects if defect.scored]
    recall = sum(found) / len(found) if found else None
    return {"defects": len(found), "found_defects": sum(found), "defect_recall": recall}


def _share(flags: NDArray[np.bool_]) -> float | None:
    return float(np.mean(flags)) if flags.size else None


def _joined(parts: list[Any]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0)
