"""Kernel of all distances between two sets of rows, and what it keeps of them.

A block compares 64 queries with 64 bank rows at a time. Each of its 256 threads owns 4 x 4 pairs,
whose running sums stay in registers::

                 bank rows  0..3  4..7  ...  60..63
    queries  0..3           t0    t16   ...  t240
             4..7           t1    t17   ...  t241
             ...
            60..63          t15   t31   ...  t255

The defined arithmetic has 16 partial sums for every pair, too many to hold. So the dimensions are
taken lane by lane: all of lane 0 (0, 16, 32, ...), all of lane 8, of 4, of 12, of 2, ... In this
order, that of reversed bits, the tree of the 16 sums can be added up as its leaves come in, with at
most one sum of each height waiting: a binary counter. :func:`arrange` stores rows this way.

Distances of a tile then go to shared memory, where one thread for each query enters them into the
query's list of the k nearest.
"""

from __future__ import annotations

import numpy as np

from kad_kernels._cuda import LANES, add, cuda, root, step

__all__ = [
    "ARRANGE_BLOCK",
    "MAX_NEIGHBOURS",
    "MERGE_BLOCK",
    "NEAREST_BLOCK",
    "NOBODY",
    "SQUARE",
    "TILE",
    "arrange",
    "clear",
    "merge",
    "nearest_tiles",
]

