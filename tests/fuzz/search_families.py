"""Banks and queries that are hard on a search with bounds, each family for its own reason.

A family is a function of a random generator, the number of rows, of dimensions and of queries; it
returns a bank (M, D) and queries (n, D), float32 and finite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Data = tuple[NDArray[np.float32], NDArray[np.float32]]
    Family = Callable[[np.random.Generator, int, int, int], Data]

__all__ = ["FAMILIES", "curved"]

LARGEST = float(np.finfo(np.float32).max)


def _float32(*arrays: NDArray) -> Data:
    bank, queries = (np.clip(x, -LARGEST, LARGEST).astype(np.float32) for x in arrays)
    return bank, queries


def _surface(rng: np.random.Generator, n: int, bend: NDArray) -> NDArray:
    points = rng.normal(size=(n, len(bend))) @ bend
    return np.tanh(points) + 0.05 * rng.normal(size=points.shape)


def curved(rng: np.random.Generator, rows: int, dims: int, n: int) -> Data:
    """Points near a curved surface of few dimensions, as features of images are."""
    bend = rng.normal(size=(min(6, dims), dims))
    return _float32(_surface(rng, rows, bend), _surface(rng, n, bend))


def uniform(rng: np.random.Generator, rows: int, dims: int, n: int) -> Data:
    return rng.random((rows, dims), np.float32), rng.random((n, dims), np.float32)


def duplicates(rng: np.random.Generator, rows: int, dims: int, n: int) -> Data:
    """Every row many times, in any order: the lowest of the equal ones must be named."""
    bank, queries = curved(rng, max(1, rows // 20), dims, n)
    bank = bank[rng.integers(0, len(bank), rows)]
    queries[::2] = bank[rng.integers(0, rows, len(queries[::2]))]
    return bank, queries


def equal_rows(rng: np.random.Generator, rows: int, dims: int, n: int) -> Data:
    bank, queries = curved(rng, 1, dims, n)
    return np.repeat(bank, rows, axis=0), np.concatenate([bank, queries])[:n]


def outlier(rng: np.random.Generator, rows: int, dims: int, n: int) -> Data:
    """One row so far away that a scale which holds it is coarse for the others."""
    bank, queries = curved(rng, rows, dims, n)
    far = np.ones((rows, 1))
    far[rng.integers(rows)] = 10 ** rng.uniform(1, 30)
    bank, queries = bank * far, queries.astype(np.float64)
    queries[n // 2] *= far.max()
    queries[0] = bank[far.argmax()]
    return _float32(bank, queries)


def huge(rng: np.random.Generator, rows: int, dims: int, n: int) -> Data:
    """Squares, sums of squares, differences and distances that overflow float32."""
    return _scaled(rng, rows, dims, n, 10 ** rng.uniform(14, 38.6))


def tiny(rng: np.random.Generator, rows: int, dims: int, n: int) -> Data:
    """Values, or their squares, that are denormal or vanish."""
    return _scaled(rng, rows, dims, n, 10 ** rng.uniform(-45, -10))


def every_scale(rng: np.random.Generator, rows: int, dims: int, n: int) -> Data:
    low, high = sorted(rng.uniform(-45, 38, 2))
    bank, queries = curved(rng, rows, dims, n)
    return _float32(
        bank * 10.0 ** rng.uniform(low, high, (rows, 1)),
        queries * 10.0 ** rng.uniform(low, high, (n, 1)),
    )


def _scaled(rng: np.random.Generator, rows: int, dims: int, n: int, scale: float) -> Data:
    bank, queries = curved(rng, rows, dims, n)
    return _float32(bank * scale, queries * scale)


def queries_of_the_bank(rng: np.random.Generator, rows: int, dims: int, n: int) -> Data:
    bank, _ = curved(rng, rows, dims, n)
    return bank, bank[rng.integers(0, rows, n)]


def near_ties(rng: np.random.Generator, rows: int, dims: int, n: int) -> Data:
    """Rows that differ from one of a few in a few values, by one unit in the last place."""
    bank, queries = curved(rng, max(1, rows // 300), dims, n)
    bank = bank[rng.integers(0, len(bank), rows)]
    places = rng.integers(0, dims, (rows, 3))
    values = np.take_along_axis(bank, places, axis=1)
    toward = rng.choice(np.float32([-9, 9]), values.shape)
    np.put_along_axis(bank, places, np.nextafter(values, toward), axis=1)
    queries[::3] = bank[rng.integers(0, rows, len(queries[::3]))]
    return bank, queries


def shell(rng: np.random.Generator, rows: int, dims: int, n: int) -> Data:
    """Rows on a sphere around the first query, as round as float32 makes it: all nearly tie."""
    ways = rng.normal(size=(rows, dims))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    centre = rng.normal(size=dims) * 10.0 ** rng.uniform(-2, 2)
    drift = 10.0 ** rng.uniform(-8, 0, (n, 1)) * rng.normal(size=(n, dims))
    drift[0] = 0
    return _float32(centre + ways * 10.0 ** rng.uniform(-3, 1), centre + drift)


def lattice(rng: np.random.Generator, rows: int, dims: int, n: int) -> Data:
    """Small integers: exact arithmetic, many exact ties."""
    return _float32(rng.integers(-2, 3, (rows, dims)), rng.integers(-2, 3, (n, dims)))


def flat_dimensions(rng: np.random.Generator, rows: int, dims: int, n: int) -> Data:
    """Most dimensions have no variance in the bank; half of the queries leave its plane."""
    bank, queries = curved(rng, rows, dims, n)
    flat = rng.random(dims) < 0.8
    bank[:, flat] = 2.5
    queries[::2, flat] = 2.5
    return bank, queries


def low_rank(rng: np.random.Generator, rows: int, dims: int, n: int) -> Data:
    """Nothing is left beyond a few components, and the length of nothing is hard to bound."""
    basis = rng.normal(size=(int(rng.integers(1, 4)), dims))
    shift = rng.choice([0.0, 1e-6, 0.1, 10.0], (n, 1))
    bank, queries = (rng.normal(size=(count, len(basis))) @ basis for count in (rows, n))
    return _float32(bank, queries + shift * rng.normal(size=(n, dims)))


def far_from_the_origin(rng: np.random.Generator, rows: int, dims: int, n: int) -> Data:
    """Centring takes most of the digits."""
    bank, queries = curved(rng, rows, dims, n)
    offset = 10.0 ** rng.uniform(1, 7) * rng.normal(size=dims)
    return _float32(bank + offset, queries + offset)


def clusters(rng: np.random.Generator, rows: int, dims: int, n: int) -> Data:
    """Clusters of very different width, and queries that drift away from them."""
    centres = _surface(rng, 12, rng.normal(size=(min(6, dims), dims)))
    centres *= 10.0 ** rng.uniform(-3, 3, (12, 1))
    noise = 10.0 ** rng.uniform(-7, 0, (rows, 1)) * rng.normal(size=(rows, dims))
    bank = centres[rng.integers(0, 12, rows)] + noise
    drift = 10.0 ** rng.uniform(-7, 0, (n, 1)) * rng.normal(size=(n, dims))
    return _float32(bank, bank[rng.integers(0, rows, n)] + drift)


def drift(rng: np.random.Generator, rows: int, dims: int, n: int) -> Data:
    """Queries that resemble the one before, as neighbouring patches do."""
    bank, _ = curved(rng, rows, dims, n)
    steps = 10.0 ** rng.uniform(-5, 0) * rng.normal(size=(n, dims))
    return _float32(bank, bank[rng.integers(rows)] + np.cumsum(steps, axis=0))


def far_queries(rng: np.random.Generator, rows: int, dims: int, n: int) -> Data:
    """All rows lie the same way, far away: no bound is tight enough to leave much out."""
    bank, queries = curved(rng, rows, dims, n)
    return _float32(bank, queries * 0.01 + 10.0 ** rng.uniform(1, 4))


FAMILIES: dict[str, Family] = {
    family.__name__: family
    for family in (
        *(curved, uniform, duplicates, equal_rows, outlier, huge, tiny, every_scale),
        *(queries_of_the_bank, near_ties, shell, lattice, flat_dimensions, low_rank),
        *(far_from_the_origin, clusters, drift, far_queries),
    )
}
