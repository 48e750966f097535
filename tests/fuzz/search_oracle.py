"""The right answer of a search, twice: bitwise by NumPy's float32, and bounded by float64."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from kad_kernels import distances

from kad_sdk._native import cpu_level, force_cpu_level
from kad_sdk._native.abi import LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["LEVELS", "MOST_NEIGHBOURS", "Oracle", "at_level", "levels_here"]

MOST_NEIGHBOURS = 16
UNIT = 2.0**-24  # half a unit in the last place of float32, relative
TINY = 2.0**-149  # the smallest float32
LARGEST = float(np.finfo(np.float32).max)
_BLOCK_VALUES = 4_000_000  # float64 numbers held at a time


def levels_here() -> tuple[str, ...]:
    """Give the instruction-set levels of this processor."""
    with at_level(None):
        return LEVELS[: LEVELS.index(cpu_level()) + 1]


@contextmanager
def at_level(level: str | None) -> Iterator[None]:
    force_cpu_level(level)
    try:
        yield
    finally:
        force_cpu_level(None)


class Oracle:
    """The nearest rows of queries (n, D) in a bank (M, D), up to 16 of each."""

    def __init__(self, bank: NDArray[np.float32], queries: NDArray[np.float32]) -> None:
        self.bank, self.queries = bank, queries
        self.k = min(MOST_NEIGHBOURS, len(bank))
        every = distances(queries, bank)  # (n, M)
        self.index = np.argsort(every, axis=1, kind="stable")[:, : self.k]
        self.dist = np.take_along_axis(every, self.index, axis=1)
        self._check_float64(every)

    def check(self, dist: NDArray[np.float32], index: NDArray[np.int64]) -> None:
        """Compare an answer (n, k): every bit of every distance, and every row.

        Raises
        ------
        AssertionError
            Names the first query that is wrong, with both answers.
        """
        k = index.shape[1]
        right_dist, right_index = self.dist[:, :k], self.index[:, :k]
        wrong = (index != right_index) | (dist.view(np.int32) != right_dist.view(np.int32))
        if wrong.any():
            query = int(wrong.any(axis=1).argmax())
            raise AssertionError(
                f"{int(wrong.any(axis=1).sum())} of {len(wrong)} queries are wrong, the first is "
                f"{query}: got rows {index[query].tolist()} at {dist[query].tolist()}, expected "
                f"{right_index[query].tolist()} at {right_dist[query].tolist()}"
            )

    def _check_float64(self, every: NDArray[np.float32]) -> None:
        """Hold the reference to the distances of float64, whose own error is far smaller.

        A square goes through ceil(D / 16) + 8 roundings, of the difference (twice), the product and
        the sums; the root through one. What vanishes below float32's range is D times its smallest
        number; an infinity stands for a sum above its range.
        """
        dims = self.bank.shape[1]
        roundings = -(-dims // 16) + 8
        allowed = 2 * roundings * UNIT + 4 * UNIT
        bank = self.bank.astype(np.float64)
        step = max(1, _BLOCK_VALUES // bank.size)
        for first in range(0, len(self.queries), step):
            block = self.queries[first : first + step].astype(np.float64)
            true2 = ((block[:, None] - bank) ** 2).sum(axis=2)  # (b, M)
            found2 = every[first : first + step].astype(np.float64) ** 2
            fine = np.abs(found2 - true2) <= allowed * true2 + dims * TINY
            fine |= np.isinf(found2) & (true2 >= LARGEST * (1 - allowed))
            assert fine.all(), "the reference is off by more than its roundings explain"
