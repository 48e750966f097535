"""Exact search on a GPU: kad's kernels against FAISS's method and ``torch.cdist`` in PyTorch.

FAISS's flat index computes squared distances as ``|x|^2 + |y|^2 - 2 x.y`` with one float32 matrix
product for each block of queries, and selects the k smallest; its GPU wheel is seldom at hand, so
the method is written in PyTorch. Queries and banks lie on the GPU, and so do the answers. Every
answer is compared with float64 before a time is taken; kad's also with its NumPy reference and, all
of it, between its tiers, bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from kad_kernels import reference
from kad_kernels._cuda import cuda
from kad_kernels.nearest import NearestRows, open_rows

from kad_bench.answers import WrongAnswerError, check_answer, find_truth
from kad_bench.features import KINDS, StoredFeatures
from kad_bench.generated import PATCHES, generated_features
from kad_bench.gpu_parts import gather, on_gpu, seconds_of, wait
from kad_bench.gpu_parts import gpu_table as table
from kad_bench.measure import summarise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kad_bench.suites import Settings

__all__ = ["PROFILES", "run", "table"]

KAD, PORTABLE = "kad", "kad, portable tier"
PRODUCT, CDIST = "torch float32 product (FAISS's method)", "torch.cdist"
BLOCK_BYTES = 2 << 30  # of distances that a peer holds at a time
IN_NUMPY = 4  # queries that are compared with the NumPy reference


@dataclass(frozen=True)
class Profile:
    """How much a run measures.

    Attributes
    ----------
    banks : tuple of (rows, channels)
    tiles : int
        Whose patches are queries.
    queries : int or None
        At most so many of them.
    neighbours : tuple of int
        k.
    rounds, checked : int
        Calls that are timed; queries whose answers are compared with float64.
    limit_s : float
        No case is begun after that.
    """

    banks: tuple[tuple[int, int], ...]
    tiles: int
    queries: int | None
    neighbours: tuple[int, ...]
    rounds: int
    checked: int
    limit_s: float


PROFILES = {
    "smoke": Profile(((70, 9),), 1, 40, (1, 2), 1, 20, 600),
    "regular": Profile(
        ((10_000, 1_536), (72_500, 1_536), (10_000, 384)), 16, None, (1, 3), 5, 128, 110
    ),
    "full": Profile(
        ((10_000, 1_536), (72_500, 1_536), (10_000, 384)), 64, None, (1, 3), 20, 512, 1_800
    ),
}


def run(settings: Settings) -> dict[str, Any]:
    """Search every bank, generated ones and those that the cache has of real images."""
    profile = PROFILES[settings.profile]
    torch.set_num_threads(settings.threads)
    cases: dict[str, Callable[[], dict[str, Any]]] = {}
    for rows, dims in profile.banks:
        name = f"generated {rows:,} x {dims:,}"
        cases[name] = partial(_generated, name, rows, dims, profile)
    for path in sorted(settings.cache.glob("resnet*-*.safetensors")):
        stored = StoredFeatures.read(path, "real images, from the cache of the search suite")
        for kind in KINDS:
            name = f"{path.stem.split('-')[0]} {len(stored.bank):,} x {stored.bank.shape[1]:,}"
            cases[f"{name}, {kind} tiles"] = partial(
                _stored, name, stored, kind, profile=profile, threads=settings.threads
            )
    every = dict(_each_k(cases, profile))
    return gather("gpu_search", every, settings, profile.limit_s)


def _each_k(
    cases: dict[str, Callable[..., dict[str, Any]]], profile: Profile
) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    for name, measure in cases.items():
        for k in profile.neighbours:
            yield f"{name}, k = {k}", partial(measure, k)


def _generated(name: str, rows: int, dims: int, profile: Profile, k: int) -> dict[str, Any]:
    """Bank and queries from :mod:`kad_bench.generated`, of different tiles."""
    tiles = profile.tiles
    queries = np.concatenate([generated_features(tile, dims) for tile in range(tiles)])
    needed = -(-rows // PATCHES) + 1
    every = np.concatenate([generated_features(tiles + i, dims) for i in range(needed)])
    bank = every[np.random.default_rng(0).permutation(len(every))[:rows]]
    what = "generated features (kad_bench.generated); bank of other tiles' patches, drawn at random"
    return _measure(Data(name, what, bank, queries[: profile.queries]), k, profile)


def _stored(
    name: str, stored: StoredFeatures, kind: str, k: int, *, profile: Profile, threads: int
) -> dict[str, Any]:
    """Bank and queries of real images."""
    tiles = min(profile.tiles, len(stored.maps[kind][0]))
    data = Data(name, stored.what, np.array(stored.bank), stored.features(kind, tiles, threads))
    return {**_measure(data, k, profile), "queries": f"{kind} tiles"}


@dataclass(frozen=True)
class Data:
    """A bank (M, D) and queries (n, D), and how they were made."""

    name: str
    what: str
    bank: np.ndarray
    queries: np.ndarray


def _measure(data: Data, k: int, profile: Profile) -> dict[str, Any]:
    """Check and time all engines."""
    bank, queries = data.bank, data.queries
    held, rows = cuda.to_device(queries), open_rows(bank)
    calls: dict[str, Callable[[], tuple[Any, Any]]] = {KAD: partial(rows.query_device, held, k)}
    if type(rows) is not NearestRows:
        calls[PORTABLE] = partial(NearestRows(bank).query_device, held, k)
    x, y = on_gpu(held), on_gpu(rows.rows)
    calls[PRODUCT] = partial(_product, x, y, k)
    calls[CDIST] = partial(_cdist, x, y, k)
    accuracy = _check(calls, bank, queries, k, profile.checked)
    seconds = {
        engine: seconds_of(call, profile.rounds, limit_s=6) for engine, call in calls.items()
    }
    work = 2 * len(queries) * bank.size
    engines = {
        engine: {
            "seconds": summarise(taken),
            "rates": {
                "TFLOP/s, if 2 n M D": work / min(taken) / 1e12,
                "ms a tile": 1e3 * float(np.median(taken)) * PATCHES / len(queries),
            },
            "accuracy": {"largest error, of what is allowed": accuracy[engine]},
            "batch": len(queries),
        }
        for engine, taken in seconds.items()
    }
    ratios = {peer: _ratio(seconds[peer], seconds[KAD]) for peer in calls if peer != KAD}
    return {
        "case": data.name,
        "k": k,
        "what": f"{data.what}; {len(queries):,} queries on the GPU, answers stay there",
        "unit": "call",
        "engines": engines,
        "ratios": {KAD: ratios},
        "skipped": {},
    }


def _ratio(slower: list[float], faster: list[float]) -> dict[str, float]:
    return summarise([value / float(np.median(faster)) for value in slower])


def _check(
    calls: dict[str, Callable[[], tuple[Any, Any]]],
    bank: np.ndarray,
    queries: np.ndarray,
    k: int,
    checked: int,
) -> dict[str, float]:
    """Run every engine once and compare its answer; the largest error of each, in its limits."""
    sample = np.unique(np.linspace(0, len(queries) - 1, checked).astype(np.int64))
    truth = find_truth(queries, bank, k, sample)
    first = sample[:IN_NUMPY]
    exact = reference.nearest(queries[first], bank, k)
    found, errors = {}, {}
    for engine, call in calls.items():
        answer = call()
        wait()
        dist, index = (_host(part) for part in answer)
        errors[engine] = check_answer(engine, truth, dist, index, direct=engine in (KAD, PORTABLE))
        if engine in (KAD, PORTABLE):
            found[engine] = dist, index
            _same(f"{engine} and NumPy's reference", (dist[first], index[first]), exact)
    if PORTABLE in found:
        _same("kad's tiers", found[KAD], found[PORTABLE])
    return errors


def _same(names: str, a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...]) -> None:
    """Refuse answers that differ in a bit."""
    for part, left, right in zip(("distances", "rows"), a, b, strict=True):
        wrong = int((np.asarray(left) != np.asarray(right)).sum())
        if wrong:
            raise WrongAnswerError(f"{names} differ in {wrong} of {left.size} {part}")


def _host(array: Any) -> np.ndarray:
    if isinstance(array, torch.Tensor):
        return array.cpu().numpy()
    return np.array(array.copy_to_host())


def _blocks(x: torch.Tensor, y: torch.Tensor) -> Iterator[torch.Tensor]:
    """Split queries into blocks whose distances to all rows fit."""
    each = max(1, BLOCK_BYTES // (4 * len(y)))
    yield from x.split(each)


@torch.inference_mode()
def _product(x: torch.Tensor, y: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    norms = (y * y).sum(1)
    dists, rows = [], []
    for part in _blocks(x, y):
        dist2 = torch.addmm(norms[None], part, y.T, alpha=-2)  # less |x|^2: the same order
        least, row = _least(dist2, k)
        dists.append((least + (part * part).sum(1, keepdim=True)).clamp_(min=0).sqrt_())
        rows.append(row)
    return torch.cat(dists), torch.cat(rows)


@torch.inference_mode()
def _cdist(x: torch.Tensor, y: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    found = [_least(torch.cdist(part, y), k) for part in _blocks(x, y)]
    return torch.cat([dist for dist, _ in found]), torch.cat([row for _, row in found])


def _least(values: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the k smallest of each row, and where: by a minimum alone where that is enough."""
    if k == 1:
        least, row = values.min(1, keepdim=True)
    else:
        least, row = values.topk(k, largest=False)
    return least, row
