"""Drift: a test of whether camera, light or material have changed since a reference.

Two samples of boards are compared by what their tile scores look like, and by how bright they are:
scores alone may not see less light, since networks learn to overlook it. A board is one
observation, its tiles are not: they share a camera, a moment and a material, and a test that took
them for independent would alarm on any two days. Of each board the `MEASURES` are taken; the
quantiles end at 0.9 and boards are only ranked by them, so that a few boards with defects weigh
little.

For each measure the Mann-Whitney statistic says how far the day's boards rank from the
reference's; the largest of them in absolute value is the test's statistic, and its null
distribution comes from permuting the boards (Westfall & Young 1993, max-T: no correction for
several measures is needed, and none is lost on their correlation). Under exchangeable boards the
probability of an alarm is at most the rate that was asked for, whatever the scores' distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kad_sdk.errors import InvalidArgumentError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["MEASURES", "QUANTILES", "Drift", "Shift", "board_measures", "compare_boards"]

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Of a board's tile scores."""

MEASURES = (*(f"score {100 * q:g} %" for q in QUANTILES), "brightness")
"""What a board is compared by: quantiles of its tile scores, and how bright it is."""

_CHUNK = 1 << 21  # numbers of a block of permutations


@dataclass(frozen=True)
class Shift:
    """How a measure of the boards has moved.

    Attributes
    ----------
    measure : str
        One of `MEASURES`.
    reference, day : float
        Medians over the boards.
    spread : float
        Interquartile range over the reference's boards.
    p_value : float
        Adjusted for looking at all measures.
    """

    measure: str
    reference: float
    day: float
    spread: float
    p_value: float


@dataclass(frozen=True)
class Drift:
    """What a comparison found.

    Attributes
    ----------
    p_value : float
        Probability of a difference this large between boards of one kind.
    false_alarm_rate : float
        The rate that was asked for.
    n_reference, n_day : int
        Boards.
    shifts : tuple of Shift
    """

    p_value: float
    false_alarm_rate: float
    n_reference: int
    n_day: int
    shifts: tuple[Shift, ...]

    @property
    def alarm(self) -> bool:
        """Whether the boards differ at the rate that was asked for."""
        return self.p_value <= self.false_alarm_rate

    @property
    def largest(self) -> Shift:
        """The measure that moved most, against chance."""
        return min(self.shifts, key=lambda shift: shift.p_value)


def board_measures(scores: ArrayLike, brightness: float) -> NDArray[np.float64]:
    """Give a board's `MEASURES` from its tile scores (n,) and its brightness."""
    return np.append(np.quantile(np.asarray(scores, np.float64), QUANTILES), brightness)


def compare_boards(
    day: ArrayLike,
    reference: ArrayLike,
    *,
    false_alarm_rate: float = 0.01,
    permutations: int = 9999,
    seed: int = 0,
) -> Drift:
    """Test whether a day's boards are like the reference's.

    Parameters
    ----------
    day, reference
        (n, F) and (m, F), a row of `board_measures` for each board.
    false_alarm_rate
        Above 0 and below 1.
    permutations
        Random ones; the p-value is a multiple of 1 / (permutations + 1).
    seed
        Of the permutations.

    Raises
    ------
    InvalidArgumentError
        A rate, number or shape is out of range, or there are too few boards for that rate: even a
        day that lies wholly above the reference could not raise the alarm.
    """
    own, other = np.asarray(day, np.float64), np.asarray(reference, np.float64)
    _check(own, other, false_alarm_rate, permutations)
    values = np.concatenate([own, other])  # (N, F)
    ranks = _midranks(values)
    z = _standardised(ranks, _memberships(len(own), len(values), permutations, seed))  # (P + 1, F)
    largest = z.max(axis=1)
    adjusted = (largest[:, None] >= z[0]).mean(axis=0)  # (F,); the observed one counts, too
    shifts = tuple(
        Shift(name, *_medians(own[:, i], other[:, i]), float(adjusted[i]))
        for i, name in enumerate(MEASURES)
    )
    p = float(adjusted.min())
    return Drift(p, false_alarm_rate, len(other), len(own), shifts)


def _check(
    day: NDArray[np.float64], reference: NDArray[np.float64], rate: float, permutations: int
) -> None:
    for name, values in (("day", day), ("reference", reference)):
        if values.ndim != 2 or values.shape[1] != len(MEASURES) or not len(values):
            raise InvalidArgumentError(
                f"{name}: expected (boards, {len(MEASURES)}) measures, got shape {values.shape}"
            )
        if not np.isfinite(values).all():
            raise InvalidArgumentError(f"{name}: expected finite numbers, got NaN or infinity")
    if not 0 < rate < 1 or permutations < 1:
        raise InvalidArgumentError(
            "false_alarm_rate and permutations: expected a rate above 0 and below 1, and at least "
            f"1 permutation, got {rate} and {permutations}"
        )
    # Of all ways to choose the day's boards two are the most extreme: all above, all below.
    lowest = max(2 / math.comb(len(day) + len(reference), len(day)), 1 / (permutations + 1))
    if lowest > rate:
        raise InvalidArgumentError(
            f"{len(day)} boards against {len(reference)} with {permutations} permutations are too "
            f"few for a false-alarm rate of {rate:g}: no difference gets below {lowest:.2g}; score "
            "more boards, or ask for a higher rate"
        )


def _midranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank each column (N, F) from 1; ties share the mean of their ranks."""
    ranks = np.empty_like(values)
    for column, out in zip(values.T, ranks.T, strict=True):
        _, place, counts = np.unique(column, return_inverse=True, return_counts=True)
        out[:] = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def _memberships(n_day: int, n: int, permutations: int, seed: int) -> list[NDArray[np.float64]]:
    """Give blocks (p, N) of rows that are 1 for the day's boards; the first row is the real one."""
    rng = np.random.default_rng(seed)
    first = np.arange(n) < n_day
    rows = max(1, _CHUNK // n)
    blocks = [first[None].astype(np.float64)]
    for begin in range(0, permutations, rows):
        block = np.tile(first, (min(rows, permutations - begin), 1))
        blocks.append(rng.permuted(block, axis=1).astype(np.float64))
    return blocks


def _standardised(
    ranks: NDArray[np.float64], memberships: list[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Give |mean rank of the day - expected| / standard deviation, (P + 1, F); 0 where all tie.

    Rounded, so that arrangements that are equal but for the order of summation stay equal.
    """
    spread = ranks.std(axis=0)
    centred = (ranks - ranks.mean(axis=0)) / np.where(spread > 0, spread, 1)
    return np.concatenate([np.abs(block @ centred).round(9) for block in memberships])


def _medians(
    day: NDArray[np.float64], reference: NDArray[np.float64]
) -> tuple[float, float, float]:
    low, middle, high = np.quantile(reference, (0.25, 0.5, 0.75))
    return float(middle), float(np.median(day)), float(high - low)
