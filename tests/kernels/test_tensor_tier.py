"""The tensor tier against the reference and the portable tier, bit by bit, on a GPU."""

from __future__ import annotations

import os

import numpy as np
import pytest

pytest.importorskip("numba.cuda", reason="numba-cuda is not installed: pip install 'kad-sdk[gpu]'")

from kad_kernels import reference
from kad_kernels.device import gpu_is_available
from kad_kernels.nearest import NearestRows

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" or not gpu_is_available():
    pytest.skip("no GPU: the tensor tier does not run in the simulator", allow_module_level=True)

from kad_kernels.tensor import ScreenedPool, ScreenedRows, ScreenedRunning
from kad_kernels.tensor.basis import find_basis
from kad_kernels.tensor.rows import FEWEST_ROWS

pytestmark = pytest.mark.gpu

EDGES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 97, 127, 128, 129, 384, 515)


def _spread(n: int, dims: int, seed: int) -> np.ndarray:
    """Rows whose variance falls with the dimension, around a few centres, as features are."""
    generator = np.random.default_rng(seed)
    spread = (np.arange(dims) + 4.0) ** -0.8
    centres = np.random.default_rng(dims).standard_normal((20, dims)) * spread
    rows = centres[generator.integers(20, size=n)] + generator.standard_normal((n, dims)) * spread
    return rows.astype(np.float32)


def _few_values(n: int, dims: int, seed: int) -> np.ndarray:
    """Few different values: copies, and many ties."""
    whole = np.random.default_rng(seed).integers(-2, 3, (n, dims))
    return whole.astype(np.float32) * np.float32(0.37)


