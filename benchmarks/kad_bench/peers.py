"""The searches that kad is compared with, as their users call them, all on the CPU."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    Answer = tuple[np.ndarray, np.ndarray]
    Search = Callable[[np.ndarray, int], Answer]

__all__ = ["FAISS", "TORCH_CDIST", "TORCH_MATMUL", "make_peers"]

FAISS, TORCH_CDIST, TORCH_MATMUL = "faiss IndexFlatL2", "torch.cdist", "torch matmul"
_TILE_QUERIES = 784  # torch holds a distance for every pair: one tile of 28 x 28 patches at a time


def make_peers(bank: np.ndarray, threads: int) -> tuple[dict[str, Search], dict[str, str]]:
    """Build every peer's index of a bank (M, D).

    Returns
    -------
    searches : dict
        Name to ``search(queries (n, D), k) -> (dist (n, k), index (n, k))``.
    skipped : dict
        Name to why it cannot run here.
    """
    torch.set_num_threads(threads)
    rows = torch.from_numpy(np.array(bank))  # a copy: torch takes no read-only memory
    searches: dict[str, Search] = {
        TORCH_CDIST: _by_tile(lambda queries: torch.cdist(queries, rows)),
        TORCH_MATMUL: _rooted(_by_tile(_squared_distances(rows))),
    }
    try:
        searches[FAISS] = _faiss(bank, threads)
    except ImportError as error:
        return searches, {FAISS: f"not installed ({error})"}
    return searches, {}


def _faiss(bank: np.ndarray, threads: int) -> Search:
    faiss = importlib.import_module("faiss")
    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatL2(bank.shape[1])
    index.add(bank)

    return _rooted(index.search)


def _rooted(squared: Search) -> Search:
    """Search for distances with one for squared distances."""

    def search(queries: np.ndarray, k: int) -> Answer:
        dist2, rows = squared(queries, k)
        return np.sqrt(np.maximum(dist2, 0)), rows

    return search


def _squared_distances(rows: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    norms = (rows**2).sum(1)  # (M,), once for the bank

    def squared(queries: torch.Tensor) -> torch.Tensor:
        own = (queries**2).sum(1, keepdim=True)  # (n, 1)
        return torch.addmm(norms, queries, rows.T, alpha=-2).add_(own)  # (n, M)

    return squared


def _by_tile(distances: Callable[[torch.Tensor], torch.Tensor]) -> Search:
    """Search with a function from queries (n, D) to all (n, M) distances, squared or not."""

    @torch.inference_mode()
    def search(queries: np.ndarray, k: int) -> Answer:
        found = []
        for block in torch.from_numpy(queries).split(_TILE_QUERIES):
            every = distances(block)
            if k == 1:  # quicker than topk
                found.append(every.min(dim=1, keepdim=True))
            else:
                found.append(every.topk(k, dim=1, largest=False))
        dist, index = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
        return dist, index

    return search
