"""Banks large enough for the sieve: the same bits, whatever the data do to its bounds."""

import numpy as np
import pytest
from kad_kernels.reference import nearest
from search_oracle import at_level, levels_here

from kad_sdk.search import SearchIndex

ROWS = 1100  # a little more than the least number, and no multiple of a panel


def curved(seed, n, dims, intrinsic=6):
    """Points near a curved surface of few dimensions, as features of images are."""
    rng = np.random.default_rng(seed)
    bend = np.random.default_rng(99).normal(size=(intrinsic, dims))
    points = rng.normal(size=(n, intrinsic)) @ bend
    return (np.tanh(points) + 0.05 * rng.normal(size=(n, dims))).astype(np.float32)


def assert_exact(bank, queries, k=1, threads=1):
    with SearchIndex(bank, threads=threads) as index:
        dist, row = index.query(queries, k)
    expected_dist, expected_row = nearest(queries, bank, k)
    np.testing.assert_array_equal(row, expected_row)
    np.testing.assert_array_equal(dist.view(np.int32), expected_dist.view(np.int32))


@pytest.mark.parametrize("dims", [63, 64, 65, 95, 97, 144, 160, 255, 384])
def test_dims(level, dims):
    assert_exact(curved(dims, ROWS, dims), curved(dims + 1, 30, dims), k=2)


@pytest.mark.parametrize("rows", [1023, 1024, 1025, 1152, 2000])
def test_rows(level, rows):
    assert_exact(curved(1, rows, 80), curved(2, 30, 80), k=3)


def test_a_bank_of_many_groups():
    bank, queries = curved(1, 60_000, 64), curved(2, 9, 64)
    assert_exact(bank, queries, k=2, threads=2)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 65, 130])
@pytest.mark.parametrize("k", [1, 3, 16])
def test_batches(level, n, k):
    assert_exact(curved(3, ROWS, 96), curved(4, n, 96), k=k)


@pytest.mark.parametrize("spread", [0.0, 1e-3, 0.3, 3.0])
def test_neighbouring_queries(level, spread):
    # Queries that drift, as neighbouring patches do, give each other their first limits.
    rng = np.random.default_rng(5)
    drift = np.cumsum(rng.normal(size=(200, 96)), axis=0) * spread
    bank = curved(6, ROWS, 96)
    assert_exact(bank, (bank[7] + drift).astype(np.float32), k=2)


def test_uniform_random(level):
    rng = np.random.default_rng(7)
    assert_exact(rng.random((ROWS, 128), np.float32), rng.random((40, 128), np.float32), k=3)


def test_query_equal_to_a_row(level):
    bank = curved(8, ROWS, 96)
    with SearchIndex(bank) as index:
        dist, row = index.query(bank[::-1][:300])
    assert not dist.any()
    assert row[:, 0].tolist() == list(range(ROWS))[::-1][:300]


def test_duplicates(level):
    bank = np.repeat(curved(9, 60, 70), 20, axis=0)[np.random.default_rng(0).permutation(1200)]
    assert_exact(bank, np.concatenate([bank[:20], curved(10, 20, 70)]), k=16)


def test_all_rows_equal(level):
    bank = np.full((ROWS, 64), 0.7, np.float32)
    with SearchIndex(bank) as index:
        _, row = index.query(curved(11, 9, 64), 5)
    assert (row == np.arange(5)).all()


def test_near_ties_one_ulp_apart(level):
    rng = np.random.default_rng(12)
    bank = np.repeat(curved(13, 4, 96), 300, axis=0)
    places = rng.integers(0, 96, (len(bank), 3))
    values = np.take_along_axis(bank, places, axis=1)
    toward = rng.choice(np.float32([-9, 9]), values.shape)
    np.put_along_axis(bank, places, np.nextafter(values, toward), axis=1)
    assert_exact(bank, np.concatenate([bank[::100], curved(14, 20, 96)]), k=16)


