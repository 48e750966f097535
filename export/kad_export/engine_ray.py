"""A bank build on a Ray cluster: workers compute shards of features, hold them, and flush.

Every worker has consecutive shards. What it computes lies in the scratch folder, which all machines
must share, so that a build can be resumed with other workers. The selection is that of one process:
the driver is the same, and no result depends on who holds a point.
"""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from kad_export.coreset.workers import gather
from kad_export.engine import ShardMaker
from kad_export.errors import JobError
from kad_export.shards import plan_shards

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kad_export.budget import BankSettings, Plan
    from kad_export.coreset.workers import Candidates, Team
    from kad_export.features import BoardTiles, ExtractorSpec
    from kad_export.job import Job, SavedWorker
    from kad_export.shards import Shard

__all__ = ["RayEngine", "RayTeam"]


class _Worker:
    """What runs on a worker: :class:`ShardMaker` and one worker of the selection."""

    def __init__(
        self,
        boards: Sequence[BoardTiles],
        spec: ExtractorSpec,
        plan: Plan,
        settings: BankSettings,
        job: Job,
    ) -> None:
        self._maker = ShardMaker(boards, spec.build(), plan, settings, job)
        self._held: SavedWorker | None = None

    def make(self, shard: Shard) -> int:
        """Compute a shard; its tiles."""
        self._maker.make(shard, lambda _: None)
        return shard.tiles

    def hold(self, shards: Sequence[Shard], pool_rows: int) -> None:
        """Take the shards into the selection."""
        self._held = self._maker.worker(shards, pool_rows)

    def flush(self, rows: np.ndarray, centres: np.ndarray, level: float) -> Candidates:
        """See :class:`kad_export.coreset.workers.Worker`."""
        return self._held.flush(rows, centres, level)

    def fetch(self, rows: np.ndarray) -> np.ndarray:
        """See :class:`kad_export.coreset.workers.Worker`."""
        return self._held.fetch(rows)

    def rows(self, selected: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Bank rows, boards and patch centres of selected patches."""
        return self._maker.rows(selected, lambda _: None)


class RayTeam:
    """Workers of a cluster, all at once.

    Parameters
    ----------
    actors : sequence
        Ray actors with the methods of a worker, by rising rows.
    starts : sequence of int
        First row of each.
    shape : (int, int)
        Points and dimensions in all.
    """

    def __init__(
        self, actors: Sequence[Any], starts: Sequence[int], shape: tuple[int, int]
    ) -> None:
        self._actors, self._starts, self.shape = actors, starts, shape

    def flush(self, rows: np.ndarray, centres: np.ndarray, level: float) -> list[Candidates]:
        """Let every worker flush."""
        shared = ray.put(rows), ray.put(centres)
        return _get([actor.flush.remote(*shared, level) for actor in self._actors])

    def fetch(self, rows: np.ndarray) -> np.ndarray:
        """Points of any rows."""
        return gather(
            rows,
            self._starts,
            self.shape[1],
            lambda i, own: _get([self._actors[i].fetch.remote(own)])[0],
        )


class RayEngine:
    """The engine of ``--engine ray``.

    Connects to the cluster that the variable ``RAY_ADDRESS`` names, or starts one on this machine.

    Parameters
    ----------
    boards, plan, settings, job
        As for :class:`ShardMaker`.
    spec : ExtractorSpec
        What every worker makes its extractor of.

    Raises
    ------
    JobError
        The cluster cannot be reached or has too few processors.
    """

    def __init__(
        self,
        boards: Sequence[BoardTiles],
        spec: ExtractorSpec,
        plan: Plan,
        settings: BankSettings,
        job: Job,
    ) -> None:
        self._shards = plan_shards(boards, spec.grid[0] * spec.grid[1])
        self._plan, self._job = plan, job
        self._started = not ray.is_initialized()
        try:
            if self._started:
                ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise JobError(
                f"the Ray cluster cannot be reached ({error}): check RAY_ADDRESS"
            ) from error
        n_workers = self._count(settings)
        self._parts = _parts(self._shards, n_workers)
        shared = [ray.put(value) for value in (boards, spec, plan, settings, job)]
        make = ray.remote(num_cpus=settings.threads, max_restarts=0)(_Worker)
        self._actors = [make.remote(*shared) for _ in self._parts]
        self._made = ShardMaker(boards, spec.build(), plan, settings, job)

    def _count(self, settings: BankSettings) -> int:
        fitting = int(ray.cluster_resources().get("CPU", 0) // settings.threads)
        wanted = settings.workers or max(1, fitting)
        if wanted > fitting:
            self.close()
            raise JobError(
                f"{wanted} workers of {settings.threads} threads each are more than the cluster "
                f"has processors for ({fitting} of them): lower --workers or --threads"
            )
        return min(wanted, len(self._shards))

    def bytes_on_disk(self) -> int:
        """See :class:`kad_export.engine.Engine`."""
        return sum(self._made.size(s) for s in self._shards if self._made.is_made(s))

    def extract(self, advance: Callable[[int], object]) -> None:
        """See :class:`kad_export.engine.Engine`."""
        running = [
            actor.make.remote(shard)
            for actor, part in zip(self._actors, self._parts, strict=True)
            for shard in part
        ]
        while running:
            done, running = ray.wait(running)
            for tiles in _get(done):
                advance(tiles)

    def team(self) -> Team:
        """See :class:`kad_export.engine.Engine`."""
        pool = -(-self._plan.pool_rows // len(self._actors))
        _get([a.hold.remote(part, pool) for a, part in zip(self._actors, self._parts, strict=True)])
        starts = [part[0].first_row for part in self._parts]
        return RayTeam(self._actors, starts, (self._plan.candidates, self._plan.projected_dims))

    def rows(
        self, selected: np.ndarray, advance: Callable[[int], object]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :class:`kad_export.engine.Engine`."""
        starts = [part[0].first_row for part in self._parts]
        owner = np.searchsorted(starts, selected, side="right") - 1
        order = np.argsort(owner, kind="stable")
        found = _get(
            [
                actor.rows.remote(selected[owner == i])
                for i, actor in enumerate(self._actors)
                if (owner == i).any()
            ]
        )
        joined = [np.concatenate(parts) for parts in zip(*found, strict=True)]
        advance(len(selected))
        back = np.argsort(order)
        return joined[0][back], joined[1][back], joined[2][back]

    def close(self) -> None:
        """See :class:`kad_export.engine.Engine`."""
        for actor in getattr(self, "_actors", ()):
            ray.kill(actor)
        if self._started:
            ray.shutdown()
        if not self._job.lasting:
            for path in self._job.folder.glob("points-*"):
                path.unlink(missing_ok=True)


def _get(results: Sequence[Any]) -> list[Any]:
    """Results of actors; what an actor raised is raised here as it was."""
    try:
        return ray.get(list(results))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayActorError as error:
        raise JobError(
            f"a worker of the cluster died ({error}): with --resume the work goes on from what is "
            "in --scratch"
        ) from error


def _parts(shards: Sequence[Shard], n: int) -> list[list[Shard]]:
    """Shards in n consecutive parts of about as many rows each, none of them empty."""
    total = sum(shard.rows for shard in shards)
    middles = np.array([shard.first_row + shard.rows / 2 for shard in shards])
    bounds = np.searchsorted(middles, np.linspace(0, total, n + 1))
    bounds[0], bounds[-1] = 0, len(shards)
    for i in range(1, n):
        bounds[i] = min(max(bounds[i], bounds[i - 1] + 1), len(shards) - n + i)
    return [list(shards[a:b]) for a, b in pairwise(bounds.tolist())]
