"""What the suites for a GPU share: its clock, its lack, cases that fail or come too late.

In numba's simulator the same suites run on the CPU, in a small profile, for the tests; nothing is
learnt from their times.
"""

from __future__ import annotations

import json
import time
import traceback
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from kad_kernels._cuda import SIMULATED, cuda
from kad_kernels.device import gpu_is_available

from kad_bench.tables import suite_table
from kad_sdk.storage import write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kad_bench.suites import Settings

__all__ = [
    "TORCH_DEVICE",
    "float32_only",
    "gather",
    "gpu_name",
    "gpu_table",
    "on_gpu",
    "seconds_of",
    "wait",
]

TORCH_DEVICE = "cpu" if SIMULATED else "cuda"


def gpu_name() -> str:
    """Give the GPU's name."""
    return "numba's simulator" if SIMULATED else torch.cuda.get_device_name()


def float32_only() -> None:
    """Keep PyTorch from rounding float32 to TF32, in products and in convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def on_gpu(array: Any) -> torch.Tensor:
    """Give an array on the GPU to PyTorch, or one of the host as a copy there."""
    if isinstance(array, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(array)).to(TORCH_DEVICE)
    if SIMULATED:
        return torch.from_numpy(array.copy_to_host())
    return torch.as_tensor(array, device=TORCH_DEVICE)


def wait() -> None:
    """Let the GPU finish everything, whoever asked for it."""
    cuda.synchronize()
    if not SIMULATED:
        torch.cuda.synchronize()


def seconds_of(call: Callable[[], object], rounds: int, *, limit_s: float = 20.0) -> list[float]:
    """Time a call that has run before, with the GPU idle before and after.

    At most `rounds` times, and no more once `limit_s` are over.
    """
    taken: list[float] = []
    while len(taken) < rounds and sum(taken) < limit_s:
        wait()
        start = time.perf_counter()
        call()
        wait()
        taken.append(time.perf_counter() - start)
    return taken


def gather(
    name: str, cases: Mapping[str, Callable[[], dict[str, Any]]], settings: Settings, limit_s: float
) -> dict[str, Any]:
    """Measure case after case; one that fails does not stop the others.

    What has been measured is in the cache's ``<name>.json`` after every case, whatever comes.

    Returns
    -------
    dict
        ``cases``; ``failed``, case to why; ``not_run``, case to why; ``gpu``, its name.
    """
    results: dict[str, Any] = {"cases": [], "failed": {}, "not_run": {}, "gpu": None}
    if not SIMULATED and not (gpu_is_available() and torch.cuda.is_available()):
        return results | {"not_run": dict.fromkeys(cases, "no GPU")}
    results["gpu"] = gpu_name()
    float32_only()
    start = time.perf_counter()
    for case, measure in cases.items():
        if time.perf_counter() - start > limit_s:
            results["not_run"][case] = f"{limit_s:.0f} s were over"
            continue
        settings.say(f"{name}: {case}")
        try:
            results["cases"].append(measure())
        except Exception as error:  # noqa: BLE001 - whatever it is, the other cases are measured
            lines = traceback.format_exception(error)
            results["failed"][case] = "".join(lines[-6:])
        if not SIMULATED:
            torch.cuda.empty_cache()
        settings.cache.mkdir(parents=True, exist_ok=True)
        document = json.dumps(results, indent=1).encode()
        write_atomic(settings.cache / f"{name}.json", document + b"\n")
    return results


def gpu_table(results: dict[str, Any]) -> str:
    """Lay out what :func:`gather` returned."""
    parts = [f"GPU: {results['gpu'] or 'none'}"]
    if results["cases"]:
        parts.append(suite_table(results))
    lines = [f"- {case}: not run: {why}" for case, why in results["not_run"].items()]
    lines += [
        f"- {case}: **failed**: {why.strip().splitlines()[-1]}"
        for case, why in results["failed"].items()
    ]
    return "\n\n".join([*parts, *(["\n".join(lines)] if lines else [])])
