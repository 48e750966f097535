"""Density: how far embeddings lie from the normal ones."""

from __future__ import annotations

from ctypes import byref

import numpy as np

from kad_sdk._native.abi import Density, call
from kad_sdk._native.arguments import Floats, array_argument, choice, threads_argument
from kad_sdk.errors import InvalidArgumentError

_KINDS = {"gaussian": 0, "kernel": 1}


def density_score(
    embeddings: Floats,
    *,
    kind: str,
    mean: Floats | None = None,
    cholesky: Floats | None = None,
    samples: Floats | None = None,
    bandwidth: float | None = None,
    threads: int = 1,
) -> Floats:
    """Distance of embeddings x from the normal ones, in float64 and a fixed order.

    Parameters
    ----------
    embeddings : (n, E) float32
    kind : "gaussian" or "kernel"
        ``|L^-1 (x - mean)|``, the Mahalanobis distance (thesis, equation 4.12 up to sign and
        constant), or ``sqrt(-2 b^2 log(1/S sum_i exp(-|x - x_i|^2 / (2 b^2))))``.
    mean, cholesky : (E,) and (E, E) float32
        Of the Gaussian: mean, and the lower factor L of the covariance.
    samples : (S, E) float32
        Of the kernel density: the x_i.
    bandwidth : float
        Of the kernel density: b.

    Returns
    -------
    (n,) float32

    Raises
    ------
    NotFiniteError
        NaN or Inf in the input, or a score beyond float32.
    InvalidArgumentError
        A factor whose diagonal is not above 0, a bandwidth that is not, or what `kind` needs is
        missing.
    """
    density = Density(kind=choice("kind", kind, _KINDS))
    embeddings = array_argument("embeddings", embeddings, np.float32, (None, None))
    density.dims = dims = embeddings.shape[1]
    if kind == "gaussian":
        mean = array_argument("mean", mean, np.float32, (dims,))
        cholesky = array_argument("cholesky", cholesky, np.float32, (dims, dims))
        density.mean, density.cholesky = mean.ctypes.data, cholesky.ctypes.data
    else:
        samples = array_argument("samples", samples, np.float32, (None, dims))
        if bandwidth is None:
            raise InvalidArgumentError("bandwidth is None, a kernel density needs one")
        density.samples, density.n_samples = samples.ctypes.data, len(samples)
        density.bandwidth = bandwidth
    out = np.empty(len(embeddings), dtype=np.float32)
    size = (len(embeddings), threads_argument(threads))
    call("kad_density_score", byref(density), embeddings.ctypes.data, *size, out.ctypes.data)
    return out
