"""What every parity gate compares: values, decisions, and the same tiles in other batches.

Each kind of disagreement has its own error; what passes gives figures for the manifest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from kad_export.errors import BatchDependenceError, DecisionFlipError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kad_export.errors import ParityError

__all__ = ["Session", "batch_invariance", "compare", "compare_decisions"]

HISTOGRAM_LOG10 = tuple(range(-10, -2))  # edges between the bins


class Session(Protocol):
    """What a gate needs of :class:`kad_sdk.session.NetworkSession`."""

    def run(self, tiles: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Compute the graph's outputs for a batch."""


def compare(
    name: str,
    expected: NDArray[np.float32],
    got: NDArray[np.float32],
    tolerance: float,
    error: type[ParityError],
) -> dict[str, Any]:
    """Compare one output of all golden tiles.

    Parameters
    ----------
    name
        What errors call it.
    expected, got
        (G, ...) by PyTorch; by the runtime.
    tolerance
        Largest absolute difference over the largest absolute value expected.
    error
        Raised where it is exceeded, with the worst value and its place.

    Returns
    -------
    dict
        Figures: max_abs, max_rel, histogram.
    """
    if expected.shape != got.shape:
        raise error(f"{name}: expected shape {expected.shape}, got {got.shape}")
    difference = np.abs(got.astype(np.float64) - expected)
    largest = float(np.abs(expected).max())
    worst = np.unravel_index(int(np.argmax(difference)), difference.shape)  # NaN counts as largest
    max_abs = float(difference[worst])
    max_rel = _relative(max_abs, largest)
    if not max_rel <= tolerance:
        tile, *place = (int(i) for i in worst)
        raise error(
            f"{name}: tile {tile}{f' at {tuple(place)}' if place else ''}: expected "
            f"{expected[worst]:.9g}, got {got[worst]:.9g}; the difference is {max_rel:.3g} of the "
            f"largest value {largest:.6g}, tolerance {tolerance:.3g}. The runtime does not compute "
            "what PyTorch does: do not use this export; if the graph is as exported, the installed "
            "ONNX Runtime computes it differently"
        )
    return {
        "max_abs": max_abs,
        "max_rel": max_rel,
        "histogram": _histogram(difference, largest),
    }


def _relative(difference: float, largest: float) -> float:
    if largest > 0:
        return difference / largest
    return 0.0 if difference == 0 else float("inf")


def _histogram(difference: NDArray[np.float64], largest: float) -> dict[str, list[int]]:
    """Count values by the power of ten of their relative error.

    ``counts[i]`` errors lie from 10^``log10[i - 1]`` up to 10^``log10[i]``; the first and the last
    bin are open.
    """
    relative = difference.ravel() / (largest or 1.0)
    edges = 10.0 ** np.array(HISTOGRAM_LOG10)
    bins = np.searchsorted(edges, relative, side="right")
    counts = np.bincount(bins, minlength=len(edges) + 1)
    return {"log10": list(HISTOGRAM_LOG10), "counts": counts.tolist()}


def compare_decisions(
    expected: NDArray[np.float32], score: NDArray[np.float32], tau: float
) -> dict[str, int]:
    """Compare decisions score >= tau; returns their figures.

    Parameters
    ----------
    expected, score
        (G,) by PyTorch; by the runtime.
    tau
        Threshold of tile scores.

    Raises
    ------
    DecisionFlipError
        A tile is anomalous on one side only.
    """
    wanted = expected >= tau
    flipped = np.flatnonzero((score >= tau) != wanted)
    if len(flipped):
        tile = int(flipped[0])
        words = ("normal", "anomalous")
        raise DecisionFlipError(
            f"{len(flipped)} of {len(score)} decisions flip, first tile {tile}: expected "
            f"{words[int(wanted[tile])]} (score {expected[tile]:.9g}), got "
            f"{words[int(score[tile] >= tau)]} (score {score[tile]:.9g}) at threshold {tau:.9g}. "
            "The threshold lies within rounding of a score: choose one between scores"
        )
    return {"anomalous": int(wanted.sum()), "flipped": 0}


def batch_invariance(
    score_tiles: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    tiles: NDArray[np.float32],
    score: NDArray[np.float32],
    tau: float,
    tolerance: float,
) -> dict[str, Any]:
    """Score the tiles in other batches and compare with `score`, that of one batch of all.

    Parameters
    ----------
    score_tiles
        Normalised tiles (B, 3, t, t) to scores (B,).
    tiles, score
        All tiles, and their scores.
    tau
        Threshold of tile scores.
    tolerance
        Largest difference over the largest score.

    Returns
    -------
    dict
        Figures: batches, bitwise, max_abs, max_rel.

    Raises
    ------
    BatchDependenceError
        A score differs, or a decision flips.
    """

    def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return score_tiles(np.ascontiguousarray(batch))

    padded = np.concatenate([tiles, np.zeros_like(tiles), tiles[:1]])
    batches = {
        "each tile alone": np.concatenate([run(tiles[i : i + 1]) for i in range(len(tiles))]),
        "reversed": run(tiles[::-1])[::-1],
        "padded": run(padded)[: len(tiles)],
    }
    largest = float(np.abs(score).max())
    max_abs = 0.0
    for name, other in batches.items():
        difference = np.abs(other.astype(np.float64) - score)
        tile = int(np.argmax(difference))
        relative = _relative(float(difference[tile]), largest)
        flipped = np.flatnonzero((other >= tau) != (score >= tau))
        if not relative <= tolerance or len(flipped):
            tile = tile if not relative <= tolerance else int(flipped[0])
            raise BatchDependenceError(
                f"score: tile {tile}: expected {score[tile]:.9g} as in one batch of all, got "
                f"{other[tile]:.9g} in batch {name!r}; the largest difference is {relative:.3g} of "
                f"the largest score, tolerance {tolerance:.3g}, threshold {tau:.9g}. A tile's "
                "score must not depend on the tiles beside it"
            )
        max_abs = max(max_abs, float(difference[tile]))
    return {
        "batches": list(batches),
        "bitwise": max_abs == 0.0,
        "max_abs": max_abs,
        "max_rel": _relative(max_abs, largest),
    }
