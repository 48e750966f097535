"""The thesis' CutPaste as its PyTorch code computes it: Grad-CAM by autograd, one tile at a time.

Score: the Mahalanobis distance of the tile's embedding from the normal ones (thesis, equation 4.12
up to sign and constant). Map: Grad-CAM of the anomalous class at ``encoder.conv1`` (section 5.4.5),
in units of the score as the artifact's maps are, enlarged and smoothed like PatchCore's.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from kad_export.cutpaste.gradcam import ANOMALOUS_CLASS

from kad_bench.thesis_path import TileResult, enlarged, normalised, wait_for
from kad_sdk.scoring import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from kad_export.cutpaste.density import Density
    from kad_export.cutpaste.network import CutPasteNet
    from numpy.typing import NDArray

__all__ = ["ThesisCutPaste"]


class ThesisCutPaste:
    """Scores and explains tiles as the thesis does.

    Parameters
    ----------
    network : CutPasteNet
        In eval mode.
    density : Density
        Gaussian, of normal embeddings.
    mean, std : sequence of float
        Of the normalisation, RGB, in units of full scale.
    device : str
        ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
    exact : bool
        Computes in float64: slow, for answers, not for times.
    """

    def __init__(
        self,
        network: CutPasteNet,
        density: Density,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        device: str = "cpu",
        exact: bool = False,
    ) -> None:
        self.device = torch.device(device)
        kind = {"device": self.device, "dtype": torch.float64 if exact else torch.float32}
        # A copy: others export or time the caller's.
        self._network = copy.deepcopy(network).eval().to(**kind)
        self._mean, self._std = (
            torch.tensor(values, **kind).view(3, 1, 1) for values in (mean, std)
        )
        self._centre, self._factor = (
            torch.from_numpy(density.tensors[name]).to(**kind) for name in ("mean", "cholesky")
        )

    def score(self, tile: NDArray[np.uint8], watch: Stopwatch | None = None) -> TileResult:
        """Score a tile (t, t, 3) uint8 RGB; `watch` is told the stages."""
        watch = watch or Stopwatch()
        with watch.stage("preprocess"):
            x = normalised(tile[None], self._mean, self._std)
        with watch.stage("explain"):
            embedding, cam = self.explain(x)
            wait_for(self.device)
        with watch.stage("density"):
            score = self._distance(embedding)
            wait_for(self.device)
        with watch.stage("map"):
            peak = cam.max()
            shares = cam / peak if peak > 0 else cam
            tile_map = enlarged(shares * score, tile.shape[0])
            return TileResult(float(score), tile_map[0, 0].cpu().numpy())

    def explain(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute embedding (1, E) and Grad-CAM (1, 1, h, w) of a normalised tile (1, 3, t, t)."""
        kept: list[torch.Tensor] = []

        def keep(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
            kept.append(output.detach().requires_grad_())
            return kept[0]

        with self._network.encoder.conv1.register_forward_hook(keep), torch.enable_grad():
            logits, embedding = self._network(x)
        activation = kept[0]  # A, (1, C, h, w)
        (gradient,) = torch.autograd.grad(logits[0, ANOMALOUS_CLASS], activation)
        alpha = gradient.mean(dim=(2, 3), keepdim=True)  # (1, C, 1, 1)
        cam = F.relu((alpha * activation).sum(dim=1, keepdim=True))
        return embedding.detach(), cam.detach()

    def _distance(self, embedding: torch.Tensor) -> torch.Tensor:
        """Mahalanobis distance of an embedding (1, E) from the normal ones."""
        difference = (embedding[0] - self._centre)[:, None]  # (E, 1)
        return torch.linalg.solve_triangular(self._factor, difference, upper=False).norm()
