"""What this machine can do at most, measured: the roofs of a roofline."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["measure_peaks", "sgemm_gflop_per_s"]

_BYTES = 256 << 20  # of each array: far beyond any cache


def measure_peaks(threads: int) -> dict[str, float]:
    """Measure the float32 matrix product and the memory.

    Returns
    -------
    dict
        ``gflop_per_s``; ``gb_per_s``, of ``c = a + b`` on arrays of 256 MiB, counting what is read
        and written.
    """
    return {"gflop_per_s": sgemm_gflop_per_s(threads), "gb_per_s": _memory_gb_per_s(threads)}


def sgemm_gflop_per_s(threads: int, *, sides: tuple[int, ...] = (1536, 3072)) -> float:
    """Measure the float32 matrix product: the best of NumPy's and PyTorch's, and of sizes."""
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 - of scikit-learn, not always there

    torch.set_num_threads(threads)
    rates = []
    with threadpool_limits(threads, user_api="blas"):
        for side in sides:
            a, b = np.random.default_rng(0).random((2, side, side), dtype=np.float32)
            products = (lambda x=a, y=b: x @ y, lambda x=a, y=b: _torch_product(x, y))
            rates += [2 * side**3 / _least_s(product) / 1e9 for product in products]
    return max(rates)


def _torch_product(a: np.ndarray, b: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(a) @ torch.from_numpy(b)


def _least_s(call: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _memory_gb_per_s(threads: int) -> float:
    torch.set_num_threads(threads)
    a, b, c = (torch.full((_BYTES // 4,), value) for value in (1.0, 2.0, 0.0))
    return 3 * _BYTES / _least_s(lambda: torch.add(a, b, out=c)) / 1e9
