"""The directions that rows are projected on for screening, found on the CPU."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["POINT", "Basis", "find_basis"]

POINT = 128  # dimensions of a point: 127 directions, and the length of the rest
DEPTH = 32  # dimensions that are projected at a time: the padding
SAMPLE = 8_192  # rows that the directions are found from
LARGEST = 128.0  # of a centred, scaled value of the sample: fp16 holds 65,504


@dataclass(frozen=True)
class Basis:
    """An affine map from rows to points that brings no two of them farther apart.

    Attributes
    ----------
    mean : (padded,) float32
        Subtracted; zeros beyond D.
    scale : float
        A power of two; multiplied with.
    directions : (128, padded) float16
        The first 127 D-dimensional; row 127, and what is beyond D, are zeros.
    inverse_sigma : float
        One over (at least) the largest singular value of `directions`.
    rest_weight : float
        0 to 1: what the length of the rest, that the directions leave, is multiplied with to be the
        point's last value. Its error grows with the length of the row: where the rest is small
        beside it, little weight loses little, and rules out more.
    dims : int
        D.
    """

    mean: NDArray[np.float32]
    scale: float
    directions: NDArray[np.float16]
    inverse_sigma: float
    rest_weight: float
    dims: int

    @property
    def padded(self) -> int:
        """D rounded up to a multiple of 32."""
        return int(self.directions.shape[1])

    @property
    def relative(self) -> float:
        """Relative error of a distance in the defined arithmetic: D/16 sums, a tree, a root."""
        return (self.dims / 16 + 12) * 2.0**-23

    @property
    def absolute(self) -> float:
        """Absolute error of the same, of squares that are too small for float32."""
        return math.sqrt(self.dims) * 2.0**-74


def find_basis(rows: NDArray[np.float32]) -> Basis:
    """Find the principal directions of rows.

    Any directions give correct results; these leave the fewest rows to measure.

    Parameters
    ----------
    rows : (n, D) float32
        Finite. At most 8,192, evenly spread, are looked at.
    """
    sample = rows[:: -(-len(rows) // SAMPLE)].astype(np.float64)
    dims = sample.shape[1]
    padded = -(-dims // DEPTH) * DEPTH
    mean = sample.mean(axis=0).astype(np.float32)
    centred = sample - mean
    largest = float(np.abs(centred).max())
    exponent = math.frexp(LARGEST / largest)[1] - 1 if largest > 0 else 0
    scale = 2.0 ** max(-100, min(100, exponent))
    centred *= scale
    _, vectors = np.linalg.eigh(centred.T @ centred)
    n = min(POINT - 1, dims)
    directions = np.zeros((POINT, padded), np.float16)
    directions[:n, :dims] = vectors[:, ::-1][:, :n].T
    exact = directions.astype(np.float64)
    sigma2 = float(np.linalg.eigvalsh(exact @ exact.T).max()) * (1 + 1e-9)
    return Basis(
        mean=np.pad(mean, (0, padded - dims)),
        scale=scale,
        directions=directions,
        inverse_sigma=float(np.nextafter(np.float32(1 / math.sqrt(sigma2)), np.float32(0))),
        rest_weight=_rest_weight(centred, exact[:, :dims]) if dims >= POINT else 0.0,
        dims=dims,
    )


def _rest_weight(rows: NDArray[np.float64], directions: NDArray[np.float64]) -> float:
    """Three times the median length of the rest over that of the projection, at most 1."""
    some = rows[:: max(1, len(rows) // 1_024)]
    projected = (some @ directions.T) ** 2
    along = projected.sum(axis=1)
    rest = np.maximum((some**2).sum(axis=1) - along, 0)
    longest = float(np.median(along))
    return 1.0 if longest == 0 else min(1.0, 3 * math.sqrt(float(np.median(rest)) / longest))
