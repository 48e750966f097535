"""From a board's pixels to tile scores on the GPU, batch by batch, on one stream.

All but the network is here::

    pixels -> cut -> [network] -> resample -> search -> peaks -> copy to the host

Nothing of it waits: the host gives batch after batch to the stream, and :meth:`Batches.read` waits
for the answer of one. Memory is used again by the next batch, in the order of the stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kad_kernels._cuda import address, cuda, elapsed_ms, stream_pointer, view
from kad_kernels.device import ceil_div, require_gpu
from kad_kernels.nearest import NearestRows, open_rows
from kad_kernels.reference_tiles import axis_taps, scale, value_table, weighted
from kad_kernels.stages import (
    ALL_FINITE,
    CUT_BLOCK,
    PEAKS_BLOCK,
    RESAMPLE_BLOCK,
    RESAMPLE_SQUARE,
    cut,
    peaks,
    resample,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kad_kernels.upload import Pixels

__all__ = ["STAGES", "Batches", "Found", "Ticket"]

STAGES = ("cut", "network", "features", "search", "scores", "copy")


@dataclass(frozen=True)
class Found:
    """What was found on n tiles of P patches.

    Attributes
    ----------
    scores : (n,) float32
    dist, rows : (n, P) float32, int64
        Each patch's distance to its nearest bank row, and that row.
    bad : (n,) int32
        The first patch that has NaN or Inf; 2^31 - 1 where none has.
    stages_ms : dict
        Of STAGES, on the GPU.
    """

    scores: NDArray[np.float32]
    dist: NDArray[np.float32]
    rows: NDArray[np.int64]
    bad: NDArray[np.int32]
    stages_ms: dict[str, float]


@dataclass(frozen=True)
class Ticket:
    """A batch that was given to the stream: its first tile of a run, tiles, events of stages."""

    first: int
    n: int
    events: list[Any]


class Batches:
    """A bank and the memory of a batch on one GPU; for one thread at a time.

    Parameters
    ----------
    bank : (M, D) float32
        The memory bank.
    layers : sequence of (channels, height, width)
        The network's base maps.
    grid : (height, width)
        Of patches; P = height * width.
    resampling : str
        ``"bilinear"`` or ``"adaptive-average"``.
    neighbors : (M, K) int64 or None
        Each bank row's nearest other rows; None without re-weighting.
    n_neighbors : int
        How many of them count.
    reweighting : str
        ``"none"``, ``"thesis"`` or ``"paper"``.
    tile : int
        Px.
    mean, std : sequence of float
        Of the normalisation, RGB, in units of full scale.
    batch : int
        Most tiles at a time.
    device_id : int
    tier : str
        Of the search; see :func:`kad_kernels.nearest.open_rows`.

    Attributes
    ----------
    tiles : (B, 3, t, t) float32, on the GPU
        What the network reads.
    stream : Any
        Of all work.
    pointer : int
        Its handle, for other libraries.

    Raises
    ------
    ValueError
        The bank is no finite matrix, its dimension is not that of the layers, or a neighbour is no
        row of it.
    GpuMissingError
        There is no GPU.
    """

    def __init__(
        self,
        bank: NDArray[np.float32],
        *,
        layers: Sequence[tuple[int, int, int]],
        grid: tuple[int, int],
        resampling: str,
        neighbors: NDArray[np.int64] | None,
        n_neighbors: int,
        reweighting: str,
        tile: int,
        mean: Sequence[float],
        std: Sequence[float],
        batch: int,
        device_id: int = 0,
        tier: str = "auto",
    ) -> None:
        self.device_id, self.batch, self.layers = device_id, batch, tuple(layers)
        self.patches, self.dims = grid[0] * grid[1], sum(layer[0] for layer in layers)
        if bank.shape[1] != self.dims:
            raise ValueError(f"the layers have {self.dims} channels, the bank {bank.shape[1]}")
        around = _around(neighbors, n_neighbors, reweighting, len(bank))
        self._own = int(reweighting == "paper")
        self._n_away = n_neighbors + self._own if reweighting != "none" else 0
        self._weighs, self._scale = reweighting != "none", scale(reweighting, self.dims)
        require_gpu(device_id)
        with self.on_device():
            self.index: NearestRows = open_rows(bank, tier)
            self.stream = cuda.stream()
            self.pointer = stream_pointer(self.stream)
            self.tiles = cuda.device_array((batch, 3, tile, tile), np.float32)
            self._table = cuda.to_device(value_table(mean, std))
            self._taps = [_taps(resampling, layer, grid) for layer in layers]
            self._orders: dict[tuple[int, int, int], Any] = {}
            self._around = cuda.to_device(around)
            self._features = cuda.device_array((batch * self.patches, self.dims), np.float32)
            self._score = cuda.device_array(batch, np.float32)
            self._away = cuda.device_array((batch, max(1, self._n_away)), np.float32)
            self._bad = cuda.device_array(batch, np.int32)
            self._all_finite = cuda.to_device(np.full(batch, ALL_FINITE, np.int32))
        self._xy: Any = None
        self._host: _HostRows | None = None

    def on_device(self) -> Any:
        """Give a context in which this GPU is the current one."""
        return cuda.gpus[self.device_id]

    @staticmethod
    def address(array: Any) -> int:
        """Give the address of an array on the GPU, for other libraries."""
        return address(array)

    def empty_maps(self) -> list[Any]:
        """Make memory on the GPU for the base maps of a batch, (B, C, h, w) for each layer."""
        with self.on_device():
            return [cuda.device_array((self.batch, *layer), np.float32) for layer in self.layers]

    def begin(self, n_tiles: int, xy: NDArray[np.int32] | None = None) -> None:
        """Begin a run of so many tiles; with their corners (n, 2) where they are cut from pixels.

        What was found before may not be read any more.
        """
        if self._host is None or self._host.room < n_tiles:
            self._host = _HostRows(n_tiles, self.patches, self._away.shape[1])
        if xy is not None:
            self._xy = cuda.to_device(np.ascontiguousarray(xy), stream=self.stream)

    def cut(self, pixels: Pixels, order: tuple[int, int, int], first: int, n: int) -> Ticket:
        """Cut tiles ``first`` to ``first + n`` of the run into :attr:`tiles`.

        ``order`` says which of a pixel's samples are red, green and blue.
        """
        if order not in self._orders:
            self._orders[order] = cuda.to_device(np.array(order, np.int32))
        ticket = self._ticket(first, n)
        side = self.tiles.shape[3]
        grid = ceil_div(side * side, CUT_BLOCK), n
        cut[grid, CUT_BLOCK, self.stream](
            *(pixels.values, pixels.row_bytes, pixels.samples, self._orders[order]),
            *(self._table, self._xy, first, self.tiles),
        )
        self._mark(ticket)
        return ticket

    def put(self, tiles: NDArray[np.float32], first: int) -> Ticket:
        """Bring normalised tiles (n, 3, t, t) from the host into :attr:`tiles`."""
        ticket = self._ticket(first, len(tiles))
        tiles = np.ascontiguousarray(tiles, np.float32)
        self.tiles[: len(tiles)].copy_to_device(tiles, stream=self.stream)
        self._mark(ticket)
        return ticket

    def score(self, ticket: Ticket, maps: Sequence[Any]) -> None:
        """Score a batch from its base maps on the GPU, (at least n, C, h, w) for each layer."""
        self._mark(ticket)  # the network has been given to the stream
        n = ticket.n
        self._bad.copy_to_device(self._all_finite, stream=self.stream)
        first_channel = 0
        for layer, taps in zip(maps, self._taps, strict=True):
            channels = layer.shape[1]
            grid = (
                ceil_div(self.patches, RESAMPLE_SQUARE),
                ceil_div(channels, RESAMPLE_SQUARE),
                n,
            )
            resample[grid, RESAMPLE_BLOCK, self.stream](
                view(layer), *taps, first_channel, self._features, self._bad
            )
            first_channel += channels
        self._mark(ticket)
        whole = n == self.batch
        features = self._features if whole else self._features[: n * self.patches]
        dist, rows = self.index.query_device(features, 1, stream=self.stream)
        self._mark(ticket)
        peaks[n, PEAKS_BLOCK, self.stream](
            *(self.patches, dist, rows, features, self.index.rows, self._around),
            *(self._own, self._n_away, self._score, self._away),
        )
        self._mark(ticket)
        self._need_host().copy(ticket, self.patches, self.stream, dist, rows)
        self._need_host().copy_tiles(ticket, self.stream, self._score, self._away, self._bad)
        self._mark(ticket)

    def read(self, ticket: Ticket) -> Found:
        """Wait for a batch, and give what was found."""
        ticket.events[-1].synchronize()
        host, tiles = self._need_host(), slice(ticket.first, ticket.first + ticket.n)
        patches = slice(tiles.start * self.patches, tiles.stop * self.patches)
        shape = ticket.n, self.patches
        scores = np.array(host.score[tiles])
        if self._weighs:
            scores = weighted(scores, host.away[tiles], self._scale)
        times = zip(STAGES, ticket.events, ticket.events[1:], strict=False)
        return Found(
            scores,
            np.array(host.dist[patches]).reshape(shape),
            host.rows[patches].astype(np.int64).reshape(shape),
            np.array(host.bad[tiles]),
            {stage: elapsed_ms(begin, end) for stage, begin, end in times},
        )

    def wait(self) -> None:
        """Wait for all that was given to the stream."""
        self.stream.synchronize()

    def _ticket(self, first: int, n: int) -> Ticket:
        ticket = Ticket(first, n, [])
        self._mark(ticket)
        return ticket

    def _mark(self, ticket: Ticket) -> None:
        event = cuda.event()
        event.record(self.stream)
        ticket.events.append(event)

    def _need_host(self) -> _HostRows:
        if self._host is None:
            raise RuntimeError("a run has not begun: call begin() first")
        return self._host


class _HostRows:
    """Pinned memory of the host for what is found on a run's tiles."""

    def __init__(self, room: int, patches: int, away: int) -> None:
        self.room = room
        self.dist = cuda.pinned_array((room * patches, 1), np.float32)
        self.rows = cuda.pinned_array((room * patches, 1), np.int32)
        self.score = cuda.pinned_array(room, np.float32)
        self.away = cuda.pinned_array((room, away), np.float32)
        self.bad = cuda.pinned_array(room, np.int32)

    def copy(self, ticket: Ticket, patches: int, stream: Any, dist: Any, rows: Any) -> None:
        """Copy distances and rows (n P, 1)."""
        here = slice(ticket.first * patches, (ticket.first + ticket.n) * patches)
        dist.copy_to_host(self.dist[here], stream=stream)
        rows.copy_to_host(self.rows[here], stream=stream)

    def copy_tiles(self, ticket: Ticket, stream: Any, score: Any, away: Any, bad: Any) -> None:
        """Copy what there is of each tile, of a memory that may be longer."""
        here = slice(ticket.first, ticket.first + ticket.n)
        for values, host in ((score, self.score), (away, self.away), (bad, self.bad)):
            values[: ticket.n].copy_to_host(host[here], stream=stream)


def _around(
    neighbors: NDArray[np.int64] | None, n: int, reweighting: str, rows: int
) -> NDArray[np.int32]:
    """Give the neighbours that count, (M, n) int32; one that is not read without re-weighting."""
    if reweighting == "none":
        return np.zeros((1, 1), np.int32)
    if neighbors is None or not 1 <= n <= neighbors.shape[1]:
        columns = 0 if neighbors is None else neighbors.shape[1]
        raise ValueError(f"n_neighbors must be 1 to {columns}, got {n}")
    used = neighbors[:, :n]
    if len(used) != rows or used.min() < 0 or used.max() >= rows:
        raise ValueError(f"neighbors must be rows 0 to {rows - 1} for each of {rows} rows")
    return np.ascontiguousarray(used, np.int32)


def _taps(resampling: str, layer: tuple[int, int, int], grid: tuple[int, int]) -> tuple[Any, ...]:
    """Bring the taps of both axes to the GPU."""
    axes = [axis_taps(resampling, n, g) for n, g in zip(layer[1:], grid, strict=True)]
    return tuple(
        cuda.to_device(np.ascontiguousarray(values))
        for axis in axes
        for values in (axis.first, axis.count, axis.weight)
    )
