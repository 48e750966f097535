"""The tensor tier against the reference and the portable tier, bit by bit.

On a GPU; in numba's simulator (``test_simulator.py``) its kernels are emulated, in smaller cases.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("numba.cuda", reason="numba-cuda is not installed: pip install 'kad-sdk[gpu]'")

from kad_kernels import reference
from kad_kernels._cuda import cuda
from kad_kernels.nearest import NearestRows
from kad_kernels.tensor import ScreenedPool, ScreenedRows, ScreenedRunning
from kad_kernels.tensor.basis import find_basis
from kad_kernels.tensor.points import GROUPS, TILE, DeviceBasis, Points, PointsStore, screen
from kad_kernels.tensor.rows import FEWEST_ROWS
from tensor_tests import EMULATED, emulate_or_skip, size

emulate_or_skip()

pytestmark = pytest.mark.gpu

EDGES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 97, 127, 128, 129, 384, 515)
if EMULATED:
    EDGES = (1, 97, 128, 129)


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


def _nearest(queries: np.ndarray, bank: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Answer by the portable tier, which takes too long in the simulator: there, the reference."""
    return reference.nearest(queries, bank, k) if EMULATED else NearestRows(bank).query(queries, k)


def _check(queries: np.ndarray, bank: np.ndarray, k: int) -> ScreenedRows:
    rows = ScreenedRows(bank)
    dist, index = rows.query(queries, k)
    expected_dist, expected_index = _nearest(queries, bank, k)
    np.testing.assert_array_equal(dist, expected_dist)
    np.testing.assert_array_equal(index, expected_index)
    return rows


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("k", [1, 16] if EMULATED else [1, 3, 16])
def test_search_is_that_of_the_portable_tier(family, k):
    make = FAMILIES[family]
    few = 20 if family in {"all equal", "tiny", "overflow"} else 140  # those measure all rows
    dims = size(384, 160)
    bank, queries = make(size(5_000, 2_300), dims, 0), make(size(700, few), dims, 1)
    copies = size(50, 10)
    queries[:copies] = bank[1_000 : 1_000 + copies]
    _check(queries, bank, k)


def _low_rank(n: int, dims: int, seed: int) -> np.ndarray:
    """Rows that a hundred directions hold: nothing is left of them but errors."""
    few = np.random.default_rng(3).standard_normal((100, dims)) / np.sqrt(dims)
    return (_spread(n, 100, seed) @ few).astype(np.float32)


@pytest.mark.parametrize("family", [*FAMILIES.values(), _low_rank])
@pytest.mark.parametrize(("dims", "weight"), [(5, 0), (127, 0), (128, None), (200, None), (200, 1)])
def test_points_are_off_by_no_more_than_they_say(family, dims, weight):
    rows = family(300, dims, 0)
    basis = find_basis(rows[::2])
    if weight is not None:
        basis = replace(basis, rest_weight=float(weight))
    points = Points(len(rows))
    DeviceBasis(basis).project(cuda.to_device(rows), len(rows), points)
    true = basis.scale * (rows.astype(np.float64) - basis.mean[:dims].astype(np.float64))
    along = true @ basis.directions[:, :dims].T.astype(np.float64) * basis.inverse_sigma
    rest2 = np.maximum((true**2).sum(axis=1) - (along**2).sum(axis=1), 0)
    along[:, -1] += basis.rest_weight * np.sqrt(rest2)
    found = points.point.copy_to_host()[: len(rows)].view(np.float16).astype(np.float64)
    off = np.sqrt(((found - along) ** 2).sum(axis=1))
    slack = points.slack.copy_to_host()[: len(rows)]
    assert (off <= slack).all()
    norm2 = points.norm2.copy_to_host()
    np.testing.assert_allclose(norm2[: len(rows)], (found**2).sum(axis=1), rtol=1e-5)
    assert (norm2[len(rows) :] == np.inf).all()


