"""Bank builds for tests that kill them or measure them: the network is a stand-in."""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
import multiprocessing
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from kad_export import bank, budget, coreset, job, shards
from kad_export.budget import BankSettings
from kad_export.engine import LocalEngine
from kad_export.features import BoardTiles, PatchExtractor
from kad_export.report import Silent

TILE, GRID, CHANNELS = 16, (4, 4), 8
CHUNK_ROWS = 4096  # so small that what chunks take hides nothing
M_MMAP_THRESHOLD = -3  # of mallopt


class BlockMeans:
    """A stand-in for the network: means of 4 x 4 px, mixed into 8 channels."""

    def __init__(self) -> None:
        self._mix = np.random.default_rng(0).normal(size=(CHANNELS, 3)).astype(np.float32)
        self.tiles = 0

    def run(self, tiles: np.ndarray) -> list[np.ndarray]:
        self.tiles += len(tiles)
        blocks = tiles.reshape(len(tiles), 3, 4, 4, 4, 4).mean(axis=(3, 5))  # (B, 3, 4, 4)
        return [np.ascontiguousarray(np.einsum("cd,bdhw->bchw", self._mix, blocks))]


def make_boards(n: int) -> tuple[list[BoardTiles], dict[str, np.ndarray]]:
    images = {
        f"{i}.png": np.random.default_rng(i).integers(0, 256, (40, 56, 3), np.uint8)
        for i in range(n)
    }
    xy = np.array([[0, 0], [16, 0], [40, 24], [3, 5], [20, 11]], np.int32)
    boards = [
        BoardTiles(SimpleNamespace(name=name), xy[: 5 - i % 2], 40, 56)
        for i, name in enumerate(images)
    ]
    return boards, images


@dataclass(frozen=True)
class Spec:
    """Makes the extractor, as ExtractorSpec does; it can be sent to another process."""

    images: dict[str, np.ndarray]
    batch: int = 3
    grid: tuple[int, int] = GRID

    def build(self) -> PatchExtractor:
        return PatchExtractor(
            BlockMeans(),
            lambda sample: self.images[sample.name],
            tile=TILE,
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
            grid=self.grid,
            resampling="bilinear",
            batch=self.batch,
        )


def build(folder: Path, *, boards: int = 8, **settings: object) -> bytes:
    """Build as a lasting job; the bank's tensors as bytes."""
    made, images = make_boards(boards)
    with job.Job.open(folder, {"boards": boards}) as opened:
        found = bank.build_bank(
            made,
            Spec(images).build(),
            BankSettings(folder, fraction=0.1, **settings),
            Silent(),
            job=opened,
            spec=Spec(images),
        )
    return b"".join(np.ascontiguousarray(t).tobytes() for t in found.tensors().values())


def patch_small(monkeypatch) -> None:
    """Many shards, small chunks and pools, reports after every few picks."""
    plan = budget.make_plan

    def small_plan(*words, **more):
        return dataclasses.replace(plan(*words, **more), pool_rows=20)

    monkeypatch.setattr(shards, "SHARD_TILES", 9)
    monkeypatch.setattr(coreset.workers, "CHUNK_ROWS", 100)
    monkeypatch.setattr(coreset.driver, "PICKS_AT_ONCE", 3)
    monkeypatch.setattr(bank, "make_plan", small_plan)


EVENTS = (
    (os, "fsync"),
    (os, "replace"),
    (Path, "replace"),
    (shards, "as_stored"),
    (coreset.workers, "lower_distances"),
    (PatchExtractor, "centre"),
)


def count_events(monkeypatch, at: int | None = None) -> itertools.count:
    """Count what happens to files and points; at event number ``at`` the process kills itself."""
    counter = itertools.count(1)

    def counted(call):
        def run(*words, **more):
            if next(counter) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*words, **more)

        return run

    for owner, name in EVENTS:
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    return counter


def build_and_die(folder: Path, at: int, monkeypatch) -> int:
    """Run a build in a forked process that kills itself at an event; its exit code."""

    def run() -> None:
        count_events(monkeypatch, at)
        build(folder)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(60)
    return process.exitcode


def peak_of_selection(before: int, kind: str, plan, settings) -> int:
    """Bytes that a selection of random points takes at most, the points among them."""
    coreset.workers.CHUNK_ROWS = budget.CHUNK_ROWS = CHUNK_ROWS
    dims, rng = plan.projected_dims, np.random.default_rng(0)
    mix = np.eye(dims, dtype=np.float32) if kind == "flat" else rng.normal(size=(6, dims))
    boards = [BoardTiles(None, np.zeros((plan.tiles, 2), np.int32), 100, 100)]
    known = rng.normal(size=(before, dims)).astype(np.float32) if before else None
    extract = SimpleNamespace(patches=784, threads=1)
    engine = LocalEngine(boards, extract, plan, settings, job.Job(settings.scratch), before=known)

    def blocks(_shard, _advance):
        for first in range(0, plan.candidates, 10_000):
            n = min(10_000, plan.candidates - first)
            yield rng.normal(size=(n, len(mix))).astype(np.float32) @ mix.astype(np.float32)

    engine._maker.blocks = blocks
    engine._maker.rows = lambda *_: None
    # Counted is what the selection holds: not the buffers of NumPy's products, nor what the
    # allocator keeps of memory that was given back, nor pages of libraries.
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 17)
    next(blocks(None, None))
    start = _memory("RssAnon")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    bank.run_engine(engine, plan, settings, job.Job(settings.scratch), Silent())
    return _memory("VmHWM") - _memory("RssFile") - start


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])
