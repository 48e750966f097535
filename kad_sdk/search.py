"""Exact nearest-neighbour search in a memory bank of patch features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kad_sdk._native import MapLayout, NativeIndex, default_threads
from kad_sdk.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from numpy.typing import ArrayLike, NDArray

__all__ = ["IndexInfo", "MapLayout", "SearchIndex", "SearchStats"]


@dataclass(frozen=True)
class IndexInfo:
    """What an index is.

    Attributes
    ----------
    rows, dims
        M and D.
    narrow_dims, wide_dims
        Leading principal components that its codes of 8 bits (at most) and of 16 bits hold. 0 for a
        bank on which codes would not pay: every query then takes the dense path.
    bytes
        Held beside the bank.
    """

    rows: int
    dims: int
    narrow_dims: int
    wide_dims: int
    bytes: int


@dataclass(frozen=True)
class SearchStats:
    """What an index has done since it was built, over all queries and threads.

    A pair is a query and a bank row. Each stage looks at the pairs that the one before has left:
    codes of 8 bits, codes of 16 bits, the float32 distance. Times are summed over threads.

    Attributes
    ----------
    queries
        All of them.
    dense_queries
        Those that took the dense path, where codes would not pay: float32 products with all rows,
        or, of a few queries, all distances.
    narrow_pairs, narrow_products
        Pairs compared by codes of 8 bits, and the multiplications in that.
    wide_pairs
        Pairs compared by codes of 16 bits: what the first codes left, and first guesses.
    decided_pairs
        Pairs whose float32 distance was taken.
    dense_pairs, dense_decided_pairs
        On the dense path: pairs compared, and those whose float32 distance was taken.
    prepare_ns, narrow_ns, wide_ns, decide_ns, dense_ns
        Time spent on projecting and encoding queries, then on each stage, then on the dense path.
    seed_products, seed_ns
        Multiplications of 8-bit codes to find first guesses, and the time that took.
    """

    queries: int
    dense_queries: int
    narrow_pairs: int
    narrow_products: int
    wide_pairs: int
    decided_pairs: int
    dense_pairs: int
    dense_decided_pairs: int
    prepare_ns: int
    narrow_ns: int
    wide_ns: int
    decide_ns: int
    dense_ns: int
    seed_products: int
    seed_ns: int


class SearchIndex:
    """Exact k-nearest-neighbour index over the rows of a bank, by Euclidean distance.

    The answer is that of the float32 direct difference ``sqrt(sum((q - m)**2))``, summed in a fixed
    order, ties to the lowest row. It is bitwise the same for every number of threads, batch size
    and processor; :func:`kad_kernels.reference.nearest` defines it in NumPy.

    Parameters
    ----------
    bank : array_like of shape (M, D)
        Converted to float32. A float32 array in C order is not copied and must not be changed while
        the index lives.
    layout : MapLayout, optional
        The base maps that the bank's features come from. Queries with such maps are then faster,
        other queries as fast as without.
    threads : int, optional
        Threads to build and to query with; by default one for each processor this process may use.

    Attributes
    ----------
    rows, dims : int
        M and D.

    Raises
    ------
    InvalidArgumentError
        The bank is not a two-dimensional array of real numbers with at least one row and column,
        the layout's channels do not add up to D, or `threads` is below 1.
    NotFiniteError
        The bank holds NaN or Inf; the text names the first such row.

    Examples
    --------
    >>> import numpy as np
    >>> from kad_sdk.search import SearchIndex
    >>> bank = np.array([[0, 0], [3, 4], [6, 8]], np.float32)
    >>> with SearchIndex(bank) as index:
    ...     dist, row = index.query([[3, 3]], k=2)
    >>> dist
    array([[1.       , 4.2426405]], dtype=float32)
    >>> row
    array([[1, 0]])
    """

    def __init__(
        self, bank: ArrayLike, *, layout: MapLayout | None = None, threads: int | None = None
    ) -> None:
        self._threads = default_threads() if threads is None else threads
        self._index = NativeIndex(_float32("bank", bank), layout=layout, threads=self._threads)
        self.rows: int = self._index.rows
        self.dims: int = self._index.dims

    def query(
        self, features: ArrayLike, k: int = 1, *, threads: int | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the k nearest rows of every feature, nearest first.

        Parameters
        ----------
        features : array_like of shape (n, D)
            Converted to float32.
        k : int
            1 to 16, and at most M.
        threads : int, optional
            Instead of the index's own number.

        Returns
        -------
        dist : ndarray of shape (n, k), float32
            Euclidean distances, in the features' unit.
        index : ndarray of shape (n, k), int64
            Bank rows.

        Raises
        ------
        InvalidArgumentError
            A wrong shape, dtype, `k` or `threads`.
        NotFiniteError
            A feature holds NaN or Inf; the text names the first one.
        """
        values = _float32("features", features)
        return self._index.query(values, k, threads=self._threads if threads is None else threads)

    def query_maps(
        self,
        maps: Sequence[NDArray[np.float32]],
        k: int = 1,
        *,
        grid: tuple[int, int],
        resampling: str,
        threads: int | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the k nearest rows of every patch feature of base maps.

        The same as :meth:`query` on the patch features, without storing those.

        Parameters
        ----------
        maps : sequence of ndarray of shape (B, C, h, w), float32
            One base map for each layer; the channels add up to D.
        k : int
            1 to 16, and at most M.
        grid : (height, width)
            The grid of patches, P = height * width.
        resampling : "bilinear", "adaptive-average" or "aligned-bilinear"
            How maps come to the grid: half-pixel centres; means over
            ``[floor(i*n/g), ceil((i+1)*n/g))``; half-pixel centres of cells that are 1, 2, 4 ...
            patches wide.
        threads : int, optional
            Instead of the index's own number.

        Returns
        -------
        dist : ndarray of shape (B, P, k), float32
        index : ndarray of shape (B, P, k), int64

        Raises
        ------
        InvalidArgumentError
            A wrong shape, dtype, `k`, `grid`, `resampling` or `threads`.
        NotFiniteError
            A patch feature holds NaN or Inf; the text names the tile and the patch.
        """
        return self._index.query_maps(
            maps,
            k,
            grid=grid,
            resampling=resampling,
            threads=self._threads if threads is None else threads,
        )

    def info(self) -> IndexInfo:
        """Tell what the index is: its shape, its codes, its bytes."""
        return IndexInfo(**self._index.info())

    def stats(self) -> SearchStats:
        """Tell what the index has done so far: pairs left by each stage, time spent in each."""
        return SearchStats(**self._index.stats())

    def close(self) -> None:
        """Free the index; it cannot be queried after. Closing twice does nothing."""
        self._index.close()

    def __enter__(self) -> SearchIndex:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _float32(name: str, values: ArrayLike) -> NDArray[np.float32]:
    array = np.asarray(values)
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise InvalidArgumentError(
            f"{name} must be a two-dimensional array of real numbers, got {array.dtype} of shape "
            f"{array.shape}"
        )
    with np.errstate(over="ignore"):  # what overflows is Inf, and refused as such
        return np.ascontiguousarray(array, dtype=np.float32)
