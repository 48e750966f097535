"""Which kernels OpenBLAS multiplies with: FAISS and NumPy bring a build of it each.

A build knows the processors of its time. On a newer one it falls back to kernels of another
generation (that of FAISS, of 2021, to SSE where there is AVX-512), and the environment may name
older ones yet. Peers are to be measured at their best.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

__all__ = ["blas_libraries", "take_best_kernels"]

_CORES = (
    ("SkylakeX", {"avx512f", "avx512dq", "avx512bw", "avx512vl"}),
    ("Haswell", {"avx2", "fma"}),
)
"""OpenBLAS's names, the fastest first, and the instructions that they need."""


def take_best_kernels(root: Path = Path("/")) -> None:
    """Name the fastest kernels that the processor can run, for OpenBLAS here and in children.

    It has to come before NumPy is imported. Where the processor is none of these, what the
    environment says stays.

    Parameters
    ----------
    root
        Where ``proc`` is.
    """
    flags = _processor_flags(root / "proc/cpuinfo")
    for name, needed in _CORES:
        if needed <= flags:
            os.environ["OPENBLAS_CORETYPE"] = name
            return


def _processor_flags(cpuinfo: Path) -> set[str]:
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def blas_libraries() -> list[dict[str, Any]] | None:
    """Tell the BLAS builds that NumPy, FAISS and PyTorch have brought in, with their kernels.

    Returns
    -------
    list of dict or None
        ``file``, ``api``, ``version``, ``kernels`` of each; None where threadpoolctl is missing.
    """
    for name in ("numpy", "faiss", "torch"):
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    try:
        from threadpoolctl import threadpool_info  # noqa: PLC0415 - of the extra `bench`
    except ImportError:
        return None
    return [
        {
            "file": Path(found["filepath"]).name,
            "api": found["internal_api"],
            "version": found.get("version"),
            "kernels": found.get("architecture"),
        }
        for found in threadpool_info()
        if found["user_api"] == "blas"
    ]
