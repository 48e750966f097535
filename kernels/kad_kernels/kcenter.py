"""Greedy k-center on the GPU, portable tier: the flush, and greedy selection in a pool.

The flush compares many points with many centres; each point keeps its least distance so far and the
number of the centre that it is from. It is the search of the points among the centres, with lists
of one neighbour (:func:`kad_kernels.tiles.nearest_tiles`).

In the pool every step has two launches: `lower` compares all points with the centre chosen last,
and leaves the farthest point of each block; `choose` takes the farthest of these. Nothing comes
back to the host until all steps are done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kad_kernels._cuda import LANES, add, cuda, root, step
from kad_kernels.device import DeviceRows, ceil_div, enter, require_gpu
from kad_kernels.reference import checked
from kad_kernels.tiles import NOBODY, TILE

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Pool", "Running", "choose", "lower"]

BLOCK = 128  # points of a block in `lower`, threads of the one in `choose`
NO_CENTRE, STOPPED = np.int32(-1), np.int32(-2)
TAKEN = np.float32(-1)  # distance of a chosen point: it is never chosen again
NOWHERE = 2**63 - 1


@cuda.jit(device=True, inline="always")
def _farther(dist, row, than_dist, than_row):
    return dist > than_dist or (dist == than_dist and row < than_row)


@cuda.jit(device=True, inline="always")
def _farthest(dists, rows, thread):
    """Bring the farthest of a block's entries in shared memory to place 0."""
    half = BLOCK // 2
    while half > 0:
        cuda.syncthreads()
        if thread < half and _farther(
            dists[thread + half], rows[thread + half], dists[thread], rows[thread]
        ):
            dists[thread] = dists[thread + half]
            rows[thread] = rows[thread + half]
        half //= 2
    cuda.syncthreads()


@cuda.jit(device=True, inline="always")
def _distance(points, a, b, sums):
    """Distance of two points in the defined arithmetic; `sums` is a thread's 16 registers."""
    for lane in range(LANES):
        sums[lane] = np.float32(0)
    for first in range(0, points.shape[0], LANES):
        for lane in range(LANES):
            sums[lane] = step(sums[lane], points[first + lane, a], points[first + lane, b])
    for lane in range(8):
        sums[lane] = add(sums[lane], sums[lane + 8])
    for lane in range(4):
        sums[lane] = add(sums[lane], sums[lane + 4])
    for lane in range(2):
        sums[lane] = add(sums[lane], sums[lane + 2])
    return root(add(sums[0], sums[1]))


@cuda.jit
def lower(points, n, chosen, dist, far_dist, far_row):
    """Lower all distances to those from the centre chosen last; find each block's farthest point.

    Parameters
    ----------
    points : (16 G, P) float32
        Turned over, dimensions beyond D zero.
    n : int
        Of P points so many are there.
    chosen : (1,) int32
        The centre, or NO_CENTRE: distances stay; or STOPPED: nothing is done.
    dist : (n,) float32
        Changed in place; negative for chosen points.
    far_dist, far_row : (blocks,) float32, int32
        The farthest point of each block, ties to the lowest row.
    """
    dists = cuda.shared.array(BLOCK, np.float32)
    rows = cuda.shared.array(BLOCK, np.int32)
    sums = cuda.local.array(LANES, np.float32)
    thread, point = cuda.threadIdx.x, cuda.grid(1)
    centre = chosen[0]
    if centre == STOPPED:
        return
    mine = TAKEN
    if point < n:
        mine = dist[point]
        if centre == point:
            mine = TAKEN
            dist[point] = mine
        elif centre >= 0 and mine > 0:
            found = _distance(points, centre, point, sums)
            if found < mine:
                mine = found
                dist[point] = mine
    dists[thread] = mine
    rows[thread] = np.int32(point) if point < n else NOBODY
    _farthest(dists, rows, thread)
    if thread == 0:
        far_dist[cuda.blockIdx.x] = dists[0]
        far_row[cuda.blockIdx.x] = rows[0]


