"""What scoring a board gives, and its JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kad_sdk.errors import InvalidArgumentError
from kad_sdk.rules import NO_RULES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kad_sdk.rules import Rules

__all__ = ["Nearest", "Region", "Result", "TileScore"]


@dataclass(frozen=True)
class TileScore:
    """A tile, by its top-left corner in the scored frame (``Result.frame_size``), px.

    Attributes
    ----------
    x, y, score
        Corner; score as the method gives it.
    normalised_score, anomalous
        By the rules set on site: of the score over the factor; 0 and False where nothing of the
        tile is judged.
    factor
        By those rules, what the tile's threshold is multiplied by; 0 where nothing of it is judged.
    """

    x: int
    y: int
    score: float
    normalised_score: float
    anomalous: bool
    factor: float = 1.0


@dataclass(frozen=True)
class Nearest:
    """A training patch: the image's name and the patch's centre in it, px.

    Where the preprocessing resizes, the centre is in the resized training image.
    """

    image: str
    x: int
    y: int


@dataclass(frozen=True)
class Region:
    """A connected area of the map at or above its threshold.

    Attributes
    ----------
    x, y, width, height
        Box in px of the image.
    area_px
        Pixels in the region.
    peak
        The map's largest value in the region.
    peak_xy
        Where that is, px of the image.
    distance
        Largest value, before smoothing and averaging, of the patches that cover the peak: a patch
        distance, or Grad-CAM in units of its tile's score.
    nearest
        The training patch that this patch is most like: why was it rejected? It is that far away
        even from there. None for a method without a memory bank.
    """

    x: int
    y: int
    width: int
    height: int
    area_px: int
    peak: float
    peak_xy: tuple[int, int]
    distance: float
    nearest: Nearest | None


@dataclass(frozen=True, eq=False)
class Result:
    """Scores, verdict, map and regions of one board.

    Attributes
    ----------
    score
        The map's largest value, or the largest tile score: the artifact says which. By rules set
        on site, where there are any: of what is judged, over the factors of its zones, and of the
        map the highest threshold that leaves a region of the least area.
    normalised_score
        ``1 / (1 + exp(-(score - threshold) / scale))``: 0..1, the threshold lies at 0.5.
    anomalous
        Whether the score reaches the threshold.
    threshold, tile_threshold, map_threshold
        tau of the score, of tiles, and of the map.
    tiles
        Every tile that was scored.
    map
        (H, W) float32 in px of the image; NaN where nothing was scored, or by the rules is not
        judged; over the factor in their zones. None where the detector makes no maps.
    regions
        By falling peak.
    timings_ms
        Stage to ms: read (when a file was given), prepare, preprocess, network and search
        (PatchCore), network or explain and density (CutPaste), map, regions.
    image_size, frame_size
        (height, width) of the image, and of the frame that tiles were cut from; they differ only
        where the preprocessing resizes.
    scored_share
        How much of the active areas, labels left out, was scored, 0..1, before rules. Below 1 by
        what lies so near to a label that no tile without it holds it, or, in windows, nearer than
        ``label_margin_px``; None without a map.
    rules
        The rules that were in force.
    image_name
        The file's name, when a file was given.
    embeddings
        (n, E) float32, CutPaste's embedding of each tile; None for PatchCore.
    patches, patch_rows
        (n, P) float32, each tile's map before it is enlarged, row by row; (n, P) int64, PatchCore's
        nearest bank rows. None unless they were asked for.
    """

    score: float
    normalised_score: float
    anomalous: bool
    threshold: float
    tile_threshold: float
    map_threshold: float
    tiles: tuple[TileScore, ...]
    map: NDArray[np.float32] | None
    regions: tuple[Region, ...]
    timings_ms: dict[str, float]
    image_size: tuple[int, int]
    frame_size: tuple[int, int]
    scored_share: float | None = None
    rules: Rules = NO_RULES
    image_name: str | None = None
    embeddings: NDArray[np.float32] | None = None
    patches: NDArray[np.float32] | None = None
    patch_rows: NDArray[np.int64] | None = None

    @property
    def verdict(self) -> str:
        """``"anomalous"`` or ``"normal"``."""
        return "anomalous" if self.anomalous else "normal"

    def judged_scores(self) -> NDArray[np.float64]:
        """Give the tiles' scores (n,) over their factors, NaN where nothing of one is judged."""
        scores = np.array([tile.score for tile in self.tiles], np.float32)
        factors = np.array([tile.factor or np.nan for tile in self.tiles], np.float32)
        return (scores / factors).astype(np.float64)

    def need_map(self) -> NDArray[np.float32]:
        """Give the map.

        Raises
        ------
        InvalidArgumentError
            The detector was opened without maps.
        """
        if self.map is None:
            raise InvalidArgumentError(
                "result: expected one with a map, got one without; open the detector with maps=True"
            )
        return self.map

    def to_dict(self) -> dict[str, Any]:
        """Give all but map, embeddings and patches, as plain values.

        Keys: ``image``, ``image_size``, ``frame_size`` ([height, width]), ``verdict``, ``score``,
        ``normalised_score``, ``threshold``, ``tile_threshold``, ``map_threshold``, ``tiles`` and
        ``regions`` (objects with the fields of :class:`TileScore` and :class:`Region`),
        ``scored_share``, ``rules``, ``timings_ms``.
        """
        return {
            "image": self.image_name,
            "image_size": list(self.image_size),
            "frame_size": list(self.frame_size),
            "verdict": self.verdict,
            "score": self.score,
            "normalised_score": self.normalised_score,
            "threshold": self.threshold,
            "tile_threshold": self.tile_threshold,
            "map_threshold": self.map_threshold,
            "tiles": [dict(vars(tile)) for tile in self.tiles],
            "regions": [
                {
                    **vars(region),
                    "peak_xy": list(region.peak_xy),
                    "nearest": None if region.nearest is None else dict(vars(region.nearest)),
                }
                for region in self.regions
            ],
            "scored_share": self.scored_share,
            "rules": self.rules.to_dict(),
            "timings_ms": {stage: round(ms, 3) for stage, ms in self.timings_ms.items()},
        }
