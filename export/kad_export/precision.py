"""What a graph computes in, float32, float16 or 8-bit integers: how it comes to it, and its gate.

Whatever it is, the graph takes and gives float32, and the bank, the thresholds and all statistics
are made of what this graph gives: nothing of one precision is ever compared with another, but in
the gate, which holds the graph's base maps against float32 PyTorch's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kad_export.errors import OutputMismatchError
from kad_export.half import to_half
from kad_export.parity import compare
from kad_sdk._native import preprocess, preprocess_window
from kad_sdk.manifest import Tolerance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from kad_export.features import BoardTiles
    from kad_export.parity import Session
    from kad_sdk.dataset import Sample
    from kad_sdk.manifest import Preprocessing

__all__ = ["LIMITS", "PRECISIONS", "Limit", "RangeTiles", "convert", "precision_gate"]

N_RANGE_TILES = 128
RANGE_BATCH = 8


@dataclass(frozen=True)
class Limit:
    """How far a precision may be from what it is compared with.

    Attributes
    ----------
    of_largest, of_rms : float
        Of its base maps from float32 PyTorch's: the largest difference over the largest value, and
        the root mean square of the differences over that of the values.
    golden : Tolerance
        Of golden tiles on any machine from what the export's gave.
    """

    of_largest: float
    of_rms: float
    golden: Tolerance


LIMITS = {
    "fp16": Limit(1e-2, 5e-3, Tolerance(base_map=1e-2, score=1e-2)),
    "int8": Limit(0.35, 0.2, Tolerance(base_map=0.05, score=0.05)),
}
"""Of the precisions beside float32, whose gate is :data:`kad_export.verify.TOLERANCE`.

Measured with ResNet-18: fp16 0.003 and 0.002, int8 0.12 and 0.10 on real images, 0.23 and 0.14 on
synthetic boards, which are smooth; weights of another layer give more than 1. Golden tiles: one
rounding step of an activation is 1/2048 of a float16 value, and 1/255 of an int8 activation's
range.
"""

PRECISIONS = ("fp32", *LIMITS)


@dataclass(frozen=True)
class RangeTiles:
    """Training tiles by which int8's ranges are found: drawn from all of them, by a seed.

    Attributes
    ----------
    boards : sequence of BoardTiles
        The training boards.
    load : callable
        Sample to prepared image.
    preprocessing : Preprocessing
    seed : int
    threads : int
    around : int
        How far the network sees beside a tile, px, where boards go through it in windows.
    """

    boards: Sequence[BoardTiles]
    load: Callable[[Sample], NDArray[Any]]
    preprocessing: Preprocessing
    seed: int
    threads: int
    around: int = 0

    def __len__(self) -> int:
        return min(N_RANGE_TILES, sum(len(board.xy) for board in self.boards))

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Give them normalised, (b, 3, h, w) float32 at a time, all of one board."""
        counts = [len(board.xy) for board in self.boards]
        chosen = np.random.default_rng(self.seed).choice(sum(counts), len(self), replace=False)
        first = 0
        for board, count in zip(self.boards, counts, strict=True):
            local = np.sort(chosen[(chosen >= first) & (chosen < first + count)]) - first
            first += count
            if not len(local):
                continue
            image, side = self.load(board.sample), self.preprocessing.tile
            last = np.array([image.shape[1] - side, image.shape[0] - side], np.int32)
            # Where boards go in windows, corners are those of blocks, which are smaller than tiles.
            xy = np.minimum(board.xy[local], last)
            if self.around:
                yield from self._parts(image, xy)
                continue
            for start in range(0, len(local), RANGE_BATCH):
                batch = xy[start : start + RANGE_BATCH]
                yield preprocess(image, batch, tile=side, **self._normalisation())

    def _parts(self, image: NDArray[Any], xy: NDArray[np.int32]) -> Iterator[NDArray[np.float32]]:
        """Give tiles with what the network sees around them, as far as the board goes."""
        limit = np.array([image.shape[1], image.shape[0]], np.int32)
        begins = np.maximum(xy - self.around, 0)
        sides = np.minimum(xy + self.preprocessing.tile + self.around, limit) - begins
        for begin, side in zip(begins.tolist(), sides.tolist(), strict=True):
            yield preprocess_window(image, (*begin, *side), **self._normalisation())

    def _normalisation(self) -> dict[str, Any]:
        mean, std = self.preprocessing.mean, self.preprocessing.std
        return {"mean": mean, "std": std, "threads": self.threads}


def convert(graph: bytes, precision: str, tiles: RangeTiles) -> tuple[bytes, dict[str, Any]]:
    """Bring a float32 graph to a precision.

    Returns
    -------
    bytes
        The graph.
    dict
        How it was done, for the manifest's ``verification``.

    Raises
    ------
    ExportError
        The graph cannot be had in that precision.
    """
    if precision == "fp32":
        return graph, {}
    if precision == "fp16":
        return to_half(graph), {"name": precision}
    from kad_export.quantize import LARGEST_WEIGHT, to_int8  # noqa: PLC0415 - takes a second

    how = {
        "name": precision,
        "format": "QDQ, uint8 activations, int8 weights per channel",
        "largest_weight": LARGEST_WEIGHT,
        "ranges": "minimum and maximum",
        "tiles": len(tiles),
        "seed": tiles.seed,
    }
    return to_int8(graph, tiles), how


@torch.inference_mode()
def precision_gate(
    network: torch.nn.Module,
    session: Session,
    tiles: NDArray[np.float32],
    *,
    layers: Sequence[str],
    precision: str,
) -> dict[str, Any]:
    """Compare a graph's base maps with those of float32 PyTorch.

    Parameters
    ----------
    network, session
        The PyTorch module, and the graph in the runtime.
    tiles
        Normalised golden tiles, (G, 3, t, t) float32.
    layers
        Names of the graph's outputs.
    precision
        A key of `LIMITS`.

    Returns
    -------
    dict
        ``limit`` and, for each of ``outputs``, max_abs, max_rel, rms_rel, histogram.

    Raises
    ------
    OutputMismatchError
        A base map is farther off than this precision may be.
    """
    limit = LIMITS[precision]
    wanted = [maps.numpy() for maps in network(torch.from_numpy(tiles))]
    outputs = {}
    for name, want, got in zip(layers, wanted, session.run(tiles), strict=True):
        figures = compare(name, want, got, math.inf, OutputMismatchError)  # NaN is refused
        figures["rms_rel"] = _rms(got - want) / (_rms(want) or 1.0)
        if figures["max_rel"] > limit.of_largest or figures["rms_rel"] > limit.of_rms:
            raise OutputMismatchError(
                f"{name}: {precision} is off float32 by {figures['max_rel']:.3g} of the largest "
                f"value and {figures['rms_rel']:.3g} in the root mean square, expected at most "
                f"{limit.of_largest:g} and {limit.of_rms:g}: this network does not bear that "
                "precision; use --precision fp32"
            )
        outputs[name] = figures
    return {"limit": {"max_rel": limit.of_largest, "rms_rel": limit.of_rms}, "outputs": outputs}


def _rms(values: NDArray[np.float32]) -> float:
    return math.sqrt(np.mean(np.square(values, dtype=np.float64)))
