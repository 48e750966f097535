"""PatchCore's tiles: base maps from the network, exact search in the memory bank."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from kad_sdk._native import MapLayout, NativeIndex
from kad_sdk.errors import InvalidArgumentError
from kad_sdk.scoring import BoardScorer, Stopwatch, TileFindings
from kad_sdk.session import NetworkSession

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray

    from kad_sdk.artifact import PatchCoreArtifact
    from kad_sdk.manifest import MapSettings, NetworkOutput, PatchCore, Preprocessing

__all__ = ["BankScorer", "PatchCoreScorer", "map_layout", "open_index"]


def map_layout(outputs: Sequence[NetworkOutput], patchcore: PatchCore) -> MapLayout:
    """Say what the base maps of a network look like to the search."""
    layers = [(output.channels, output.height, output.width) for output in outputs]
    return MapLayout(layers, patchcore.grid, patchcore.resampling)


def open_index(artifact: PatchCoreArtifact, *, threads: int) -> NativeIndex:
    """Open the index that is searched: the stored one, or one built from the bank."""
    manifest = artifact.manifest
    return NativeIndex(
        artifact.bank,
        layout=map_layout(manifest.network.outputs, manifest.patchcore),
        threads=threads,
        stored=artifact.stored_index,
    )


class BankScorer(BoardScorer):
    """Scores boards by the distance of their patches to a memory bank; a subclass per mode.

    Parameters
    ----------
    session
        The network that gives base maps.
    index
        The memory bank.
    preprocessing, patchcore, map_settings
        Settings as in the manifest.
    neighbors
        (M, columns) int64, each bank row's nearest other rows, for the re-weighting.
    threads, batch
        As :class:`kad_sdk.scoring.BoardScorer` takes them.
    maps
        Whether board maps are made.

    Raises
    ------
    InvalidArgumentError
        The bank was fitted in the other mode.
    """

    session: NetworkSession

    def __init__(
        self,
        session: NetworkSession,
        index: NativeIndex,
        *,
        preprocessing: Preprocessing,
        patchcore: PatchCore,
        map_settings: MapSettings,
        neighbors: NDArray[np.int64],
        threads: int,
        batch: int = 16,
        maps: bool = True,
    ) -> None:
        self._take_settings(patchcore)
        super().__init__(
            session,
            preprocessing=preprocessing,
            map_settings=map_settings,
            grid=patchcore.grid if maps else None,
            threads=threads,
            batch=batch,
        )
        self._index, self._patchcore, self._neighbors = index, patchcore, neighbors

    @abstractmethod
    def _take_settings(self, patchcore: PatchCore) -> None:
        """Refuse the settings of the other mode."""

    @classmethod
    def open(
        cls, artifact: PatchCoreArtifact, *, maps: bool, threads: int, batch: int, **running: Any
    ) -> Self:
        """Open an artifact's network and index; `running` is for :class:`NetworkSession`."""
        manifest = artifact.manifest
        running = {"precision": manifest.network.precision, **running}
        session = NetworkSession(artifact.network, threads=threads, max_batch=batch, **running)
        session.check(manifest.graph())
        return cls(
            session,
            open_index(artifact, threads=threads),
            preprocessing=manifest.preprocessing,
            patchcore=manifest.patchcore,
            map_settings=manifest.map,
            neighbors=artifact.neighbors,
            threads=threads,
            batch=batch,
            maps=maps,
        )

    def close(self) -> None:  # noqa: D102 - as the base's
        self._index.close()


class PatchCoreScorer(BankScorer):
    """Scores boards by their tiles. Its stages are ``network`` and ``search``."""

    def _take_settings(self, patchcore: PatchCore) -> None:
        if patchcore.mode != "tiles":
            raise InvalidArgumentError(
                "this artifact was fitted in windows: its bank and thresholds hold for them alone; "
                "score it in windows, or export it with --mode tiles"
            )

    def score_tiles(  # noqa: D102 - as the base's
        self, tiles: NDArray[np.float32], watch: Stopwatch | None = None
    ) -> TileFindings:
        watch = watch or Stopwatch()
        with watch.stage("network"):
            base_maps = self.session.run(tiles)
        with watch.stage("search"):
            dist, rows, scores = self._index.score_tiles(
                base_maps,
                grid=self._patchcore.grid,
                resampling=self._patchcore.resampling,
                reweighting=self._patchcore.reweighting,
                neighbors=self._neighbors,
                n_neighbors=self._patchcore.n_neighbors,
                threads=self.threads,
            )
        return TileFindings(scores, dist, rows)
