"""What building a bank takes: memory, disk and time, known and checked before it starts."""

from __future__ import annotations

import math
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from kad_export.coreset import CHUNK_ROWS, default_pool_rows, projected_dims
from kad_export.errors import ExportError, MemoryBudgetError
from kad_export.report import format_bytes, format_seconds, peak_memory_bytes
from kad_sdk._native import NativeIndex

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kad_export.features import BoardTiles, PatchExtractor

__all__ = ["BankSettings", "Plan", "Probe", "check_disk", "make_plan", "probe", "scratch_folder"]

PROBE_BATCHES = 2  # timed before the start
RESERVE_BYTES = 256 << 20  # for the parity gate, which runs in PyTorch, and for fragmentation


@dataclass(frozen=True)
class BankSettings:
    """How large the bank may be, and what building it may take.

    Attributes
    ----------
    scratch : Path
        An existing folder for one temporary file, where memory is too small.
    fraction, max_rows
        The bank keeps this share of the patches, and at most so many.
    eps, seed
        Of the random projection.
    memory_bytes, threads
        Budget of the whole process; threads of the native stages.
    """

    scratch: Path
    fraction: float = 0.01
    max_rows: int = 10_000
    eps: float = 0.9
    seed: int = 0
    memory_bytes: int = 4 * 2**30
    threads: int = 1

    def rows(self, candidates: int) -> int:
        """Bank rows for ``candidates`` patches: the fraction, at least 1, at most ``max_rows``."""
        return min(max(1, round(self.fraction * candidates)), self.max_rows)


@dataclass(frozen=True)
class Probe:
    """What a few batches, run and timed before the start, tell about the rest."""

    dims: int
    resident_bytes: int
    seconds_per_board: float
    seconds_per_tile: float
    seconds_per_pair: float  # of a point and a centre, for each dimension


@dataclass(frozen=True)
class Plan:
    """What building the bank will take; made before anything of size is started."""

    candidates: int
    rows: int
    dims: int
    projected_dims: int
    memory_bytes: int
    disk_bytes: int  # 0: the projected features stay in memory
    seconds: float

    def __str__(self) -> str:
        disk = f", {format_bytes(self.disk_bytes)} of disk" if self.disk_bytes else ""
        return (
            f"bank: {self.rows:,} of {self.candidates:,} patches, {self.dims} channels "
            f"({self.projected_dims} projected); needs about {format_bytes(self.memory_bytes)} of "
            f"memory{disk}, {format_seconds(self.seconds)}"
        )


def probe(boards: Sequence[BoardTiles], extract: PatchExtractor) -> Probe:
    """Time reading a board, a few batches of tiles, and a piece of the selection."""
    start = time.perf_counter()
    image = extract.load(boards[0].sample)
    seconds_per_board = time.perf_counter() - start
    xy = boards[0].xy[np.arange(extract.batch * PROBE_BATCHES) % len(boards[0].xy)]
    for features in extract(image, xy[: extract.batch]):  # the first batch also sets up buffers
        dims = features.shape[2]
    start = time.perf_counter()
    for features in extract(image, xy):
        points = features.reshape(-1, dims)
    seconds_per_tile = (time.perf_counter() - start) / len(xy)
    start = time.perf_counter()
    index = NativeIndex(points[:256], threads=extract.threads)
    index.query(points[:4096], 1, threads=extract.threads)
    index.close()
    pairs = min(256, len(points)) * min(4096, len(points)) * dims
    return Probe(
        dims=dims,
        resident_bytes=peak_memory_bytes(),
        seconds_per_board=seconds_per_board,
        seconds_per_tile=seconds_per_tile,
        seconds_per_pair=(time.perf_counter() - start) / pairs,
    )


def make_plan(
    boards: Sequence[BoardTiles], patches: int, measured: Probe, settings: BankSettings
) -> Plan:
    """Needed memory, disk and time; the projected features go to disk when memory is too small.

    Raises
    ------
    MemoryBudgetError
        The memory budget is too small even so.
    """
    tiles = sum(len(board.xy) for board in boards)
    candidates = tiles * patches
    rows = settings.rows(candidates)
    dims = projected_dims(candidates, measured.dims, settings.eps)
    stored = 4 * candidates * dims
    working = measured.resident_bytes + _working_bytes(
        boards, candidates, rows, dims, measured.dims
    )
    if working > settings.memory_bytes:
        enough = math.ceil(10 * working / 2**30) / 10
        raise MemoryBudgetError(
            f"the memory budget of {format_bytes(settings.memory_bytes)} cannot hold the work, "
            f"which needs {format_bytes(working)}: {format_bytes(measured.resident_bytes)} for the "
            "libraries, the network and a batch of tiles, the rest for boards and the selection. "
            f"Raise --memory to {enough:g}GB, or lower --batch or --max-bank"
        )
    fits = working + stored <= settings.memory_bytes
    again = tiles * -math.expm1(-rows / tiles)  # tiles that hold a selected row, computed twice
    seconds = (
        2 * len(boards) * measured.seconds_per_board
        + (tiles + again) * measured.seconds_per_tile
        + (candidates + 10 * default_pool_rows(candidates))
        * rows
        * dims
        * measured.seconds_per_pair
    )
    return Plan(
        candidates=candidates,
        rows=rows,
        dims=measured.dims,
        projected_dims=dims,
        memory_bytes=working + stored if fits else working,
        disk_bytes=0 if fits else stored,
        seconds=seconds,
    )


def _working_bytes(
    boards: Sequence[BoardTiles], candidates: int, rows: int, projected: int, dims: int
) -> int:
    """Memory that grows with the data: board and map, bounds, pool, a chunk, the bank."""
    board = max(board.height * board.width for board in boards) * 24  # image twice, maps in float32
    bounds = candidates * 12  # bound, its copy when a pool is drawn, masks
    selection = 4 * projected * (2 * default_pool_rows(candidates) + 3 * CHUNK_ROWS)
    return int(RESERVE_BYTES + board + bounds + max(selection, 3 * 4 * rows * dims))


def check_disk(plan: Plan, folder: Path) -> None:
    """Compare what the plan needs on disk with what is free.

    Raises
    ------
    MemoryBudgetError
        The disk is too small.
    """
    free = shutil.disk_usage(folder).free
    if plan.disk_bytes > free:
        raise MemoryBudgetError(
            f"the projected features need {format_bytes(plan.disk_bytes)} of disk, and "
            f"{folder.parent} has {format_bytes(free)} free: name another folder with --scratch, "
            "raise --memory, or raise --train-stride"
        )


@contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """Yield a temporary folder that is gone afterwards, also on failure and Ctrl-C."""
    try:
        folder = TemporaryDirectory(prefix="kad-export-", dir=parent)
    except OSError as error:
        raise ExportError(
            f"no scratch folder can be made in {parent or 'the system folder for temporary files'} "
            f"({error.strerror}): name a writable folder with --scratch"
        ) from error
    with folder as path:
        yield Path(path)
