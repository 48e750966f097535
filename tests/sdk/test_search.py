"""The search must give the bits of the NumPy reference: at every level, for every input."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from kad_kernels.reference import nearest
from search_oracle import at_level, levels_here

from kad_sdk.errors import InvalidArgumentError, NotFiniteError
from kad_sdk.search import SearchIndex

EDGES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 23, 24, 25, 31, 33, 47, 48, 49, 63, 64, 65, 97)


def assert_exact(bank, queries, k=1, threads=1):
    with SearchIndex(bank, threads=threads) as index:
        dist, row = index.query(queries, k)
    expected_dist, expected_row = nearest(queries, bank, k)
    np.testing.assert_array_equal(row, expected_row)
    np.testing.assert_array_equal(dist.view(np.int32), expected_dist.view(np.int32))


def normal(seed, n, dims):
    return np.random.default_rng(seed).normal(size=(n, dims)).astype(np.float32)


@pytest.mark.parametrize("dims", EDGES)
def test_lane_edges_in_dims(level, dims):
    assert_exact(normal(dims, 70, dims), normal(dims + 1, 11, dims), k=3)


@pytest.mark.parametrize("dims", [255, 256, 257, 384, 513, 1536])
def test_chain_edges_in_dims(level, dims):
    assert_exact(normal(dims, 60, dims), normal(dims + 1, 9, dims), k=2)


@pytest.mark.parametrize("rows", EDGES)
def test_lane_edges_in_rows(level, rows):
    assert_exact(normal(rows, rows, 19), normal(rows + 1, 10, 19), k=min(rows, 5))


@pytest.mark.parametrize("n", [*EDGES, 511, 512, 513, 1030])
def test_batch_edges(level, n):
    assert_exact(normal(1, 53, 5), normal(n, n, 5), k=2)


@pytest.mark.parametrize("k", [1, 2, 15, 16])
def test_every_k(level, k):
    assert_exact(normal(2, 300, 33), normal(3, 20, 33), k=k)


def test_k_is_the_number_of_rows(level):
    assert_exact(normal(4, 16, 12), normal(5, 9, 12), k=16)


def test_one_row(level):
    assert_exact(normal(6, 1, 40), normal(7, 9, 40))


def test_query_equal_to_a_row(level):
    bank = normal(8, 400, 64)
    with SearchIndex(bank) as index:
        dist, row = index.query(bank[::-1])
    assert not dist.any()
    assert row[:, 0].tolist() == list(range(400))[::-1]


def test_duplicates_go_to_the_lowest_row(level):
    bank = np.repeat(normal(9, 20, 24), 10, axis=0)[np.random.default_rng(0).permutation(200)]
    assert_exact(bank, np.concatenate([bank[:30], normal(10, 30, 24)]), k=16)


def test_all_rows_equal(level):
    bank = np.full((200, 20), 0.7, np.float32)
    queries = normal(11, 9, 20)
    with SearchIndex(bank) as index:
        _, row = index.query(queries, 5)
    assert (row == np.arange(5)).all()
    assert_exact(bank, queries, k=5)


def test_near_ties_one_ulp_apart(level):
    rng = np.random.default_rng(12)
    base = rng.normal(size=48).astype(np.float32)
    bank = np.repeat(base[None], 300, axis=0)
    for row in bank:  # every row differs from the first in a few coordinates, by one ulp
        places = rng.integers(0, 48, 3)
        row[places] = np.nextafter(row[places], np.float32(rng.choice([-9, 9])))
    assert_exact(bank, np.concatenate([bank[:5], normal(13, 20, 48), base[None] + 100]), k=16)


def test_ties_of_the_root(level):
    # Two squared sums that are neighbours in float32 and have the same root tie.
    one, above = np.float32(1), np.nextafter(np.float32(1), np.float32(2))
    bank = np.array([[one, np.sqrt(above - one)], [one, 0], [0, one]], np.float32)
    squared = bank[0] * bank[0]
    assert squared.sum() == above
    assert np.sqrt(above) == 1
    assert_exact(bank, np.zeros((1, 2), np.float32), k=3)


@pytest.mark.parametrize("offset", [1e3, 1e6])
def test_far_from_the_origin(level, offset):
    assert_exact(
        normal(14, 300, 32) + np.float32(offset), normal(15, 20, 32) + np.float32(offset), 4
    )


def test_one_far_outlier(level):
    bank = normal(16, 300, 32)
    bank[123] *= 1e7
    assert_exact(bank, np.concatenate([normal(17, 20, 32), bank[123:124]]), k=3)


@pytest.mark.parametrize("scale", [1e-45, 1e-38, 1e-30, 1e-20, 1e15, 1e18, 1e19, 1e30, 3e38])
def test_extreme_scales(level, scale):
    rng = np.random.default_rng(18)
    bank = (rng.uniform(-1, 1, size=(200, 20)) * scale).astype(np.float32)
    queries = (rng.uniform(-1, 1, size=(20, 20)) * scale).astype(np.float32)
    assert_exact(bank, queries, k=3)


def test_every_scale_at_once(level):
    rng = np.random.default_rng(19)
    scale = 10.0 ** rng.uniform(-45, 38, size=(300, 1))
    bank = (rng.uniform(-1, 1, size=(300, 8)) * scale).astype(np.float32)
    assert_exact(bank, bank[::7] * np.float32(0.999), k=16)


def test_dimensions_without_variance(level):
    bank, queries = normal(20, 200, 40), normal(21, 20, 40)
    bank[:, 5:30] = 2.5
    queries[:, 5:30] = 2.5
    assert_exact(bank, queries, k=2)


@pytest.mark.parametrize("order", ["rising", "falling"])
def test_rows_sorted_by_distance(level, order):
    # The limit tightens, or never does: as few and as many decisions as can be.
    steps = np.linspace(1, 2, 1000, dtype=np.float32)[:, None] * np.ones(17, np.float32)
    assert_exact(
        steps if order == "rising" else steps[::-1].copy(), np.zeros((9, 17), np.float32), 3
    )


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
small_integers = st.integers(-2, 2).map(float)  # many ties


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_input(data):
    rows, dims, n = (data.draw(st.integers(1, most)) for most in (60, 20, 5))
    elements = data.draw(st.sampled_from([finite, small_integers]))
    bank = data.draw(hnp.arrays(np.float32, (rows, dims), elements=elements))
    queries = data.draw(hnp.arrays(np.float32, (n, dims), elements=elements))
    for level in levels_here():
        with at_level(level):
            assert_exact(bank, queries, k=data.draw(st.integers(1, min(rows, 16))))


@pytest.mark.parametrize("n", [1023, 1024, 1025, 2047, 2048, 2049, 3136, 4097])
def test_batches_of_more_queries_than_a_block_takes(n):
    """Blocks are of 1,024 queries at most, and as many for one thread as for another."""
    rng = np.random.default_rng(n)
    bank, queries = rng.normal(size=(40, 8)), rng.normal(size=(n, 8))
    bank, queries = bank.astype(np.float32), queries.astype(np.float32)
    expected = nearest(queries, bank, 3)
    with SearchIndex(bank) as index:
        for threads in (1, 2, 3, 5, 64):
            dist, row = index.query(queries, 3, threads=threads)
            np.testing.assert_array_equal(dist, expected[0])
            np.testing.assert_array_equal(row, expected[1])
        assert index.stats().queries == 5 * n


def test_results_do_not_depend_on_threads_or_batch():
    bank, queries = normal(22, 2000, 48), normal(23, 700, 48)
    with SearchIndex(bank, threads=1) as index:
        dist, row = index.query(queries, 3)
        for threads in (2, 3, 8):
            again_dist, again_row = index.query(queries, 3, threads=threads)
            assert np.array_equal(again_dist, dist)
            assert np.array_equal(again_row, row)
        for batch in (1, 7, 100):
            parts = [index.query(queries[i : i + batch], 3) for i in range(0, 700, batch)]
            assert np.array_equal(np.concatenate([part[0] for part in parts]), dist)
            assert np.array_equal(np.concatenate([part[1] for part in parts]), row)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_is_named(bad):
    bank, queries = normal(24, 2000, 30), normal(25, 20, 30)
    with SearchIndex(bank) as index:
        queries[13, 29] = bad
        with pytest.raises(NotFiniteError, match="query 13 holds NaN or Inf"):
            index.query(queries)
    bank[[1500, 1999], 7] = bad
    with pytest.raises(NotFiniteError, match="bank row 1500 holds NaN or Inf"):
        SearchIndex(bank, threads=2)


def test_values_that_overflow_float32_are_refused():
    with pytest.raises(NotFiniteError, match="bank row 1"):
        SearchIndex(np.array([[1.0], [1e39]]))


def test_other_dtypes_are_converted():
    bank = np.arange(12).reshape(4, 3)
    with SearchIndex(bank) as index:
        dist, row = index.query(bank.astype(float)[:, ::-1], 2)
    expected = nearest(bank[:, ::-1].astype(np.float32), bank.astype(np.float32), 2)
    assert np.array_equal(dist, expected[0])
    assert np.array_equal(row, expected[1])


@pytest.mark.parametrize(
    "call",
    [
        lambda index: index.query(np.zeros((2, 3)), 5),  # more than rows
        lambda index: index.query(np.zeros((2, 3)), 0),
        lambda index: index.query(np.zeros((2, 4))),
        lambda index: index.query(np.zeros(3)),
        lambda index: index.query(np.zeros((2, 3), complex)),
        lambda index: index.query(np.zeros((2, 3)), threads=0),
        lambda index: index.query_maps(
            [np.zeros((1, 2, 2, 2), np.float32)], grid=(2, 2), resampling="bilinear"
        ),
        lambda index: SearchIndex(np.zeros((0, 3))),
        lambda index: SearchIndex(np.zeros((3, 0))),
        lambda index: SearchIndex(np.zeros((3, 3)), threads=0),
        lambda index: (index.close(), index.close(), index.query(np.zeros((2, 3)))),
    ],
)
def test_wrong_arguments(call):
    with SearchIndex(np.eye(4, 3)) as index, pytest.raises(InvalidArgumentError):
        call(index)


def test_k_above_16_is_refused():
    with SearchIndex(np.zeros((40, 3))) as index, pytest.raises(InvalidArgumentError, match="16"):
        index.query(np.zeros((2, 3)), 17)


def test_no_queries():
    with SearchIndex(np.eye(4, 3)) as index:
        dist, row = index.query(np.zeros((0, 3)), 2)
    assert dist.shape == row.shape == (0, 2)


def test_default_threads_are_those_of_the_process():
    index = SearchIndex(np.eye(3))
    assert index._threads == len(os.sched_getaffinity(0))
