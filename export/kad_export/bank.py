"""The memory bank: patch features of the training tiles, streamed, thinned to a coreset.

Two passes over the training boards. The first computes every patch feature with the exported graph
in the runtime itself (the bank must hold what the runtime will compare with), projects it and keeps
only the projection, in memory where the budget allows, otherwise in one file in a scratch folder.
Greedy k-center selects rows of the projection. The second pass computes the features of the tiles
that hold a selected row once more, and keeps those rows. Raw features never lie together in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kad_export.budget import BankSettings, check_disk, make_plan, probe
from kad_export.coreset import (
    Coreset,
    Projection,
    default_pool_rows,
    k_center,
    select_coreset,
)
from kad_export.features import BoardTiles, PatchExtractor, PointStore
from kad_sdk._native import NativeIndex

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kad_export.report import Silent

__all__ = ["Bank", "build_bank", "nearest_rows", "select_coreset"]

N_NEIGHBOR_COLUMNS = 8


@dataclass(frozen=True)
class Bank:
    """A memory bank and where its rows came from; tensors as in the artifact."""

    bank: np.ndarray  # (M, D) float32, in the order of selection
    neighbors: np.ndarray  # (M, min(8, M - 1)) int64
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
    boards: Sequence[BoardTiles], extract: PatchExtractor, settings: BankSettings, console: Silent
) -> Bank:
    """Compute, project and select patch features, within the memory budget.

    Parameters
    ----------
    boards : sequence of BoardTiles
        Training boards, at least one tile in all.
    extract : PatchExtractor
        Boards to features.
    settings : BankSettings
        Size, seed and budget.
    console : Silent
        Told the plan and the progress.

    Returns
    -------
    Bank

    Raises
    ------
    MemoryBudgetError
        Memory or disk cannot hold the work; raised before it starts.
    """
    plan = make_plan(boards, extract.patches, probe(boards, extract), settings)
    console.line(str(plan))
    if plan.disk_bytes:
        check_disk(plan, settings.scratch)
    file = settings.scratch / "points.f32" if plan.disk_bytes else None
    points = PointStore(plan.candidates, plan.projected_dims, file)
    try:
        with console.step("features"):
            _project_all(boards, extract, points, settings, console)
        with console.step("coreset"), console.progress("coreset", plan.rows, "rows") as bar:
            coreset = k_center(
                points,
                plan.rows,
                threads=settings.threads,
                pool_rows=default_pool_rows(plan.candidates) if plan.disk_bytes else None,
                report=lambda selected: bar.reach(len(selected.rows)),
            )
    finally:
        points.close()
    with console.step("bank rows"):
        bank, image, xy = _extract_rows(boards, extract, coreset.index, plan.dims, console)
    neighbors = nearest_rows(bank, settings.threads)
    return Bank(bank, neighbors, image, xy, coreset, plan.candidates, plan.projected_dims)


def _project_all(
    boards: Sequence[BoardTiles],
    extract: PatchExtractor,
    points: PointStore,
    settings: BankSettings,
    console: Silent,
) -> None:
    project = None
    tiles = sum(len(board.xy) for board in boards)
    with console.progress("features", tiles, "tiles") as bar:
        for board in boards:
            for features in extract(extract.load(board.sample), board.xy):
                rows = features.reshape(-1, features.shape[2])  # (b * P, D)
                project = project or Projection(
                    points.shape[0], rows.shape[1], eps=settings.eps, seed=settings.seed
                )
                points.append(project(rows))
                bar.advance(len(features))


def _extract_rows(
    boards: Sequence[BoardTiles],
    extract: PatchExtractor,
    selected: np.ndarray,
    dims: int,
    console: Silent,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Raw features of the ``selected`` rows (M, D), their boards (M,) and patch centres (M, 2)."""
    first_tile = np.cumsum([0, *(len(board.xy) for board in boards)])
    tile, patch = np.divmod(selected, extract.patches)
    image = (np.searchsorted(first_tile, tile, side="right") - 1).astype(np.int32)
    bank = np.empty((len(selected), dims), np.float32)
    xy = np.empty((len(selected), 2), np.int32)
    with console.progress("bank rows", len(np.unique(tile)), "tiles") as bar:
        for board_index in np.unique(image):
            board = boards[board_index]
            rows = np.flatnonzero(image == board_index)
            local = tile[rows] - first_tile[board_index]
            xy[rows] = extract.centre(board.xy[local], patch[rows])
            wanted = np.unique(local)
            done = 0
            for features in extract(extract.load(board.sample), board.xy[wanted]):
                batch = wanted[done : done + len(features)]
                here = np.isin(local, batch)
                slot = np.searchsorted(batch, local[here])
                bank[rows[here]] = features[slot, patch[rows[here]]]
                done += len(features)
                bar.advance(len(features))
    return bank, image, xy


def nearest_rows(bank: np.ndarray, threads: int) -> np.ndarray:
    """Each row's nearest other rows, nearest first: (M, min(8, M - 1)) int64."""
    n_rows = len(bank)
    k = min(N_NEIGHBOR_COLUMNS + 1, n_rows)
    index = NativeIndex(bank, threads=threads)
    _, found = index.query(bank, k, threads=threads)  # (M, k)
    index.close()
    other = found != np.arange(n_rows)[:, None]
    other[other.all(axis=1), -1] = False  # a row with k or more copies does not find itself
    return found[other].reshape(n_rows, k - 1)
