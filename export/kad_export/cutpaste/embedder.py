"""Embeddings of normal tiles, by the runtime's own stages: what the density is fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kad_export.data import load_board
from kad_sdk._native import preprocess

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from kad_export.features import BoardTiles
    from kad_export.report import Silent
    from kad_sdk.dataset import Sample
    from kad_sdk.manifest import Preprocessing
    from kad_sdk.session import NetworkSession

__all__ = ["Embedder"]


@dataclass(frozen=True)
class Embedder:
    """Boards to embeddings.

    Attributes
    ----------
    session : NetworkSession
        The exported graph; its second output is the embedding.
    preprocessing : Preprocessing
        How boards become tiles.
    batch, threads : int
        Tiles computed at a time; threads of the native stages.
    """

    session: NetworkSession
    preprocessing: Preprocessing
    batch: int
    threads: int

    def load(self, sample: Sample) -> NDArray[np.generic]:
        """Read a board and prepare it as scoring does."""
        settings = self.preprocessing
        return load_board(
            sample, resize=settings.resize, denoise=settings.denoise, threads=self.threads
        )

    def draw(
        self, boards: Sequence[BoardTiles], limit: int, seed: int, console: Silent
    ) -> NDArray[np.float32]:
        """Embed at most `limit` of all tiles, drawn at random; returns (n, E)."""
        chosen = _draw([len(board.xy) for board in boards], limit, seed)
        found = []
        with console.progress("density", sum(map(len, chosen)), "tiles") as bar:
            for board, places in zip(boards, chosen, strict=True):
                if not len(places):
                    continue
                for embeddings in self._embed(board.sample, board.xy[places]):
                    found.append(embeddings)
                    bar.advance(len(embeddings))
        return np.concatenate(found)

    def _embed(self, sample: Sample, xy: NDArray[np.int32]) -> Iterator[NDArray[np.float32]]:
        image, settings = self.load(sample), self.preprocessing
        cut = {"tile": settings.tile, "mean": settings.mean, "std": settings.std}
        for start in range(0, len(xy), self.batch):
            corners = xy[start : start + self.batch]
            tiles = preprocess(image, corners, **cut, threads=self.threads)  # (b, 3, t, t)
            yield self.session.run(tiles)[1]


def _draw(counts: Sequence[int], limit: int, seed: int) -> list[NDArray[np.int64]]:
    """Draw at most `limit` of all tiles; returns those of each board, in its own numbers."""
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(sum(counts))[:limit])
    ends = np.cumsum(counts)
    parts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
    return [part - (end - count) for part, end, count in zip(parts, ends, counts, strict=True)]
