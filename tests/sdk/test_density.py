"""Density scores against the formulas in NumPy, at all edge sizes; what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from kad_sdk._native import density_score
from kad_sdk.errors import InvalidArgumentError, NotFiniteError

EDGES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 97, 128)


def mahalanobis(x, mean, cholesky):
    """|L^-1 (x - mean)|, terms in rising order, as the core defines it."""
    y = np.zeros(len(mean))
    for i in range(len(mean)):
        rest = np.float64(x[i]) - np.float64(mean[i])
        for j in range(i):
            rest -= np.float64(cholesky[i, j]) * y[j]
        y[i] = rest / np.float64(cholesky[i, i])
    return np.sqrt(np.add.accumulate(y * y)[-1]).astype(np.float32)


def kernel_distance(x, samples, bandwidth):
    """Return sqrt(-2 b^2 log(mean(exp(-|x - x_i|^2 / (2 b^2))))), in extended precision."""
    squares = ((samples.astype(np.longdouble) - x) ** 2).sum(axis=1)
    width = 2 * np.longdouble(bandwidth) ** 2
    terms = np.exp((squares.min() - squares) / width)
    return np.sqrt(squares.min() - width * np.log(terms.mean())).astype(np.float32)


def factor(generator, dims):
    rows = generator.normal(size=(3 * dims + 2, dims))
    return np.linalg.cholesky(rows.T @ rows / len(rows) + 0.01 * np.eye(dims)).astype(np.float32)


@pytest.mark.parametrize("dims", EDGES)
def test_gaussian_is_the_reference(dims):
    generator = np.random.default_rng(dims)
    cholesky = factor(generator, dims)
    mean = generator.normal(size=dims).astype(np.float32)
    x = generator.normal(size=(5, dims)).astype(np.float32)
    x[4] = mean
    got = density_score(x, kind="gaussian", mean=mean, cholesky=cholesky, threads=2)
    expected = np.array([mahalanobis(row, mean, cholesky) for row in x])
    np.testing.assert_array_equal(got, expected)
    assert got[4] == 0
    solved = np.linalg.solve(cholesky.astype(np.float64), (x.astype(np.float64) - mean).T)
    np.testing.assert_allclose(got, np.linalg.norm(solved, axis=0), rtol=1e-6)


@pytest.mark.parametrize("dims", EDGES)
@pytest.mark.parametrize("n_samples", [1, 2, 70])
def test_kernel_is_the_reference(dims, n_samples):
    generator = np.random.default_rng(100 * dims + n_samples)
    samples = generator.normal(size=(n_samples, dims)).astype(np.float32)
    x = generator.normal(size=(5, dims)).astype(np.float32)
    x[3] += 1000  # every term alone underflows
    x[4] = samples[0]
    for bandwidth in (0.05, 1.0, 30.0):
        got = density_score(x, kind="kernel", samples=samples, bandwidth=bandwidth, threads=2)
        expected = [kernel_distance(row, samples, bandwidth) for row in x]
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
        assert (got >= 0).all()


def test_kernel_falls_with_the_density():
    samples = np.random.default_rng(1).normal(size=(50, 2)).astype(np.float32)
    line = np.linspace(0, 40, 100, dtype=np.float32)[:, None] * np.float32([[1, 0.5]])
    got = density_score(line, kind="kernel", samples=samples, bandwidth=0.7)
    density = np.exp(-((line[:, None] - samples) ** 2).sum(-1) / (2 * 0.49)).mean(1)
    order = np.argsort(-density[density > 0], kind="stable")
    assert (np.diff(got[density > 0][order]) >= 0).all()


@pytest.mark.parametrize("kind", ["gaussian", "kernel"])
def test_same_bits_for_any_threads_and_batch(kind):
    generator = np.random.default_rng(5)
    x = generator.normal(size=(37, 33)).astype(np.float32)
    given = {
        "gaussian": {"mean": x[0], "cholesky": factor(generator, 33)},
        "kernel": {"samples": generator.normal(size=(90, 33)).astype(np.float32), "bandwidth": 2.5},
    }[kind]
    one = density_score(x, kind=kind, **given)
    for threads in (2, 3, 64):
        np.testing.assert_array_equal(density_score(x, kind=kind, threads=threads, **given), one)
    alone = np.concatenate([density_score(row[None], kind=kind, **given) for row in x])
    np.testing.assert_array_equal(alone, one)
    assert density_score(x[:0], kind=kind, **given).shape == (0,)


def test_what_lies_above_the_diagonal_is_not_used():
    generator = np.random.default_rng(6)
    cholesky, mean = factor(generator, 9), np.zeros(9, np.float32)
    x = generator.normal(size=(4, 9)).astype(np.float32)
    full = cholesky + np.triu(np.ones_like(cholesky), 1)
    given = {"kind": "gaussian", "mean": mean}
    np.testing.assert_array_equal(
        density_score(x, cholesky=full, **given), density_score(x, cholesky=cholesky, **given)
    )


ONE, EYE = np.ones((3, 2), np.float32), np.eye(2, dtype=np.float32)
BAD = np.array([[1, 1], [1, np.nan], [1, 1]], np.float32)
GAUSSIAN = {"kind": "gaussian", "mean": ONE[0], "cholesky": EYE}
KERNEL = {"kind": "kernel", "samples": ONE, "bandwidth": 1.0}


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({**GAUSSIAN, "x": BAD}, NotFiniteError, "embeddings: row 1 holds NaN or Inf"),
        ({**KERNEL, "x": BAD}, NotFiniteError, "embeddings: row 1 holds NaN or Inf"),
        ({**GAUSSIAN, "x": ONE[0]}, InvalidArgumentError, "embeddings is float32 of shape"),
        ({**GAUSSIAN, "mean": BAD[1]}, NotFiniteError, "mean: row 0 holds NaN"),
        ({**GAUSSIAN, "mean": ONE}, InvalidArgumentError, "mean is float32 of shape"),
        ({**GAUSSIAN, "mean": None}, InvalidArgumentError, "mean is a NoneType"),
        ({**GAUSSIAN, "cholesky": EYE + np.float32(np.inf)}, NotFiniteError, "cholesky: row 0"),
        ({**GAUSSIAN, "cholesky": -EYE}, InvalidArgumentError, "diagonal must be above 0, got -1"),
        ({**GAUSSIAN, "cholesky": EYE.astype(np.float64)}, InvalidArgumentError, "float64"),
        ({**KERNEL, "samples": BAD}, NotFiniteError, "samples: row 1 holds NaN"),
        ({**KERNEL, "samples": ONE[:0]}, InvalidArgumentError, "n_samples must be at least 1"),
        ({**KERNEL, "bandwidth": None}, InvalidArgumentError, "a kernel density needs one"),
        ({**KERNEL, "bandwidth": 0.0}, InvalidArgumentError, "bandwidth must be above 0"),
        ({**KERNEL, "bandwidth": np.nan}, InvalidArgumentError, "bandwidth must be above 0"),
        ({**KERNEL, "threads": 0}, InvalidArgumentError, "n_threads must be at least 1"),
        ({"kind": "histogram"}, InvalidArgumentError, "kind must be one of gaussian, kernel"),
    ],
)
def test_refused(given, error, message):
    given = {"x": ONE, **given}
    with pytest.raises(error, match=message):
        density_score(given.pop("x"), **given)
