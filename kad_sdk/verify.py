"""Re-score an artifact's golden tiles on this machine, and compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kad_sdk._native import cpu_level, default_threads, preprocess
from kad_sdk.artifact import Artifact, CutPasteArtifact, PatchCoreArtifact
from kad_sdk.detector import open_scorer
from kad_sdk.patchcore import open_index
from kad_sdk.session import NetworkSession
from kad_sdk.windows import check_provider

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kad_sdk.manifest import Graph, Preprocessing
    from kad_sdk.scoring import TileFindings

__all__ = ["Check", "Verification", "golden_inputs", "verify_artifact"]


@dataclass(frozen=True)
class Check:
    """One comparison: largest absolute difference over the largest absolute expected value."""

    name: str
    max_abs: float
    max_rel: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance; NaN is not."""
        return self.max_rel <= self.tolerance


@dataclass(frozen=True)
class Verification:
    """What re-scoring the golden tiles gave here.

    Attributes
    ----------
    provider, device, precision, level
        What it ran on; `level` is the instruction set of the compiled stages.
    checks
        One for each thing that the golden tiles hold: of PatchCore base maps, patch distances and
        scores; of CutPaste logits, embedding, Grad-CAM and scores.
    tiles
        How many golden tiles there are.
    flipped
        Golden tiles whose decision differs from the expected one.
    """

    provider: str
    device: str
    precision: str
    level: str
    checks: tuple[Check, ...]
    tiles: int
    flipped: tuple[int, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed and no decision flipped."""
        return not self.flipped and all(check.passed for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Give all figures as plain values."""
        checks = [{**vars(check), "passed": check.passed} for check in self.checks]
        return {
            **vars(self),
            "checks": checks,
            "flipped": list(self.flipped),
            "passed": self.passed,
        }


def verify_artifact(
    path: str | os.PathLike[str],
    *,
    provider: str = "cpu",
    threads: int | None = None,
    device_id: int = 0,
    build_engine: bool = False,
) -> Verification:
    """Check an artifact's files and re-score its golden tiles.

    They are scored by what :class:`kad_sdk.Detector` would score them with. An artifact of windows
    gives no score to tiles that stand alone: there the base maps are searched as they are.

    Parameters
    ----------
    path, provider, threads, device_id, build_engine
        As :meth:`kad_sdk.Detector.open` takes them.

    Raises
    ------
    ArtifactError
        The artifact is missing, damaged or too new.
    ProviderUnavailableError, MissingDependencyError
        The network cannot run as asked.
    """
    threads = default_threads() if threads is None else threads
    artifact = Artifact.open(path)
    golden, tau = artifact.golden(), artifact.manifest.thresholds.tile
    running = {"device_id": device_id, "build_engine": build_engine}
    run = _GoldenRun(artifact, threads=threads, provider=provider, **running)
    if isinstance(artifact, PatchCoreArtifact):
        checks, scores = _check_patchcore(artifact, run)
    elif isinstance(artifact, CutPasteArtifact):
        checks, scores = _check_cutpaste(artifact, run)
    else:
        raise TypeError(f"expected the artifact of a method, got {type(artifact).__name__}")
    flipped = np.any([(score >= tau) != golden.anomalous for score in scores], axis=0)  # (G,)
    return Verification(
        provider=run.session.provider,
        device=run.session.device,
        precision=run.session.precision,
        level=cpu_level(),
        checks=tuple(checks),
        tiles=len(golden.tiles),
        flipped=tuple(np.flatnonzero(flipped).tolist()),
    )


class _GoldenRun:
    """Runs an artifact's graphs and its scorer on its golden tiles, in one way."""

    def __init__(self, artifact: Artifact, *, threads: int, provider: str, **running: Any) -> None:
        self.threads, self.provider, self._artifact = threads, provider, artifact
        self._count = artifact.manifest.golden.count
        self._running = {"threads": threads, "provider": provider, **running}
        self._tiles = golden_inputs(artifact.golden().tiles, artifact.manifest.preprocessing)
        self.session: NetworkSession  # the last that ran

    def __call__(self, network: bytes, graph: Graph) -> list[NDArray[np.float32]]:
        self.session = NetworkSession(
            network,
            max_batch=self._count,
            precision=self._artifact.manifest.network.precision,
            **self._running,
        )
        self.session.check(graph)
        return self.session.run(self._tiles)

    def scored(self) -> TileFindings:
        """Score the tiles with the scorer of a detector."""
        scorer = open_scorer(self._artifact, maps=True, batch=self._count, **self._running)
        try:
            return scorer.score_tiles(self._tiles)
        finally:
            scorer.close()


def _check_patchcore(
    artifact: PatchCoreArtifact, run: _GoldenRun
) -> tuple[list[Check], list[NDArray[np.float32]]]:
    manifest, golden = artifact.manifest, artifact.golden()
    if manifest.patchcore.mode == "windows":
        check_provider(run.provider)
        maps = run(artifact.network, manifest.graph())
        dist, score = _search(artifact, maps, threads=run.threads)
    else:  # the scorer first: it says what is missing to score at all
        found = run.scored()
        dist, score = np.asarray(found.patches, np.float32), found.scores
        maps = run(artifact.network, manifest.graph())
    tolerance = manifest.golden.tolerance
    checks = [
        _compare(f"base map {output.name}", got, expected, tolerance.base_map)
        for output, got, expected in zip(
            manifest.network.outputs, maps, golden.base_maps, strict=True
        )
    ]
    checks.append(_compare("patch distances", dist, golden.dist, tolerance.score))
    checks.append(_compare("tile scores", score, golden.score, tolerance.score))
    return checks, [score]


def _search(
    artifact: PatchCoreArtifact, maps: list[NDArray[np.float32]], *, threads: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Search base maps (G, C, h, w) on the CPU; distances (G, P) and scores (G,)."""
    settings = artifact.manifest.patchcore
    index = open_index(artifact, threads=threads)
    dist, _, score = index.score_tiles(
        maps,
        grid=settings.grid,
        resampling=settings.resampling,
        reweighting=settings.reweighting,
        neighbors=artifact.neighbors,
        n_neighbors=settings.n_neighbors,
        threads=threads,
    )
    index.close()
    return dist, score


def _check_cutpaste(
    artifact: CutPasteArtifact, run: _GoldenRun
) -> tuple[list[Check], list[NDArray[np.float32]]]:
    """Check both graphs: a detector with maps runs the one, without them the other."""
    manifest, golden = artifact.manifest, artifact.golden()
    graphs = {"": (artifact.network, manifest.graph())}
    if artifact.explain is not None:
        graphs["explained "] = (artifact.explain, manifest.graph(explain=True))
    tolerance, checks, scores = manifest.golden.tolerance, [], []
    for words, (network, graph) in graphs.items():
        logits, embedding, *cam = run(network, graph)
        score = artifact.density.score(embedding, threads=run.threads)
        checks.append(_compare(f"{words}logits", logits, golden.logits, tolerance.network))
        checks.append(_compare(f"{words}embedding", embedding, golden.embedding, tolerance.network))
        if cam and golden.cam is not None:
            checks.append(_compare("Grad-CAM", cam[0][:, 0], golden.cam, tolerance.cam))
        checks.append(_compare(f"{words}tile scores", score, golden.score, tolerance.score))
        scores.append(score)
    return checks, scores


def golden_inputs(tiles: NDArray[np.uint8], settings: Preprocessing) -> NDArray[np.float32]:
    """Normalise golden tiles (G, t, t, 3) to the network's input (G, 3, t, t)."""
    corner = np.zeros((1, 2), np.int32)
    inputs: Sequence[NDArray[np.float32]] = [
        preprocess(tile, corner, tile=settings.tile, mean=settings.mean, std=settings.std)
        for tile in tiles
    ]
    return np.concatenate(inputs)


def _compare(
    name: str, got: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float
) -> Check:
    difference = float(np.abs(got.astype(np.float64) - expected).max())
    scale = float(np.abs(expected).max())
    relative = difference / scale if scale else difference
    return Check(name, max_abs=difference, max_rel=relative, tolerance=tolerance)
