"""CutPaste's tiles: embedding and Grad-CAM from the network, the embedding's distance as score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kad_sdk.errors import InvalidArgumentError, NotFiniteError
from kad_sdk.scoring import BoardScorer, Stopwatch, TileFindings
from kad_sdk.session import NetworkSession

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kad_sdk.artifact import CutPasteArtifact
    from kad_sdk.density import NormalDensity
    from kad_sdk.manifest import CutPaste, MapSettings, Preprocessing

__all__ = ["CutPasteScorer", "cam_in_units_of_score"]


class CutPasteScorer(BoardScorer):
    """Scores boards by how far their tiles' embeddings lie from the normal ones.

    Its stages are ``network``, or ``explain`` where the graph gives Grad-CAM too, and ``density``.

    Parameters
    ----------
    session
        The graph with Grad-CAM, where maps of it are made; else the plain network.
    density
        Where the normal embeddings lie.
    preprocessing, cutpaste, map_settings
        Settings as in the manifest.
    threads, batch
        As :class:`kad_sdk.scoring.BoardScorer` takes them.
    maps
        Whether board maps are made.

    Raises
    ------
    InvalidArgumentError
        Maps of Grad-CAM are asked for, and the session's graph does not give it.
    """

    session: NetworkSession

    def __init__(
        self,
        session: NetworkSession,
        density: NormalDensity,
        *,
        preprocessing: Preprocessing,
        cutpaste: CutPaste,
        map_settings: MapSettings,
        threads: int,
        batch: int = 16,
        maps: bool = True,
    ) -> None:
        super().__init__(
            session,
            preprocessing=preprocessing,
            map_settings=map_settings,
            grid=cutpaste.map_grid if maps else None,
            threads=threads,
            batch=batch,
        )
        self._density = density
        self._explains = "cam" in session.output_names
        if maps and cutpaste.map == "grad-cam" and not self._explains:
            raise InvalidArgumentError(
                "session: maps of Grad-CAM need the graph that gives it, explain.onnx; got one "
                f"with the outputs {', '.join(session.output_names)}"
            )

    @classmethod
    def open(
        cls, artifact: CutPasteArtifact, *, maps: bool, threads: int, batch: int, **running: Any
    ) -> CutPasteScorer:
        """Open the one graph that is needed; `running` is for :class:`NetworkSession`."""
        manifest, explain = artifact.manifest, artifact.explain if maps else None
        network = artifact.network if explain is None else explain
        running = {"precision": artifact.manifest.network.precision, **running}
        session = NetworkSession(network, threads=threads, max_batch=batch, **running)
        session.check(manifest.graph(explain=explain is not None))
        return cls(
            session,
            artifact.density,
            preprocessing=manifest.preprocessing,
            cutpaste=manifest.cutpaste,
            map_settings=manifest.map,
            threads=threads,
            batch=batch,
            maps=maps,
        )

    def score_tiles(  # noqa: D102 - as the base's
        self, tiles: NDArray[np.float32], watch: Stopwatch | None = None
    ) -> TileFindings:
        watch = watch or Stopwatch()
        with watch.stage("explain" if self._explains else "network"):
            found = dict(zip(self.session.output_names, self.session.run(tiles), strict=True))
        with watch.stage("density"):
            scores = self._density.score(found["embedding"], threads=self.threads)
        if self._grid is None:
            return TileFindings(scores, embeddings=found["embedding"])
        with watch.stage("map"):
            patches = cam_in_units_of_score(found["cam"], scores) if self._explains else scores
        return TileFindings(scores, patches.reshape(len(scores), -1), embeddings=found["embedding"])


def cam_in_units_of_score(
    cam: NDArray[np.float32], scores: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Scale Grad-CAM so that its peak is the tile's score: ``cam / max(cam) * score``, float32.

    Parameters
    ----------
    cam
        (B, 1, h, w), 0 or more.
    scores
        (B,)

    Returns
    -------
    ndarray
        (B, h * w); zeros where max(cam) is 0.

    Raises
    ------
    NotFiniteError
        `cam` holds NaN or Inf.
    """
    flat = cam.reshape(len(cam), -1)  # (B, h * w)
    bad = np.flatnonzero(~np.isfinite(flat).all(axis=1))
    if len(bad):
        raise NotFiniteError(
            f"the network's output 'cam' of tile {bad[0]} holds NaN or Inf: every value must be "
            "finite"
        )
    peak = flat.max(axis=1, keepdims=True)  # (B, 1)
    shares = np.divide(flat, peak, out=np.zeros_like(flat), where=peak != 0)
    return np.asarray(shares * scores[:, None])
