"""What is searched: banks and queries of the search suite, by profile."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from kad_bench.features import KINDS, ImageFeatures, StoredFeatures, write_features
from kad_sdk._native import patch_features

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kad_bench.suites import Settings

__all__ = ["PROFILES", "Case", "Profile", "SmoothFeatures", "UniformVectors"]

_RESNET18 = ImageFeatures(
    name="resnet18",
    data="kolektor_sdd",
    backbone="resnet18",
    layers=("layer2", "layer3"),
    weights="imagenet",
    rows=10_000,
    candidates=100_000,
    projected=False,
    tiles=16,
)
_RESNET18_LARGE = replace(_RESNET18, rows=72_500, candidates=150_000, projected=True)
_RESNET50 = ImageFeatures(
    name="resnet50",
    data="kolektor_sdd",
    backbone="resnet50",
    layers=("layer2", "layer3"),
    weights="random:0",
    rows=72_500,
    candidates=150_000,
    projected=True,
    tiles=16,
)


@dataclass(frozen=True)
class Case:
    """A bank and a batch of queries.

    Attributes
    ----------
    name, what, kind : str
        The bank's name; how it was made; which queries.
    bank : (M, D) float32
    queries : (n, D) float32
        Patch features of `maps`, or plain vectors.
    peer_queries : int
        The first so many are given to the peers, whose time does not depend on the values.
    stored : StoredFeatures or None
        Where bank and maps come from.
    maps : list of (B, C, h, w) float32, or None
        The base maps of the queries.
    """

    name: str
    what: str
    kind: str
    bank: np.ndarray
    queries: np.ndarray
    peer_queries: int
    stored: StoredFeatures | None = None
    maps: list[np.ndarray] | None = None


_TEXTURES = 4  # from which the channels of smooth features are mixed


@dataclass(frozen=True)
class SmoothFeatures:
    """Base maps without images: few smooth textures mixed, and grain.

    So neighbouring patches are alike, and patches of different tiles too, as in real maps.
    """

    name: str
    rows: int
    channels: tuple[int, ...]
    sides: tuple[int, ...]
    tiles: int

    def prepare(self, cache: Path, threads: int, say: Callable[[str], None]) -> StoredFeatures:
        """Make the features; `threads` and `say` are not needed for so little."""
        del threads, say
        what = f"mixed smooth textures; bank of {self.rows} of their patches, drawn at random"
        path = cache / f"{self.name}.safetensors"
        generator = np.random.default_rng(0)
        maps = {kind: self._maps(generator, shift) for shift, kind in enumerate(KINDS)}
        others = self._maps(generator, 0)
        every = patch_features(others, grid=others[0].shape[2:], resampling="bilinear")
        every = every.reshape(-1, every.shape[2])
        write_features(path, every[generator.permutation(len(every))[: self.rows]], maps)
        return StoredFeatures.read(path, what)

    def _maps(self, generator: np.random.Generator, shift: float) -> list[np.ndarray]:
        def smooth(side: int) -> np.ndarray:
            coarse = generator.standard_normal((4, 4), dtype=np.float32)
            return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)

        def tile(mixing: np.ndarray, side: int) -> np.ndarray:
            texture = np.array([smooth(side) for _ in range(_TEXTURES)])  # (_TEXTURES, side, side)
            grain = generator.standard_normal((len(mixing), side, side), dtype=np.float32)
            return np.abs(np.tensordot(mixing, texture, 1)) + 0.05 * grain + shift

        drawn = np.random.default_rng(1)  # the same network for every tile
        sizes = zip(self.channels, self.sides, strict=True)
        mixings = [(drawn.standard_normal((n, _TEXTURES), dtype=np.float32), s) for n, s in sizes]
        return [np.array([tile(m, s) for _ in range(self.tiles)], np.float32) for m, s in mixings]


@dataclass(frozen=True)
class UniformVectors:
    """Independent uniform values: no row is near, so hardly one can be ruled out early."""

    rows: int
    dims: int

    what = "independent uniform values in [0, 1), bank and queries"

    def cases(self, n_queries: int, peer_queries: int) -> Iterator[Case]:
        """Yield the one case."""
        generator = np.random.default_rng(0)
        bank = generator.random((self.rows, self.dims), dtype=np.float32)
        queries = generator.random((n_queries, self.dims), dtype=np.float32)
        yield Case(
            f"uniform {_size(bank)}", self.what, "uniform vectors", bank, queries, peer_queries
        )


@dataclass(frozen=True)
class Entry:
    """Features, and how many tiles of them are searched."""

    source: ImageFeatures | SmoothFeatures | UniformVectors
    tiles: int
    peer_tiles: int

    def cases(self, settings: Settings) -> Iterator[Case]:
        """Yield the cases, one for each kind of query."""
        if isinstance(self.source, UniformVectors):
            yield from self.source.cases(self.tiles * 784, self.peer_tiles * 784)
            return
        stored = self.source.prepare(settings.cache, settings.threads, settings.say)
        for kind in KINDS:
            maps = [np.array(x[: self.tiles]) for x in stored.maps[kind]]
            queries = stored.features(kind, self.tiles, settings.threads)
            yield Case(
                name=f"{self.source.name} {_size(stored.bank)}",
                what=stored.what,
                kind=f"{kind} tiles",
                bank=stored.bank,
                queries=queries,
                peer_queries=self.peer_tiles * len(queries) // self.tiles,
                stored=stored,
                maps=maps,
            )


@dataclass(frozen=True)
class Profile:
    """How much a run measures.

    Attributes
    ----------
    entries : tuple of Entry
        What is searched.
    rounds : int
        How often each engine is timed.
    checked : int
        Queries of each case whose answers are compared with the truth.
    """

    entries: tuple[Entry, ...]
    rounds: int
    checked: int


PROFILES = {
    "smoke": Profile(
        (
            Entry(SmoothFeatures("smooth", 2_000, (24, 40), (28, 14), 3), tiles=3, peer_tiles=1),
            Entry(UniformVectors(500, 33), tiles=1, peer_tiles=1),
        ),
        rounds=2,
        checked=200,
    ),
    "regular": Profile(
        (
            Entry(_RESNET18, tiles=16, peer_tiles=16),
            Entry(UniformVectors(10_000, 384), tiles=4, peer_tiles=4),
            Entry(_RESNET18_LARGE, tiles=4, peer_tiles=4),
            Entry(_RESNET50, tiles=2, peer_tiles=2),
            Entry(UniformVectors(72_500, 1536), tiles=1, peer_tiles=1),
        ),
        rounds=5,
        checked=512,
    ),
    "full": Profile(
        (
            Entry(_RESNET18, tiles=16, peer_tiles=16),
            Entry(UniformVectors(10_000, 384), tiles=16, peer_tiles=16),
            Entry(_RESNET18_LARGE, tiles=16, peer_tiles=16),
            Entry(_RESNET50, tiles=4, peer_tiles=4),
            Entry(UniformVectors(72_500, 1536), tiles=4, peer_tiles=4),
        ),
        rounds=15,
        checked=2048,
    ),
}


def _size(bank: np.ndarray) -> str:
    return f"{len(bank):,} x {bank.shape[1]:,}"
