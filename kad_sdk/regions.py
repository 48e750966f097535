"""The regions that were found against the defects that the ground truth marks.

A defect counts as found when at least one region shares a pixel with it; a region that shares none
with any defect is false. What counts as one defect: an entry of ``defects.json`` where the data set
has that file (a splash of twenty drops is one defect), else an 8-connected part of the ground
truth. A defect that lies wholly where nothing was scored cannot be found and is counted apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from kad_sdk.defects import OTHER, check_boxes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from kad_sdk.dataset import Sample
    from kad_sdk.result import Region, Result

    Box = tuple[int, int, int, int]

__all__ = ["MarkedDefect", "RegionMatch", "match_regions", "region_mask"]


@dataclass(frozen=True)
class MarkedDefect:
    """A defect that the ground truth marks.

    Attributes
    ----------
    kind : str
    box : tuple
        (x, y, width, height) around it, px of the image.
    area_px : int
        Its marked pixels.
    peak : float or None
        Largest value of the map on it; None where nothing of it was scored.
    regions : tuple of int
        Which regions of the result overlap it.
    """

    kind: str
    box: Box
    area_px: int
    peak: float | None
    regions: tuple[int, ...]

    @property
    def scored(self) -> bool:
        """Whether a pixel of it was scored."""
        return self.peak is not None

    @property
    def found(self) -> bool:
        """Whether a region overlaps it."""
        return bool(self.regions)


@dataclass(frozen=True)
class RegionMatch:
    """A board's marked defects, and which of its regions are false."""

    defects: tuple[MarkedDefect, ...]
    false_regions: tuple[int, ...]


def match_regions(sample: Sample, result: Result, mask: NDArray[np.bool_]) -> RegionMatch:
    """Say which defects of a board were found, and which regions are false.

    Parameters
    ----------
    sample
        The board; its ``defects`` say what counts as one, where there are any.
    result
        Its result, with its map.
    mask
        (H, W), True where the ground truth marks a defect.

    Raises
    ------
    AnnotationError
        A box of a defect leaves the board.
    """
    found = [_Part(_box(region), _pixels(region, result)) for region in result.regions]
    truth = list(_marked(sample, mask))
    hits = [tuple(i for i, part in enumerate(found) if part.meets(own)) for _, own in truth]
    anomaly_map = result.need_map()
    defects = tuple(
        MarkedDefect(kind, own.box, int(own.mask.sum()), _peak(anomaly_map, own), regions)
        for (kind, own), regions in zip(truth, hits, strict=True)
    )
    true = {i for regions in hits for i in regions}
    return RegionMatch(defects, tuple(i for i in range(len(found)) if i not in true))


def region_mask(region: Region, result: Result) -> NDArray[np.bool_]:
    """Give a region's pixels, (height, width) of its box: the component that holds its peak.

    All False where the map was resized after its regions were found and falls short of the
    threshold at the scaled peak.
    """
    box = np.s_[region.y : region.y + region.height, region.x : region.x + region.width]
    with np.errstate(invalid="ignore"):
        mask = (result.need_map()[box] >= result.map_threshold).astype(np.uint8)
    _, components = cv2.connectedComponents(mask)
    own = components[region.peak_xy[1] - region.y, region.peak_xy[0] - region.x]
    return np.asarray((components == own) & (own > 0), np.bool_)


@dataclass(frozen=True)
class _Part:
    """Pixels of an image: a box, and which of its pixels (height, width)."""

    box: Box
    mask: NDArray[np.bool_]

    def meets(self, other: _Part) -> bool:
        """Whether they share a pixel."""
        (x, y, width, height), (ox, oy, other_width, other_height) = self.box, other.box
        left, top = max(x, ox), max(y, oy)
        right = min(x + width, ox + other_width)
        bottom = min(y + height, oy + other_height)
        if left >= right or top >= bottom:
            return False
        own = self.mask[top - y : bottom - y, left - x : right - x]
        return bool((own & other.mask[top - oy : bottom - oy, left - ox : right - ox]).any())


def _box(region: Region) -> Box:
    return region.x, region.y, region.width, region.height


def _pixels(region: Region, result: Result) -> NDArray[np.bool_]:
    mask = region_mask(region, result)
    return mask if mask.any() else np.ones_like(mask)


def _marked(sample: Sample, mask: NDArray[np.bool_]) -> Iterator[tuple[str, _Part]]:
    """Give each marked defect with its kind."""
    check_boxes(sample.defects, mask.shape, sample.name)
    rest = mask.copy() if sample.defects else mask
    for defect in sample.defects:
        x, y, width, height = defect.box
        box = np.s_[y : y + height, x : x + width]
        if mask[box].any():
            yield defect.kind, _Part(defect.box, mask[box])
        rest[box] = False
    kind = OTHER if sample.defects else sample.kind
    if rest.any():
        n, labels, stats, _ = cv2.connectedComponentsWithStats(rest.astype(np.uint8))
        for label in range(1, n):
            x, y, width, height = (int(value) for value in stats[label, :4])
            box = np.s_[y : y + height, x : x + width]
            yield kind, _Part((x, y, width, height), labels[box] == label)


def _peak(anomaly_map: NDArray[np.float32], part: _Part) -> float | None:
    x, y, width, height = part.box
    values = anomaly_map[y : y + height, x : x + width][part.mask]
    values = values[~np.isnan(values)]
    return float(values.max()) if values.size else None