def _uniform(n: int, dims: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((n, dims), np.float32)


def _one_ulp_apart(n: int, dims: int, seed: int) -> np.ndarray:
    rows = _spread(1, dims, 7).repeat(n, axis=0)
    at = np.random.default_rng(seed).integers(dims, size=n)
    rows[np.arange(n), at] = np.nextafter(rows[np.arange(n), at], np.float32(np.inf))
    return rows


def _far_from_zero(n: int, dims: int, seed: int) -> np.ndarray:
    return _spread(n, dims, seed) + np.float32(1_000)


FAMILIES = {
    "spread": _spread,
    "few values": _few_values,
    "uniform": _uniform,
    "one ulp apart": _one_ulp_apart,
    "far from zero": _far_from_zero,
    "all equal": lambda n, dims, seed: np.full((n, dims), 0.3, np.float32),
    "tiny": lambda n, dims, seed: _spread(n, dims, seed) * np.float32(1e-22),
    "huge": lambda n, dims, seed: _spread(n, dims, seed) * np.float32(1e17),
    "overflow": lambda n, dims, seed: _spread(n, dims, seed) * np.float32(1e30),
}


def _check(queries: np.ndarray, bank: np.ndarray, k: int) -> ScreenedRows:
    rows = ScreenedRows(bank)
    dist, index = rows.query(queries, k)
    expected_dist, expected_index = NearestRows(bank).query(queries, k)
    np.testing.assert_array_equal(dist, expected_dist)
    np.testing.assert_array_equal(index, expected_index)
    return rows


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("k", [1, 3, 16])
def test_search_is_that_of_the_portable_tier(family, k):
    make = FAMILIES[family]
    bank, queries = make(5_000, 384, 0), make(700, 384, 1)
    queries[:50] = bank[1_000:1_050]
    _check(queries, bank, k)


def test_search_is_that_of_the_reference():
    bank, queries = _spread(3_000, 100, 0), _spread(257, 100, 1)
    dist, index = ScreenedRows(bank).query(queries, 5)
    expected_dist, expected_index = reference.nearest(queries, bank, 5)
    np.testing.assert_array_equal(dist, expected_dist)
    np.testing.assert_array_equal(index, expected_index)


def test_outliers_among_queries_and_rows():
    bank, queries = _spread(4_000, 200, 0), _spread(300, 200, 1)
    bank[17] *= 1e4
    for factor in (1e2, 1e5, 1e10, 1e30, 3e37):
        queries[5] = bank[3] * np.float32(factor)
        _check(queries, bank, 3)


def test_few_rows_are_measured():
    bank, queries = _spread(20_000, 1_536, 0), _spread(2_000, 1_536, 1)
    rows = _check(queries, bank, 1)
    _, measured = rows.counts()
    assert measured < 0.01 * len(bank) * len(queries)


def test_any_directions_give_the_same():
    bank, queries = _spread(3_000, 300, 0), _spread(500, 300, 1)
    other = find_basis(_uniform(500, 300, 3) - np.float32(5))
    dist, index = ScreenedRows(bank, other).query(queries, 2)
    expected_dist, expected_index = NearestRows(bank).query(queries, 2)
    np.testing.assert_array_equal(dist, expected_dist)
    np.testing.assert_array_equal(index, expected_index)


@pytest.mark.parametrize("family", ["spread", "few values", "one ulp apart", "all equal", "tiny"])
def test_flush_is_that_of_the_reference(family):
    points, centres = FAMILIES[family](1_000, 96, 0), FAMILIES[family](400, 96, 1)
    points[:20] = centres[100:120]
    start = reference.distances(points, centres[:1])[:, 0]
    start[7] = -1
    running = ScreenedRunning(points, find_basis(points), start)
    running.flush(running.store(centres[1:150]), 1)
    running.flush(running.store(centres[150:]), 150)
    dist, index = running.read()
    every = reference.distances(points, centres)
    expected = np.minimum(start, every.min(axis=1))
    np.testing.assert_array_equal(dist, expected)
    first = np.argmin(every, axis=1)
    lowered = expected < start
    np.testing.assert_array_equal(index[lowered], first[lowered])


def test_flush_of_points_without_a_centre():
    points, centres = _spread(3_000, 64, 0), _spread(5, 64, 1)
    running = ScreenedRunning(points, find_basis(points))
    running.flush(running.store(centres))
    dist, index = running.read()
    expected_dist, expected_index = reference.nearest(points, centres)
    np.testing.assert_array_equal(dist, expected_dist[:, 0])
    np.testing.assert_array_equal(index, expected_index[:, 0])


@pytest.mark.parametrize("sign", [1, -1])
def test_flush_of_a_point_beyond_fp16_and_one_centre(sign):
    along = np.full(256, sign / 16, np.float32)
    generator = np.random.default_rng(0)
    points = 3 * generator.standard_normal((20_001, 1)).astype(np.float32) * along
    points += 0.1 * generator.standard_normal(points.shape).astype(np.float32)
    points[1] = 1e4 * along  # the others, of which the directions are found, are within 20 or so
    centre = -np.abs(points[:1]) * np.sign(along)
    running = ScreenedRunning(points, find_basis(points))
    running.flush(running.store(centre))
    dist, index = running.read()
    np.testing.assert_array_equal(dist, reference.distances(points, centre)[:, 0])
    assert not index.any()


def test_pools_of_other_sizes_take_turns():
    points = _spread(30_000, 60, 0)
    dist = reference.distances(points[:1], points)[0]
    dist[0] = -1
    large, small = ScreenedPool(points, dist), ScreenedPool(points[:1_000], dist[:1_000])
    first, _ = large.pick(5)
    small.pick(5)
    rest, _ = large.pick(5)
    assert [*first, *rest] == ScreenedPool(points, dist).pick(10)[0].tolist()


@pytest.mark.parametrize("family", ["spread", "few values", "one ulp apart", "uniform", "tiny"])
@pytest.mark.parametrize("n", [1, 2, 131, 3_000, 20_000])
def test_pool_selects_as_the_reference(family, n):
    points, wanted = FAMILIES[family](n, 70, n), min(n, 150)
    expected, _ = reference.k_center(points, wanted, start=n // 2)
    dist = reference.distances(points[n // 2 :][:1], points)[0]
    dist[n // 2] = -1
    pool = ScreenedPool(points, dist)
    first, _ = pool.pick(wanted // 3)
    rest, _ = pool.pick(wanted - 1 - wanted // 3)
    assert [n // 2, *first, *rest][:wanted] == expected.tolist()


def test_pool_stops_at_a_point_outside():
    points = _spread(5_000, 50, 0)
    dist = reference.distances(points[:1], points)[0]
    dist[0] = -1
    rows, far = ScreenedPool(points, dist).pick(100)
    stopped, _ = ScreenedPool(points, dist).pick(100, outside_dist=float(far[40]), outside_row=0)
    assert stopped.tolist() == rows[:40].tolist()
    level, _ = ScreenedPool(points, dist).pick(
        100, outside_dist=float(far[40]), outside_row=int(rows[40]) + 1
    )
    assert level.tolist() == rows[:41].tolist()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=f"at least {FEWEST_ROWS} rows"):
        ScreenedRows(_spread(100, 8, 0))
    bank = _spread(3_000, 8, 0)
    rows = ScreenedRows(bank)
    with pytest.raises(ValueError, match="dimensions"):
        rows.query(_spread(5, 9, 0))
    with pytest.raises(ValueError, match="k must be"):
        rows.query(bank, 17)
    bank[5, 3] = np.nan
    with pytest.raises(ValueError, match="row 5"):
        ScreenedRows(bank)


# Last: there are many, and a limit of time may end them.
@pytest.mark.parametrize("dims", EDGES)
@pytest.mark.parametrize("n_rows", [2_048, 2_049, 2_175, 4_096])
def test_search_at_edges(dims, n_rows):
    for family in (_spread, _few_values):
        _check(family(130, dims, 1), family(n_rows, dims, 0), 2)
