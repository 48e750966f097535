"""Other implementations of greedy k-center, and plain greedy in the defined arithmetic.

A peer is timed on its first picks: it reads all points once for every pick, so a pick costs the
same at the beginning and at the end, and the time of n picks is n times that of one.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from kad_kernels.device import gpu_is_available

from kad_sdk._native import lower_distances

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ANOMALIB", "TORCH", "TORCH_GPU", "direct_greedy", "make_peers", "torch_greedy"]

TORCH, TORCH_GPU = "torch plain greedy", "torch plain greedy, GPU"
ANOMALIB = "anomalib KCenterGreedy"


def make_peers(points: np.ndarray) -> tuple[dict[str, Callable[[int], Any]], dict[str, str]]:
    """Name to a function that picks n points; and name to why a peer does not run."""
    peers: dict[str, Callable[[int], Any]] = {TORCH: lambda n: torch_greedy(points, n)}
    skipped = {}
    if gpu_is_available() and torch.cuda.is_available():
        held = torch.from_numpy(points).cuda()
        peers[TORCH_GPU] = lambda n: torch_greedy(held, n)
    else:
        skipped[TORCH_GPU] = "no GPU"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of anomalib's own imports
            module = importlib.import_module("anomalib.models.components.sampling")
    except ImportError as error:
        skipped[ANOMALIB] = f"not installed ({error}); pip install anomalib"
    else:
        peers[ANOMALIB] = lambda n: _anomalib_greedy(module.KCenterGreedy, points, n)
    return peers, skipped


@torch.inference_mode()
def torch_greedy(points: np.ndarray | torch.Tensor, n: int) -> np.ndarray:
    """Plain greedy in PyTorch, float32, as ind_knn_ad's ``get_coreset_idx_randomp`` does it.

    One norm of all differences, a minimum and an argmax for every pick.
    """
    points = torch.as_tensor(points)
    chosen = [0]
    least = torch.linalg.norm(points - points[0], dim=1)
    for _ in range(n - 1):
        row = int(torch.argmax(least))
        chosen.append(row)
        torch.minimum(least, torch.linalg.norm(points - points[row], dim=1), out=least)
        least[row] = 0
    return np.array(chosen, np.int64)


@torch.inference_mode()
def _anomalib_greedy(kind: Any, points: np.ndarray, n: int) -> None:
    """Run anomalib's selection on points that are projected already.

    An embedding of three dimensions is taken as it is: anomalib's projection is not charged to it.
    """
    embedding = torch.from_numpy(points)[:, :, None]  # (N, d, 1)
    kind(embedding, sampling_ratio=(n + 0.5) / len(points)).select_coreset_idxs()


def direct_greedy(points: np.ndarray, n: int, threads: int) -> np.ndarray:
    """Plain greedy in the defined arithmetic: every point with every centre, nothing left out."""
    least = np.full(len(points), np.inf, np.float32)
    chosen = np.zeros(n, np.int64)
    for i in range(n):
        row = chosen[i]
        lower_distances(points, points[row : row + 1], least, threads=threads)
        least[row] = -1
        if i + 1 < n:
            chosen[i + 1] = least.argmax()  # the first of equals
    return chosen