TILE = 64  # queries, and bank rows, of a tile
EACH = 4  # of either that a thread owns
SIDE = TILE // EACH
PAIRS = EACH * EACH
STAGE = 8  # dimensions that are in shared memory at a time
STAGED = STAGE * TILE
PADDED = TILE + 1  # so that a column of distances lies in all banks
FOUND = TILE * PADDED
HEIGHTS = 2  # of the tree of 16 sums that are kept in registers
MAX_NEIGHBOURS = 16
LISTED = MAX_NEIGHBOURS * TILE
NOBODY = np.int32(2**31 - 1)  # row of an empty place in a list
INFINITE = np.float32(np.inf)
THREADS = np.uint64(SIDE * SIDE)
DIMS_AT_ONCE = np.uint64(SIDE * SIDE // TILE)
ROW = np.uint64(TILE)
COLUMN = np.uint64(PADDED)
NEAREST_BLOCK = (SIDE, SIDE)
SQUARE = 32  # rows and dimensions that a block of `arrange` turns over
SQUARE_PADDED = SQUARE + 1
ARRANGE_BLOCK = (SQUARE, 8)
MERGE_BLOCK = 128


@cuda.jit
def arrange(rows, out):
    """Turn rows over, lane by lane in the order of reversed bits.

    Parameters
    ----------
    rows : (n, D) float32
    out : (16 G, n) float32
        G = ceil(D / 16). Dimension ``j + 16 g`` becomes row ``reversed(j) * G + g``; those beyond D
        become zeros.
    """
    square = cuda.shared.array((SQUARE, SQUARE_PADDED), np.float32)
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    row, dim = cuda.blockIdx.x * SQUARE, cuda.blockIdx.y * SQUARE
    for i in range(y, SQUARE, ARRANGE_BLOCK[1]):
        inside = row + i < rows.shape[0] and dim + x < rows.shape[1]
        square[i, x] = rows[row + i, dim + x] if inside else np.float32(0)
    cuda.syncthreads()
    groups = out.shape[0] // LANES
    for i in range(y, SQUARE, ARRANGE_BLOCK[1]):
        if dim + i < out.shape[0] and row + x < out.shape[1]:
            lane, group = (dim + i) % LANES, (dim + i) // LANES
            bits = (lane & 1) << 3 | (lane & 2) << 1 | (lane & 4) >> 1 | (lane & 8) >> 3
            out[bits * groups + group, row + x] = square[x, i]


@cuda.jit(device=True, inline="always")
def _load(tile, values, first_dim, first_row, thread):
    """Bring 16 dimensions of 64 rows into shared memory."""
    dim, row = np.uint64(first_dim) + thread // ROW, np.uint64(first_row) + thread % ROW
    at = thread
    while at < STAGED:
        tile[at] = values[dim, row]
        at += THREADS
        dim += DIMS_AT_ONCE


@cuda.jit(device=True, inline="always")
def _compare(sums, query_tile, bank_tile, query_at, bank_at):
    """Add one dimension to the sums of this thread's pairs.

    Unsigned indices: a signed one is looked at for being negative at every access.
    """
    for i in range(EACH):
        for j in range(EACH):
            sums[i * EACH + j] = step(
                sums[i * EACH + j],
                query_tile[query_at + np.uint64(SIDE * i)],
                bank_tile[bank_at + np.uint64(SIDE * j)],
            )


@cuda.jit(device=True, inline="always")
def _wait(sums, waiting, height):
    for pair in range(PAIRS):
        waiting[height, pair] = sums[pair]
        sums[pair] = np.float32(0)


@cuda.jit(device=True, inline="always")
def _meet(sums, waiting, height):
    for pair in range(PAIRS):
        sums[pair] = add(waiting[height, pair], sums[pair])


@cuda.jit(device=True, inline="always")
def _wait_aside(sums, shared, mine):
    for i in range(EACH):
        for j in range(EACH):
            shared[mine + np.uint64(PADDED * SIDE * i + SIDE * j)] = sums[i * EACH + j]
            sums[i * EACH + j] = np.float32(0)


@cuda.jit(device=True, inline="always")
def _meet_aside(sums, shared, mine):
    for i in range(EACH):
        for j in range(EACH):
            waiting = shared[mine + np.uint64(PADDED * SIDE * i + SIDE * j)]
            sums[i * EACH + j] = add(waiting, sums[i * EACH + j])


@cuda.jit(device=True, inline="always")
def _carry(sums, waiting, quarters, found, mine, done):
    """Enter the sums of the lane that is `done`, counted from 1, into the tree of lanes.

    As when 1 is added to a binary number: a sum meets the one of its height that waits, and goes
    up, until a height is free. After the last lane `sums` is the root. The heights are written out
    because registers cannot be indexed at run time; the highest, where a sum waits for half of the
    lanes, lies where the tile's distances will be.
    """
    if done & 1:
        _wait(sums, waiting, 0)
        return
    _meet(sums, waiting, 0)
    if done & 2:
        _wait(sums, waiting, 1)
        return
    _meet(sums, waiting, 1)
    if done & 4:
        _wait_aside(sums, quarters, mine)
        return
    _meet_aside(sums, quarters, mine)
    if done & 8:
        _wait_aside(sums, found, mine)
        return
    _meet_aside(sums, found, mine)


@cuda.jit(device=True, inline="always")
def _enter(dist, row, list_dist, list_row, last):
    """Insert a row into a list whose last place is `last`, which ascends by distance, then row."""
    at = last
    while dist < list_dist[at] or (dist == list_dist[at] and row < list_row[at]):
        if at < last:
            list_dist[at + ROW] = list_dist[at]
            list_row[at + ROW] = list_row[at]
        list_dist[at] = dist
        list_row[at] = row
        if at < ROW:
            break
        at -= ROW


@cuda.jit
def nearest_tiles(queries, bank, n_rows, first_row, tiles_each, dist, index):
    """Keep the k nearest rows of every query.

    Parameters
    ----------
    queries : (16 G, n) float32
        Arranged.
    bank : (16 G, M) float32
        Arranged.
    first_row : int
        Added to a bank row's number.
    tiles_each : int
        Tiles of 64 bank rows for each block in y.
    dist, index : (splits, n, k) float32, int32
        One list for each block in y and each query, k at most 16. The lists are entered into, so
        an empty one holds infinities and NOBODY; what is there stays if it is nearer.
    """
    query_tile = cuda.shared.array(STAGED, np.float32)
    bank_tile = cuda.shared.array(STAGED, np.float32)
    found = cuda.shared.array(FOUND, np.float32)
    quarters = cuda.shared.array(FOUND, np.float32)
    list_dist = cuda.shared.array(LISTED, np.float32)
    list_row = cuda.shared.array(LISTED, np.int32)
    sums = cuda.local.array(PAIRS, np.float32)
    waiting = cuda.local.array((HEIGHTS, PAIRS), np.float32)

    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    my_query, my_bank = np.uint64(x), np.uint64(y)
    my_pair = np.uint64(PADDED * x + y)
    thread = np.uint64(x + SIDE * y)
    split, first_query = np.uint64(cuda.blockIdx.y), np.uint64(cuda.blockIdx.x * TILE)
    k, groups = dist.shape[2], queries.shape[0] // LANES
    query = first_query + thread
    listed = thread < TILE and query < dist.shape[1]  # this thread keeps that query's list
    if listed:
        for i in range(k):
            list_dist[np.uint64(i * TILE) + thread] = dist[split, query, i]
            list_row[np.uint64(i * TILE) + thread] = index[split, query, i]

    first = cuda.blockIdx.y * tiles_each * TILE
    last = min(n_rows, first + tiles_each * TILE)
    for first_bank in range(first, last, TILE):
        for pair in range(PAIRS):
            sums[pair] = np.float32(0)
        left, lane = groups, 0
        for first_dim in range(0, LANES * groups, STAGE):
            _load(query_tile, queries, first_dim, first_query, thread)
            _load(bank_tile, bank, first_dim, first_bank, thread)
            cuda.syncthreads()
            dim = 0
            while dim < STAGE:
                run = min(left, STAGE - dim)  # dimensions of this stage that are of this lane
                at = np.uint64(dim * TILE)
                end = np.uint64((dim + run) * TILE)
                while at < end:
                    _compare(sums, query_tile, bank_tile, at + my_query, at + my_bank)
                    at += ROW
                dim += run
                left -= run
                if left == 0:
                    left, lane = groups, lane + 1
                    _carry(sums, waiting, quarters, found, my_pair, lane)
            cuda.syncthreads()
        for i in range(EACH):
            for j in range(EACH):
                found[my_pair + np.uint64(PADDED * SIDE * i + SIDE * j)] = root(sums[i * EACH + j])
        cuda.syncthreads()
        if listed:
            end = np.uint64((k - 1) * TILE) + thread
            for j in range(min(TILE, last - first_bank)):
                row = np.int32(first_row + first_bank + j)
                _enter(found[thread * COLUMN + np.uint64(j)], row, list_dist, list_row, end)

    if listed:
        for i in range(k):
            dist[split, query, i] = list_dist[np.uint64(i * TILE) + thread]
            index[split, query, i] = list_row[np.uint64(i * TILE) + thread]


@cuda.jit
def clear(dist, index):
    """Empty all lists (splits, n, k): a thread for each split and query."""
    at = cuda.grid(1)
    if at >= dist.shape[0] * dist.shape[1]:
        return
    split, query = at // dist.shape[1], at % dist.shape[1]
    for i in range(dist.shape[2]):
        dist[split, query, i] = INFINITE
        index[split, query, i] = NOBODY


@cuda.jit
def merge(dist, index):
    """Enter the lists of all splits into the first one.

    Parameters
    ----------
    dist, index : (splits, n, k) float32, int32
        As :func:`nearest_tiles` leaves them.
    """
    query = cuda.grid(1)
    if query >= dist.shape[1]:
        return
    k = dist.shape[2]
    for split in range(1, dist.shape[0]):
        for i in range(k):
            near, row = dist[split, query, i], index[split, query, i]
            at = k
            while at > 0 and (
                near < dist[0, query, at - 1]
                or (near == dist[0, query, at - 1] and row < index[0, query, at - 1])
            ):
                if at < k:
                    dist[0, query, at] = dist[0, query, at - 1]
                    index[0, query, at] = index[0, query, at - 1]
                at -= 1
                dist[0, query, at] = near
                index[0, query, at] = row
