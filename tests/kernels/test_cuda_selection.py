"""The selection of coresets on a GPU against that of the runtime's core.

In numba's simulator (``test_simulator.py``) the tensor tier is emulated, in smaller cases.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba.cuda", reason="numba-cuda is not installed: pip install 'kad-sdk[gpu]'")

from kad_export.coreset import cuda as selection
from kad_export.coreset import k_center, select_coreset
from tensor_tests import EMULATED, emulate_or_skip, size

emulate_or_skip()

pytestmark = pytest.mark.gpu


def _points(n: int, dims: int) -> np.ndarray:
    """Points around a few centres, with copies."""
    generator = np.random.default_rng(n)
    spread = (np.arange(dims) + 4.0) ** -0.8
    centres = generator.standard_normal((30, dims)) * spread
    points = centres[generator.integers(30, size=n)] + generator.standard_normal((n, dims)) * spread
    points[n // 2 : n // 2 + n // 10] = points[: n // 10]
    return points.astype(np.float32)


@pytest.fixture(autouse=True)
def tensor_tier(monkeypatch):
    """Let the selection see the emulated tier, which is no GPU's."""
    if EMULATED:
        monkeypatch.setattr(selection, "has_tensor_tier", lambda: True)


@pytest.mark.parametrize("pool_rows", [None, 700, 5_000])
@pytest.mark.parametrize("shards", [1, 3])
def test_selection_is_that_of_the_core(pool_rows, shards):
    points, k = _points(size(30_000, 3_000), 130), size(1_500, 150)
    pool_rows = pool_rows and size(pool_rows, pool_rows // 10)
    asked = {"start": 17, "shards": shards, "pool_rows": pool_rows}
    expected = k_center(points, k, backend="cpu", **asked)
    found = k_center(points, k, backend="cuda", **asked)
    np.testing.assert_array_equal(found.index, expected.index)
    assert found.radius == expected.radius
    assert found.counts["measured_pairs"] < k * len(points) / 2


def test_selection_beyond_the_largest_pool():
    points, k = _points(size(300_000, 6_000), 40), size(800, 100)
    assert len(points) > selection.most_pool_rows(len(points))
    expected = k_center(points, k, backend="cpu", pool_rows=size(8_192, 1_024))
    found = k_center(points, k, backend="cuda")
    np.testing.assert_array_equal(found.index, expected.index)


def test_copies_alone_are_left():
    points = np.repeat(_points(50, 20), size(100, 20), axis=0)
    expected = k_center(points, 200, backend="cpu")
    found = k_center(points, 200, backend="cuda")
    np.testing.assert_array_equal(found.index, expected.index)


def test_projected_features():
    features, k = _points(size(20_000, 2_000), size(1_536, 512)), size(400, 60)
    expected = select_coreset(features, k, backend="cpu")
    np.testing.assert_array_equal(select_coreset(features, k, backend="cuda"), expected)
