"""Times that can be compared: taken in turn in one process, and summed up by order statistics."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["interleave", "ratios", "summarise"]

# OpenMP's threads spin on after a parallel region, on cores that the next call needs.
PAUSE_S = 0.02


def interleave(
    calls: Mapping[str, Callable[[], object]], rounds: int, *, pause_s: float = PAUSE_S
) -> dict[str, list[float]]:
    """Time each call once in every round, each round beginning with another one.

    What changes slowly, other work on the machine or its clock, so falls on all of them alike.

    Parameters
    ----------
    calls
        Name to what is timed. Each must have run before: the first run is not like the others.
    rounds
        How often.
    pause_s
        Sleep before each call.

    Returns
    -------
    dict
        Name to seconds, by round.
    """
    names = list(calls)
    seconds: dict[str, list[float]] = {name: [0.0] * rounds for name in names}
    for i in range(rounds):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(pause_s)
            start = time.perf_counter()
            calls[name]()
            seconds[name][i] = time.perf_counter() - start
    return seconds


def summarise(values: Sequence[float]) -> dict[str, float]:
    """Sum values up by order statistics.

    Returns
    -------
    dict
        ``n``, ``min``, ``median``, ``p90``, ``p99``, ``max``; ``low`` and ``high``, between which
        the true median lies with 95 % confidence whatever the distribution: order statistics by the
        binomial law, the smallest and the largest value where there are fewer than six.
    """
    ordered = sorted(map(float, values))
    p50, p90, p99 = map(float, np.percentile(ordered, (50, 90, 99)))
    n = len(ordered)
    rank = max(1, _binomial_quantile(0.025, n))  # counted from 1
    return {
        "n": n,
        "min": ordered[0],
        "low": ordered[rank - 1],
        "median": p50,
        "high": ordered[n - rank],
        "p90": p90,
        "p99": p99,
        "max": ordered[-1],
    }


def _binomial_quantile(q: float, n: int) -> int:
    """Give the smallest k such that of n fair coins at most k show heads with probability q."""
    below, k = 0, -1
    while below / 2**n < q:
        k += 1
        below += math.comb(n, k)
    return k


def ratios(slower: Sequence[float], faster: Sequence[float]) -> dict[str, float]:
    """Summary of slower / faster, round by round."""
    return summarise([a / b for a, b in zip(slower, faster, strict=True)])
