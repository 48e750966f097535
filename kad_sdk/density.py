"""The density of normal embeddings, which scores CutPaste's tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kad_sdk._native import density_score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["NormalDensity"]


@dataclass(frozen=True, eq=False)
class NormalDensity:
    """Where the embeddings of normal tiles lie.

    Attributes
    ----------
    kind
        ``"gaussian"`` or ``"kernel"``.
    mean, cholesky
        (E,) and (E, E) float32: mean of the embeddings, and the lower Cholesky factor of their
        shrunk covariance; None for a kernel density.
    samples
        (S, E) float32: embeddings; None for a Gaussian.
    bandwidth
        Of a kernel density.
    """

    kind: str
    mean: NDArray[np.float32] | None = None
    cholesky: NDArray[np.float32] | None = None
    samples: NDArray[np.float32] | None = None
    bandwidth: float | None = None

    def score(self, embeddings: NDArray[np.float32], *, threads: int = 1) -> NDArray[np.float32]:
        """Score embeddings (n, E): their distance from the normal ones, (n,).

        The formulas are those of :func:`kad_sdk._native.density_score`.

        Raises
        ------
        NotFiniteError
            An embedding holds NaN or Inf.
        """
        return density_score(
            embeddings,
            kind=self.kind,
            mean=self.mean,
            cholesky=self.cholesky,
            samples=self.samples,
            bandwidth=self.bandwidth,
            threads=threads,
        )
