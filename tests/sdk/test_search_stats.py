"""What an index tells about itself and its work."""

from dataclasses import astuple, fields

import numpy as np
import pytest
from kad_kernels.reference import nearest

from kad_sdk.errors import InvalidArgumentError
from kad_sdk.search import SearchIndex, SearchStats

ROWS, DIMS, QUERIES = 2000, 96, 300


def flat(seed, n):
    """Points in a few dimensions with a little noise: codes leave few rows."""
    rng = np.random.default_rng(seed)
    basis = np.random.default_rng(1).normal(size=(5, DIMS))
    return (rng.normal(size=(n, 5)) @ basis + 0.01 * rng.normal(size=(n, DIMS))).astype(np.float32)


@pytest.fixture(scope="module")
def index():
    with SearchIndex(flat(2, ROWS), threads=1) as index:
        yield index


def test_a_new_index_has_done_nothing():
    with SearchIndex(flat(2, ROWS)) as index:
        assert set(astuple(index.stats())) == {0}


def test_info(index):
    info = index.info()
    assert (info.rows, info.dims) == (ROWS, DIMS)
    # A third of the dimensions as coordinates; narrow codes hold up to 64 of them, so here all.
    assert (info.narrow_dims, info.wide_dims) == (32, 32)
    assert ROWS * (info.narrow_dims + 2 * info.wide_dims) < info.bytes < 1.6 * ROWS * DIMS * 4


def test_a_small_bank_has_no_codes():
    with SearchIndex(flat(2, 50)) as index:
        index.query(flat(3, 7), k=2)
        info, stats = index.info(), index.stats()
    assert (info.narrow_dims, info.wide_dims) == (0, 0)
    assert (stats.queries, stats.dense_queries, stats.dense_pairs) == (7, 7, 7 * 50)
    assert stats.dense_decided_pairs >= 14
    assert stats.narrow_pairs == stats.wide_pairs == stats.decided_pairs == 0
    assert stats.dense_ns > 0


@pytest.mark.parametrize(("n", "decided"), [(1, 50), (3, 150), (4, None)])
def test_rows_are_not_packed_for_a_few_queries(level, n, decided):
    queries = flat(3, n)
    with SearchIndex(flat(2, 50)) as index:
        dist, row = index.query(queries, k=5)
        stats = index.stats()
    expected = nearest(queries, flat(2, 50), 5)
    np.testing.assert_array_equal(dist, expected[0])
    np.testing.assert_array_equal(row, expected[1])
    assert (stats.dense_queries, stats.dense_pairs) == (n, n * 50)
    assert decided is None or stats.dense_decided_pairs == decided


def test_stages_leave_fewer_and_fewer_pairs():
    with SearchIndex(flat(2, ROWS), threads=1) as index:
        index.query(flat(3, QUERIES), k=1)
        stats = index.stats()
        narrow_dims = index.info().narrow_dims
    assert (stats.queries, stats.dense_queries, stats.dense_pairs) == (QUERIES, 0, 0)
    assert stats.narrow_pairs == QUERIES * ROWS
    # Points in five dimensions: the fewest coordinates that are ever compared tell them apart.
    assert stats.narrow_products == 12 * stats.narrow_pairs < narrow_dims * stats.narrow_pairs
    assert 0 < stats.seed_products < stats.narrow_products * ROWS
    assert stats.narrow_pairs > 4 * stats.wide_pairs
    assert stats.wide_pairs > stats.decided_pairs >= QUERIES
    assert min(stats.prepare_ns, stats.narrow_ns, stats.wide_ns, stats.decide_ns, stats.seed_ns) > 0


@pytest.mark.parametrize("dims", [128, 768, 1536])
def test_a_sample_tells_where_codes_leave_all_rows_to_be_decided(level, dims):
    """Whatever products cost: at many dimensions narrow codes are cheaper, but for nothing."""
    rng = np.random.default_rng(0)
    bank, queries = rng.random((1200, dims), np.float32), rng.random((64, dims), np.float32)
    with SearchIndex(bank, threads=1) as index:
        index.query(queries)
        stats = index.stats()
    assert stats.dense_queries == stats.queries == 64
    assert stats.narrow_pairs == 0
    assert stats.decided_pairs <= 10 * 64 + 16 * 128  # first guesses, and 16 queries' sample


def test_counts_add_up_over_calls_and_threads(index):
    before = index.stats()
    index.query(flat(3, QUERIES), k=1)
    once = index.stats()
    index.query(flat(3, QUERIES), k=1)
    twice = index.stats()
    counts = [f.name for f in fields(SearchStats) if not f.name.endswith("_ns")]
    for name in counts:
        first, second, third = (getattr(s, name) for s in (before, once, twice))
        assert third - second == second - first
    index.query(flat(3, QUERIES), k=1, threads=2)
    assert index.stats().queries - twice.queries == QUERIES


def test_a_closed_index_tells_nothing():
    index = SearchIndex(flat(2, 50))
    index.close()
    with pytest.raises(InvalidArgumentError, match="closed"):
        index.stats()
    with pytest.raises(InvalidArgumentError, match="closed"):
        index.info()
