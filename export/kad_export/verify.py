"""The parity gate: an export is done when the runtime has been compared with PyTorch.

Golden tiles (crops of real images) go through the PyTorch module and the plain reference of the
method on one side, through ONNX Runtime and the compiled core on the other. Base maps, patch
distances, tile scores and decisions must agree, and a tile's score must not depend on the batch it
came in. What fails has a named error; what passes is written into the manifest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kad_export import reference
from kad_export.errors import OutputMismatchError, ScoreMismatchError
from kad_export.parity import batch_invariance, compare, compare_decisions
from kad_sdk.manifest import Tolerance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kad_export.parity import Session
    from kad_export.patchcore import PatchCoreNetwork
    from kad_sdk._native import NativeIndex
    from kad_sdk.manifest import PatchCore

__all__ = ["TOLERANCE", "Expected", "expected_of_maps", "expected_scores", "parity_gate"]

TOLERANCE = Tolerance(base_map=1e-4, score=1e-4)
"""Largest difference over largest value. Measured: about 1e-6. A wrong weight gives above 1e-2."""


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
    base_maps = [maps.numpy() for maps in network(torch.from_numpy(tiles))]
    return expected_of_maps(base_maps, bank=bank, neighbors=neighbors, settings=settings, tau=tau)


@torch.inference_mode()
def expected_of_maps(
    base_maps: Sequence[NDArray[np.float32]],
    *,
    bank: NDArray[np.float32],
    neighbors: NDArray[np.int64],
    settings: PatchCore,
    tau: float,
) -> Expected:
    """Compute what golden tiles must give from the base maps (G, C, h, w) that PyTorch gave.

    The other parameters are those of :func:`expected_scores`.
    """
    features = reference.patch_features(
        tuple(torch.from_numpy(maps) for maps in base_maps),
        grid=settings.grid,
        resampling=settings.resampling,
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
        base_maps=tuple(base_maps),
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
        name: compare(name, want, got, tolerance.base_map, OutputMismatchError)
        for name, want, got in zip(layers, expected.base_maps, maps, strict=True)
    }
    dist, score = runtime.score(maps)
    figures = {
        "tiles": len(tiles),
        "outputs": outputs,
        "dist": compare("dist", expected.dist, dist, tolerance.score, ScoreMismatchError),
        "score": compare("score", expected.score, score, tolerance.score, ScoreMismatchError),
    }
    figures["decisions"] = compare_decisions(expected.score, score, tau)
    figures["batch_invariance"] = batch_invariance(
        lambda batch: runtime.score(runtime.maps(batch))[1], tiles, score, tau, tolerance.score
    )
    return figures
