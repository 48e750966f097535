"""Sparse random projection of patch features, streamed."""

from __future__ import annotations

import numpy as np

from kad_sdk.errors import InvalidArgumentError

__all__ = ["Projection", "projected_dims"]


def projected_dims(n_points: int, dims: int, eps: float | None) -> int:
    """Dimension after projection: ``min(dims, 4 ln(n) / (eps^2/2 - eps^3/3))``.

    The Johnson-Lindenstrauss bound as in scikit-learn. Where it reaches the features' own
    dimension a projection would cost accuracy and save nothing: the features are used as they are,
    as they are for ``eps`` None.
    """
    if eps is None:
        return dims
    if not 0 < eps < 1:
        raise InvalidArgumentError(f"eps must lie between 0 and 1, got {eps}: use 0.9, or None")
    from sklearn.random_projection import (  # noqa: PLC0415 - selecting without one needs no sklearn
        johnson_lindenstrauss_min_dim,
    )

    return min(dims, max(1, int(johnson_lindenstrauss_min_dim(max(n_points, 2), eps=eps))))


class Projection:
    """Sparse random projection with density 1/sqrt(D), seeded, equal for any chunking.

    Parameters
    ----------
    n_points : int
        How many points will be projected in all; sets the dimension.
    dims : int
        D, the features' dimension.
    eps : float or None
        Distortion allowed by the Johnson-Lindenstrauss bound; None: no projection.
    seed : int
        Seed of the projection.
    to : int, optional
        The dimension after projection, in place of that of `n_points` and `eps`.
    """

    def __init__(
        self,
        n_points: int,
        dims: int,
        *,
        eps: float | None = 0.9,
        seed: int = 0,
        to: int | None = None,
    ) -> None:
        self.dims = projected_dims(n_points, dims, eps) if to is None else min(to, dims)
        self._components = None
        if self.dims < dims:
            from sklearn.random_projection import SparseRandomProjection  # noqa: PLC0415 - as above

            model = SparseRandomProjection(self.dims, density="auto", random_state=seed)
            model.fit(np.zeros((1, dims), np.float32))
            self._components = model.components_.astype(np.float32)  # CSR, (d, D)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Project ``features`` (n, D) float32 to (n, d), each row the same in any chunk."""
        if self._components is None:
            return np.ascontiguousarray(features, np.float32)
        return np.ascontiguousarray((self._components @ features.T).T, np.float32)  # (n, d)
