"""What building a bank takes: memory, disk and time, known and checked before it starts."""

from __future__ import annotations

import errno
import math
import os
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from kad_export.coreset import CHUNK_ROWS, default_pool_rows, projected_dims
from kad_export.coreset.workers import PointsWorker
from kad_export.errors import ExportError, MemoryBudgetError
from kad_export.report import format_bytes, format_seconds, resident_memory_bytes
from kad_export.shards import POINT_TYPES
from kad_sdk._native import PrincipalDirections
from kad_sdk.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kad_export.features import BoardTiles, PatchExtractor

__all__ = [
    "BankSettings",
    "Plan",
    "Probe",
    "affordable_pool",
    "check_disk",
    "make_plan",
    "no_scratch_folder",
    "probe",
    "scratch_folder",
]

PROBE_BATCHES = 2  # timed before the start
PROBE_ROWS, PROBE_CENTRES = 8_192, 256
STATE_BYTES = 16  # of a point: distance, centres compared with, and masks while a pool is drawn
POOL_BYTES = 48  # of a point in a pool, beside itself and its sketch
SKETCH_DIMS = 96  # of points that few directions tell apart; else a sketch is as long as a point
RESERVE_BYTES = 256 << 20  # for the parity gate, which runs in PyTorch, and for fragmentation


@dataclass(frozen=True)
class BankSettings:
    """How large the bank may be, and what building it may take.

    Attributes
    ----------
    scratch : Path
        An existing folder for the projected features, where memory is too small.
    fraction, max_rows
        The bank keeps this share of the patches, and at most so many.
    eps, seed
        Of the random projection.
    trim_outliers : int
        In every step of the selection so many of the farthest patches are passed over.
    points : str
        How projected features are stored, and with what they are selected: ``"float32"`` or
        ``"float16"``.
    memory_bytes, threads
        Budget of the whole process; threads of the native stages.
    before : int
        Rows of a bank that is extended, which count among neither of the two.
    projected_dims : int or None
        Of that bank; None: of the formula for `eps`.
    engine : str
        ``"local"``, or ``"ray"``: workers on a Ray cluster, whose machines share ``scratch``.
    workers : int or None
        How many; None: as many as the cluster has processors for.
    """

    scratch: Path
    fraction: float = 0.01
    max_rows: int = 10_000
    eps: float | None = 0.9
    seed: int = 0
    trim_outliers: int = 0
    points: str = "float32"
    memory_bytes: int = 4 * 2**30
    threads: int = 1
    before: int = 0
    projected_dims: int | None = None
    engine: str = "local"
    workers: int | None = None

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

    tiles: int
    candidates: int
    rows: int
    dims: int
    projected_dims: int
    points: str
    pool_rows: int  # beside outliers; as many as candidates: the selection has all in memory
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


def probe(boards: Sequence[BoardTiles], extract: PatchExtractor, memory_bytes: int) -> Probe:
    """Time reading a board, a few batches of tiles, and a piece of the selection.

    Raises
    ------
    MemoryBudgetError
        The pixels of a batch alone are more than `memory_bytes`; nothing was computed.
    """
    _check_batch(extract, memory_bytes)
    start = time.perf_counter()
    image = extract.load(boards[0].sample)
    seconds_per_board = time.perf_counter() - start
    extract.set_up(image)
    xy = boards[0].xy[np.arange(extract.batch * PROBE_BATCHES) % len(boards[0].xy)]
    for features in extract(image, xy[: extract.batch]):  # the first batch also sets up buffers
        dims = features.shape[2]
    start = time.perf_counter()
    for features in extract(image, xy):
        points = features.reshape(-1, dims)
    seconds_per_tile = (time.perf_counter() - start) / len(xy)
    points = np.resize(points, (PROBE_ROWS, dims))
    worker = PointsWorker(points, pool_rows=1, threads=extract.threads)
    for first in (0, PROBE_CENTRES):  # the first flush also finds the principal directions
        rows = np.arange(first, first + PROBE_CENTRES)
        start = time.perf_counter()
        worker.flush(rows, points[rows], -np.inf)
    pairs = PROBE_ROWS * PROBE_CENTRES * dims
    return Probe(
        dims=dims,
        resident_bytes=resident_memory_bytes(),
        seconds_per_board=seconds_per_board,
        seconds_per_tile=seconds_per_tile,
        seconds_per_pair=(time.perf_counter() - start) / pairs,
    )


