"""Flush and selection of the core are the reference's, at every level, whatever the directions."""

from __future__ import annotations

import numpy as np
import pytest
from kad_kernels.reference import distances, k_center

from kad_sdk._native import (
    NativeKCenter,
    PrincipalDirections,
    lower_distances,
    spread_rows,
)
from kad_sdk.errors import InvalidArgumentError, NotFiniteError


def _normal(rng, n, dims):
    """A few directions hold most of the variance, as in features."""
    return rng.normal(size=(n, dims)) * np.geomspace(4, 0.02, dims)


FAMILIES = {
    "features": _normal,
    "isotropic": lambda rng, n, dims: rng.normal(size=(n, dims)),
    "uniform": lambda rng, n, dims: rng.random((n, dims)),
    "far from the origin": lambda rng, n, dims: _normal(rng, n, dims) + 3e4,
    "many ties": lambda rng, n, dims: np.round(_normal(rng, n, dims)),
    "copies": lambda rng, n, dims: _normal(rng, 40, dims)[rng.integers(0, 40, n)],
    "all the same": lambda rng, n, dims: np.full((n, dims), 0.1),
    "tiny": lambda rng, n, dims: 1e-22 * _normal(rng, n, dims),
    "near to underflow": lambda rng, n, dims: 1e-38 * _normal(rng, n, dims),
    "near to overflow": lambda rng, n, dims: 1e19 * _normal(rng, n, dims),
    "one huge": lambda rng, n, dims: _normal(rng, n, dims) + 1e30 * (np.arange(n) == 7)[:, None],
    "clusters": lambda rng, n, dims: (
        100 * rng.normal(size=(5, dims))[rng.integers(0, 5, n)] + 1e-3 * rng.normal(size=(n, dims))
    ),
    "one dimension": lambda rng, n, dims: rng.normal(size=(n, 1)) * (np.arange(dims) == dims // 2),
}


def _points(family: str, n: int, dims: int) -> np.ndarray:
    rng = np.random.default_rng([n, dims])
    return FAMILIES[family](rng, n, dims).astype(np.float32)


def _flushed(points, centres, before, **settings):
    dist = before.copy()
    lower_distances(points, centres, dist, **settings)
    return dist


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dims", [1, 17, 33, 97])
def test_flush_gives_the_reference_distances(family, dims):
    points, centres = _points(family, 300, dims), _points(family, 61, dims)
    nearest = distances(points, centres).min(axis=1)
    for directions in (None, PrincipalDirections(points)):
        for before in (np.full(300, np.inf, np.float32), nearest * np.float32(0.9)):
            for threads in (1, 2):
                dist = _flushed(points, centres, before, directions=directions, threads=threads)
                np.testing.assert_array_equal(dist, np.minimum(before, nearest))


def test_directions_are_used_where_they_pay():
    assert [len(PrincipalDirections(_points("features", 500, d)).rows) for d in (8, 97)] == [0, 31]
    assert len(PrincipalDirections(_points("isotropic", 500, 97)).rows) == 0


@pytest.mark.usefixtures("level")
def test_screening_leaves_few_pairs():
    points, centres = _points("features", 4_000, 97), _points("features", 100, 97)
    directions = PrincipalDirections(points)
    dist = np.full(len(points), np.inf, np.float32)
    lower_distances(points, centres, dist, directions=directions)
    again = lower_distances(points, centres[::-1].copy(), dist, directions=directions)
    assert again < 0.1 * len(points) * len(centres)


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("skipped", [0, 3, 600])
def test_selection_is_that_of_the_reference(family, skipped):
    points = _points(family, 1_500, 65)
    expected, radius = k_center(points, 90, 0, skipped)
    dist = distances(points[:1], points)[0]
    dist[0] = -1
    selection = NativeKCenter(
        points, dist, directions=PrincipalDirections(points), skipped=skipped, threads=2
    )
    rows, found = zip(*(selection.pick(wanted) for wanted in (1, 0, 50, 39)), strict=True)

    np.testing.assert_array_equal(np.concatenate(rows)[:89], expected[1:])
    assert np.concatenate(found)[89] == radius
    stats = selection.stats()
    assert stats["inner_pairs"] > 0
    assert stats["decided_pairs"] <= stats["screened_pairs"]
    selection.close()
    with pytest.raises(InvalidArgumentError, match="closed"):
        selection.pick(1)


def test_every_point_can_be_picked():
    points = _points("many ties", 700, 3)
    selection = NativeKCenter(
        points, np.full(700, np.inf, np.float32), directions=PrincipalDirections(points)
    )
    rows, _ = selection.pick(1_000)
    np.testing.assert_array_equal(rows, k_center(points, 700)[0])


def test_wrong_arguments():
    points, dist = np.zeros((4, 3), np.float32), np.zeros(4, np.float32)
    directions = PrincipalDirections(points)
    with pytest.raises(InvalidArgumentError, match="3 dimensions, the directions 2"):
        lower_distances(points, points, dist, directions=PrincipalDirections(points[:, :2].copy()))
    with pytest.raises(InvalidArgumentError, match="C-contiguous"):
        lower_distances(points, points, np.zeros(8, np.float32)[::2])
    with pytest.raises(InvalidArgumentError, match="n_skipped at least 0"):
        NativeKCenter(points, dist, directions=directions, skipped=-1)
    with pytest.raises(NotFiniteError, match="centre 2"):
        lower_distances(points, np.where(np.arange(4)[:, None] == 2, np.nan, points), dist)


def test_sample_rows_are_spread_evenly():
    assert spread_rows(3).tolist() == [0, 1, 2]
    rows = spread_rows(10_000)
    assert len(rows) == 2_048
    assert rows[[0, -1]].tolist() == [0, 9_999]
