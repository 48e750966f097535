"""The parity gate: an export is done when the runtime has been compared with PyTorch.

Golden tiles (crops of real images) go through the PyTorch module and the plain reference of the
method on one side, through ONNX Runtime and the compiled core on the other. Base maps, patch
distances, tile scores and decisions must agree, and a tile's score must not depend on the batch it
came in. What fails has a named error; what passes is written into the manifest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from kad_export import reference
from kad_export.errors import (
    BatchDependenceError,
    DecisionFlipError,
    OutputMismatchError,
    ParityError,
    ScoreMismatchError,
)
from kad_sdk.manifest import Tolerance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kad_export.patchcore import PatchCoreNetwork
    from kad_sdk._native import NativeIndex
    from kad_sdk.manifest import PatchCore

__all__ = ["TOLERANCE", "Expected", "expected_scores", "parity_gate"]

TOLERANCE = Tolerance(base_map=1e-4, score=1e-4)
"""Largest difference over largest value. Measured: about 1e-6. A wrong weight gives above 1e-2."""

HISTOGRAM_LOG10 = tuple(range(-10, -2))  # edges between the bins


class Session(Protocol):
    """What the gate needs of :class:`kad_sdk.session.NetworkSession`."""

    def run(self, tiles: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Compute the base maps of a batch."""


@dataclass(frozen=True)
class Expected:
    """What the golden tiles must give, by PyTorch.

    Attributes
    ----------
    base_maps : tuple of ndarray
        For each layer (G, C, h, w) float32.
    dist : ndarray
        Patch distances, (G, P) float32.
    score : ndarray
        Tile scores, (G,) float32.
    anomalous : ndarray
        Decisions score >= tau, (G,) uint8.
    """

    base_maps: tuple[NDArray[np.float32], ...]
    dist: NDArray[np.float32]
    score: NDArray[np.float32]
    anomalous: NDArray[np.uint8]


@dataclass(frozen=True)
class _Runtime:
    """The side that is checked."""

    session: Session
    index: NativeIndex
    neighbors: NDArray[np.int64]
    settings: PatchCore
    threads: int

    def maps(self, tiles: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return [np.ascontiguousarray(x) for x in self.session.run(tiles)]

    def score(self, maps: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], ...]:
        """Return dist (G, P) and score (G,)."""
        dist, _, score = self.index.score_tiles(
            maps,
            grid=self.settings.grid,
            resampling=self.settings.resampling,
            reweighting=self.settings.reweighting,
            neighbors=self.neighbors,
            n_neighbors=self.settings.n_neighbors,
            threads=self.threads,
        )
        return dist, score


@torch.inference_mode()
def expected_scores(
    network: PatchCoreNetwork,
    tiles: NDArray[np.float32],
    *,
    bank: NDArray[np.float32],
    neighbors: NDArray[np.int64],
    settings: PatchCore,
    tau: float,
) -> Expected:
    """Compute what golden tiles must give, in PyTorch alone.

    Parameters
    ----------
    network
        The PyTorch module.
    tiles
        Normalised golden tiles, (G, 3, t, t) float32.
    bank, neighbors
        The memory bank (M, D) and each row's nearest other rows (M, K).
    settings
        The manifest's ``patchcore`` section.
    tau
        Threshold of tile scores.
    """
    base_maps = network(torch.from_numpy(tiles))
    features = reference.patch_features(
        base_maps, grid=settings.grid, resampling=settings.resampling
    )
    scores = reference.score_tiles(
        features,
        torch.from_numpy(bank),
        reweighting=settings.reweighting,
        neighbors=torch.from_numpy(neighbors),
        n_neighbors=settings.n_neighbors,
    )
    score = scores.score.float().numpy()
    return Expected(
        base_maps=tuple(x.numpy() for x in base_maps),
        dist=scores.dist.float().numpy(),
        score=score,
        anomalous=(score >= tau).astype(np.uint8),
    )


def parity_gate(
    expected: Expected,
    session: Session,
    index: NativeIndex,
    tiles: NDArray[np.float32],
    *,
    layers: Sequence[str],
    neighbors: NDArray[np.int64],
    settings: PatchCore,
    tau: float,
    tolerance: Tolerance = TOLERANCE,
    threads: int = 1,
) -> dict[str, Any]:
    """Compare the runtime with PyTorch on golden tiles.

    Parameters
    ----------
    expected
        From `expected_scores`, for the same tiles.
    session, index
        The exported graph and the bank, as the runtime will use them.
    tiles
        Normalised golden tiles, (G, 3, t, t) float32.
    layers
        Names of the graph's outputs.
    neighbors, settings, tau
        As for `expected_scores`.
    tolerance
        Largest absolute difference over the largest absolute value.
    threads
        For the search.

    Returns
    -------
    dict
        Figures for the manifest's ``verification``.

    Raises
    ------
    OutputMismatchError
        A base map differs.
    ScoreMismatchError
        A patch distance or a tile score differs.
    DecisionFlipError
        A tile is anomalous on one side only.
    BatchDependenceError
        A tile's score depends on its batch.
    """
    runtime = _Runtime(session, index, neighbors, settings, threads)
    maps = runtime.maps(tiles)
    if len(maps) != len(expected.base_maps):
        raise OutputMismatchError(
            f"the graph has {len(maps)} outputs, expected {len(expected.base_maps)}: {list(layers)}"
        )
    outputs = {
        name: _compare(name, want, got, tolerance.base_map, OutputMismatchError)
        for name, want, got in zip(layers, expected.base_maps, maps, strict=True)
    }
    dist, score = runtime.score(maps)
    figures = {
        "tiles": len(tiles),
        "outputs": outputs,
        "dist": _compare("dist", expected.dist, dist, tolerance.score, ScoreMismatchError),
        "score": _compare("score", expected.score, score, tolerance.score, ScoreMismatchError),
    }
    _compare_decisions(expected, score, tau)
    figures["decisions"] = {"anomalous": int(expected.anomalous.sum()), "flipped": 0}
    figures["batch_invariance"] = _batch_invariance(runtime, tiles, score, tau, tolerance.score)
    return figures


def _compare(
    name: str,
    expected: NDArray[np.float32],
    got: NDArray[np.float32],
    tolerance: float,
    error: type[ParityError],
) -> dict[str, Any]:
    """Return the figures of one output; raise `error` at its worst value when out of tolerance."""
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


def _compare_decisions(expected: Expected, score: NDArray[np.float32], tau: float) -> None:
    flipped = np.flatnonzero((score >= tau) != expected.anomalous.astype(bool))
    if len(flipped):
        tile = int(flipped[0])
        words = ("normal", "anomalous")
        raise DecisionFlipError(
            f"{len(flipped)} of {len(score)} decisions flip, first tile {tile}: expected "
            f"{words[int(expected.anomalous[tile])]} (score {expected.score[tile]:.9g}), got "
            f"{words[int(score[tile] >= tau)]} (score {score[tile]:.9g}) at threshold {tau:.9g}. "
            "The threshold lies within rounding of a score: choose one between scores"
        )


def _batch_invariance(
    runtime: _Runtime,
    tiles: NDArray[np.float32],
    score: NDArray[np.float32],
    tau: float,
    tolerance: float,
) -> dict[str, Any]:
    """Score the tiles in other batches and compare with `score`, that of one batch of all."""

    def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return runtime.score(runtime.maps(np.ascontiguousarray(batch)))[1]

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