def make_plan(
    boards: Sequence[BoardTiles],
    patches: int,
    measured: Probe,
    settings: BankSettings,
    *,
    on_disk: bool = False,
) -> Plan:
    """Needed memory, disk and time; the projected features go to disk when memory is too small.

    Parameters
    ----------
    boards : sequence of BoardTiles
    patches : int
        Of a tile.
    measured : Probe
    settings : BankSettings
    on_disk : bool
        They go to disk in any case, to be found there again.

    Raises
    ------
    MemoryBudgetError
        The memory budget is too small even so.
    InvalidArgumentError
        More outliers are to be trimmed than there are patches beside the bank.
    """
    tiles = sum(len(board.xy) for board in boards)
    candidates = tiles * patches
    rows = settings.rows(candidates)
    _check(settings, candidates, rows)
    dims = settings.projected_dims or projected_dims(candidates, measured.dims, settings.eps)
    all_rows = settings.before + rows
    fixed = measured.resident_bytes + _fixed_bytes(boards, all_rows, dims, measured.dims)
    pool, outliers = default_pool_rows(candidates), settings.trim_outliers
    whole = fixed + candidates * (4 * dims + STATE_BYTES + _in_pool(SKETCH_DIMS))
    whole += outliers * _in_pool(2 * dims)
    sharded = fixed + candidates * STATE_BYTES + (pool + outliers) * _in_pool(3 * dims)
    fits = whole <= settings.memory_bytes and settings.engine == "local"
    _check_memory(whole if fits else sharded, measured, settings)
    again = tiles * -math.expm1(-rows / tiles)  # tiles that hold a selected row, computed twice
    seconds = (
        2 * len(boards) * measured.seconds_per_board
        + (tiles + again) * measured.seconds_per_tile
        + candidates * all_rows * dims * measured.seconds_per_pair
    )
    stored = np.dtype(settings.points).itemsize * candidates * dims
    return Plan(
        tiles=tiles,
        candidates=candidates,
        rows=rows,
        dims=measured.dims,
        projected_dims=dims,
        points=settings.points,
        pool_rows=candidates if fits else pool,
        memory_bytes=whole if fits else sharded,
        disk_bytes=0 if fits and not on_disk else stored,
        seconds=seconds,
    )


def affordable_pool(points: np.ndarray) -> int:
    """Rows of the pool, of points (n, d) in memory, for which the plan has room.

    All of them, if their sketches are short. Otherwise so many that copies of them and sketches as
    long as they are take no more than that.
    """
    n_rows, dims = points.shape
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and Inf are refused by the selection
        if PrincipalDirections(points).sketch_dims <= SKETCH_DIMS:
            return n_rows
    return min(n_rows, max(1, n_rows * _in_pool(SKETCH_DIMS) // _in_pool(2 * dims)))


def _in_pool(dims: int) -> int:
    """Bytes of a point in a pool that takes so many numbers."""
    return 4 * dims + POOL_BYTES


def _check(settings: BankSettings, candidates: int, rows: int) -> None:
    if settings.points not in POINT_TYPES:
        raise InvalidArgumentError(
            f"points must be one of {', '.join(POINT_TYPES)}, got {settings.points!r}"
        )
    if settings.trim_outliers > candidates - rows:
        raise InvalidArgumentError(
            f"--trim-outliers {settings.trim_outliers} leaves too few of the {candidates:,} "
            f"patches for a bank of {rows:,} rows: at most {candidates - rows:,} can be left out"
        )


def _check_batch(extract: PatchExtractor, memory_bytes: int) -> None:
    if extract.batch_bytes > memory_bytes:
        raise MemoryBudgetError(
            f"the memory budget of {format_bytes(memory_bytes)} cannot hold a batch of "
            f"{extract.batch:,} tiles, whose pixels alone need "
            f"{format_bytes(extract.batch_bytes)}: lower --batch, or raise --memory"
        )


def _check_memory(needed: int, measured: Probe, settings: BankSettings) -> None:
    if needed > settings.memory_bytes:
        enough = math.ceil(10 * needed / 2**30) / 10
        raise MemoryBudgetError(
            f"the memory budget of {format_bytes(settings.memory_bytes)} cannot hold the work, "
            f"which needs {format_bytes(needed)}: {format_bytes(measured.resident_bytes)} for the "
            "libraries, the network and a batch of tiles, the rest for boards and the selection. "
            f"Raise --memory to {enough:g}GB, or lower --batch or "
            f"{'--max-rows' if settings.before else '--max-bank'}"
        )


def _fixed_bytes(boards: Sequence[BoardTiles], rows: int, projected: int, dims: int) -> int:
    """Memory that does not grow with the patches: board and map, chunks, centres, the bank."""
    board = max(board.height * board.width for board in boards) * 24  # image twice, maps in float32
    selection = 4 * projected * (4 * CHUNK_ROWS + 3 * rows)
    return int(RESERVE_BYTES + board + max(selection, 3 * 4 * rows * dims))


def check_disk(plan: Plan, settings: BankSettings, there: int = 0) -> None:
    """Compare what the plan needs on disk, less what is there already, with what is free.

    Raises
    ------
    MemoryBudgetError
        The disk is too small.
    """
    free = shutil.disk_usage(settings.scratch).free
    needed = plan.disk_bytes + 2 * 8 * plan.candidates - there  # and a worker's state, old and new
    if needed > free:
        here = settings.scratch.parent
        less = "store them with --points float16, or raise --train-stride"
        if settings.before:
            less = "or add fewer boards at a time"
        raise MemoryBudgetError(
            f"the projected features need {format_bytes(needed)} of disk, and {here} has "
            f"{format_bytes(free)} free: name another folder with --scratch, raise --memory, {less}"
        )


@contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """Yield a temporary folder that is gone afterwards, also on failure and Ctrl-C."""
    try:
        folder = TemporaryDirectory(prefix="kad-export-", dir=parent)
    except OSError as error:
        raise no_scratch_folder(parent, error) from error
    with folder as path:
        yield Path(path)


def no_scratch_folder(folder: Path | None, error: OSError) -> ExportError:
    """Say that temporary files cannot lie there, why, and what to do."""
    reason = os.strerror(errno.ENOTDIR) if error.errno == errno.EEXIST else error.strerror
    return ExportError(
        f"no scratch folder can be made in {folder or 'the system folder for temporary files'} "
        f"({reason}): name a writable folder with --scratch"
    )
