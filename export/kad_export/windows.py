"""Training in windows: their settings, features of training boards, and the gate.

A board in windows is scored by the features that one pass of the network over all of it gives
(:mod:`kad_sdk.windows`), and its bank is made of the same. Training takes blocks of patches, a few
cells of the coarsest map a side: small enough to leave out stickers and little else, and many of
them are computed in one window.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from kad_export.data import Blocks
from kad_export.errors import OutputMismatchError
from kad_export.features import BoardTiles, PatchExtractor
from kad_export.options import LARGEST_WINDOW
from kad_export.parity import compare
from kad_export.receptive_field import halo_px, receptive_fields
from kad_sdk._native import preprocess_window, window_features
from kad_sdk.errors import InvalidArgumentError
from kad_sdk.manifest import Windows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kad_export.parity import Session
    from kad_export.patchcore import PatchCoreNetwork
    from kad_sdk.manifest import Preprocessing

__all__ = [
    "WindowExtractor",
    "activation_bytes",
    "block_px",
    "choose_windows",
    "in_window_order",
    "label_margin_px",
    "training_blocks",
    "training_stride",
    "window_gate",
]

MEMORY_FACTOR = 2.0
"""Memory of a pass over what its activations take at once, at most: see docs/windows.md."""


def label_margin_px(network: PatchCoreNetwork, tile: int) -> int:
    """Give how near to a label a patch may lie: two cells of the coarsest map.

    Its 3x3 pooling and the bilinear enlargement reach so far.
    """
    return 2 * _cell(tile, min(height for height, _ in network.map_sizes(tile)))


def block_px(align: int) -> int:
    """Give the side of a block of training patches, px; a cell of the coarsest map has `align`."""
    return 4 * align


def training_blocks(network: PatchCoreNetwork, tile: int) -> Blocks:
    """Say what training takes of boards."""
    margin = label_margin_px(network, tile)
    return Blocks(block_px(margin // 2), margin)


def training_stride(blocks: Blocks, given: int | None) -> int:
    """Give the px from block to block; None: side by side.

    Raises
    ------
    InvalidArgumentError
        Blocks would overlap.
    """
    if given is not None and given < blocks.side:
        raise InvalidArgumentError(
            f"--train-stride: expected at least {blocks.side} px with --mode windows, a block of "
            f"patches, got {given}: the same patches would be learnt from several times"
        )
    return given or blocks.side


def choose_windows(
    graph: bytes, *, tile: int, window: int | None, memory_bytes: int, label_margin: int
) -> Windows:
    """Settle the windows of a network.

    Parameters
    ----------
    graph
        The ONNX graph, of dynamic height and width.
    tile
        Side of a tile, px.
    window
        Side of a square one without the halo, px; None: the largest of which a pass stays within
        the budget.
    memory_bytes
        That budget.
    label_margin
        px.

    Raises
    ------
    BackboneError
        The network's features have no bounded reach.
    InvalidArgumentError
        A tile or a window is no multiple of a cell of the coarsest map, or a tile is too small.
    """
    reaches = receptive_fields(graph)
    patch = min(reach.stride for reach in reaches.values())
    align = max(reach.stride for reach in reaches.values())
    halo = halo_px(reaches)
    least = 2 * label_margin + 4 * patch
    if tile % align or tile < least:
        raise InvalidArgumentError(
            f"tile: expected a multiple of {align} px of at least {least} px with --mode windows, "
            f"got {tile}"
        )
    if window is None:
        window = _largest_window(graph, halo, align, memory_bytes)
    if window < align or window % align:
        raise InvalidArgumentError(
            f"window: expected a multiple of {align} px, got {window}: a window begins at whole "
            "cells of the coarsest map"
        )
    return Windows(window, halo, align, patch, label_margin)


def _largest_window(graph: bytes, halo: int, align: int, memory_bytes: int) -> int:
    per_px = MEMORY_FACTOR * activation_bytes(graph)
    side = int((memory_bytes / per_px) ** 0.5) - 2 * halo
    if side < align:
        needed = (align + 2 * halo) ** 2 * per_px
        raise InvalidArgumentError(
            f"window_memory: a window of {align} px with its halo needs {needed / 2**20:.0f} MB, "
            f"got {memory_bytes / 2**20:.0f} MB: raise --window-memory"
        )
    return min(side // align * align, LARGEST_WINDOW)


def activation_bytes(graph: bytes) -> float:
    """Give the bytes that a pass holds at once, for each pixel of its input.

    The largest sum of activations that are still needed, node by node, in float32.
    """
    model = onnx.load_model_from_string(graph).graph
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.initializer}
    reaches = _strides(model)
    channels = {model.input[0].name: 3}
    last_use = {name: i for i, node in enumerate(model.node) for name in node.input}
    last_use |= {output.name: len(model.node) for output in model.output}
    live, most = dict.fromkeys([model.input[0].name], 12.0), 12.0
    for i, node in enumerate(model.node):
        source = next(name for name in node.input if name in channels)
        is_conv = node.op_type == "Conv"
        count = weights[node.input[1]][0] if is_conv else channels[source]
        for name in node.output:
            channels[name] = count
            if node.op_type != "Relu":  # done in place, or by the node before
                live[name] = 4.0 * count / reaches[name] ** 2
            else:
                live[name] = live.pop(source, 0.0)
        most = max(most, sum(live.values()))
        live = {name: size for name, size in live.items() if last_use.get(name, -1) > i}
    return most


def _strides(model: onnx.GraphProto) -> dict[str, int]:
    strides = {model.input[0].name: 1}
    for node in model.node:
        given = [strides[name] for name in node.input if name in strides]
        steps = [a.ints[0] for a in node.attribute if a.name == "strides"]
        strides |= dict.fromkeys(node.output, max(given) * (steps[0] if steps else 1))
    return strides


class WindowExtractor(PatchExtractor):
    """Boards to patch features, as scoring in windows finds them.

    What its base calls tiles are blocks here, the units in which patches are counted. Several of
    them are computed in one window where they come one after another, see :func:`in_window_order`.

    Parameters
    ----------
    windows : Windows
        Settings as in the manifest.
    given, named
        As for :class:`PatchExtractor`, of tiles: there are as many patches in a batch of blocks.
    """

    def __init__(self, windows: Windows, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._windows = windows
        in_batch = self.batch * self.patches
        self.tile = block_px(windows.align_px)
        self.grid = (self.tile // windows.patch_px, self.tile // windows.patch_px)
        self.batch = max(1, in_batch // self.patches)

    @property
    def batch_bytes(self) -> int:
        """Nothing: the network takes windows, of one size whatever the batch."""
        return 0

    def set_up(self, image: np.ndarray) -> None:
        """Run the largest window of a board."""
        settings = self._windows
        side = settings.window_px + 2 * settings.halo_px
        height, width = (min(side, length) for length in image.shape[:2])
        self.session.run(
            preprocess_window(
                image, (0, 0, width, height), mean=self._mean, std=self._std, threads=self.threads
            )
        )

    def __call__(self, image: np.ndarray, xy: np.ndarray) -> Iterator[np.ndarray]:
        """Patch features of the blocks ``xy`` (n, 2), batch by batch: (b, P, D) float32."""
        for _, group in itertools.groupby(range(len(xy)), lambda i: _window_of(xy[i], self)):
            yield from self._of_window(image, xy[list(group)])

    def _of_window(self, image: np.ndarray, xy: np.ndarray) -> Iterator[np.ndarray]:
        settings = self._windows
        first = first_patches(xy, settings.patch_px)  # (n, 2), column and row
        begin, end = _seen(xy, image.shape, settings, self.tile)
        x, y, width, height = *begin.tolist(), *(end - begin).tolist()
        pixels = preprocess_window(
            image, (x, y, width, height), mean=self._mean, std=self._std, threads=self.threads
        )
        maps = self.session.run(pixels)
        grid = (-(-height // settings.patch_px), -(-width // settings.patch_px))
        for start in range(0, len(xy), self.batch):
            found = [
                window_features(
                    maps,
                    (column, row, self.grid[1], self.grid[0]),
                    grid=grid,
                    resampling=self._resampling,
                )
                for column, row in (first[start : start + self.batch] - begin // settings.patch_px)
            ]
            yield np.stack(found).reshape(len(found), self.patches, -1)

    def centre(self, tile_xy: np.ndarray, patch: np.ndarray) -> np.ndarray:
        """Centres (n, 2) int32, px, of patches ``patch`` (n,) of tiles at ``tile_xy`` (n, 2)."""
        side = self._windows.patch_px
        place = np.stack([patch % self.grid[1], patch // self.grid[1]], axis=1)
        return ((first_patches(tile_xy, side) + place) * side + side // 2).astype(np.int32)

    @property
    def bucket(self) -> int:
        """Blocks whose corners lie in the same square of so many px are computed together."""
        return max(self._windows.window_px - self.tile, 1)


def first_patches(xy: np.ndarray, patch: int) -> np.ndarray:
    """Column and row (n, 2) of the first patch with its centre in each square at ``xy`` (n, 2)."""
    return np.maximum(-((patch - 2 * xy.astype(np.int64)) // (2 * patch)), 0)


def _seen(
    xy: np.ndarray, shape: tuple[int, ...], settings: Windows, tile: int
) -> tuple[np.ndarray, np.ndarray]:
    """Corners (2,), (2,) of what the network has to see for some blocks: x and y, px."""
    patch, align = settings.patch_px, settings.align_px
    first = first_patches(xy, patch)
    begin = first.min(axis=0) * patch // align * align
    end = -(-(first.max(axis=0) * patch + tile) // align) * align
    limit = np.array([shape[1], shape[0]])
    return np.maximum(begin - settings.halo_px, 0), np.minimum(end + settings.halo_px, limit)


def _window_of(corner: np.ndarray, extract: WindowExtractor) -> tuple[int, int]:
    x, y = (corner // extract.bucket).tolist()
    return y, x


def in_window_order(boards: Sequence[BoardTiles], extract: WindowExtractor) -> list[BoardTiles]:
    """Order the blocks of boards so that those of a window come one after another."""
    sorted_boards = []
    for board in boards:
        window = board.xy // extract.bucket
        order = np.lexsort((board.xy[:, 0], board.xy[:, 1], window[:, 0], window[:, 1]))
        sorted_boards.append(dataclasses.replace(board, xy=board.xy[order]))
    return sorted_boards


@torch.inference_mode()
def window_gate(
    network: PatchCoreNetwork,
    session: Session,
    image: np.ndarray,
    *,
    windows: Windows,
    preprocessing: Preprocessing,
    precision: str,
    tolerance: float,
) -> dict[str, Any]:
    """Compare windows of the runtime with one pass over all of an image.

    Parameters
    ----------
    image
        A part of a prepared board, (H, W) or (H, W, 3).
    precision
        Of the graph. In float32 the pass is PyTorch's; in others it is the graph's own, which
        :func:`kad_export.precision.precision_gate` holds against PyTorch.
    tolerance
        Largest difference over the largest value.

    Returns
    -------
    dict
        Figures for each layer, of a window of two cells of the coarsest map in the middle.

    Raises
    ------
    OutputMismatchError
        A feature of a window is not that of the whole image.
    """
    height, width = image.shape[:2]
    normalised = {"mean": preprocessing.mean, "std": preprocessing.std}
    whole = preprocess_window(image, (0, 0, width, height), **normalised)
    if precision == "fp32":
        expected = [maps.numpy() for maps in network(torch.from_numpy(whole))]
    else:
        expected = session.run(whole)
    align, halo = windows.align_px, windows.halo_px
    core = [side // 2 // align * align for side in (width, height)]
    begin = [max(at - halo, 0) for at in core]
    end = [min(at + 2 * align + halo, side) for at, side in zip(core, (width, height), strict=True)]
    rect = (*begin, end[0] - begin[0], end[1] - begin[1])
    got = session.run(preprocess_window(image, rect, **normalised))
    figures = {}
    for name, want, have in zip(network.layers, expected, got, strict=True):
        cell = _cell(height, want.shape[2])
        columns, rows = (slice(at // cell, (at + 2 * align) // cell) for at in core)
        local_columns, local_rows = (
            slice((at - low) // cell, (at + 2 * align - low) // cell)
            for at, low in zip(core, begin, strict=True)
        )
        figures[name] = compare(
            f"{name} in a window",
            want[:, :, rows, columns],
            have[:, :, local_rows, local_columns],
            tolerance,
            OutputMismatchError,
        )
    return figures


def _cell(side: int, cells: int) -> int:
    """Side in px of a cell of a map that has so many for `side` px: a power of 2."""
    cell = 1
    while -(-side // cell) > cells:
        cell *= 2
    return cell