@pytest.mark.parametrize("factor", [1e2, 1e5, 1e12, 1e17, 1e30])
def test_one_far_outlier(level, factor):
    bank = curved(15, ROWS, 80)
    bank[321] *= np.float32(factor)
    queries = np.concatenate([curved(16, 20, 80), bank[321:322]])
    queries[3] *= np.float32(factor)
    assert_exact(bank, queries, k=2)


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-30, 1e-18, 1e-12, 1e12, 1e16, 1e19, 1e37])
def test_extreme_scales(level, scale):
    bank, queries = curved(17, ROWS, 70), curved(18, 20, 70)
    assert_exact((bank * scale).astype(np.float32), (queries * scale).astype(np.float32), k=2)


def test_every_scale_at_once(level):
    scale = 10.0 ** np.random.default_rng(19).uniform(-14, 14, size=(ROWS, 1))
    bank = (curved(20, ROWS, 64) * scale).astype(np.float32)
    assert_exact(bank, bank[::50] * np.float32(0.999), k=16)


@pytest.mark.parametrize("offset", [1e2, 1e5])
def test_far_from_the_origin(level, offset):
    bank, queries = curved(21, ROWS, 70), curved(22, 20, 70)
    assert_exact(bank + np.float32(offset), queries + np.float32(offset), k=2)


def test_bank_of_low_rank(level):
    rng = np.random.default_rng(23)
    basis = rng.normal(size=(3, 90)).astype(np.float32)
    bank = rng.normal(size=(ROWS, 3)).astype(np.float32) @ basis
    queries = rng.normal(size=(20, 3)).astype(np.float32) @ basis
    assert_exact(bank, np.concatenate([queries, queries + 0.1]), k=3)


def test_dimensions_without_variance(level):
    bank, queries = curved(24, ROWS, 96), curved(25, 20, 96)
    bank[:, 5:80] = 2.5
    queries[:10, 5:80] = 2.5
    assert_exact(bank, queries, k=2)


def test_bank_far_from_the_queries(level):
    # Every bound is far from tight; nearly every row must be decided.
    bank = curved(26, ROWS, 96)
    assert_exact(bank, np.full((9, 96), 50, np.float32), k=3)


@pytest.mark.parametrize("seed", range(6))
def test_random_mixtures(seed):
    """Every level on a random recipe of clusters, duplicates, scales and offsets."""
    rng = np.random.default_rng(seed)
    dims, rows = int(rng.integers(64, 200)), int(rng.integers(1024, 1500))
    centres = curved(seed, 12, dims) * (10.0 ** rng.uniform(-3, 3, (12, 1)))
    noise = 10.0 ** rng.uniform(-7, 0, (rows, 1)) * rng.normal(size=(rows, dims))
    bank = (centres[rng.integers(0, 12, rows)] + noise + rng.choice([0.0, 30.0])).astype(np.float32)
    bank[rng.integers(0, rows, 100)] = bank[rng.integers(0, rows, 100)]
    drift = 10.0 ** rng.uniform(-7, 0, (150, 1)) * rng.normal(size=(150, dims))
    queries = (bank[rng.integers(0, rows, 150)] + drift).astype(np.float32)
    for level in levels_here():
        with at_level(level):
            assert_exact(bank, queries, k=int(rng.integers(1, 17)), threads=2)


def test_results_do_not_depend_on_threads_batch_or_order():
    bank, queries = curved(27, 3000, 96), curved(28, 700, 96)
    with SearchIndex(bank, threads=1) as index, SearchIndex(bank, threads=3) as other:
        dist, row = index.query(queries, 3)
        shuffle = np.random.default_rng(29).permutation(700)
        for again in (
            index.query(queries, 3, threads=2),
            other.query(queries, 3, threads=5),
            tuple(part[np.argsort(shuffle)] for part in index.query(queries[shuffle], 3)),
            tuple(
                np.concatenate(parts)
                for parts in zip(
                    *(index.query(queries[i : i + 90], 3) for i in range(0, 700, 90)), strict=True
                )
            ),
        ):
            assert np.array_equal(again[0], dist)
            assert np.array_equal(again[1], row)
