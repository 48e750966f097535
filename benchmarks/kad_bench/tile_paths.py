"""Ways to score tiles with one bank and one network: kad, the thesis' path, and what others build.

Each is called with tiles (n, t, t, 3) uint8 RGB and a stopwatch for its stages, and gives scores
and anomaly maps. All begin with pixels and end with maps; what differs is what lies between.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from kad_export.bank import nearest_rows
from kad_export.reference import patch_features

from kad_bench.answers import WrongAnswerError
from kad_bench.peers import FAISS, TORCH_MATMUL, make_peers
from kad_bench.thesis_path import ThesisPatchCore, enlarged, normalised
from kad_sdk._native import NativeIndex
from kad_sdk.patchcore import PatchCoreScorer
from kad_sdk.session import NetworkSession

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from kad_bench.models import Model
    from kad_bench.suites import Settings
    from kad_bench.thesis_cutpaste import ThesisCutPaste
    from kad_sdk.artifact import PatchCoreArtifact
    from kad_sdk.scoring import BoardScorer, Stopwatch

    Network = Callable[[torch.Tensor], Sequence[torch.Tensor]]
    Search = Callable[[NDArray[np.float32], int], tuple[NDArray, NDArray]]

__all__ = [
    "CPU_ALONE",
    "KAD",
    "ORT_FAISS",
    "PRODUCT_TOLERANCE",
    "TOLERANCE",
    "TORCH_BATCHED",
    "TORCH_FAISS",
    "Found",
    "KadTiles",
    "ThesisTiles",
    "TilePath",
    "check_found",
    "kad_tiles",
    "peer_tiles",
    "thesis_tiles",
]

KAD = "kad"
ORT_FAISS, TORCH_FAISS = "ONNX Runtime + FAISS", "PyTorch + FAISS"
TORCH_BATCHED = "PyTorch, batched"
CPU_ALONE = "is built for the CPU alone: no match for kad on a GPU"
TOLERANCE = 1e-4
"""Largest difference of scores or maps over their largest value."""
PRODUCT_TOLERANCE = 1e-2
"""The same for engines that subtract products in float32 (``torch.cdist``, FAISS)."""


class Found(NamedTuple):
    """Tile scores (n,), and anomaly maps (n, t, t) or None; float32."""

    scores: NDArray[np.float32]
    maps: NDArray[np.float32] | None


class TilePath(Protocol):
    """Scores tiles (n, t, t, 3) uint8 RGB; `watch` is told the stages."""

    def __call__(self, tiles: NDArray[np.uint8], watch: Stopwatch) -> Found:
        """Score them."""


def check_found(
    engine: str,
    expected: Found,
    found: Found,
    *,
    tolerance: float = TOLERANCE,
    map_bounds: tuple[float, float] | None = None,
) -> dict[str, float]:
    """Compare an engine's scores, and its maps where it makes any, with the right ones.

    Returns
    -------
    dict
        ``score difference`` and ``map difference``: the largest one over the largest value.

    Raises
    ------
    WrongAnswerError
        One is above `tolerance`; of maps with `map_bounds`, one is above the first, or more than
        half of them are above the second.
    """
    worst = {}
    map_limit, middle_limit = map_bounds or (tolerance, tolerance)
    limits = (("score", tolerance, tolerance), ("map", map_limit, middle_limit))
    for (name, limit, of_half), right, got in zip(limits, expected, found, strict=True):
        if right is None or got is None:
            continue
        difference = np.abs(got.astype(np.float64) - right).reshape(len(right), -1).max(axis=1)
        relative = difference / np.abs(right).max()  # (n,)
        tile = int(relative.argmax())  # NaN counts as largest
        if not relative[tile] <= limit:
            raise WrongAnswerError(
                f"{engine}: the {name} of tile {tile} differs by {relative[tile]:.3g} of the "
                f"largest value, expected at most {limit:g}: its time is not taken"
            )
        if not np.median(relative) <= of_half:
            raise WrongAnswerError(
                f"{engine}: half of the {name}s differ by {np.median(relative):.3g} of the largest "
                f"value or more, expected at most {of_half:g}: its time is not taken"
            )
        worst[f"{name} difference"] = float(relative[tile])
    return worst


class KadTiles:
    """kad, all its stages: tiles laid below one another are a board.

    Parameters
    ----------
    scorer : BoardScorer
        Whose stride is the tile's side, so that it cuts exactly these tiles.
    index : NativeIndex or None
        What it searches.
    """

    def __init__(self, scorer: BoardScorer, index: NativeIndex | None = None) -> None:
        self.scorer, self.index = scorer, index

    def __call__(self, tiles: NDArray[np.uint8], watch: Stopwatch) -> Found:
        """Score tiles."""
        n, side = tiles.shape[:2]
        found = self.scorer.score(tiles.reshape(n * side, side, 3), keep_patches=False)
        for stage, ms in found.timings.items():
            watch.ms[stage] += ms
        return Found(found.scores, found.map.reshape(n, side, side))


def kad_tiles(
    artifact: PatchCoreArtifact,
    *,
    threads: int,
    batch: int,
    provider: str = "cpu",
    rows: int | None = None,
) -> KadTiles:
    """Open an artifact for tiles; `rows`: with so many rows of its bank only, the first selected.

    Greedy k-center selects in order, so the first rows are what it would have selected alone.
    """
    manifest, bank = artifact.manifest, artifact.bank[:rows]
    side = manifest.preprocessing.tile
    index = NativeIndex(bank, threads=threads)
    scorer = PatchCoreScorer(
        NetworkSession(
            artifact.network,
            provider=provider,
            threads=threads,
            max_batch=batch,
            precision=artifact.manifest.network.precision,
            build_engine=provider == "tensorrt",
        ),
        index,
        preprocessing=dataclasses.replace(manifest.preprocessing, stride=side),
        patchcore=manifest.patchcore,
        map_settings=manifest.map,
        neighbors=artifact.neighbors if rows is None else nearest_rows(bank, threads),
        threads=threads,
        batch=batch,
    )
    return KadTiles(scorer, index)


class ThesisTiles:
    """The thesis' path, tile after tile."""

    def __init__(self, path: ThesisPatchCore | ThesisCutPaste) -> None:
        self.path = path

    def __call__(self, tiles: NDArray[np.uint8], watch: Stopwatch) -> Found:
        """Score tiles."""
        scores, maps = zip(*(self.path.score(tile, watch) for tile in tiles), strict=True)
        return Found(np.array(scores, np.float32), np.stack(maps))