@pytest.mark.parametrize("family", [_spread, _few_values, _far_from_zero])
def test_screening_is_off_by_no_more_than_is_allowed(family):
    rows, queries = family(300, 200, 0), family(140, 200, 1)
    basis = find_basis(rows)
    bank, points = PointsStore(cuda.to_device(rows), DeviceBasis(basis)), Points(len(queries))
    DeviceBasis(basis).project(cuda.to_device(queries), len(queries), points)
    least = cuda.device_array((bank.tiles, points.padded, GROUPS), np.uint16)
    screen(points, bank, least, 4, 0)
    bits = least.copy_to_host()[:, : len(queries)].astype(np.uint32) << 16
    found = bits.view(np.float32).transpose(1, 0, 2).reshape(len(queries), -1)
    x, y = (
        p.point.copy_to_host()[:n].view(np.float16).astype(np.float64)
        for p, n in ((points, len(queries)), (bank.points, len(rows)))
    )
    true = ((x[:, None] - y[None]) ** 2).sum(axis=2)
    true = np.pad(true, ((0, 0), (0, bank.tiles * TILE - len(rows))), constant_values=np.inf)
    true = true.reshape(len(queries), -1, TILE // GROUPS).min(axis=2)
    longest = np.sqrt((y**2).sum(axis=1)).max()
    length = np.sqrt((x**2).sum(axis=1))[:, None]
    allowed = 8 * 18 * 2.0**-23 * 2 * length * longest + 64 * 2.0**-23 * (length**2 + longest**2)
    inside = np.isfinite(true)
    assert (found <= true + allowed)[inside].all()
    assert (found >= true * (1 - 2.0**-7) - allowed)[inside].all()
    assert (found == np.inf)[~inside].all()


def test_search_is_that_of_the_reference():
    bank, queries = _spread(3_000, 100, 0), _spread(257, 100, 1)
    dist, index = ScreenedRows(bank).query(queries, 5)
    expected_dist, expected_index = reference.nearest(queries, bank, 5)
    np.testing.assert_array_equal(dist, expected_dist)
    np.testing.assert_array_equal(index, expected_index)


def test_outliers_among_queries_and_rows():
    bank, queries = _spread(size(4_000, 2_100), 200, 0), _spread(size(300, 20), 200, 1)
    bank[17] *= 1e4
    for factor in (1e2, 1e5, 1e10, 1e30, 3e37)[:: size(1, 2)]:
        queries[5] = bank[3] * np.float32(factor)
        _check(queries, bank, 3)


def test_few_rows_are_measured():
    dims = size(1_536, 384)
    bank, queries = _spread(size(20_000, 6_000), dims, 0), _spread(size(2_000, 100), dims, 1)
    rows = _check(queries, bank, 1)
    _, measured = rows.counts()
    assert measured < 0.01 * len(bank) * len(queries)


def test_any_directions_give_the_same():
    bank, queries = _spread(size(3_000, 2_100), 300, 0), _spread(size(500, 20), 300, 1)
    other = find_basis(_uniform(500, 300, 3) - np.float32(5))
    dist, index = ScreenedRows(bank, other).query(queries, 2)
    expected_dist, expected_index = _nearest(queries, bank, 2)
    np.testing.assert_array_equal(dist, expected_dist)
    np.testing.assert_array_equal(index, expected_index)


@pytest.mark.parametrize("family", ["spread", "few values", "one ulp apart", "all equal", "tiny"])
def test_flush_is_that_of_the_reference(family):
    points = FAMILIES[family](size(1_000, 140), 96, 0)
    centres = FAMILIES[family](size(400, 290), 96, 1)
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
    points = 3 * generator.standard_normal((size(20_001, 8_193), 1)).astype(np.float32) * along
    points += 0.1 * generator.standard_normal(points.shape).astype(np.float32)
    points[1] = 1e4 * along  # the others, of which the directions are found, are within 20 or so
    centre = -np.abs(points[:1]) * np.sign(along)
    basis = find_basis(points)
    running = ScreenedRunning(points, basis)
    beyond = cuda.to_device(np.concatenate([centre, points[1:2].repeat(200, axis=0)]))
    running.flush(PointsStore(beyond[:1], DeviceBasis(basis)))
    dist, index = running.read()
    np.testing.assert_array_equal(dist, reference.distances(points, centre)[:, 0])
    assert not index.any()


def test_pools_of_other_sizes_take_turns():
    points = _spread(size(30_000, 3_000), 60, 0)
    dist = reference.distances(points[:1], points)[0]
    dist[0] = -1
    large, small = ScreenedPool(points, dist), ScreenedPool(points[:1_000], dist[:1_000])
    first, _ = large.pick(5)
    small.pick(5)
    rest, _ = large.pick(5)
    assert [*first, *rest] == ScreenedPool(points, dist).pick(10)[0].tolist()


@pytest.mark.parametrize("family", ["spread", "few values", "one ulp apart", "uniform", "tiny"])
@pytest.mark.parametrize("n", [1, 2, 131, 3_000, *([] if EMULATED else [20_000])])
def test_pool_selects_as_the_reference(family, n):
    points, wanted = FAMILIES[family](n, 70, n), min(n, size(150, 30))
    expected, _ = reference.k_center(points, wanted, start=n // 2)
    dist = reference.distances(points[n // 2 :][:1], points)[0]
    dist[n // 2] = -1
    pool = ScreenedPool(points, dist)
    first, _ = pool.pick(wanted // 3)
    rest, _ = pool.pick(wanted - 1 - wanted // 3)
    assert [n // 2, *first, *rest][:wanted] == expected.tolist()
    nearest = reference.distances(points, points[expected]).min(axis=1)
    nearest[expected] = -1
    np.testing.assert_array_equal(pool._dist.copy_to_host(), nearest)


def test_pool_stops_at_a_point_outside():
    points = _spread(size(5_000, 1_500), 50, 0)
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
@pytest.mark.parametrize("n_rows", [2_048, 2_049] if EMULATED else [2_048, 2_049, 2_175, 4_096])
def test_search_at_edges(dims, n_rows):
    for family in (_spread, _few_values):
        _check(family(130, dims, 1), family(n_rows, dims, 0), 2)
