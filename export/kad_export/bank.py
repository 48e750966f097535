"""The memory bank: patch features of the training tiles, streamed, thinned to a coreset.

Two passes over the training boards. The first computes every patch feature with the exported graph
in the runtime itself (the bank must hold what the runtime will compare with), projects it and keeps
only the projection, in memory where the budget allows, otherwise on disk. Greedy k-center selects
rows of the projection. The second pass computes the features of the tiles that hold a selected row
once more, and keeps those rows. Raw features never lie together in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kad_export.budget import BankSettings, Plan, check_disk, make_plan, probe
from kad_export.coreset.driver import NativePickers, Selected, run_selection
from kad_export.engine import LocalEngine
from kad_export.errors import JobError
from kad_export.job import Job
from kad_sdk._native import NativeIndex
from kad_sdk.manifest import MAX_NEIGHBORS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kad_export.coreset import Coreset
    from kad_export.engine import Engine
    from kad_export.features import BoardTiles, ExtractorSpec, PatchExtractor
    from kad_export.report import Silent

__all__ = ["Bank", "build_bank", "nearest_rows", "run_engine"]


@dataclass(frozen=True)
class Bank:
    """A memory bank and where its rows came from; tensors as in the artifact."""

    bank: np.ndarray  # (M, D) float32, in the order of selection
    neighbors: np.ndarray  # (M, min(MAX_NEIGHBORS, M - 1)) int64
    source_image: np.ndarray  # (M,) int32, into the boards
    source_xy: np.ndarray  # (M, 2) int32, patch centres, px
    coreset: Coreset
    candidates: int
    projected_dims: int

    def tensors(self) -> dict[str, np.ndarray]:
        """Give the tensors of ``bank.safetensors``."""
        names = ("bank", "neighbors", "source_image", "source_xy")
        return {name: getattr(self, name) for name in names}


def build_bank(
    boards: Sequence[BoardTiles],
    extract: PatchExtractor,
    settings: BankSettings,
    console: Silent,
    *,
    job: Job | None = None,
    spec: ExtractorSpec | None = None,
) -> Bank:
    """Compute, project and select patch features, within the memory budget.

    Parameters
    ----------
    boards : sequence of BoardTiles
        Training boards, at least one tile in all.
    extract : PatchExtractor
        Boards to features.
    settings : BankSettings
        Size, seed, budget and engine.
    console : Silent
        Told the plan and the progress.
    job : Job, optional
        Where files lie; what an earlier run of the same job has left there is used. By default in
        ``settings.scratch``, removed afterwards.
    spec : ExtractorSpec, optional
        What the workers of another engine than ``"local"`` make their extractors of.

    Returns
    -------
    Bank

    Raises
    ------
    MemoryBudgetError
        Memory or disk cannot hold the work; raised before it starts.
    JobError
        The engine is ``"ray"``, which is not installed.
    """
    make_ray_engine = None if settings.engine == "local" else _ray_engine()
    job = job or Job(settings.scratch)
    measured = probe(boards, extract, settings.memory_bytes)
    plan = make_plan(boards, extract.patches, measured, settings, on_disk=job.lasting)
    console.line(str(plan))
    if make_ray_engine is None:
        engine: Engine = LocalEngine(boards, extract, plan, settings, job)
    else:
        engine = make_ray_engine(boards, spec, plan, settings, job)
    coreset, (bank, image, xy) = run_engine(engine, plan, settings, job, console)
    neighbors = nearest_rows(bank, settings.threads)
    return Bank(bank, neighbors, image, xy, coreset, plan.candidates, plan.projected_dims)


def _ray_engine() -> Callable[..., Engine]:
    try:
        from kad_export.engine_ray import RayEngine  # noqa: PLC0415 - needs ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise JobError(
            "--engine ray needs the package ray, which is not installed: pip install "
            "'kad-sdk[ray]', or use --engine local"
        ) from error
    return RayEngine


def run_engine(
    engine: Engine,
    plan: Plan,
    settings: BankSettings,
    job: Job,
    console: Silent,
    *,
    enough: float = -np.inf,
) -> tuple[Coreset, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Compute the features, select among them, and give the selected ones; closes the engine.

    Parameters
    ----------
    engine, plan, settings, job, console
        What a build is made of. The first ``settings.before`` points are chosen already.
    enough : float
        No more rows are wanted when no patch is farther than this from the bank.

    Returns
    -------
    Coreset
        Of all points.
    tuple
        Of the patches among them, what :func:`kad_export.features.bank_rows` gives.
    """
    try:
        if plan.disk_bytes:
            check_disk(plan, settings, engine.bytes_on_disk())
        with console.step("features"), console.progress("features", plan.tiles, "tiles") as bar:
            engine.extract(bar.advance)
        with console.step("coreset"), console.progress("coreset", plan.rows, "rows") as bar:
            coreset = _select(engine, plan, settings, job, reach=bar.reach, enough=enough)
        with console.step("bank rows"), console.progress("bank rows", plan.rows, "tiles") as bar:
            new = coreset.index[settings.before :] - settings.before
            rows = engine.rows(new, bar.advance)
    finally:
        engine.close()
    return coreset, rows


def _select(
    engine: Engine,
    plan: Plan,
    settings: BankSettings,
    job: Job,
    *,
    reach: Callable[[int], object],
    enough: float,
) -> Coreset:
    before = settings.before

    def report(selected: Selected) -> None:
        job.save_selected(selected)
        reach(min(len(selected.rows) - before, plan.rows))

    known = Selected(list(range(before)), [np.inf] * before)
    return run_selection(
        engine.team(),
        before + plan.rows,
        make_picker=NativePickers(skipped=settings.trim_outliers, threads=settings.threads),
        skipped=settings.trim_outliers,
        report=report,
        selected=known if before else job.load_selected(),
        enough=enough,
    )


def nearest_rows(bank: np.ndarray, threads: int) -> np.ndarray:
    """Each row's nearest other rows, nearest first: (M, min(MAX_NEIGHBORS, M - 1)) int64."""
    n_rows = len(bank)
    k = min(MAX_NEIGHBORS + 1, n_rows)
    index = NativeIndex(bank, threads=threads)
    _, found = index.query(bank, k, threads=threads)  # (M, k)
    index.close()
    other = found != np.arange(n_rows)[:, None]
    other[other.all(axis=1), -1] = False  # a row with k or more copies does not find itself
    return found[other].reshape(n_rows, k - 1)
