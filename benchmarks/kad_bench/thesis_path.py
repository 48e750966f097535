"""The thesis' PatchCore as its PyTorch code computes it: the baseline of every end-to-end figure.

One tile at a time, in float32, on the CPU or a CUDA device (thesis, sections 4.1 and 5.3): the
backbone in eval mode up to layer3; every map averaged over 3x3 without padding and brought to
layer2's grid by adaptive average pooling; ``torch.cdist`` from all patches to the whole bank; the
largest of the smallest distances re-weighted by the 3 nearest neighbours of its bank row, found by
another pass over the bank; the distances enlarged bilinearly and smoothed by a Gaussian of 21 x 21
with sigma 4. Nothing is made faster than there, and nothing slower: weights and bank stay where
they are needed, gradients are off.

``torch.cdist`` subtracts products in float32, which leaves few digits where patches lie much closer
to one another than to the origin. What the path would give without that rounding, and what answers
are therefore compared with, is the same path with its distances in float64.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.transforms.functional import gaussian_blur

from kad_sdk.scoring import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kad_export.backbones import Trunk
    from numpy.typing import NDArray

__all__ = [
    "BLUR_RADIUS",
    "BLUR_SIGMA",
    "THESIS",
    "BoardMap",
    "ThesisPatchCore",
    "TileResult",
    "enlarged",
    "normalised",
    "spread",
    "wait_for",
]

THESIS = "thesis path"
NEIGHBOURS = 3
BLUR_SIGMA = 4.0
BLUR_RADIUS = 10  # a kernel of 21 x 21


class TileResult(NamedTuple):
    """Score of a tile, and its anomaly map (t, t) float32."""

    score: float
    map: NDArray[np.float32]


class ThesisPatchCore:
    """Scores tiles as the thesis does.

    Parameters
    ----------
    trunk : Trunk
        The backbone, which gives the maps of its layers, fine to coarse.
    bank : (M, D) float32
        The memory bank.
    mean, std : sequence of float
        Of the normalisation, RGB, in units of full scale.
    device : str
        ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
    exact : bool
        Computes distances in float64: slow, for answers, not for times.
    """

    def __init__(
        self,
        trunk: Trunk,
        bank: NDArray[np.float32],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        device: str = "cpu",
        exact: bool = False,
    ) -> None:
        self._dtype = torch.float64 if exact else torch.float32
        self.device = torch.device(device)
        # A copy: other paths run the caller's on the CPU.
        self._trunk = copy.deepcopy(trunk).eval().requires_grad_(False).to(self.device)
        self._bank = torch.from_numpy(np.array(bank)).to(self.device)  # (M, D)
        self._mean, self._std = (
            torch.tensor(values, device=self.device).view(3, 1, 1) for values in (mean, std)
        )
        self._average = torch.nn.AvgPool2d(3, stride=1)

    @torch.inference_mode()
    def score(self, tile: NDArray[np.uint8], watch: Stopwatch | None = None) -> TileResult:
        """Score a tile (t, t, 3) uint8 RGB; `watch` is told the stages."""
        watch = watch or Stopwatch()
        with watch.stage("preprocess"):
            x = normalised(tile[None], self._mean, self._std)  # (1, 3, t, t)
        with watch.stage("network"):
            patches, grid = self._patches(x)  # (P, D)
            wait_for(self.device)
        with watch.stage("search"):
            distances = self._distances(patches)  # (P, M)
            nearest, rows = distances.min(dim=1)  # (P,), (P,)
            score = self._reweighted(patches, nearest, rows)
            wait_for(self.device)
        with watch.stage("map"):
            anomaly_map = enlarged(nearest.view(1, 1, *grid), tile.shape[0])
            return TileResult(float(score), anomaly_map[0, 0].cpu().numpy())

    def _patches(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        """Patch features (P, D) of a tile (1, 3, t, t), and their grid (height, width)."""
        maps = self._trunk(x)
        grid = (maps[0].shape[2], maps[0].shape[3])
        resized = [F.adaptive_avg_pool2d(self._average(layer), grid) for layer in maps]
        joined = torch.cat(resized, dim=1)  # (1, D, h, w)
        return joined.flatten(2)[0].T, grid

    def _reweighted(
        self, patches: torch.Tensor, nearest: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor:
        """Score of the tile: equation 7 of the paper with the thesis' neighbours and scale."""
        place = nearest.argmax()
        largest = nearest[place]  # s*
        between = self._distances(self._bank[rows[place]][None])  # (1, M), from m*
        found = between.topk(NEIGHBOURS + 1, largest=False).indices[0]
        others = found[1:]  # without m* itself
        away = torch.linalg.norm(patches[place] - self._bank[others], dim=1)  # (NEIGHBOURS,)
        root = math.sqrt(patches.shape[1])
        weight = 1 - torch.exp(largest / root) / torch.exp(away / root).sum()
        return weight * largest

    def _distances(self, patches: torch.Tensor) -> torch.Tensor:
        """Distances (P, M) float32 of patches (P, D) to all rows of the bank."""
        return torch.cdist(patches.to(self._dtype), self._bank.to(self._dtype)).float()


def wait_for(device: torch.device) -> None:
    """Let a device finish, so that a stage is charged with its own work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def spread(n: int | None, of: int) -> NDArray[np.int64]:
    """Choose n of so many tiles, evenly spread, or all: indices (min(n, of),)."""
    return np.linspace(0, of - 1, min(n or of, of)).astype(np.int64)


def normalised(tiles: NDArray[np.uint8], mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Turn tiles (n, t, t, 3) uint8 into (n, 3, t, t) float32, where `mean` and `std` lie."""
    x = torch.from_numpy(tiles).to(mean.device).permute(0, 3, 1, 2).contiguous().float().div(255)
    return (x - mean) / std


def enlarged(grid: torch.Tensor, tile: int) -> torch.Tensor:
    """Bring values (B, 1, h, w) to a tile's pixels, bilinearly, and smooth them: (B, 1, t, t)."""
    large = F.interpolate(grid, size=(tile, tile), mode="bilinear", align_corners=False)
    return gaussian_blur(large, 2 * BLUR_RADIUS + 1, BLUR_SIGMA)


class BoardMap:
    """Averages tile maps where they overlap, as the thesis does, in NumPy.

    Parameters
    ----------
    height, width : int
        Of the board, px.
    """

    def __init__(self, height: int, width: int) -> None:
        self._total = np.zeros((height, width), np.float32)
        self._count = np.zeros((height, width), np.float32)

    def add(self, x: int, y: int, tile_map: NDArray[np.float32]) -> None:
        """Add a tile's map (t, t), whose top-left corner lies at (x, y)."""
        here = np.s_[y : y + tile_map.shape[0], x : x + tile_map.shape[1]]
        self._total[here] += tile_map
        self._count[here] += 1

    def map(self) -> NDArray[np.float32]:
        """Give the map (height, width); NaN where no tile lies."""
        with np.errstate(invalid="ignore"):
            return self._total / self._count
