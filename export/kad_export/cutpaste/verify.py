"""CutPaste's parity gate: both graphs and the compiled density against PyTorch, on golden tiles.

On one side stand the PyTorch module, Grad-CAM by ``torch.autograd`` and the plain density; on the
other ONNX Runtime and the compiled core. Logits, embeddings, Grad-CAM, tile scores and decisions
must agree, and no tile's result may depend on the batch it came in. What fails has a named error;
what passes is written into the manifest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from kad_export.cutpaste.gradcam import ANOMALOUS_CLASS
from kad_export.errors import BatchDependenceError, OutputMismatchError, ScoreMismatchError
from kad_export.parity import batch_invariance, compare, compare_decisions
from kad_sdk.manifest import CutPasteTolerance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kad_export.cutpaste.density import Density
    from kad_export.cutpaste.network import CutPasteNet
    from kad_export.parity import Session
    from kad_sdk.density import NormalDensity

__all__ = [
    "TOLERANCE",
    "Expected",
    "expected_scores",
    "grad_cam",
    "parity_gate",
    "same_cam",
    "steady",
]

TOLERANCE = CutPasteTolerance(network=1e-4, cam=1e-4, score=1e-4)
"""Largest difference over largest value. Measured: about 1e-6. A wrong mask gives above 1e-2."""
NUDGE = 2e-6
"""How far `steady` moves a tile, in standard deviations: a few times what float32 rounds."""


@dataclass(frozen=True)
class Expected:
    """What the golden tiles must give, by PyTorch.

    Attributes
    ----------
    logits : ndarray
        (G, K) float32.
    embedding : ndarray
        (G, E) float32.
    score : ndarray
        Tile scores, (G,) float32.
    anomalous : ndarray
        Decisions score >= tau, (G,) uint8.
    cam : ndarray or None
        Grad-CAM, (G, h, w) float32; None where no map of it is made.
    """

    logits: NDArray[np.float32]
    embedding: NDArray[np.float32]
    score: NDArray[np.float32]
    anomalous: NDArray[np.uint8]
    cam: NDArray[np.float32] | None

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Give what ``golden.safetensors`` holds of it."""
        return {name: value for name, value in vars(self).items() if value is not None}


def grad_cam(
    network: CutPasteNet, tiles: torch.Tensor, target: int = ANOMALOUS_CLASS
) -> torch.Tensor:
    """Compute Grad-CAM at ``encoder.conv1`` by ``torch.autograd`` (Selvaraju et al. 2017).

    Parameters
    ----------
    network
        In eval mode.
    tiles
        Normalised tiles, (B, 3, t, t).
    target
        Class whose logit is explained.

    Returns
    -------
    torch.Tensor
        (B, h, w), 0 or more, not normalised.
    """
    kept: list[torch.Tensor] = []
    hook = network.encoder.conv1.register_forward_hook(lambda _layer, _in, out: kept.append(out))
    try:
        with torch.enable_grad():
            logits, _ = network(tiles.detach().clone().requires_grad_())  # (B, K)
            # In eval mode tiles do not mix, so the sum's gradient is each tile's own.
            (gradient,) = torch.autograd.grad(logits[:, target].sum(), kept[0])
    finally:
        hook.remove()
    alpha = gradient.mean(dim=(2, 3), keepdim=True)  # (B, C, 1, 1)
    return F.relu((alpha * kept[0].detach()).sum(dim=1))


