"""What this machine can do at most, measured: the roofs of a roofline."""

from __future__ import annotations

import time

import torch

from kad_bench.measure import sgemm_gflop_per_s

__all__ = ["measure_peaks"]

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


def _memory_gb_per_s(threads: int, repeats: int = 5) -> float:
    torch.set_num_threads(threads)
    a, b, c = (torch.full((_BYTES // 4,), value) for value in (1.0, 2.0, 0.0))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        torch.add(a, b, out=c)
        seconds.append(time.perf_counter() - start)
    return 3 * _BYTES / min(seconds) / 1e9
