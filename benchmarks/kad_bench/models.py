"""What end-to-end suites measure: artifacts of synthetic boards, made once and kept in the cache.

An artifact is made by kad-export itself, with the pooling of the thesis' code; only the map's
Gaussian is cut off where the thesis cuts it, so that both sides compute the same maps. Beside it
lie the labelled tiles that every engine scores, and a whole board.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from kad_export.bank import nearest_rows
from kad_export.options import WINDOW_MEMORY_BYTES, PatchCoreOptions
from kad_export.patchcore import build_network
from kad_export.pipeline import export_patchcore
from kad_export.stored_index import store_index
from kad_export.synth import generate_dataset

from kad_bench.thesis_path import BLUR_RADIUS, BLUR_SIGMA
from kad_sdk._native import plan_tiles
from kad_sdk.annotations import Annotation
from kad_sdk.artifact import PatchCoreArtifact, write_artifact
from kad_sdk.artifact_layout import tensor_layouts
from kad_sdk.dataset import read_mask, scan_dataset, tile_labels
from kad_sdk.errors import DatasetError
from kad_sdk.images import read_image
from kad_sdk.manifest import FORMAT_VERSION, MapSettings
from kad_sdk.tensors import read_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kad_export.patchcore import PatchCoreNetwork
    from numpy.typing import NDArray

    from kad_bench.suites import Settings
    from kad_sdk.dataset import Sample

__all__ = [
    "Boards",
    "LabelledTiles",
    "Model",
    "ModelSpec",
    "prepare_boards",
    "save_weights",
    "write_with_rows",
]

TILE, STRIDE = 224, 112
LAYERS = ("layer2", "layer3")
MEMORY_BYTES = 12 * 2**30  # selects 72,500 rows of 1,536 channels from 161,504
_MAKER = 1  # raised when the same settings come to mean other files


@dataclass(frozen=True)
class Boards:
    """Synthetic boards: `train` normal ones and `test` ones of `size` (height, width) px."""

    train: int
    test: int
    size: tuple[int, int]


@dataclass(frozen=True)
class LabelledTiles:
    """Tiles cut from test boards.

    Attributes
    ----------
    tiles : (n, t, t, 3) uint8
        RGB; the even ones are normal, the odd ones defective.
    labels : (n,) uint8
        1: touches a defect.
    """

    tiles: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def first(self, n: int) -> LabelledTiles:
        """Give the first n, half of them defective."""
        return LabelledTiles(self.tiles[:n], self.labels[:n])


@dataclass(frozen=True)
class Model:
    """An artifact, and what is scored with it.

    Attributes
    ----------
    name, what : str
        Backbone and rows; how it was made.
    artifact : PatchCoreArtifact
        Opened.
    network : PatchCoreNetwork
        The same network in PyTorch.
    board, annotation
        A whole board with defects, its active area and stickers.
    labelled : LabelledTiles
    """

    name: str
    what: str
    artifact: PatchCoreArtifact
    network: PatchCoreNetwork
    board: Path
    annotation: Annotation
    labelled: LabelledTiles

    @property
    def learnt(self) -> bool:
        """Whether the network's weights are learnt; the AUROC of random ones says nothing."""
        return self.network.weights.source != "random"

    def read_board(self) -> NDArray[np.uint8]:
        """Decode the whole board, (H, W, 3) RGB."""
        return read_image(self.board)


@dataclass(frozen=True)
class ModelSpec:
    """How a model is made.

    Attributes
    ----------
    backbone, weights : str
        As for kad-export.
    rows : int
        Of the bank, by greedy k-center on all patches of the training tiles, side by side.
    boards : Boards
        To learn from and to cut labelled tiles from.
    board_size : (height, width)
        Of the whole board, px.
    tiles : int
        Labelled tiles.
    pooling, reweighting : str
        Those of the thesis' code, or others.
    mode : str
        ``"tiles"`` or ``"windows"``.
    precision : str
        As for kad-export.
    """

    backbone: str
    weights: str
    rows: int
    boards: Boards
    board_size: tuple[int, int]
    tiles: int
    pooling: str = "valid-adaptive"
    reweighting: str = "thesis"
    mode: str = "tiles"
    precision: str = "fp32"

    @property
    def name(self) -> str:
        """Backbone and rows of the bank."""
        return f"{self.backbone}, {self.rows:,} rows"

    def prepare(self, settings: Settings) -> Model:
        """Take it from the cache, or make it (a minute to a quarter of an hour)."""
        network = build_network(self.backbone, LAYERS, self.pooling, self.weights)
        path = settings.cache / f"{self.backbone}-{self.rows}-{self._digest(network)}.kad"
        boards = prepare_boards(self.boards, settings)
        if not path.is_dir():
            settings.say(f"making {path.name}")
            self._export(boards, path, settings)
        artifact = PatchCoreArtifact.open(path)
        if artifact.manifest.bank.rows != self.rows:
            raise DatasetError(
                f"{path}: expected a bank of {self.rows} rows, got {artifact.manifest.bank.rows}: "
                "the boards have too few patches"
            )
        whole = prepare_boards(Boards(1, 2, self.board_size), settings)
        sample = scan_dataset(whole).test[-1]
        return Model(
            name=self.name,
            what=self._describe(artifact),
            artifact=artifact,
            network=network,
            board=sample.path,
            annotation=sample.annotation or Annotation(),
            labelled=_label_tiles(scan_dataset(boards).test, self.tiles),
        )

    def _digest(self, network: PatchCoreNetwork) -> str:
        boards = dataclasses.asdict(self.boards)
        made_from = [_MAKER, FORMAT_VERSION, boards, self.pooling, self.reweighting]
        made_from.append(network.weights.sha256)
        made_from += [] if self.mode == "tiles" else [self.mode, WINDOW_MEMORY_BYTES]
        made_from += [] if self.precision == "fp32" else [self.precision]
        return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:12]

    def _export(self, boards: Path, path: Path, settings: Settings) -> None:
        options = PatchCoreOptions(
            backbone=self.backbone,
            weights=self.weights,
            pooling=self.pooling,
            reweighting=self.reweighting,
            mode=self.mode,
            precision=self.precision,
            train_stride=TILE if self.mode == "tiles" else None,  # each patch once in both
            coreset=1.0,
            max_bank=self.rows,
            holdout=1 / self.boards.train,
            memory_bytes=MEMORY_BYTES,
            threads=settings.threads,
        )
        with_own_blur = path.with_name(f"{path.stem}-whole-blur.kad")
        export_patchcore(boards, with_own_blur, dataclasses.replace(options, force=True))
        exported = PatchCoreArtifact.open(with_own_blur)
        manifest = exported.manifest
        write_artifact(
            path,
            dataclasses.replace(manifest, map=MapSettings(BLUR_SIGMA, BLUR_RADIUS)),
            {
                manifest.network.file: exported.network,
                **{file: read_tensors(with_own_blur / file) for file in tensor_layouts(manifest)},
            },
        )
        shutil.rmtree(with_own_blur)

    def _describe(self, artifact: PatchCoreArtifact) -> str:
        bank, height, width = artifact.manifest.bank, *self.board_size
        weights = "ImageNet weights" if self.weights == "imagenet" else f"{self.weights} weights"
        return (
            f"{self.backbone} layer2+layer3, {weights}, {self.pooling} pooling; bank by greedy "
            f"k-center, {bank.rows:,} of {bank.coreset.candidates:,} patches of synthetic boards; "
            f"board {width} x {height} px"
        )


