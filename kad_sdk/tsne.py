"""t-SNE of tile embeddings as a picture (thesis, section 6.1.6): normal tiles, and each kind."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from kad_sdk import plots

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["FEWEST", "EmbeddingSample", "lay_out", "tsne_png"]

_PER_CLASS = 600  # tiles kept of either class: t-SNE takes some seconds for all of them
_PERPLEXITY = 30.0
FEWEST = 8  # tiles of which a picture is drawn
_NORMAL = "normal"
_GREY = "0.72"
_SEED = 0


@dataclass
class EmbeddingSample:
    """Embeddings of at most so many normal and so many defective tiles, drawn evenly from all.

    Each tile draws a number, and those with the smallest are kept: whatever comes later, every tile
    was as likely to be kept as any other.
    """

    per_class: int = _PER_CLASS
    _rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(_SEED))
    _kept: dict[bool, _Kept] = field(default_factory=dict)

    def add(
        self,
        embeddings: NDArray[np.float32],
        truth: NDArray[np.uint8],
        kinds: Mapping[str, NDArray[np.uint8] | None],
    ) -> None:
        """Offer the tiles of an image.

        Parameters
        ----------
        embeddings
            (n, E).
        truth
            (n,), 1 where the tile shows a defect.
        kinds
            Kind to the tiles (n,) that show it; a tile of several kinds counts as the first.
        """
        names = np.full(len(truth), _NORMAL, dtype=object)
        for kind, shown in reversed(list(kinds.items())):
            if shown is not None:
                names[shown == 1] = kind
        drawn = self._rng.random(len(truth))
        for defective in (False, True):
            own = (truth == 1) == defective
            if own.any():
                new = _Kept(drawn[own], embeddings[own], names[own])
                old = self._kept.get(defective)
                self._kept[defective] = (new if old is None else old.joined(new)).cut(
                    self.per_class
                )

    def tiles(self) -> tuple[NDArray[np.float32], list[str]]:
        """Give the embeddings (n, E) that were kept, normal ones first, and the kind of each."""
        kept = [self._kept[key] for key in sorted(self._kept)]
        if not kept:
            return np.zeros((0, 0), np.float32), []
        embeddings = np.concatenate([part.embeddings for part in kept])
        return embeddings, [str(name) for part in kept for name in part.names]


@dataclass(frozen=True)
class _Kept:
    drawn: NDArray[np.float64]
    embeddings: NDArray[np.float32]
    names: NDArray[Any]

    def joined(self, other: _Kept) -> _Kept:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return _Kept(*(np.concatenate(pair) for pair in pairs))

    def cut(self, n: int) -> _Kept:
        first = np.argsort(self.drawn)[:n]
        return _Kept(self.drawn[first], self.embeddings[first], self.names[first])


def lay_out(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Place embeddings (n, E) in the plane by t-SNE, seeded; returns (n, 2)."""
    manifold = importlib.import_module("sklearn.manifold")
    perplexity = min(_PERPLEXITY, (len(embeddings) - 1) / 3)
    tsne = manifold.TSNE(perplexity=perplexity, init="pca", random_state=_SEED)
    return np.asarray(tsne.fit_transform(embeddings), np.float32)


def tsne_png(embeddings: NDArray[np.float32], kinds: Sequence[str]) -> bytes:
    """Draw the map of `lay_out`, each tile coloured by its kind.

    Parameters
    ----------
    embeddings
        (n, E).
    kinds
        n names, ``"normal"`` or a kind of defect.
    """
    figure = plots.new_figure(7.2, 6.4)
    axes = figure.subplots()
    axes.set(title="t-SNE of tile embeddings", xticks=[], yticks=[])
    if len(kinds) < FEWEST:
        plots.note(axes, f"needs at least {FEWEST} tiles with a known label")
        return plots.png(figure)
    places, names = lay_out(embeddings), np.array(kinds)
    palette = cycle(importlib.import_module("matplotlib").colormaps["tab10"].colors)
    colours = dict(zip(sorted({*kinds} - {_NORMAL}), palette, strict=False))
    for kind in sorted({*kinds}, key=lambda name: (name != _NORMAL, name)):
        x, y = places[names == kind].T
        style = {"s": 9, "linewidths": 0, "color": colours.get(kind, _GREY)}
        axes.scatter(x, y, **style, label=f"{kind} ({x.size:,})")
    axes.legend(frameon=False, fontsize=8, markerscale=2, loc="upper left", bbox_to_anchor=(1, 1))
    return plots.png(figure)
