"""CUDA kernels against the reference, bit by bit: on a GPU, or with small cases in the simulator.

Without a GPU and without NUMBA_ENABLE_CUDASIM all are skipped at once; ``test_simulator.py`` runs
them in a process of its own.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

pytest.importorskip("numba.cuda", reason="numba-cuda is not installed: pip install 'kad-sdk[gpu]'")

from kad_kernels import device, reference
from kad_kernels.device import DeviceRows, GpuMissingError, gpu_is_available
from kad_kernels.kcenter import Pool, Running
from kad_kernels.nearest import NearestRows

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"

if not SIMULATED and not gpu_is_available():
    pytest.skip(
        "neither a GPU nor numba's simulator (NUMBA_ENABLE_CUDASIM=1)", allow_module_level=True
    )

pytestmark = pytest.mark.gpu

SEARCHES = [(3, 5, 2, 3), (2, 65, 17, 2)]  # 65 rows: two splits
SELECTIONS = [(5, 3), (130, 2)]  # 130 points: two blocks
if not SIMULATED:
    edges = (1, 2, 7, 15, 16, 17, 31, 33, 63, 64, 65, 97)
    SEARCHES += [(n, m, d, min(m, 16)) for n in edges for m in (1, 63, 64, 65, 700) for d in edges]
    SEARCHES += [(1_000, 5_000, 384, 3), (20_000, 300, 1_536, 1)]
    SELECTIONS += [(n, d) for n in (127, 128, 129, 1_000, 20_000) for d in edges]


def _values(n: int, dims: int, seed: int) -> np.ndarray:
    """Few different values, that are not exact in binary: rounding, many ties, copies."""
    whole = np.random.default_rng(seed).integers(-2, 3, (n, dims))
    return whole.astype(np.float32) * np.float32(0.37)


@pytest.mark.parametrize(("n", "m", "dims", "k"), SEARCHES)
def test_search_is_that_of_the_reference(n, m, dims, k):
    queries, bank = _values(n, dims, 0), _values(m, dims, 1)
    dist, index = NearestRows(bank).query(queries, k)
    expected_dist, expected_index = reference.nearest(queries, bank, k)
    np.testing.assert_array_equal(dist, expected_dist)
    np.testing.assert_array_equal(index, expected_index)


def test_order_of_summation_is_the_defined_one():
    query, row = np.zeros((1, 40), np.float32), np.full((1, 40), 2.0**-12, np.float32)
    row[0, 3] = 1.0
    dist, _ = NearestRows(row).query(query)
    assert dist[0, 0] == reference.distances(query, row)[0, 0]
    start = np.array([np.inf, np.inf], np.float32)
    picked, dist = Pool(np.concatenate([query, row]), start).pick(2)
    assert picked.tolist() == [0, 1]
    assert dist[1] == reference.distances(query, row)[0, 0]


def test_flush_keeps_minimum_and_first_centre():
    points, centres = _values(3, 5, 0), _values(6, 5, 1)
    running = Running(DeviceRows(points))
    running.flush(DeviceRows(centres[:4]))
    running.flush(DeviceRows(centres[4:]), first_centre=4)
    dist, index = running.read()
    expected_dist, expected_index = reference.nearest(points, centres)
    np.testing.assert_array_equal(dist, expected_dist[:, 0])
    np.testing.assert_array_equal(index, expected_index[:, 0])


@pytest.mark.parametrize(("n", "dims"), SELECTIONS)
def test_pool_selects_as_the_reference(n, dims):
    points, wanted = _values(n, dims, n), min(n, 5 if SIMULATED else 300)
    expected, _ = reference.k_center(points, wanted, start=n // 2)
    dist = reference.distances(points[n // 2 :][:1], points)[0]
    dist[n // 2] = -1
    pool = Pool(points, dist)
    first, _ = pool.pick(2)
    rest, _ = pool.pick(wanted)
    found = [n // 2, *first.tolist(), *rest.tolist()]
    assert found[:wanted] == expected.tolist()
    assert len(set(found)) == len(found)
    pool.close()


@pytest.mark.parametrize(
    ("outside_row", "expected", "next_dist"), [(4, [2, 3], 2), (3, [2], 5), (2, [], 5)]
)
def test_pool_stops_where_a_point_outside_precedes(outside_row, expected, next_dist):
    points = np.array([[0], [3], [5], [-5]], np.float32)  # row 0 is the centre
    dist = np.array([-1, 3, 5, 5], np.float32)
    pool = Pool(points, dist)
    rows, _ = pool.pick(4, outside_dist=5, outside_row=outside_row)
    assert rows.tolist() == expected
    _, rest = pool.pick(1)  # without an outside it goes on
    assert rest.tolist() == [next_dist]


def test_selection_with_the_backend_cuda(monkeypatch):
    coreset = pytest.importorskip("kad_export.coreset", reason="kad_export is not installed")
    n, wanted = (44, 2) if SIMULATED else (30_000, 300)
    monkeypatch.setattr("kad_export.coreset.workers.CHUNK_ROWS", 40 if SIMULATED else 7_000)
    points = _values(n, 3, 5)
    expected, radius = reference.k_center(points, wanted)
    found = coreset.k_center(points, wanted, backend="cuda", pool_rows=n // 2)
    np.testing.assert_array_equal(found.index, expected)
    assert found.radius == radius


def test_bad_arguments_are_refused():
    rows = _values(2, 3, 0)
    with pytest.raises(ValueError, match="k must be 1 to 2, got 3"):
        NearestRows(rows).query(rows, 3)
    with pytest.raises(ValueError, match="queries have 2 dimensions, the bank 3"):
        NearestRows(rows).query(rows[:, :2].copy())
    with pytest.raises(ValueError, match="rows row 1 holds NaN or Inf"):
        DeviceRows(np.array([[0], [np.nan]], np.float32))


def test_missing_gpu_is_told(monkeypatch):
    monkeypatch.setattr(device, "SIMULATED", False)
    monkeypatch.setattr(device.cuda, "is_available", lambda: False)
    with pytest.raises(GpuMissingError, match="check the driver with `nvidia-smi`"):
        DeviceRows(_values(1, 1, 0))