def save_weights(model: Model, path: Path) -> Path:
    """Write the network's weights as PyTorch's users keep them, for a fresh process to load."""
    torch.save(model.network.trunk.network.state_dict(), path)
    return path


def write_with_rows(model: Model, rows: int, path: Path, threads: int) -> Path:
    """Write a model's artifact with the first rows of its bank alone; its golden tiles stay.

    Greedy k-center selects in order, so the first rows are what it would have selected alone.
    """
    manifest, folder = model.artifact.manifest, model.artifact.path
    tensors = {file: read_tensors(folder / file) for file in tensor_layouts(manifest)}
    kept = {name: np.array(x[:rows]) for name, x in tensors.pop(manifest.bank.file).items()}
    kept["neighbors"] = nearest_rows(kept["bank"], threads).astype(kept["neighbors"].dtype)
    tensors.pop(manifest.bank.index_file or "", None)
    index = store_index(kept, manifest.network.outputs, manifest.patchcore, threads=threads)
    bank = dataclasses.replace(manifest.bank, rows=rows, index_file=next(iter(index), None))
    files = {manifest.network.file: model.artifact.network, manifest.bank.file: kept}
    return write_artifact(
        path, dataclasses.replace(manifest, bank=bank), {**files, **tensors, **index}
    )


def prepare_boards(boards: Boards, settings: Settings) -> Path:
    """Take synthetic boards from the cache, or paint them."""
    height, width = boards.size
    folder = settings.cache / f"boards-{boards.train}-{boards.test}-{height}x{width}-{_MAKER}"
    if not folder.is_dir():
        settings.say(f"painting {folder.name}")
        generate_dataset(folder, boards=boards.train, test_boards=boards.test, size=boards.size)
    return folder


def _label_tiles(samples: tuple[Sample, ...], n: int) -> LabelledTiles:
    """Cut n tiles from test boards, by turns normal and defective, spread over all of them."""
    found: dict[int, list[tuple[Sample, NDArray[np.int32]]]] = {0: [], 1: []}
    for sample, xy, label in _planned(samples):
        found[label].append((sample, xy))
    for label, kind in enumerate(("normal", "defective")):
        if len(found[label]) < n // 2:
            raise DatasetError(f"expected {n // 2} {kind} tiles, found {len(found[label])}")
    chosen = [
        found[label][i]
        for pair in zip(*(np.linspace(0, len(found[k]) - 1, n // 2) for k in (0, 1)), strict=True)
        for label, i in enumerate(map(int, pair))
    ]
    images = {sample.name: read_image(sample.path) for sample, _ in chosen}
    tiles = [images[s.name][y : y + TILE, x : x + TILE] for s, (x, y) in chosen]
    return LabelledTiles(np.stack(tiles), np.arange(n, dtype=np.uint8) % 2)


def _planned(samples: tuple[Sample, ...]) -> Iterator[tuple[Sample, NDArray[np.int32], int]]:
    """Scoring tiles of boards: sample, corner (2,), label."""
    for sample in samples:
        height, width = read_image(sample.path).shape[:2]
        given = sample.annotation or Annotation()
        xy = plan_tiles(
            height, width, tile=TILE, stride=STRIDE, borders=given.borders, labels=given.labels
        )
        labels = tile_labels(read_mask(sample, height, width), xy, TILE)
        yield from ((sample, corner, int(label)) for corner, label in zip(xy, labels, strict=True))
