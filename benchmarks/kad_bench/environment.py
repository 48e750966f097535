"""What a measurement was taken on: processor, memory, software, GPU, commit.

A figure without its machine cannot be compared, so every benchmark stores :func:`collect`'s answer
beside its times. What cannot be found out is None; nothing here raises for the lack of a tool.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from kad_bench.blas import blas_libraries
from kad_sdk.errors import KadError

__all__ = ["collect", "format_table"]

PACKAGES = (
    *("kad-sdk", "numpy", "opencv-python", "onnxruntime", "onnxruntime-gpu", "onnx", "torch"),
    *("torchvision", "scikit-learn", "faiss-cpu", "anomalib", "numba", "numba-cuda"),
)
_VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "KMP_AFFINITY"),
    *("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA"),
    *("ATEN_CPU_CAPABILITY", "NPY_DISABLE_CPU_FEATURES"),
)
_GPU_FIELDS = ("name", "memory.total", "driver_version", "compute_cap")
_TOOL_LIMIT_S = 20  # nvidia-smi starts the driver, which takes seconds


def collect(root: Path = Path("/")) -> dict[str, Any]:
    """Describe this machine and what runs on it.

    Parameters
    ----------
    root
        Where ``proc`` and ``sys`` are.

    Returns
    -------
    dict
        Blocks ``cpu``, ``memory`` (bytes), ``os``, ``python``, ``packages`` (name to version, None
        where not installed), ``variables`` (that set threads and instructions), ``blas`` (see
        :func:`kad_bench.blas.blas_libraries`), ``onnxruntime_providers``, ``gpus``, ``git``.
    """
    return {
        "cpu": _cpu(root),
        "memory": _memory(root),
        "os": {"name": _os_name(root), "kernel": platform.release(), "libc": _libc()},
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "variables": {name: os.environ.get(name) for name in _VARIABLES},
        "blas": blas_libraries(),
        "onnxruntime_providers": _providers(),
        "gpus": _gpus(),
        "git": _git(Path(__file__).parent),
    }


def _cpu(root: Path) -> dict[str, Any]:
    level, library = _core()
    return {
        "model": _field(root / "proc/cpuinfo", "model name") or platform.processor() or None,
        "architecture": platform.machine(),
        "logical_cores": os.cpu_count(),
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "quota_cores": _cpu_quota(root),
        "governor": _text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None,
        "kad_level": level,
        "kad_library": library,
    }


def _core() -> tuple[str, str]:
    """Instruction-set level and version of the compiled core, or why there is none."""
    try:
        from kad_sdk import _native  # noqa: PLC0415 - a missing core is a finding here

        return _native.cpu_level(), _native.version()
    except (KadError, OSError) as error:
        return "none", str(error)


def _cpu_quota(root: Path) -> float | None:
    """Cores' worth of time that the control group may use; None: not limited."""
    quota, _, period = _text(root / "sys/fs/cgroup/cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() else None


def _memory(root: Path) -> dict[str, int | None]:
    kib = {name: _field(root / "proc/meminfo", name) for name in ("MemTotal", "MemAvailable")}
    limit = _text(root / "sys/fs/cgroup/memory.max")
    return {
        "total_bytes": 1024 * int(kib["MemTotal"].split()[0]) if kib["MemTotal"] else None,
        "available_bytes": 1024 * int(kib["MemAvailable"].split()[0])
        if kib["MemAvailable"]
        else None,
        "limit_bytes": int(limit) if limit.isdigit() else None,
    }


def _os_name(root: Path) -> str:
    name = _field(root / "etc/os-release", "PRETTY_NAME", sign="=")
    return name.strip('"') if name else platform.system()


def _libc() -> str | None:
    return " ".join(platform.libc_ver()).strip() or None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _providers() -> list[str] | None:
    try:
        return list(importlib.import_module("onnxruntime").get_available_providers())
    except ImportError:
        return None


def _gpus() -> list[dict[str, str]]:
    query = [f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,noheader"]
    answer = _run("nvidia-smi", *query)
    rows = [line.split(", ") for line in (answer or "").splitlines()]
    return [dict(zip(_GPU_FIELDS, row, strict=True)) for row in rows if len(row) == 4]


def _git(folder: Path) -> dict[str, Any] | None:
    """Commit of the checkout that this file lies in; None when it is installed elsewhere."""
    here = ["-C", str(folder)]
    # An installed copy may lie inside some other project's checkout: ask for this very file.
    if _run("git", *here, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    commit = _run("git", *here, "rev-parse", "HEAD")
    changes = _run("git", *here, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": bool(changes)}


def _run(tool: str, *arguments: str) -> str | None:
    path = shutil.which(tool)
    if path is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command, found on the user's own path
            [path, *arguments], capture_output=True, text=True, timeout=_TOOL_LIMIT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _field(path: Path, name: str, sign: str = ":") -> str | None:
    """Value of the first line ``name : value``."""
    for line in _text(path).splitlines():
        key, found, value = line.partition(sign)
        if found and key.strip() == name:
            return value.strip()
    return None


def format_table(environment: dict[str, Any]) -> str:
    """Lay out what :func:`collect` returned as text, one fact a line."""
    cpu, memory, system = environment["cpu"], environment["memory"], environment["os"]
    rows = [
        ("processor", f"{cpu['model'] or 'unknown'} ({cpu['architecture']})"),
        ("kad core", f"{cpu['kad_library']}, level {cpu['kad_level']}"),
        ("cores", _cores(cpu)),
        ("frequency governor", cpu["governor"] or "not told"),
        ("memory", _gib(memory["total_bytes"], "in all"), _gib(memory["available_bytes"], "free")),
        ("memory limit", _gib(memory["limit_bytes"], "")),
        ("system", f"{system['name']}, kernel {system['kernel']}, {system['libc'] or 'no glibc'}"),
        ("python", environment["python"]),
        *(
            ("BLAS", found["file"], found["version"], found["kernels"])
            for found in environment.get("blas") or []
        ),
        ("ONNX Runtime runs", ", ".join(environment["onnxruntime_providers"] or ["nothing"])),
        *(("gpu", *gpu.values()) for gpu in environment["gpus"] or [{"name": "none"}]),
        ("commit", _commit(environment["git"])),
        *((name, version or "-") for name, version in environment["packages"].items()),
    ]
    return "\n".join(
        f"{name:<20}{', '.join(filter(None, facts))}".rstrip() for name, *facts in rows
    )


def _cores(cpu: dict[str, Any]) -> str:
    usable = "all" if cpu["affinity"] is None else str(len(cpu["affinity"]))
    quota = "" if cpu["quota_cores"] is None else f", quota {cpu['quota_cores']:g}"
    return f"{cpu['logical_cores']} logical, {usable} usable{quota}"


def _gib(value: int | None, word: str) -> str:
    return (
        "none" if value is None and not word else f"{(value or 0) / 2**30:.1f} GiB {word}".strip()
    )


def _commit(git: dict[str, Any] | None) -> str:
    if git is None:
        return "not a checkout"
    return f"{git['commit']}{', with changes' if git['dirty'] else ''}"
