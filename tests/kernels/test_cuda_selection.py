"""The selection of coresets on a GPU against that of the runtime's core."""

from __future__ import annotations

import os

import numpy as np
import pytest

pytest.importorskip("numba.cuda", reason="numba-cuda is not installed: pip install 'kad-sdk[gpu]'")

from kad_export.coreset import k_center, select_coreset
from kad_kernels.device import gpu_is_available

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" or not gpu_is_available():
    pytest.skip("no GPU", allow_module_level=True)

pytestmark = pytest.mark.gpu


def _points(n: int, dims: int) -> np.ndarray:
    """Points around a few centres, with copies."""
    generator = np.random.default_rng(n)
    spread = (np.arange(dims) + 4.0) ** -0.8
    centres = generator.standard_normal((30, dims)) * spread
    points = centres[generator.integers(30, size=n)] + generator.standard_normal((n, dims)) * spread
    points[n // 2 : n // 2 + n // 10] = points[: n // 10]
    return points.astype(np.float32)


@pytest.mark.parametrize("pool_rows", [None, 700, 5_000])
@pytest.mark.parametrize("shards", [1, 3])
def test_selection_is_that_of_the_core(pool_rows, shards):
    points = _points(30_000, 130)
    asked = {"start": 17, "shards": shards, "pool_rows": pool_rows}
    expected = k_center(points, 1_500, backend="cpu", **asked)
    found = k_center(points, 1_500, backend="cuda", **asked)
    np.testing.assert_array_equal(found.index, expected.index)
    assert found.radius == expected.radius
    assert found.counts["measured_pairs"] < 1_500 * len(points) / 2


def test_selection_beyond_the_largest_pool():
    points = _points(300_000, 40)
    expected = k_center(points, 800, backend="cpu", pool_rows=8_192)
    found = k_center(points, 800, backend="cuda")
    np.testing.assert_array_equal(found.index, expected.index)


def test_copies_alone_are_left():
    points = np.repeat(_points(50, 20), 100, axis=0)
    expected = k_center(points, 200, backend="cpu")
    found = k_center(points, 200, backend="cuda")
    np.testing.assert_array_equal(found.index, expected.index)


def test_projected_features():
    features = _points(20_000, 1_536)
    expected = select_coreset(features, 400, backend="cpu")
    np.testing.assert_array_equal(select_coreset(features, 400, backend="cuda"), expected)