def thesis_tiles(
    model: Model, *, device: str = "cpu", rows: int | None = None, exact: bool = False
) -> ThesisTiles:
    """Open the thesis' path on a model's network and bank, or the first `rows` of it.

    With `exact` its distances are in float64: for answers, not for times.
    """
    settings = model.artifact.manifest.preprocessing
    bank = model.artifact.bank[:rows]
    network = model.network.trunk
    path = ThesisPatchCore(
        network, bank, mean=settings.mean, std=settings.std, device=device, exact=exact
    )
    return ThesisTiles(path)


class BatchedTiles:
    """What a careful user builds from a network and a search of theirs: whole batches.

    Parameters
    ----------
    artifact
        Settings; each bank row's nearest other rows are taken from it, not searched for.
    network
        Normalised tiles (B, 3, t, t) to base maps.
    search
        Queries (n, D) and k to distances and rows (n, k).
    """

    def __init__(self, artifact: PatchCoreArtifact, network: Network, search: Search) -> None:
        self._artifact, self._network, self._search = artifact, network, search
        settings = artifact.manifest.preprocessing
        self._mean, self._std = (
            torch.tensor(values).view(3, 1, 1) for values in (settings.mean, settings.std)
        )

    @torch.inference_mode()
    def __call__(self, tiles: NDArray[np.uint8], watch: Stopwatch) -> Found:
        """Score tiles."""
        settings = self._artifact.manifest.patchcore
        with watch.stage("preprocess"):
            x = normalised(tiles, self._mean, self._std)
        with watch.stage("network"):
            maps = tuple(self._network(x))
        with watch.stage("search"):
            features = patch_features(maps, grid=settings.grid, resampling=settings.resampling)
            features = features.contiguous().numpy()  # (B, P, D)
            dist, rows = self._search(features.reshape(-1, features.shape[2]), 1)
            dist, rows = (found.reshape(features.shape[:2]) for found in (dist, rows))  # (B, P)
            scores = self._reweighted(features, dist, rows)
        with watch.stage("map"):
            grids = torch.from_numpy(dist).reshape(-1, 1, *settings.grid)
            return Found(scores, enlarged(grids, tiles.shape[1])[:, 0].numpy())

    def _reweighted(
        self, features: NDArray[np.float32], dist: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Tile scores (B,), with the thesis' re-weighting."""
        every, place = np.arange(len(dist)), dist.argmax(axis=1)
        largest, nearest = dist[every, place], rows[every, place]
        n = self._artifact.manifest.patchcore.n_neighbors
        others = self._artifact.bank[self._artifact.neighbors[nearest, :n]]  # (B, n, D)
        away = np.linalg.norm(features[every, place][:, None] - others, axis=2)
        root = np.sqrt(features.shape[2])
        weight = 1 - np.exp(largest / root) / np.exp(away / root).sum(axis=1)
        return (weight * largest).astype(np.float32)


def peer_tiles(model: Model, settings: Settings) -> tuple[dict[str, TilePath], dict[str, str]]:
    """Build what others would, on the CPU: name to path, and name to why one cannot run."""
    if settings.device != "cpu":
        return {}, dict.fromkeys((ORT_FAISS, TORCH_FAISS, TORCH_BATCHED), CPU_ALONE)
    artifact, threads = model.artifact, settings.threads
    searches, missing = make_peers(artifact.bank, threads)
    session = NetworkSession(artifact.network, threads=threads)

    def onnx(x: torch.Tensor) -> list[torch.Tensor]:
        return [torch.from_numpy(found) for found in session.run(x.numpy())]

    parts: dict[str, tuple[Network, str]] = {
        ORT_FAISS: (onnx, FAISS),
        TORCH_FAISS: (model.network, FAISS),
        TORCH_BATCHED: (model.network, TORCH_MATMUL),
    }
    paths: dict[str, TilePath] = {
        name: BatchedTiles(artifact, network, searches[search])
        for name, (network, search) in parts.items()
        if search in searches
    }
    skipped = {name: missing[search] for name, (_, search) in parts.items() if search in missing}
    return paths, skipped
