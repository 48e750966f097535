"""Thresholds: when a tile is anomalous, when a pixel of the board map is, and the score's scale.

Two families of methods. From normal tiles alone, held out of training: a quantile, or the largest
score times a factor. From labelled tiles, normal and defective: the best F1, the best Youden's J,
a given recall, or a given false-alarm rate. The default is ``normal-max=1.05``: a board of a
thousand tiles is rejected as soon as one of them is anomalous, so a tile quantile of 0.999 would
reject more than half of all good boards; the largest score of good tiles that the bank has not
seen, with 5 % to spare for those yet to come, is the level at which good boards pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from kad_export.errors import CalibrationError
from kad_sdk.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "DEFAULT_THRESHOLD",
    "MIN_REGION_AREA_PX",
    "Calibration",
    "ThresholdMethod",
    "TileScores",
    "calibrate",
    "tile_peaks",
]

DEFAULT_THRESHOLD = "normal-max=1.05"
MIN_REGION_AREA_PX = 1  # a board whose map reaches its threshold shows where
METHODS = {
    "quantile": "the score that a share Q of held-out normal tiles does not exceed, 0 < Q < 1",
    "normal-max": "FACTOR times the largest score of held-out normal tiles, FACTOR > 0",
    "f1": "the best F1 on labelled tiles",
    "youden": "the best recall minus false-alarm rate on labelled tiles",
    "recall": "the highest threshold that finds a share R of labelled defect tiles, 0 < R <= 1",
    "false-alarms": "the lowest threshold that flags at most a share R of labelled normal tiles, "
    "0 <= R < 1",
}
_RANGES: dict[str, Callable[[float], bool]] = {
    "quantile": lambda v: 0 < v < 1,
    "normal-max": lambda v: 0 < v < math.inf,
    "recall": lambda v: 0 < v <= 1,
    "false-alarms": lambda v: 0 <= v < 1,
}


@dataclass(frozen=True)
class ThresholdMethod:
    """How a threshold is found, for example ``quantile=0.999`` or ``f1``."""

    name: str
    value: float | None = None

    @classmethod
    def parse(cls, text: str) -> ThresholdMethod:
        """Read ``NAME`` or ``NAME=VALUE``.

        Raises
        ------
        InvalidArgumentError
            Unknown name, or a value that is missing, superfluous or out of range.
        """
        name, sign, value = text.strip().partition("=")
        if name not in METHODS or bool(sign) != (name in _RANGES):
            raise InvalidArgumentError(f"threshold method {text!r} is none of: {_usage()}")
        if not sign:
            return cls(name)
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not _RANGES[name](number):
            raise InvalidArgumentError(f"threshold method {text!r}: {name} is {METHODS[name]}")
        return cls(name, number)

    @property
    def labelled(self) -> bool:
        """Whether the method needs labelled tiles rather than held-out normal ones."""
        return self.name not in ("quantile", "normal-max")

    def __str__(self) -> str:
        return self.name if self.value is None else f"{self.name}={self.value:g}"


def _usage() -> str:
    return "; ".join(f"{n}{'=VALUE' if n in _RANGES else ''} ({m})" for n, m in METHODS.items())


@dataclass
class TileScores:
    """Tiles of known label, collected board by board."""

    score: list[float] = field(default_factory=list)  # tile score
    peak: list[float] = field(default_factory=list)  # largest board-map value in the tile
    defect: list[bool] = field(default_factory=list)

    def add(self, score: np.ndarray, peak: np.ndarray, defect: np.ndarray) -> None:
        """Append tiles: ``score``, ``peak``, ``defect``, each (n,)."""
        self.score += [float(v) for v in score]
        self.peak += [float(v) for v in peak]
        self.defect += [bool(v) for v in defect]


@dataclass(frozen=True)
class Calibration:
    """The thresholds of an artifact.

    Attributes
    ----------
    tile, map : float
        tau of tile scores; tau of the board map.
    tile_scale, map_scale : float
        Spread s of the normalised score 1 / (1 + exp(-(x - tau) / s)) of each.
    method : str
        As given, for example ``"normal-max=1.05"``.
    samples : int
        Number of tiles it was found on.
    warnings : tuple of str
        What the user should know about it.
    """

    tile: float
    tile_scale: float
    map: float
    map_scale: float
    method: str
    samples: int
    warnings: tuple[str, ...] = ()


def calibrate(method: ThresholdMethod, tiles: TileScores) -> Calibration:
    """Thresholds of tile scores and of the board map, found in the same way.

    Raises
    ------
    CalibrationError
        The tiles at hand cannot give what the method asks for.
    """
    defect = np.array(tiles.defect, bool)
    score, peak = np.array(tiles.score), np.array(tiles.peak)
    _check_sample(method, n_normal=int((~defect).sum()), n_defect=int(defect.sum()))
    found = []
    for name, values in (("tile scores", score), ("the map", peak)):
        value = _threshold(method, values[~defect], values[defect])
        if not 0 < value < math.inf:
            raise CalibrationError(
                f"{method} gives the threshold {value:g} for {name}; a positive one is expected. "
                "Held-out images that are copies of training images score 0: remove the copies"
            )
        found += [value, _scale(value, values[~defect])]
    warned = _warnings(method, int((~defect).sum()))
    return Calibration(*found, str(method), len(score), warned)


def tile_peaks(board_map: np.ndarray, xy: np.ndarray, tile: int) -> np.ndarray:
    """Largest value of ``board_map`` (H, W) inside each tile of ``xy`` (n, 2); returns (n,)."""
    return np.array([board_map[y : y + tile, x : x + tile].max() for x, y in xy], np.float32)


def _check_sample(method: ThresholdMethod, *, n_normal: int, n_defect: int) -> None:
    needs_normal = method.name != "recall"
    needs_defect = method.name in ("f1", "youden", "recall")
    if needs_normal and n_normal == 0:
        what = "labelled normal" if method.labelled else "held-out normal"
        raise CalibrationError(
            f"threshold {method} needs {what} tiles, got none: add good boards to the data set"
        )
    if needs_defect and n_defect == 0:
        raise CalibrationError(
            f"threshold {method} needs labelled defect tiles, got none: add test images with "
            f"ground truth, or use --threshold {DEFAULT_THRESHOLD}, which needs good boards only"
        )


def _threshold(method: ThresholdMethod, normal: np.ndarray, defect: np.ndarray) -> float:
    if method.name == "quantile":
        return float(np.quantile(normal, method.value))
    if method.name == "normal-max":
        return float(normal.max() * method.value)
    return _labelled_threshold(method, normal, defect)


def _labelled_threshold(method: ThresholdMethod, normal: np.ndarray, defect: np.ndarray) -> float:
    """Best of all thresholds that tell the sample's scores apart, each midway between two scores.

    Midway, so that no tile of the sample lies on the threshold. Ties go to the higher threshold,
    which gives fewer alarms; for a false-alarm rate the lowest threshold that keeps it is wanted.
    """
    taus = _candidates(np.unique(np.concatenate([normal, defect])))  # (n,) falling
    tp = len(defect) - np.searchsorted(np.sort(defect), taus)
    fp = len(normal) - np.searchsorted(np.sort(normal), taus)
    recall, alarms = tp / max(1, len(defect)), fp / max(1, len(normal))
    if method.name == "f1":
        return float(taus[np.argmax(2 * tp / (len(defect) + tp + fp))])
    if method.name == "youden":
        return float(taus[np.argmax(recall - alarms)])
    if method.name == "recall":
        return float(taus[np.argmax(recall >= method.value)])
    return float(taus[np.flatnonzero(alarms <= method.value)[-1]])


def _candidates(scores: np.ndarray) -> np.ndarray:
    """Thresholds below, midway between, and above ``scores`` (n,) ascending: (n + 1,) falling."""
    margin = 0.05 * float(scores[-1])
    below, above = scores[0] / 2, scores[-1] + margin
    return np.concatenate([[below], (scores[1:] + scores[:-1]) / 2, [above]])[::-1]


def _scale(tau: float, normal: np.ndarray) -> float:
    """Spread that gives the median normal tile a normalised score of 0.1.

    Where there is no normal tile, or its median is not below tau, a tenth of tau is used.
    """
    gap = tau - float(np.median(normal)) if len(normal) else 0.0
    return gap / math.log(9) if gap > 0 else tau / 10


def _warnings(method: ThresholdMethod, n_normal: int) -> tuple[str, ...]:
    if method.name != "quantile":
        return ()
    needed = math.ceil(round(1 / (1 - method.value), 6))
    if n_normal >= needed:
        return ()
    return (
        f"threshold {method} wants {needed:,} held-out normal tiles or more, got {n_normal:,}: "
        "it lies at about their maximum. Hold out more (--holdout), or take "
        "--threshold normal-max=1.05",
    )
