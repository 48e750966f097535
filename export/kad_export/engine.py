"""Who computes the features of a bank build, and holds the points: this process."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Protocol

import numpy as np

from kad_export.budget import affordable_pool
from kad_export.coreset import Projection
from kad_export.coreset.workers import KnownWorker, LocalTeam
from kad_export.features import bank_rows, projected_features
from kad_export.job import SavedWorker
from kad_export.shards import ShardedPoints, as_stored, plan_shards, write_shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kad_export.budget import BankSettings, Plan
    from kad_export.coreset.workers import Team
    from kad_export.features import BoardTiles, PatchExtractor
    from kad_export.job import Job
    from kad_export.shards import Shard

__all__ = ["Engine", "LocalEngine", "ShardMaker"]


class Engine(Protocol):
    """The three steps of a bank build."""

    def bytes_on_disk(self) -> int:
        """Of projected features that an earlier run has left."""

    def extract(self, advance: Callable[[int], object]) -> None:
        """Compute and keep all projected features; ``advance`` is told the tiles done."""

    def team(self) -> Team:
        """Who holds them."""

    def rows(
        self, selected: np.ndarray, advance: Callable[[int], object]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Bank rows (M, D), boards (M,) and patch centres (M, 2) of selected patches (M,)."""

    def close(self) -> None:
        """Free what is held; remove files that nobody will go on with."""


class ShardMaker:
    """Computes shards of projected features and keeps them in a job's folder.

    Parameters
    ----------
    boards : sequence of BoardTiles
        All of them.
    extract : PatchExtractor
        Boards to features.
    plan, settings : Plan, BankSettings
        Dimensions, seed, type of the stored points.
    job : Job
        Whose folder it is.
    """

    def __init__(
        self,
        boards: Sequence[BoardTiles],
        extract: PatchExtractor,
        plan: Plan,
        settings: BankSettings,
        job: Job,
    ) -> None:
        self.boards, self._extract, self._settings, self._job = boards, extract, settings, job
        self.dims, self.points_dims = plan.dims, plan.projected_dims
        self._project = Projection(
            plan.candidates, plan.dims, seed=settings.seed, to=plan.projected_dims
        )

    def size(self, shard: Shard) -> int:
        """Bytes of a shard's file."""
        return shard.rows * self.points_dims * np.dtype(self._settings.points).itemsize

    def is_made(self, shard: Shard) -> bool:
        """Whether its file is there."""
        return self._job.has(shard.name, self.size(shard))

    def make(self, shard: Shard, advance: Callable[[int], object]) -> None:
        """Compute a shard, unless its file is there."""
        if self.is_made(shard):
            advance(shard.tiles)
        else:
            write_shard(self._job.folder / shard.name, self.blocks(shard, advance))

    def blocks(self, shard: Shard, advance: Callable[[int], object]) -> Iterator[np.ndarray]:
        """Points of a shard as they are stored, block by block."""
        boards = self.boards[shard.boards]
        for points in projected_features(boards, self._extract, self._project, advance):
            yield as_stored(points, self._settings.points)

    def project(self, features: np.ndarray) -> np.ndarray:
        """Points (n, d) as they are stored, in float32, of features (n, D)."""
        return as_stored(self._project(features), self._settings.points).astype(np.float32)

    def worker(self, shards: Sequence[Shard], pool_rows: int) -> SavedWorker:
        """Make the worker of consecutive shards that lie on disk."""
        points = ShardedPoints(self._job.folder, shards, self.points_dims, self._settings.points)
        return self.worker_of(points, shards[0], pool_rows)

    def worker_of(
        self, points: ShardedPoints | np.ndarray, first: Shard, pool_rows: int
    ) -> SavedWorker:
        """Make the worker of points whose first shard is ``first``."""
        state = self._job.folder / f"state-{first.number:05}.bin" if self._job.lasting else None
        return SavedWorker(
            points,
            state,
            first_row=first.first_row,
            pool_rows=pool_rows + self._settings.trim_outliers,
            threads=self._settings.threads,
        )

    def rows(
        self, selected: np.ndarray, advance: Callable[[int], object]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Bank rows, boards and patch centres of selected patches."""
        return bank_rows(self.boards, self._extract, selected, self.dims, advance)


class LocalEngine:
    """All in this process, in memory where the plan says so; otherwise on disk.

    Parameters
    ----------
    boards, extract, plan, settings, job
        As for :class:`ShardMaker`.
    before : (M, D) float32, optional
        Rows of a bank that is there; among all points they come before those of the boards.
    """

    def __init__(
        self,
        boards: Sequence[BoardTiles],
        extract: PatchExtractor,
        plan: Plan,
        settings: BankSettings,
        job: Job,
        *,
        before: np.ndarray | None = None,
    ) -> None:
        self._maker = ShardMaker(boards, extract, plan, settings, job)
        self._shards = plan_shards(boards, extract.patches)
        self._before = before
        self._plan, self._job = plan, job
        self._points: np.ndarray | ShardedPoints | None = None

    def bytes_on_disk(self) -> int:
        """See :class:`Engine`."""
        return sum(self._maker.size(s) for s in self._shards if self._maker.is_made(s))

    def extract(self, advance: Callable[[int], object]) -> None:
        """See :class:`Engine`."""
        if self._plan.disk_bytes:
            for shard in self._shards:
                self._maker.make(shard, advance)
            return
        points = np.empty((self._plan.candidates, self._plan.projected_dims), np.float32)
        filled = 0
        for shard in self._shards:
            for block in self._maker.blocks(shard, advance):
                points[filled : filled + len(block)] = block
                filled += len(block)
        self._points = points

    def team(self) -> Team:
        """See :class:`Engine`."""
        first, pool_rows = self._shards[0], self._plan.pool_rows
        if self._points is None:
            self._points = ShardedPoints(
                self._job.folder, self._shards, self._plan.projected_dims, self._plan.points
            )
            if pool_rows == self._plan.candidates:  # the plan has all of them in memory
                stored, self._points = self._points, self._points[:]
                stored.close()
        if isinstance(self._points, np.ndarray):
            pool_rows = min(pool_rows, affordable_pool(self._points))
        if self._before is None:
            return LocalTeam([self._maker.worker_of(self._points, first, pool_rows)])
        known = KnownWorker(self._maker.project(self._before))
        first = dataclasses.replace(first, first_row=known.shape[0])
        return LocalTeam([known, self._maker.worker_of(self._points, first, pool_rows)])

    def rows(
        self, selected: np.ndarray, advance: Callable[[int], object]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :class:`Engine`."""
        self._forget()
        return self._maker.rows(selected, advance)

    def close(self) -> None:
        """See :class:`Engine`."""
        self._forget()
        if not self._job.lasting:
            for path in self._job.folder.glob("points-*"):
                path.unlink(missing_ok=True)

    def _forget(self) -> None:
        if isinstance(self._points, ShardedPoints):
            self._points.close()
        self._points = None
