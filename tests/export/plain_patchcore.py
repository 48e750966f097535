"""PatchCore in plain PyTorch, for comparison: it shares no code with the runtime or the factory.

Written from the thesis' chapter 4 and the papers. The network is torchvision's own, pooling,
resizing and smoothing are torch's, tiles are planned in Python, distances are direct differences.
From the artifact it takes the manifest's numbers and the memory bank; only the weights' file is
read with the project's reader.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
import torch.nn.functional as F
import torchvision

from kad_sdk.tensors import read_tensors

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class PlainScores:
    """One image; n tiles of P patches."""

    xy: list[tuple[int, int]]
    dist: np.ndarray  # (n, P) float64
    tiles: np.ndarray  # (n,) float64, tile scores
    image: float  # score of the image
    map: np.ndarray  # (H, W) float64, in the image's own pixels


class PlainPatchCore:
    """ResNets with weights from a safetensors file; images without annotations, not denoised."""

    def __init__(self, manifest, bank: np.ndarray, weights: Path) -> None:
        self.settings, self.method = manifest.preprocessing, manifest.patchcore
        self.map, self.board = manifest.map, manifest.thresholds.board
        self.layers = manifest.network.layers
        self.bank = torch.from_numpy(np.array(bank)).double()  # (M, D)
        self.network = getattr(torchvision.models, manifest.network.backbone)(weights=None).eval()
        state = {name: torch.tensor(value) for name, value in read_tensors(weights).items()}
        missing, unexpected = self.network.load_state_dict(state, strict=False)
        needed = [name for name in missing if not name.startswith(("layer4", "fc"))]
        needed = [name for name in needed if not name.endswith("num_batches_tracked")]
        assert not needed, f"weights lack {needed}"
        assert not unexpected, f"weights have unknown {unexpected}"
        assert self.settings.denoise is None, "denoising is not part of this comparison"

    @torch.inference_mode()
    def score(self, image: np.ndarray, ties: np.ndarray, batch: int = 16) -> PlainScores:
        """Score an image (H, W, 3) uint8 RGB; `ties` is for :meth:`_resized`."""
        frame = self._resized(as_tensor(image), as_tensor(ties))
        tile = self.settings.tile
        xy = plan(frame.shape[1], frame.shape[2], tile, self.settings.stride)
        dist, scores = [], []
        for start in range(0, len(xy), batch):
            part = [frame[:, y : y + tile, x : x + tile] for x, y in xy[start : start + batch]]
            features = self._features(torch.stack(part))  # (B, P, D)
            near, rows = nearest(features.flatten(0, 1), self.bank)
            near, rows = near.view(len(part), -1), rows.view(len(part), -1)  # (B, P)
            dist.append(near)
            scores.append(self._tile_scores(features, near, rows))
        dist = torch.cat(dist)
        scores = torch.cat(scores)
        board = self._board_map(dist, xy, frame.shape[1:])
        top = float(board.max() if self.board == "map-peak" else scores.max())
        if board.shape != image.shape[:2]:
            board = F.interpolate(board[None, None], image.shape[:2], mode="bilinear")[0, 0]
        return PlainScores(xy, dist.numpy(), scores.numpy(), top, board.numpy())

    def _resized(self, image: torch.Tensor, ties: torch.Tensor) -> torch.Tensor:
        """Bring (3, H, W) uint8 to the manifest's size, in float64.

        Where a value lies within 1e-4 of the middle between two grey levels, float32 may round it
        either way: there, and only there, the level is taken from `ties`, the other's image.
        """
        resize = self.settings.resize
        if resize is None:
            return image
        if isinstance(resize, float):
            resize = [round(length * resize) for length in image.shape[1:]]
        size = list(resize)
        exact = F.interpolate(image[None].double(), size, mode="bilinear", antialias=True)[0]
        level = exact.round().to(torch.uint8)
        tied = (exact - exact.floor() - 0.5).abs() < 1e-4
        near = tied & ((exact - ties).abs() < 0.51)
        return torch.where(near, ties, level)

    def _features(self, tiles: torch.Tensor) -> torch.Tensor:
        """Patch features (B, P, D) float64 of tiles (B, 3, t, t) uint8."""
        mean = torch.tensor(self.settings.mean).view(1, 3, 1, 1)
        std = torch.tensor(self.settings.std).view(1, 3, 1, 1)
        x = (tiles.float() / 255 - mean) / std
        net = self.network
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        maps = {}
        for name in ("layer1", "layer2", "layer3"):
            x = maps[name] = getattr(net, name)(x)
        grid = list(maps[self.layers[0]].shape[-2:])
        joined = torch.cat([self._on_grid(maps[name], grid) for name in self.layers], dim=1)
        return joined.flatten(2).transpose(1, 2).double()

    def _on_grid(self, layer: torch.Tensor, grid: list[int]) -> torch.Tensor:
        if self.method.pooling == "same-bilinear":
            pooled = F.avg_pool2d(layer, 3, stride=1, padding=1)
            return F.interpolate(pooled, grid, mode="bilinear", align_corners=False)
        return F.adaptive_avg_pool2d(F.avg_pool2d(layer, 3, stride=1), grid)

    def _tile_scores(
        self, features: torch.Tensor, dist: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor:
        """Tile scores (B,): the largest patch distance s*, re-weighted as the manifest says."""
        largest, place = dist.max(dim=1)
        if self.method.reweighting == "none":
            return largest
        every = torch.arange(len(features))
        queries, nearest_rows = features[every, place], rows[every, place]  # (B, D), (B,)
        root = 1.0
        between = direct(self.bank[nearest_rows], self.bank)  # (B, M), from m* to the bank
        between[every, nearest_rows] = torch.inf
        others = between.topk(self.method.n_neighbors, largest=False).indices
        if self.method.reweighting == "thesis":
            root = math.sqrt(self.bank.shape[1])
        else:  # the paper weighs m* too
            others = torch.cat([nearest_rows[:, None], others], dim=1)
        away = (queries[:, None] - self.bank[others]).norm(dim=2)  # (B, N)
        weight = 1 - torch.exp(largest / root) / torch.exp(away / root).sum(dim=1)
        return weight * largest

    def _board_map(
        self, dist: torch.Tensor, xy: list[tuple[int, int]], size: tuple[int, int]
    ) -> torch.Tensor:
        """Mean of the smoothed tile maps, (H, W); every pixel lies in a tile."""
        tile, radius, grid = self.settings.tile, self.map.radius, list(self.method.grid)
        at = torch.arange(-radius, radius + 1, dtype=torch.float64)
        kernel = torch.exp(-0.5 * (at / self.map.sigma) ** 2) if radius else torch.ones(1).double()
        kernel /= kernel.sum()
        total, count = torch.zeros(size).double(), torch.zeros(size).double()
        for values, (x, y) in zip(dist, xy, strict=True):
            large = F.interpolate(values.view(1, 1, *grid), [tile, tile], mode="bilinear")
            large = F.pad(large, [radius] * 4, mode="reflect")
            large = F.conv2d(F.conv2d(large, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
            total[y : y + tile, x : x + tile] += large[0, 0]
            count[y : y + tile, x : x + tile] += 1
        return total / count


def plan(height: int, width: int, tile: int, stride: int) -> list[tuple[int, int]]:
    """Top-left corners (x, y), row by row; the last row and column are flush with the edge."""

    def line(length: int) -> list[int]:
        return sorted({*range(0, length - tile + 1, stride), length - tile})

    return [(x, y) for y in line(height) for x in line(width)]


def nearest(queries: torch.Tensor, bank: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance (n,) to the nearest bank row, and that row, for float64 (n, D) and (M, D).

    A float64 matrix product finds the row, a direct difference measures the distance.
    """
    squares = bank.square().sum(dim=1)
    rows = torch.cat([(squares - 2 * part @ bank.T).argmin(dim=1) for part in queries.split(2048)])
    return (queries - bank[rows]).norm(dim=1), rows


def direct(queries: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
    """All distances (n, M), by direct differences."""
    return torch.cdist(queries, bank, compute_mode="donot_use_mm_for_euclid_dist")


def as_tensor(image: np.ndarray) -> torch.Tensor:
    """Turn (H, W, 3) into (3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)


def read_rgb(path: Path) -> np.ndarray:
    """Read an image with OpenCV: (H, W, 3) uint8 RGB."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert image is not None, path
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
