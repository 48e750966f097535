"""The defined arithmetic of search and selection, in NumPy.

Distances are float32 direct differences, summed in a fixed order: for dimension i, the square of
``q_i - m_i`` goes to partial sum ``i mod 16`` in rising i; the 16 sums are then added as a tree
(j and j + 8, j and j + 4, j and j + 2, 0 and 1). Each operation is rounded on its own. The compiled
engines give the same bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["checked", "distances", "k_center", "nearest"]

_LANES = 16


def _lanes(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pad with zeros to whole groups of 16 dimensions: (n, D) to (n, G, 16)."""
    n, dims = values.shape
    padded = np.zeros((n, -(-dims // _LANES) * _LANES), np.float32)
    padded[:, :dims] = values
    return padded.reshape(n, -1, _LANES)


def _squared(query: NDArray[np.float32], bank: NDArray[np.float32]) -> NDArray[np.float32]:
    """Squared distances of one query (G, 16) to the rows of a bank (M, G, 16), (M,)."""
    sums = np.zeros((len(bank), _LANES), np.float32)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for group in range(bank.shape[1]):
            difference = query[group] - bank[:, group]  # (M, 16)
            sums += difference * difference
        for half in (8, 4, 2, 1):
            sums = sums[:, :half] + sums[:, half : 2 * half]
    return sums[:, 0]


def distances(queries: NDArray[np.float32], bank: NDArray[np.float32]) -> NDArray[np.float32]:
    """Euclidean distance of every query to every bank row in the defined arithmetic.

    Parameters
    ----------
    queries : ndarray of shape (n, D), float32
    bank : ndarray of shape (M, D), float32

    Returns
    -------
    ndarray of shape (n, M), float32

    Raises
    ------
    ValueError
        If the arrays are not two-dimensional with the same number of columns, or not finite.
    """
    queries, bank = checked(queries, "queries"), checked(bank, "bank")
    if queries.shape[1] != bank.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} dimensions, the bank {bank.shape[1]}")
    rows = _lanes(bank)
    out = np.empty((len(queries), len(bank)), np.float32)
    for i, query in enumerate(_lanes(queries)):
        out[i] = np.sqrt(_squared(query, rows))
    return out


def nearest(
    queries: NDArray[np.float32], bank: NDArray[np.float32], k: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Exact k nearest bank rows of each query, nearest first, ties to the lowest row.

    Parameters
    ----------
    queries : ndarray of shape (n, D), float32
    bank : ndarray of shape (M, D), float32
    k : int
        1 to M.

    Returns
    -------
    dist : ndarray of shape (n, k), float32
    index : ndarray of shape (n, k), int64

    Raises
    ------
    ValueError
        As :func:`distances`, and if k is not between 1 and M.
    """
    if not 1 <= k <= len(bank):
        raise ValueError(f"k must be 1 to the number of bank rows ({len(bank)}), got {k}")
    every = distances(queries, bank)  # (n, M)
    index = np.argsort(every, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(every, index, axis=1), index.astype(np.int64)


def k_center(
    points: NDArray[np.float32], n: int, start: int = 0, skipped: int = 0
) -> tuple[NDArray[np.int64], float]:
    """Plain greedy k-center selection (equation 4.4 of the thesis; arXiv 2106.08265, algorithm 1).

    Every step takes the point whose distance to the points taken so far is largest, ties to the
    lowest index; no point is taken twice. Distances are those of :func:`distances`, so points tie
    here when they tie for the search.

    Parameters
    ----------
    points : ndarray of shape (N, D), float32
    n : int
        How many to take, 1 to N.
    start : int
        The first one.
    skipped : int
        In every step so many of the farthest points are passed over and the next one is taken, for
        points with outliers; at most N - n.

    Returns
    -------
    index : ndarray of shape (n,), int64
        In the order of selection.
    radius : float
        Largest distance of a point to its nearest selected one, the ``skipped`` farthest left out.

    Raises
    ------
    ValueError
        If the points are not two-dimensional and finite, or n, start or skipped is out of range.
    """
    points = checked(points, "points")
    if not 1 <= n <= len(points):
        raise ValueError(f"n must be 1 to the number of points ({len(points)}), got {n}")
    if not 0 <= start < len(points):
        raise ValueError(f"start must be 0 to {len(points) - 1}, got {start}")
    if not 0 <= skipped <= len(points) - n:
        raise ValueError(f"skipped must be 0 to {len(points) - n}, got {skipped}")
    rows = _lanes(points)
    index = np.empty(n, np.int64)
    best = np.full(len(points), np.inf, np.float32)  # distance to the selection, (N,)
    index[0] = start
    for i in range(n):
        if i > 0:
            index[i] = np.argsort(-best, kind="stable")[skipped]
        best = np.minimum(best, np.sqrt(_squared(rows[index[i]], rows)))
        best[index[i]] = -1  # not to be taken again
    left = np.sort(best)[::-1]
    return index, max(0.0, float(left[skipped])) if skipped < len(left) else 0.0


def checked(values: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """Return values as a float32 matrix of finite numbers, or raise ValueError."""
    values = np.asarray(values, np.float32)
    if values.ndim != 2 or values.shape[1] < 1:
        raise ValueError(f"{name} must have shape (n, D) with D >= 1, got {values.shape}")
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise ValueError(f"{name} row {int(bad.argmax())} holds NaN or Inf")
    return values
