"""The right nearest neighbours, in float64, and the check of an engine's answer against them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kad_sdk.errors import KadError

__all__ = ["Truth", "WrongAnswerError", "check_answer", "find_truth"]

_BLOCK_ROWS = 8192  # rows of the bank that are held in float64 at a time
_SPARE = 8  # neighbours beyond k that are measured by direct difference


class WrongAnswerError(KadError):
    """An engine's distances or rows are not those of the reference; it is not timed."""


@dataclass(frozen=True)
class Truth:
    """Nearest rows of a sample of queries.

    Attributes
    ----------
    sample : (s,) int64
        Which queries.
    queries : (s, D) float64
        These queries.
    bank : (M, D) float32
        The bank.
    dist : (s, k) float64
        Their distances, nearest first.
    """

    sample: np.ndarray
    queries: np.ndarray
    bank: np.ndarray
    dist: np.ndarray

    def first(self, n_queries: int) -> Truth:
        """Those of the sample that are among the first queries."""
        kept = self.sample < n_queries
        return Truth(self.sample[kept], self.queries[kept], self.bank, self.dist[kept])


def find_truth(queries: np.ndarray, bank: np.ndarray, k: int, sample: np.ndarray) -> Truth:
    """Find the k nearest rows of some queries (n, D) in a bank (M, D).

    A float64 product of all pairs names k + 8 rows, whose distances are then taken from their
    float64 differences.
    """
    chosen = queries[sample].astype(np.float64)  # (s, D)
    kept = min(k + _SPARE, len(bank))
    dist2 = np.empty((len(chosen), 0))
    rows = np.empty((len(chosen), 0), np.int64)
    for start in range(0, len(bank), _BLOCK_ROWS):
        block = bank[start : start + _BLOCK_ROWS].astype(np.float64)
        # |q - m|^2 less |q|^2, which does not change a query's order
        found = (block**2).sum(1) - 2 * (chosen @ block.T)  # (s, rows)
        dist2 = np.concatenate([dist2, found], axis=1)
        new = np.broadcast_to(np.arange(start, start + len(block)), found.shape)
        rows = np.concatenate([rows, new], axis=1)
        best = np.argpartition(dist2, min(kept, dist2.shape[1]) - 1, axis=1)[:, :kept]
        dist2, rows = (np.take_along_axis(x, best, axis=1) for x in (dist2, rows))
    dist = np.sort(_distances(chosen, bank, rows), axis=1)[:, :k]
    return Truth(sample, chosen, bank, dist)


def check_answer(
    engine: str, truth: Truth, dist: np.ndarray, index: np.ndarray, *, direct: bool
) -> float:
    """Compare an engine's answer with the truth: its distances, and how far its rows really are.

    Rows may differ where distances tie within the tolerance.

    Parameters
    ----------
    engine : str
        What errors call it.
    truth
        The right distances of a sample of the queries.
    dist, index : (n, k)
        The engine's answer for all its queries.
    direct : bool
        It sums differences: distances are held to a relative 1e-5. Otherwise it subtracts products,
        and squared distances are held to 1e-5 of what is subtracted, ``|q|^2 + |m|^2``.

    Returns
    -------
    float
        The largest error of a squared distance, in shares of what is allowed.

    Raises
    ------
    WrongAnswerError
        A distance or a row is wrong, or a row is named twice; the text names the first such query.
    """
    dist, index = np.asarray(dist)[truth.sample], np.asarray(index)[truth.sample]
    k = dist.shape[1]
    right = truth.dist[:, :k]  # (s, k)
    if index.min() < 0 or index.max() >= len(truth.bank):
        raise WrongAnswerError(f"{engine}: a row is outside the bank of {len(truth.bank)} rows")
    ordered = np.sort(index, axis=1)
    _require(engine, (ordered[:, 1:] != ordered[:, :-1]).all(axis=1), truth, "names a row twice")
    real = _distances(truth.queries, truth.bank, index)  # (s, k) of the rows that it names
    limit = _tolerance(truth, index, right, direct=direct)
    largest = 0.0
    for found, text in ((dist, "has a wrong distance"), (real, "names a row that is not nearest")):
        error = np.abs(found.astype(np.float64) ** 2 - right**2)
        _require(engine, (error <= limit).all(axis=1), truth, text)
        shares = np.divide(error, limit, out=np.zeros_like(error), where=limit > 0)
        largest = max(largest, float(shares.max()))
    return largest


def _tolerance(truth: Truth, index: np.ndarray, right: np.ndarray, *, direct: bool) -> np.ndarray:
    """Largest error of a squared distance, (s, k)."""
    if direct:
        return 2e-5 * right**2
    norms = (truth.queries**2).sum(1)[:, None] + (truth.bank[index].astype(np.float64) ** 2).sum(2)
    return 1e-5 * norms


def _require(engine: str, fine: np.ndarray, truth: Truth, text: str) -> None:
    if not fine.all():
        query = truth.sample[np.argmin(fine)]
        raise WrongAnswerError(
            f"{engine} {text} at query {query} ({np.sum(~fine)} of {len(fine)} checked queries): "
            "its time is not taken"
        )


def _distances(queries: np.ndarray, bank: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Distances (s, r) of queries (s, D) to their rows (s, r), by float64 differences."""
    return np.stack(
        [
            np.sqrt(((bank[column].astype(np.float64) - queries) ** 2).sum(1))
            for column in rows.T  # (s,)
        ],
        axis=1,
    )
