"""Densities of normal embeddings: against scikit-learn and SciPy, and what they refuse."""

import numpy as np
import pytest
from kad_export.cutpaste import density as module
from kad_export.cutpaste.density import MIN_SAMPLES, fit_density
from kad_export.errors import DensityError
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import KernelDensity

from kad_sdk.errors import InvalidArgumentError

DIMS = 24


def _embeddings(n=300, seed=0):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(DIMS, DIMS)) * np.geomspace(1, 1e-2, DIMS)
    return (rng.normal(size=(n, DIMS)) @ mixing + rng.normal(size=DIMS)).astype(np.float32)


def test_gaussian_score_is_scikit_learns_mahalanobis_distance():
    x, queries = _embeddings(), _embeddings(50, seed=1)
    density = fit_density("gaussian", x)
    plain = LedoitWolf().fit(x.astype(np.float64))
    assert density.shrinkage == pytest.approx(plain.shrinkage_)
    assert (density.kind, density.samples, density.bandwidth) == ("gaussian", 300, None)
    expected = np.sqrt(plain.mahalanobis(queries.astype(np.float64)))
    np.testing.assert_allclose(density.score(queries), expected, rtol=1e-5)


def test_cholesky_factor_is_lower_and_gives_the_covariance_back():
    x = _embeddings()
    density = fit_density("gaussian", x)
    factor = density.tensors["cholesky"]
    assert factor.dtype == density.tensors["mean"].dtype == np.float32
    assert not np.triu(factor, 1).any()
    covariance = LedoitWolf().fit(x.astype(np.float64)).covariance_
    np.testing.assert_allclose(
        factor.astype(np.float64) @ factor.T, covariance, rtol=1e-4, atol=1e-5
    )


def test_fewer_embeddings_than_dimensions_are_shrunk_into_a_covariance():
    density = fit_density("gaussian", _embeddings(MIN_SAMPLES))
    assert 0 < density.shrinkage <= 1
    assert np.isfinite(density.score(_embeddings(5, seed=2))).all()


def test_kernel_score_is_the_density_as_a_distance():
    x, queries = _embeddings(), _embeddings(50, seed=1)
    density = fit_density("kernel", x)
    assert density.bandwidth == pytest.approx(300 ** (-1 / (DIMS + 4)) * np.sqrt(x.var(0).mean()))
    width2 = 2 * density.bandwidth**2
    dist2 = cdist(queries, x, "sqeuclidean")  # (50, 300)
    relative = logsumexp(-dist2 / width2, axis=1) - np.log(len(x))  # to the peak of one kernel
    np.testing.assert_allclose(density.score(queries), np.sqrt(-width2 * relative), rtol=1e-12)
    of_library = KernelDensity(bandwidth=density.bandwidth).fit(x).score_samples(queries)
    peak = -DIMS / 2 * np.log(np.pi * width2)
    np.testing.assert_allclose(relative, of_library - peak, rtol=1e-4)  # as its trees sum


def test_kernel_score_far_away_is_the_distance_to_the_samples():
    density = fit_density("kernel", _embeddings())
    far = np.full((1, DIMS), 1e6)
    nearest = np.linalg.norm(density.tensors["samples"] - far, axis=1).min()
    assert density.score(far)[0] == pytest.approx(nearest, rel=1e-6)


def test_kernel_samples_are_capped_and_drawn_by_the_seed(monkeypatch):
    monkeypatch.setattr(module, "KERNEL_SAMPLES", 40)
    x = _embeddings()
    first, again, other = (fit_density("kernel", x, seed=s).tensors["samples"] for s in (3, 3, 4))
    assert first.shape == (40, DIMS)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert {row.tobytes() for row in first} <= {row.tobytes() for row in x}
    assert fit_density("kernel", x, seed=3).samples == 300


@pytest.mark.parametrize("kind", ["gaussian", "kernel"])
def test_too_few_tiles(kind):
    with pytest.raises(DensityError, match="at least 16 of them, got 15: add normal boards"):
        fit_density(kind, _embeddings(MIN_SAMPLES - 1))


@pytest.mark.parametrize("kind", ["gaussian", "kernel"])
def test_embeddings_that_are_not_finite(kind):
    x = _embeddings()
    x[7, 3] = np.nan
    with pytest.raises(DensityError, match="1 of 300 normal tiles hold NaN or Inf"):
        fit_density(kind, x)


@pytest.mark.parametrize("kind", ["gaussian", "kernel"])
@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_constant_images(kind, noise):
    x = np.ones((100, DIMS), np.float32) + noise * _embeddings(100)
    with pytest.raises(DensityError, match=r"all but the same.*Constant images give this"):
        fit_density(kind, x)


def test_an_unknown_estimate():
    with pytest.raises(InvalidArgumentError, match="expected gaussian, kernel, got 'histogram'"):
        fit_density("histogram", _embeddings())
