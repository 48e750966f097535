"""The reference defines the arithmetic, so it is held against float64 and hand-made cases."""

import numpy as np
import pytest
from kad_kernels.reference import distances, k_center, nearest


@pytest.mark.parametrize("dims", [1, 2, 15, 16, 17, 33, 97, 384])
def test_distances_agree_with_float64(dims):
    rng = np.random.default_rng(dims)
    queries = rng.normal(size=(5, dims)).astype(np.float32)
    bank = rng.normal(size=(7, dims)).astype(np.float32)
    exact = np.linalg.norm(queries[:, None].astype(float) - bank[None].astype(float), axis=2)
    np.testing.assert_allclose(distances(queries, bank), exact, rtol=1e-6)


def test_order_of_summation_is_the_defined_one():
    # Values whose sum depends on the order: one large square among tiny ones.
    query = np.zeros((1, 40), np.float32)
    row = np.full((1, 40), 2.0**-12, np.float32)
    row[0, 3] = 1.0
    sums = [np.float32(0)] * 16
    for i in range(40):
        difference = np.float32(query[0, i] - row[0, i])
        sums[i % 16] = np.float32(sums[i % 16] + np.float32(difference * difference))
    for half in (8, 4, 2, 1):
        sums = [np.float32(sums[j] + sums[j + half]) for j in range(half)]
    assert distances(query, row)[0, 0] == np.sqrt(sums[0])
    # The test could tell another order: the large square first swallows every tiny one.
    naive = np.float32(0)
    for i in np.argsort(-row[0], kind="stable"):
        naive = np.float32(naive + np.float32(row[0, i] * row[0, i]))
    assert naive != sums[0]


def test_ties_go_to_the_lowest_row():
    bank = np.array([[3, 0], [0, 1], [1, 0], [0, -1]], np.float32)
    dist, index = nearest(np.zeros((1, 2), np.float32), bank, 4)
    assert index.tolist() == [[1, 2, 3, 0]]
    assert dist.tolist() == [[1, 1, 1, 3]]


def test_overflow_is_infinite_and_ties():
    bank = np.array([[3e38], [-3e38], [0]], np.float32)
    dist, index = nearest(np.array([[-3e38]], np.float32), bank, 3)
    assert dist.tolist() == [[0.0, np.inf, np.inf]]
    assert index.tolist() == [[1, 0, 2]]


def test_k_center_on_a_line():
    points = np.array([[0], [1], [10], [4], [5]], np.float32)
    index, radius = k_center(points, 3)
    assert index.tolist() == [0, 2, 4]  # 5 is at 5 from both ends, 4 only at 4
    assert radius == 1.0


def test_k_center_ties_and_repeats():
    index, radius = k_center(np.array([[0], [2], [-2], [2]], np.float32), 4)
    assert index.tolist() == [0, 1, 2, 3]
    assert radius == 0.0


def test_k_center_starts_where_it_is_told():
    index, _ = k_center(np.arange(5, dtype=np.float32)[:, None], 2, start=4)
    assert index.tolist() == [4, 0]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda a: nearest(a, a, 0), "k must be 1 to"),
        (lambda a: nearest(a, a, 4), "k must be 1 to"),
        (lambda a: nearest(a[:, :1], a), "dimensions"),
        (lambda a: nearest(a[0], a), r"shape \(n, D\)"),
        (lambda a: nearest(a, np.where(a == 4, np.nan, a)), "bank row 2"),
        (lambda a: k_center(a, 4), "n must be 1 to"),
        (lambda a: k_center(a, 1, start=3), "start must be"),
    ],
)
def test_wrong_arguments(call, match):
    with pytest.raises(ValueError, match=match):
        call(np.arange(6, dtype=np.float32).reshape(3, 2))
