"""What the board suite for a GPU scores: a synthetic board, a bank of patches of another one.

No artifact is exported: that needs ONNX, and would be the work of the machine that has it. The
bank's rows are patches of a normal board, drawn at random; the network's weights are ImageNet's
where KAD_WEIGHTS_DIR has them (ResNet-18), and random ones from a seed otherwise.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from kad_export.data import NORMALISATIONS
from kad_export.patchcore import build_network
from kad_export.synth import generate_dataset
from kad_kernels.nearest import open_rows

from kad_bench.gpu_parts import TORCH_DEVICE
from kad_bench.thesis_path import BLUR_RADIUS, BLUR_SIGMA, normalised
from kad_bench.torch_network import folded
from kad_sdk._native import patch_features, plan_tiles
from kad_sdk.dataset import scan_dataset
from kad_sdk.images import read_image
from kad_sdk.manifest import MapSettings, NetworkOutput, PatchCore, Preprocessing

if TYPE_CHECKING:
    from kad_export.patchcore import PatchCoreNetwork
    from numpy.typing import NDArray

    from kad_bench.suites import Settings

__all__ = ["LAYERS", "BoardModel", "BoardSpec", "read_boards"]

LAYERS, POOLING = ("layer2", "layer3"), "valid-adaptive"  # those of the thesis' code
NEIGHBOURS = 3


@dataclass(frozen=True)
class BoardSpec:
    """What a board is scored with.

    Attributes
    ----------
    backbone, layers : str, tuple of str
    rows : int
        Of the bank.
    size : (height, width)
        Of the board, px.
    tile, stride : int
        Px.
    thesis_tiles : int
        So many tiles go through the thesis' path.
    """

    backbone: str
    rows: int
    thesis_tiles: int
    size: tuple[int, int] = (4730, 4074)
    tile: int = 224
    stride: int = 112
    layers: tuple[str, ...] = LAYERS

    @property
    def name(self) -> str:
        """Backbone and rows of the bank."""
        return f"{self.backbone}, {self.rows:,} rows"


@dataclass(frozen=True)
class BoardModel:
    """A network and a bank of its features, as much of an artifact as the scorer looks at.

    Attributes
    ----------
    network : PatchCoreNetwork
        In PyTorch, on the CPU.
    weights : str
        Where they come from.
    manifest : SimpleNamespace
        Its entries ``preprocessing``, ``patchcore``, ``map``, ``network``.
    bank : (M, D) float32
    neighbors : (M, 3) int64
    """

    network: PatchCoreNetwork
    weights: str
    manifest: SimpleNamespace
    bank: NDArray[np.float32]
    neighbors: NDArray[np.int64]

    @classmethod
    def make(
        cls, spec: BoardSpec, board: NDArray[np.uint8], settings: Settings, *, half: bool = False
    ) -> BoardModel:
        """Make a bank of a normal board's patches; `half`: with the network in float16."""
        weights = _weights(spec.backbone)
        network = build_network(spec.backbone, spec.layers, POOLING, weights)
        manifest = _manifest(network, spec)
        bank = _bank(network, manifest, board, spec, settings, half=half)
        return cls(network, weights, manifest, bank, _neighbors(bank))


def read_boards(
    size: tuple[int, int], settings: Settings
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Give a normal board to learn from and a defective one, painted once into the cache."""
    folder = settings.cache / f"gpu-boards-{size[0]}x{size[1]}"
    if not folder.is_dir():
        settings.say(f"painting {folder.name}")
        settings.cache.mkdir(parents=True, exist_ok=True)
        generate_dataset(folder, boards=1, test_boards=2, size=size)
    dataset = scan_dataset(folder)
    return read_image(dataset.train[0].path), read_image(dataset.test[-1].path)


def _weights(backbone: str) -> str:
    folder = os.environ.get("KAD_WEIGHTS_DIR")
    file = Path(folder or ".") / f"{backbone}_trunk.safetensors"
    return str(file) if folder and file.is_file() else "random:0"


def _manifest(network: PatchCoreNetwork, spec: BoardSpec) -> SimpleNamespace:
    mean, std = NORMALISATIONS["imagenet"]
    sizes = zip(network.channels, network.map_sizes(spec.tile), strict=True)
    return SimpleNamespace(
        preprocessing=Preprocessing(
            tile=spec.tile,
            stride=spec.stride,
            train_stride=spec.tile,
            resize=None,
            mean=tuple(mean),
            std=tuple(std),
            normalisation="imagenet",
            denoise=None,
        ),
        patchcore=PatchCore(
            network.resampling, POOLING, network.grid(spec.tile), "thesis", NEIGHBOURS
        ),
        map=MapSettings(BLUR_SIGMA, BLUR_RADIUS),
        network=SimpleNamespace(
            outputs=[
                NetworkOutput(f"base_map_{i}", channels, *side)
                for i, (channels, side) in enumerate(sizes)
            ]
        ),
    )


@torch.inference_mode()
def _bank(
    network: PatchCoreNetwork,
    manifest: SimpleNamespace,
    board: NDArray[np.uint8],
    spec: BoardSpec,
    settings: Settings,
    *,
    half: bool,
) -> NDArray[np.float32]:
    """Draw rows from the patches of a board's tiles, side by side."""
    module = folded(network).to(TORCH_DEVICE)
    module = module.half() if half else module
    mean, std = (
        torch.tensor(values, device=TORCH_DEVICE).view(3, 1, 1)
        for values in (manifest.preprocessing.mean, manifest.preprocessing.std)
    )
    side, per_tile = spec.tile, int(np.prod(manifest.patchcore.grid))
    corners = plan_tiles(*board.shape[:2], tile=side, stride=side)
    generator = np.random.default_rng(0)
    # As many from every tile, and some more than are needed.
    wanted = min(per_tile, -(-spec.rows // len(corners)) + 1)
    found: list[Any] = []
    for first in range(0, len(corners), 16):
        tiles = np.stack(
            [board[y : y + side, x : x + side] for x, y in corners[first : first + 16]]
        )
        given = normalised(tiles, mean, std)
        # The last tiles are fewer: choosing algorithms for them would take longer than their run.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False):
            maps = module(given.half() if half else given)
        features = patch_features(
            [x.float().contiguous().cpu().numpy() for x in maps],
            grid=manifest.patchcore.grid,
            resampling=manifest.patchcore.resampling,
            threads=settings.threads,
        )
        found += [tile[generator.permutation(per_tile)[:wanted]] for tile in features]
    every = np.concatenate(found)
    return every[generator.permutation(len(every))[: spec.rows]]


def _neighbors(bank: NDArray[np.float32]) -> NDArray[np.int64]:
    """Each row's nearest other rows, (M, 3), by kad's own search."""
    rows = open_rows(bank)
    parts = [
        rows.query(bank[first : first + 16_384], NEIGHBOURS + 1)[1]
        for first in range(0, len(bank), 16_384)
    ]
    found = np.concatenate(parts)
    own = found == np.arange(len(bank))[:, None]
    own[~own.any(axis=1), -1] = True  # rows that are equal to it came first: leave out the last
    return found[~own].reshape(len(bank), NEIGHBOURS)
