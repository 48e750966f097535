"""Kernels from a board to patch features, and from patch distances to tile scores.

`cut`, then the network, `resample` for each of its base maps, the search, `peaks`. Every kernel
takes whole batches, and reads and writes rows that lie side by side with threads side by side.
"""

from __future__ import annotations

import math

import numpy as np

from kad_kernels._cuda import LANES, add, cuda, mul, root, step

__all__ = [
    "ALL_FINITE",
    "CUT_BLOCK",
    "PEAKS_BLOCK",
    "RESAMPLE_BLOCK",
    "RESAMPLE_SQUARE",
    "cut",
    "peaks",
    "resample",
]

CUT_BLOCK = 256  # pixels
RESAMPLE_SQUARE = 32  # patches and channels that a block turns over
RESAMPLE_PADDED = RESAMPLE_SQUARE + 1
RESAMPLE_BLOCK = (RESAMPLE_SQUARE, 8)
PEAKS_BLOCK = 128
ROWS_AT_ONCE = PEAKS_BLOCK // LANES  # rows that `peaks` measures side by side
ALL_FINITE = np.int32(2**31 - 1)  # a tile's first patch with NaN or Inf, where there is none
LOWEST = np.float32(-1)


@cuda.jit
def cut(image, row_bytes, samples, order, table, xy, first, out):
    """Cut tiles out of a board and normalise them.

    Parameters
    ----------
    image : (bytes,) uint8
    row_bytes, samples : int
        From a pixel to the one below it and beside it.
    order : (3,) int32
        Which of a pixel's samples are red, green and blue.
    table : (3, 256) float32
        Normalised values.
    xy : (n, 2) int32
        Corners of all tiles, px.
    first : int
        The one that ``out`` begins with; as many as the grid has in y.
    out : (B, 3, t, t) float32
    """
    pixel, tile = cuda.grid(1), cuda.blockIdx.y
    side = out.shape[3]
    if pixel >= side * side:
        return
    y, x = pixel // side, pixel % side
    at = (xy[first + tile, 1] + y) * row_bytes + (xy[first + tile, 0] + x) * samples
    for channel in range(3):
        out[tile, channel, y, x] = table[channel, image[at + order[channel]]]


@cuda.jit(device=True, inline="always")
def _sample(
    layer, tile, channel, y, x, rows, row_count, row_weight, columns, column_count, column_weight
):
    """One value of a layer at patch (y, x): products added one by one, each rounded."""
    total = np.float32(0)
    for i in range(row_count[y]):
        for j in range(column_count[x]):
            weight = mul(row_weight[y, i], column_weight[x, j])
            part = mul(weight, layer[tile, channel, rows[y] + i, columns[x] + j])
            total = part if i + j == 0 else add(total, part)
    return total


@cuda.jit
def resample(
    layer,
    rows,
    row_count,
    row_weight,
    columns,
    column_count,
    column_weight,
    first_channel,
    out,
    bad,
):
    """Bring a base map to the grid of patches, as columns of the patch features.

    Parameters
    ----------
    layer : (B, C, h, w) float32
    rows, row_count, row_weight : (gh,) int32, (gh,) int32, (gh, most) float32
        Taps; see :class:`kad_kernels.reference_tiles.Taps`.
    columns, column_count, column_weight
        The same for the other axis.
    first_channel : int
        Column of the layer's first channel.
    out : (B P, D) float32
        As many tiles as the grid has in z.
    bad : (B,) int32
        Lowered to the first patch of a tile that has NaN or Inf.
    """
    square = cuda.shared.array((RESAMPLE_SQUARE, RESAMPLE_PADDED), np.float32)
    thread, group, tile = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockIdx.z
    first_patch, channel_0 = (
        cuda.blockIdx.x * RESAMPLE_SQUARE,
        cuda.blockIdx.y * RESAMPLE_SQUARE,
    )
    width = columns.shape[0]
    patches, channels = rows.shape[0] * width, layer.shape[1]
    patch = first_patch + thread
    y, x = patch // width, patch % width
    for i in range(group, RESAMPLE_SQUARE, RESAMPLE_BLOCK[1]):
        if patch < patches and channel_0 + i < channels:
            value = _sample(
                layer,
                tile,
                channel_0 + i,
                y,
                x,
                rows,
                row_count,
                row_weight,
                columns,
                column_count,
                column_weight,
            )
            if not math.isfinite(value):
                cuda.atomic.min(bad, tile, np.int32(patch))
            square[i, thread] = value
    cuda.syncthreads()
    for i in range(group, RESAMPLE_SQUARE, RESAMPLE_BLOCK[1]):
        if first_patch + i < patches and channel_0 + thread < channels:
            row = np.int64(tile) * patches + first_patch + i
            out[row, first_channel + channel_0 + thread] = square[thread, i]


@cuda.jit
def peaks(patches, dist, index, features, bank, around, with_own, n_away, score, away):
    """Find each tile's largest patch distance, and measure that patch against rows of the bank.

    A block for each tile.

    Parameters
    ----------
    patches : int
        P, of a tile.
    dist, index : (B P, 1) float32, int32
        Of each patch to its nearest row, and that row.
    features : (B P, D) float32
    bank : (M, D) float32
    around : (M, K) int32
        Each row's neighbours.
    with_own : int
        1: the nearest row itself comes before its neighbours.
    n_away : int
        Rows to measure against, at most K + with_own.
    score : (B,) float32
        The largest distance, ties to the lowest patch.
    away : (B, at least n_away) float32
        Distances in the defined arithmetic. Nothing is written where the nearest row is none.
    """
    dists = cuda.shared.array(PEAKS_BLOCK, np.float32)
    places = cuda.shared.array(PEAKS_BLOCK, np.int32)
    thread, tile = cuda.threadIdx.x, np.int64(cuda.blockIdx.x)
    first = tile * patches
    dists[thread] = LOWEST
    places[thread] = np.int32(0)
    for patch in range(thread, patches, PEAKS_BLOCK):
        if dist[first + patch, 0] > dists[thread]:
            dists[thread] = dist[first + patch, 0]
            places[thread] = np.int32(patch)
    half = PEAKS_BLOCK // 2
    while half > 0:
        cuda.syncthreads()
        if thread < half and (
            dists[thread + half] > dists[thread]
            or (dists[thread + half] == dists[thread] and places[thread + half] < places[thread])
        ):
            dists[thread] = dists[thread + half]
            places[thread] = places[thread + half]
        half //= 2
    cuda.syncthreads()
    patch = first + places[0]
    if thread == 0:
        score[tile] = dists[0]
    nearest = index[patch, 0]
    if nearest < 0 or nearest >= bank.shape[0]:
        return
    group, lane = thread // LANES, thread % LANES
    for begin in range(0, n_away, ROWS_AT_ONCE):
        number = begin + group
        total = np.float32(0)
        if number < n_away:
            row = nearest
            if number >= with_own:
                row = around[nearest, number - with_own]
            for dim in range(lane, features.shape[1], LANES):
                total = step(total, features[patch, dim], bank[row, dim])
        cuda.syncthreads()
        dists[thread] = total
        half = LANES // 2
        while half > 0:
            cuda.syncthreads()
            if lane < half:
                dists[thread] = add(dists[thread], dists[thread + half])
            half //= 2
        if number < n_away and lane == 0:
            away[tile, number] = root(dists[thread])
