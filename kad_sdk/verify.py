"""Re-score an artifact's golden tiles on this machine, and compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kad_sdk._native import NativeIndex, cpu_level, preprocess
from kad_sdk.artifact import Artifact, PatchCoreArtifact
from kad_sdk.errors import ArtifactError
from kad_sdk.session import NetworkSession, default_threads

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kad_sdk.manifest import Manifest

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
        One for each base map, one for patch distances, one for scores.
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
) -> Verification:
    """Check an artifact's files and re-score its golden tiles.

    Parameters
    ----------
    path, provider, threads, device_id
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
    if not isinstance(artifact, PatchCoreArtifact):
        raise ArtifactError(f"{path}: method {artifact.manifest.method!r} cannot be verified yet")
    manifest, golden = artifact.manifest, artifact.golden()
    session = NetworkSession(
        artifact.network,
        provider=provider,
        threads=threads,
        device_id=device_id,
        max_batch=manifest.golden.count,
    )
    session.check(manifest)
    maps = session.run(golden_inputs(golden.tiles, manifest))
    index = NativeIndex(artifact.bank, threads=threads)
    dist, _, score = index.score_tiles(
        maps,
        grid=manifest.patchcore.grid,
        resampling=manifest.patchcore.resampling,
        reweighting=manifest.patchcore.reweighting,
        neighbors=artifact.neighbors,
        n_neighbors=manifest.patchcore.n_neighbors,
        threads=threads,
    )
    index.close()
    tolerance = manifest.golden.tolerance
    checks = [
        _compare(f"base map {output.name}", got, expected, tolerance.base_map)
        for output, got, expected in zip(
            manifest.network.outputs, maps, golden.base_maps, strict=True
        )
    ]
    checks.append(_compare("patch distances", dist, golden.dist, tolerance.score))
    checks.append(_compare("tile scores", score, golden.score, tolerance.score))
    flipped = np.flatnonzero((score >= manifest.thresholds.tile) != golden.anomalous)
    return Verification(
        provider=session.provider,
        device=session.device,
        precision=session.precision,
        level=cpu_level(),
        checks=tuple(checks),
        tiles=len(golden.tiles),
        flipped=tuple(flipped.tolist()),
    )


def golden_inputs(tiles: NDArray[np.uint8], manifest: Manifest) -> NDArray[np.float32]:
    """Normalise golden tiles (G, t, t, 3) to the network's input (G, 3, t, t)."""
    corner = np.zeros((1, 2), np.int32)
    settings = manifest.preprocessing
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