def steady(network: CutPasteNet, tiles: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell the tiles whose Grad-CAM may be compared between two ways of computing it.

    A gradient jumps where a ReLU is at 0. Now and then one lies so near 0 that rounding, and so the
    order of summation, decides its side; then neither map is wrong, and they differ. Such a tile is
    found by moving its pixels a little, to and fro: its map by PyTorch changes by more than a
    quarter of the tolerance.

    Parameters
    ----------
    network
        In eval mode.
    tiles
        Normalised tiles, (G, 3, t, t) float32.

    Returns
    -------
    ndarray
        (G,) bool.
    """
    batch = torch.from_numpy(tiles)
    cam = grad_cam(network, batch)  # (G, h, w)
    limit = 0.25 * TOLERANCE.cam * cam.amax(dim=(1, 2))
    found = torch.ones(len(cam), dtype=torch.bool)
    draws = torch.Generator().manual_seed(0)
    for _ in range(2):
        nudge = NUDGE * torch.randn(batch.shape, generator=draws)
        for moved in (batch + nudge, batch - nudge):
            found &= (grad_cam(network, moved) - cam).abs().amax(dim=(1, 2)) <= limit
    return found.numpy()


def same_cam(
    network: CutPasteNet, session: Session, tiles: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Tell the tiles (G, 3, t, t) whose Grad-CAM both sides give within the tolerance; (G,)."""
    wanted = grad_cam(network, torch.from_numpy(tiles)).numpy()  # (G, h, w)
    difference = np.abs(session.run(tiles)[2][:, 0] - wanted).max(axis=(1, 2))
    return np.asarray(difference <= TOLERANCE.cam * wanted.max())


def expected_scores(
    network: CutPasteNet,
    tiles: NDArray[np.float32],
    density: Density,
    *,
    tau: float,
    explain: bool,
) -> Expected:
    """Compute what golden tiles must give, in PyTorch and NumPy alone.

    Parameters
    ----------
    network
        The PyTorch module, in eval mode.
    tiles
        Normalised golden tiles, (G, 3, t, t) float32.
    density
        Where the normal embeddings lie.
    tau
        Threshold of tile scores.
    explain
        Whether Grad-CAM is among it.
    """
    batch = torch.from_numpy(tiles)
    with torch.inference_mode():
        logits, embedding = (output.numpy() for output in network(batch))
    score = density.score(embedding).astype(np.float32)
    cam = grad_cam(network, batch).numpy() if explain else None
    return Expected(logits, embedding, score, (score >= tau).astype(np.uint8), cam)


def parity_gate(
    expected: Expected,
    session: Session,
    explaining: Session | None,
    tiles: NDArray[np.float32],
    density: NormalDensity,
    *,
    tau: float,
    tolerance: CutPasteTolerance = TOLERANCE,
    threads: int = 1,
) -> dict[str, Any]:
    """Compare the runtime with PyTorch on golden tiles.

    Parameters
    ----------
    expected
        From `expected_scores`, for the same tiles.
    session, explaining
        The graph of scores alone, and the one with Grad-CAM where there is one.
    tiles
        Normalised golden tiles, (G, 3, t, t) float32.
    density
        As the runtime will use it.
    tau
        Threshold of tile scores.
    tolerance
        Largest absolute difference over the largest absolute value.
    threads
        For the density.

    Returns
    -------
    dict
        Figures for the manifest's ``verification``.

    Raises
    ------
    OutputMismatchError
        Logits, embeddings or Grad-CAM differ.
    ScoreMismatchError
        A tile score differs.
    DecisionFlipError
        A tile is anomalous on one side only.
    BatchDependenceError
        A tile's score or its Grad-CAM depends on its batch.
    """
    gate = _Gate(expected, tiles, density, tau, tolerance, threads)
    outputs, figures = gate.check(session, "", explains=False)
    if explaining is not None:
        more, _ = gate.check(explaining, "explained ", explains=True)
        outputs |= more
    return {"tiles": len(tiles), "outputs": outputs, **figures}


@dataclass(frozen=True)
class _Gate:
    """One side that is right, and what the other is measured by."""

    expected: Expected
    tiles: NDArray[np.float32]
    density: NormalDensity
    tau: float
    tolerance: CutPasteTolerance
    threads: int

    def check(
        self, session: Session, words: str, *, explains: bool
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Check one graph; `words` go before the names of its outputs."""
        expected, tolerance = self.expected, self.tolerance
        found = session.run(self.tiles)
        wanted = {f"{words}logits": expected.logits, f"{words}embedding": expected.embedding}
        if len(found) != len(wanted) + explains:
            raise OutputMismatchError(
                f"the {words}graph has {len(found)} outputs, expected {len(wanted) + explains}"
            )
        outputs = {
            name: compare(name, want, got, tolerance.network, OutputMismatchError)
            for (name, want), got in zip(wanted.items(), found, strict=False)
        }
        if explains and expected.cam is not None:
            cam = found[2][:, 0]  # (G, h, w)
            outputs["cam"] = compare("cam", expected.cam, cam, tolerance.cam, OutputMismatchError)
            self._check_alone(session, cam)
        score = self._score(found)
        figures = {
            "score": compare(
                f"{words}score", expected.score, score, tolerance.score, ScoreMismatchError
            ),
            "decisions": compare_decisions(expected.score, score, self.tau),
            "batch_invariance": batch_invariance(
                lambda batch: self._score(session.run(batch)),
                self.tiles,
                score,
                self.tau,
                tolerance.score,
            ),
        }
        return outputs, figures

    def _score(self, found: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        return self.density.score(found[1], threads=self.threads)

    def _check_alone(self, session: Session, cam: NDArray[np.float32]) -> None:
        """Check Grad-CAM of each tile alone against `cam`, that of one batch of all."""
        alone = [session.run(self.tiles[i : i + 1])[2][0, 0] for i in range(len(self.tiles))]
        compare("cam alone", cam, np.stack(alone), self.tolerance.cam, BatchDependenceError)