@cuda.jit
def choose(far_dist, far_row, outside_dist, outside_row, chosen, at, pick_row, pick_dist):
    """Take the farthest of all blocks' points as centre number `at`, unless one outside precedes.

    Parameters
    ----------
    far_dist, far_row : (blocks,) float32, int32
        As `lower` leaves them.
    outside_dist, outside_row : float32, int32
        The first point that is not in the pool.
    chosen : (1,) int32
        Becomes the centre, or STOPPED.
    at : int
        Place in the following.
    pick_row, pick_dist : (steps,) int32, float32
        What is chosen, and its distance; STOPPED for the row where nothing is.
    """
    dists = cuda.shared.array(BLOCK, np.float32)
    rows = cuda.shared.array(BLOCK, np.int32)
    thread = cuda.threadIdx.x
    dists[thread] = TAKEN
    rows[thread] = NOBODY
    for block in range(thread, far_dist.shape[0], BLOCK):
        if _farther(far_dist[block], far_row[block], dists[thread], rows[thread]):
            dists[thread] = far_dist[block]
            rows[thread] = far_row[block]
    _farthest(dists, rows, thread)
    if thread == 0:
        going = chosen[0] != STOPPED and dists[0] >= 0
        if going and _farther(dists[0], rows[0], outside_dist, outside_row):
            chosen[0] = rows[0]
            pick_row[at] = rows[0]
            pick_dist[at] = dists[0]
        else:
            chosen[0] = STOPPED
            pick_row[at] = STOPPED


class Running:
    """Points on the GPU, each with its least distance so far and the centre that it is from.

    Parameters
    ----------
    points : DeviceRows
        n of them.
    dist : (n,) float32, optional
        To begin with; infinite where not given.
    """

    def __init__(self, points: DeviceRows, dist: NDArray[np.float32] | None = None) -> None:
        self._points = points
        n = self._points.n
        start = np.full(n, np.inf, np.float32) if dist is None else np.asarray(dist, np.float32)
        self._dist = cuda.to_device(np.ascontiguousarray(start).reshape(1, n, 1))
        self._index = cuda.to_device(np.full((1, n, 1), NOBODY, np.int32))

    def flush(self, centres: DeviceRows, first_centre: int = 0) -> None:
        """Compare all points with centres, numbered from ``first_centre``.

        Only a smaller distance replaces one that is there, so the number is that of the first
        centre at the least distance when centres come by rising numbers.
        """
        enter(self._points, centres, first_centre, self._dist, self._index)

    def read(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Least distances (n,), and the numbers (n,) of their centres, 2^31 - 1 where none."""
        dist, index = self._dist.copy_to_host(), self._index.copy_to_host()
        return dist[0, :, 0], index[0, :, 0].astype(np.int64)


class Pool:
    """Greedy selection among points on the GPU.

    Parameters
    ----------
    points : (n, D) float32
        Finite.
    dist : (n,) float32
        Distance of each to its nearest centre so far; negative for a centre.
    """

    def __init__(self, points: NDArray[np.float32], dist: NDArray[np.float32]) -> None:
        require_gpu()
        points = checked(points, "points")
        self._n, dims = points.shape
        turned = np.zeros((ceil_div(dims, LANES) * LANES, ceil_div(self._n, TILE) * TILE), "f4")
        turned[:dims, : self._n] = points.T
        self._points, self._dist = cuda.to_device(turned), cuda.to_device(np.array(dist, "f4"))
        self._blocks = ceil_div(self._n, BLOCK)
        self._far_dist = cuda.device_array(self._blocks, np.float32)
        self._far_row = cuda.device_array(self._blocks, np.int32)
        self._last = NO_CENTRE
        self.pairs = 0  # of a point and a centre, compared so far

    def pick(
        self, wanted: int, *, outside_dist: float = -np.inf, outside_row: int = NOWHERE
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Choose up to ``wanted`` more points: always the farthest, ties to the lowest row.

        Parameters
        ----------
        wanted : int
        outside_dist, outside_row : float, int
            The selection stops where the next point would not be farther than this, or as far and
            from this row on.

        Returns
        -------
        rows : (m,) int64
            m below ``wanted`` when it stopped.
        dist : (m,) float32
            Each one's distance from those chosen before it.
        """
        chosen = cuda.to_device(np.array([self._last], np.int32))
        rows = cuda.to_device(np.full(wanted, STOPPED, np.int32))
        dist = cuda.device_array(wanted, np.float32)
        outside = np.float32(outside_dist), np.int32(min(outside_row, int(NOBODY)))
        for at in range(wanted):
            lower[self._blocks, BLOCK](
                self._points, self._n, chosen, self._dist, self._far_dist, self._far_row
            )
            choose[1, BLOCK](self._far_dist, self._far_row, *outside, chosen, at, rows, dist)
        found = rows.copy_to_host()
        count = int(np.count_nonzero(found >= 0))
        self.pairs += self._n * count
        if count:
            self._last = found[count - 1]
        return found[:count].astype(np.int64), dist.copy_to_host()[:count]

    def measured(self) -> int:
        """Pairs of a point and a centre measured so far: every one."""
        return self.pairs

    def close(self) -> None:
        """Free the memory on the GPU."""
        del self._points, self._dist, self._far_dist, self._far_row
