"""Thresholds: when a tile is anomalous, when a pixel of the board map is, and the score's scale.

Three families of methods. From normal tiles alone, which the bank has not seen: a quantile, or the
largest score times a factor. From good boards alone: a share of them that may be rejected. From
labelled tiles, normal and defective: the best F1, the best Youden's J, a given recall, or a given
false-alarm rate. The export's default is ``normal-max=1.05``: a board of a thousand tiles is
rejected as soon as one of them is anomalous, so a tile quantile of 0.999 would reject more than
half of all good boards; the largest score of good tiles that the bank has not seen, with 5 % to
spare for those yet to come, is the level at which good boards pass.

:mod:`kad_export` finds the first thresholds with this, :mod:`kad_sdk.calibration` later ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kad_sdk.errors import CalibrationError, InvalidArgumentError
from kad_sdk.manifest_entries import FLOAT32_MAX, FLOAT32_TINY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import ArrayLike, NDArray

    Values = NDArray[np.floating[Any]]

__all__ = [
    "DEFAULT_THRESHOLD",
    "MARGIN",
    "MIN_REGION_AREA_PX",
    "BoardTiles",
    "Calibration",
    "ThresholdMethod",
    "TileScores",
    "calibrate",
    "find_taus",
    "tile_peaks",
]

DEFAULT_THRESHOLD = "normal-max=1.05"
MIN_REGION_AREA_PX = 1  # a board whose map reaches its threshold shows where
MARGIN = 0.05  # to spare above the largest score, for those yet to come
PER_BOARD = "false-alarms-per-board"
METHODS = {
    "quantile": "the score that a share Q of held-out normal tiles does not exceed, 0 < Q < 1",
    "normal-max": "FACTOR times the largest score of held-out normal tiles, FACTOR > 0",
    "f1": "the best F1 on labelled tiles",
    "youden": "the best recall minus false-alarm rate on labelled tiles",
    "recall": "the highest threshold that finds a share R of labelled defect tiles, 0 < R <= 1",
    "false-alarms": "the lowest threshold that flags at most a share R of labelled normal tiles, "
    "0 <= R < 1",
    PER_BOARD: "the lowest threshold that rejects at most a share R of good boards yet to come, "
    "0 < R < 1",
}
_RANGES: dict[str, Callable[[float], bool]] = {
    "quantile": lambda v: 0 < v < 1,
    "normal-max": lambda v: 0 < v < math.inf,
    "recall": lambda v: 0 < v <= 1,
    "false-alarms": lambda v: 0 <= v < 1,
    PER_BOARD: lambda v: 0 < v < 1,
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
    def parameter(self) -> float:
        """The value of a method that has one."""
        if self.value is None:
            raise InvalidArgumentError(f"threshold method {self}: has no value")
        return self.value

    @property
    def labelled(self) -> bool:
        """Whether the method needs labelled tiles rather than held-out normal ones."""
        return self.name not in ("quantile", "normal-max", PER_BOARD)

    @property
    def needs_defects(self) -> bool:
        """Whether the method needs defective tiles."""
        return self.name in ("f1", "youden", "recall")

    @property
    def per_board(self) -> bool:
        """Whether the method looks at the largest score of each board, not at its tiles."""
        return self.name == PER_BOARD

    def __str__(self) -> str:
        """Write it in full: read again, the text gives the very same method."""
        if self.value is None:
            return self.name
        return f"{self.name}={repr(float(self.value)).removesuffix('.0')}"


def _usage() -> str:
    return "; ".join(f"{n}{'=VALUE' if n in _RANGES else ''} ({m})" for n, m in METHODS.items())


@dataclass(frozen=True)
class BoardTiles:
    """The tiles of one board: ``score``, ``peak`` of the map in each, ``defect``, each (n,).

    A peak is NaN where nothing of the tile is judged. `map_score` is what the map says of the
    board.
    """

    score: Values
    peak: Values
    defect: NDArray[np.bool_]
    map_score: float

    @property
    def good(self) -> bool:
        """Whether no tile has a defect."""
        return not self.defect.any()


@dataclass
class TileScores:
    """Tiles of known label, collected board by board; how many are as dark as a surround."""

    boards: list[BoardTiles] = field(default_factory=list)
    dark: int = 0

    def add(
        self,
        score: ArrayLike,
        peak: ArrayLike,
        defect: ArrayLike,
        map_score: float | None = None,
    ) -> None:
        """Append a board's tiles: ``score``, ``peak``, ``defect``, each (n,).

        A board of no tile tells nothing and is not appended: counted as a good one, it would make
        the sample look larger than it is. `map_score` is the board's own score by its map; by
        default the largest peak.
        """
        scores, peaks = np.asarray(score, np.float64), np.asarray(peak, np.float64)
        if not scores.size:
            return
        if map_score is None:
            map_score = float(np.fmax.reduce(peaks))
        self.boards.append(BoardTiles(scores, peaks, np.asarray(defect, bool), map_score))

    def level(self, *, by_map: bool, per_board: bool) -> tuple[Values, NDArray[np.bool_]]:
        """Values and labels, of tiles or of boards, by tile scores or by the map."""
        if per_board:
            largest = (b.map_score if by_map else float(b.score.max()) for b in self.boards)
            return np.array(list(largest)), np.array([not b.good for b in self.boards], bool)
        values = _joined((b.peak if by_map else b.score) for b in self.boards)
        defect = _joined(b.defect for b in self.boards).astype(bool)
        judged = ~np.isnan(values)
        return values[judged], defect[judged]

    def normal(self, *, by_map: bool, per_board: bool = False) -> Values:
        """Values of what is good, of tiles or of boards, by tile scores or by the map."""
        values, defect = self.level(by_map=by_map, per_board=per_board)
        return values[~defect]


def _joined(parts: Iterable[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate([np.zeros(0), *parts])


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
    taus = find_taus(method, tiles)
    for name, value in zip(("tile scores", "the map"), taus, strict=True):
        if not FLOAT32_TINY <= value <= FLOAT32_MAX:  # scores are float32, and so is tau
            raise CalibrationError(
                f"{method} gives the threshold {value:g} for {name}; a positive float32 is "
                f"expected, {FLOAT32_TINY:.2g} to {FLOAT32_MAX:.2g}. Held-out images that are "
                "copies of training images score 0: remove the copies; or ask for another value"
            )
    normal = [tiles.normal(by_map=by_map) for by_map in (False, True)]
    n_normal = sum(b.good for b in tiles.boards) if method.per_board else normal[0].size
    return Calibration(
        tile=taus[0],
        tile_scale=_scale(taus[0], normal[0]),
        map=taus[1],
        map_scale=_scale(taus[1], normal[1]),
        method=str(method),
        samples=sum(board.score.size for board in tiles.boards),
        warnings=_warnings(method, n_normal),
    )


def find_taus(method: ThresholdMethod, tiles: TileScores) -> tuple[float, float]:
    """Give tau of tile scores and tau of the map, whatever they are; raises CalibrationError."""
    return _find_tau(method, tiles, by_map=False), _find_tau(method, tiles, by_map=True)


def _find_tau(method: ThresholdMethod, tiles: TileScores, *, by_map: bool) -> float:
    values, defect = tiles.level(by_map=by_map, per_board=method.per_board)
    _check_sample(method, n_normal=int((~defect).sum()), n_defect=int(defect.sum()))
    return _threshold(method, values[~defect], values[defect])


def tile_peaks(
    board_map: NDArray[np.float32], xy: NDArray[np.integer[Any]], tile: int
) -> NDArray[np.float32]:
    """Largest value of ``board_map`` (H, W) inside each tile of ``xy`` (n, 2); returns (n,).

    NaN counts only where there is nothing else.
    """
    peaks = [np.fmax.reduce(board_map[y : y + tile, x : x + tile], axis=None) for x, y in xy]
    return np.array(peaks, np.float32)


def _check_sample(method: ThresholdMethod, *, n_normal: int, n_defect: int) -> None:
    if method.name != "recall" and n_normal == 0:
        what = "labelled normal tiles" if method.labelled else "held-out normal tiles"
        raise CalibrationError(
            f"threshold {method} needs {'good boards' if method.per_board else what}, got none: "
            "add good boards to the data set"
        )
    if method.needs_defects and n_defect == 0:
        raise CalibrationError(
            f"threshold {method} needs labelled defect tiles, got none: add test images with "
            f"ground truth, or use {DEFAULT_THRESHOLD}, which needs good boards only"
        )


def _threshold(method: ThresholdMethod, normal: Values, defect: Values) -> float:
    if method.name == "quantile":
        return float(np.quantile(normal, method.parameter))
    if method.name == "normal-max":
        return float(normal.max() * method.parameter)
    if method.per_board:
        return _above_share(method.parameter, normal)
    return _labelled_threshold(method, normal, defect)


def _above_share(share: float, normal: Values) -> float:
    """Least threshold at which at most `share` of new boards is to be expected at or above it.

    Where n boards and a new one are exchangeable, the new one's score exceeds the k-th largest of
    the n with a probability of at most k / (n + 1). Midway to the next larger one, as below; where
    there is none, of k = 1 or less or among equal ones, `MARGIN` above the largest.
    """
    ranked = np.sort(normal)[::-1]
    k = math.floor(share * (len(ranked) + 1) + 1e-9)
    larger = ranked[ranked > ranked[k - 1]] if k > 1 else ranked[:0]
    if not larger.size:
        return float(ranked[0] * (1 + MARGIN))
    return float((larger[-1] + ranked[k - 1]) / 2)


def _labelled_threshold(method: ThresholdMethod, normal: Values, defect: Values) -> float:
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
        return float(taus[np.argmax(recall >= method.parameter)])
    return float(taus[np.flatnonzero(alarms <= method.parameter)[-1]])


def _candidates(scores: Values) -> Values:
    """Thresholds below, midway between, and above ``scores`` (n,) ascending: (n + 1,) falling."""
    below, above = scores[0] / 2, scores[-1] * (1 + MARGIN)
    return np.concatenate([[below], (scores[1:] + scores[:-1]) / 2, [above]])[::-1]


def _scale(tau: float, normal: Values) -> float:
    """Spread that gives the median normal tile a normalised score of 0.1.

    Where there is no normal tile, or its median is not below tau, a tenth of tau is used.
    """
    gap = tau - float(np.median(normal)) if len(normal) else 0.0
    return gap / math.log(9) if gap > 0 else tau / 10


def _warnings(method: ThresholdMethod, n_normal: int) -> tuple[str, ...]:
    """Say so where the sample is smaller than the share that is asked for can be told on."""
    if method.name == "quantile":
        needed = math.ceil(round(1 / (1 - method.parameter), 6))
        what, where = "held-out normal tiles", "at about their maximum"
    elif method.per_board:
        needed = math.ceil(round(1 / method.parameter, 6)) - 1
        what, where = "good boards", f"{MARGIN:.0%} above their largest score"
    else:
        return ()
    if n_normal >= needed:
        return ()
    return (
        f"threshold {method} wants {needed:,} {what} or more, got {n_normal:,}: it lies {where}. "
        f"Take more good boards, or {DEFAULT_THRESHOLD}",
    )
