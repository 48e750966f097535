"""The density of normal embeddings, and how far an embedding lies from it: the score of a tile.

Two estimates (thesis, sections 4.2.3 and 5.4.4). Both scores are 0 or more, in the manner of a
distance, and fall with the density:

``gaussian``
    One normal distribution: the mean, and the covariance shrunk towards a multiple of the identity
    by Ledoit and Wolf's rule, kept as its Cholesky factor L. The score is the Mahalanobis distance
    ``|L^-1 (x - mean)|``, equation 4.12 up to sign and constant.
``kernel``
    A Gaussian kernel on each of S normal embeddings. The score is
    ``sqrt(-2 b^2 log(1/S sum_i exp(-|x - x_i|^2 / (2 b^2))))``, the distance at which one kernel
    alone would have that density. The bandwidth b follows Scott's rule with one variance for all
    dimensions: ``b = n^(-1 / (E + 4)) * sqrt(trace(covariance) / E)``.

`Density.score` is the plain reference; the runtime's compiled stage is tested against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.covariance import ledoit_wolf

from kad_export.errors import DensityError
from kad_sdk.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["DENSITIES", "KERNEL_SAMPLES", "MIN_SAMPLES", "Density", "fit_density"]

DENSITIES = ("gaussian", "kernel")
MIN_SAMPLES = 16
"""Fewest tiles that a spread is estimated from; below, a covariance is all shrinkage."""
KERNEL_SAMPLES = 2000
"""Most embeddings that a kernel density keeps: the time of scoring grows with them."""
SMALLEST_SPREAD = 1e-6
"""Of the smallest standard deviation over the mean's length; float32 rounds at 6e-8 of that."""


@dataclass(frozen=True)
class Density:
    """A fitted density.

    Attributes
    ----------
    kind : str
        ``"gaussian"`` or ``"kernel"``.
    tensors : mapping of str to ndarray
        What ``density.safetensors`` holds: ``mean`` (E,) and ``cholesky`` (E, E), lower, or
        ``samples`` (S, E); float32.
    samples : int
        Number of embeddings it was fitted on.
    shrinkage : float or None
        Weight of the identity in a Gaussian's covariance, 0 to 1.
    bandwidth : float or None
        Of a kernel density, in units of the embedding.
    """

    kind: str
    tensors: Mapping[str, NDArray[np.float32]]
    samples: int
    shrinkage: float | None = None
    bandwidth: float | None = None

    def score(self, embeddings: NDArray[np.floating]) -> NDArray[np.float64]:
        """Score embeddings (n, E) in float64, from the float32 tensors; returns (n,)."""
        x = np.asarray(embeddings, np.float64)
        tensors = {name: tensor.astype(np.float64) for name, tensor in self.tensors.items()}
        if self.kind == "gaussian":
            return _mahalanobis(x - tensors["mean"], tensors["cholesky"])
        return np.array([_kernel_score(row, tensors["samples"], self.bandwidth) for row in x])


def fit_density(kind: str, embeddings: NDArray[np.float32], *, seed: int = 0) -> Density:
    """Estimate the density of normal embeddings.

    Parameters
    ----------
    kind : str
        ``"gaussian"`` or ``"kernel"``.
    embeddings : (n, E) float32
        Of normal tiles, as the runtime computes them.
    seed : int
        Of the draw of at most `KERNEL_SAMPLES` embeddings that a kernel density keeps.

    Raises
    ------
    InvalidArgumentError
        No such estimate.
    DensityError
        Too few embeddings, NaN or Inf among them, or no spread that could be told from rounding,
        as constant images give.
    """
    x = np.asarray(embeddings, np.float64)
    _check_samples(x)
    if kind not in DENSITIES:
        raise InvalidArgumentError(f"density: expected {', '.join(DENSITIES)}, got {kind!r}")
    return _fit_gaussian(x) if kind == "gaussian" else _fit_kernel(embeddings, seed)


def _fit_gaussian(x: NDArray[np.float64]) -> Density:
    covariance, shrinkage = ledoit_wolf(x)
    mean = x.mean(axis=0)
    _check_spread(float(np.sqrt(max(0.0, np.linalg.eigvalsh(covariance)[0]))), mean, len(x))
    factor = np.linalg.cholesky(covariance)
    tensors = {"mean": mean.astype(np.float32), "cholesky": factor.astype(np.float32)}
    return Density("gaussian", tensors, len(x), shrinkage=float(shrinkage))


def _fit_kernel(embeddings: NDArray[np.float32], seed: int) -> Density:
    n, dims = embeddings.shape
    kept = embeddings
    if n > KERNEL_SAMPLES:
        rows = np.random.default_rng(seed).choice(n, KERNEL_SAMPLES, replace=False)
        kept = embeddings[np.sort(rows)]
    x = embeddings.astype(np.float64)
    spread = float(np.sqrt(x.var(axis=0).mean()))
    _check_spread(spread, x.mean(axis=0), n)
    bandwidth = n ** (-1 / (dims + 4)) * spread
    return Density("kernel", {"samples": kept.astype(np.float32)}, n, bandwidth=bandwidth)


def _check_samples(x: NDArray[np.float64]) -> None:
    if len(x) < MIN_SAMPLES:
        raise DensityError(
            f"a density of normal tiles needs at least {MIN_SAMPLES} of them, got {len(x)}: add "
            "normal boards, or lower --train-stride"
        )
    broken = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(broken):
        raise DensityError(
            f"the embeddings of {len(broken)} of {len(x)} normal tiles hold NaN or Inf: the "
            "training went astray; train again with a lower --learning-rate"
        )


def _check_spread(smallest: float, mean: NDArray[np.float64], n: int) -> None:
    length = float(np.linalg.norm(mean))
    if not smallest > SMALLEST_SPREAD * length:
        raise DensityError(
            f"the embeddings of the {n:,} normal tiles are all but the same: their smallest "
            f"standard deviation is {smallest:.3g} at a length of {length:.3g}, and rounding would "
            "decide the scores. Constant images give this, and a network that has learnt nothing; "
            "check the images, or train longer"
        )


def _mahalanobis(difference: NDArray[np.float64], factor: NDArray[np.float64]) -> NDArray:
    """Solve L z = x - mean by forward substitution; returns the lengths of z, (n,)."""
    z = np.zeros_like(difference)  # (n, E)
    for row, weights in enumerate(factor):
        z[:, row] = (difference[:, row] - z[:, :row] @ weights[:row]) / weights[row]
    return np.sqrt(np.sum(z * z, axis=1))


def _kernel_score(x: NDArray[np.float64], samples: NDArray[np.float64], bandwidth: float) -> float:
    dist2 = np.sum((samples - x) ** 2, axis=1)  # (S,)
    nearest = dist2.min()  # taken out of the sum, so that it cannot vanish
    mean = np.mean(np.exp((nearest - dist2) / (2 * bandwidth**2)))
    return float(np.sqrt(nearest - 2 * bandwidth**2 * np.log(mean)))
