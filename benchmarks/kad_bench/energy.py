"""Energy that was used while something ran, where the machine accounts for it.

Processors: Linux' powercap counters (RAPL), one for each package. GPUs: NVML's total energy, when
`pynvml` (nvidia-ml-py) is installed. Both count all that ran, not this process alone.
"""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path

__all__ = ["EnergyMeter"]


class EnergyMeter:
    """Counts from its making on.

    Parameters
    ----------
    root : Path
        Where ``sys`` is.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        zones = sorted((root / "sys/class/powercap").glob("intel-rapl:[0-9]"))
        self._zones = [zone for zone in zones if _counter(zone / "energy_uj") is not None]
        self._begin = self._counters()

    def read_j(self) -> dict[str, float]:
        """Tell what has been used so far, device to joules; empty where nothing is accounted."""
        used = {}
        for name, now in self._counters().items():
            if name in self._begin:
                (before, _), (value, wraps_at) = self._begin[name], now
                used[name] = (
                    value - before if value >= before else value + wraps_at - before
                ) / 1e6
        return used

    def _counters(self) -> dict[str, tuple[int, int]]:
        """Device to counter and where it wraps around, both in microjoules."""
        found = {}
        for i, zone in enumerate(self._zones):
            value = _counter(zone / "energy_uj")
            if value is not None:
                found[f"processor {i}"] = (value, _counter(zone / "max_energy_range_uj") or 0)
        return found | _gpu_counters()


def _counter(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None  # not there, or readable by root alone


def _gpu_counters() -> dict[str, tuple[int, int]]:
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return {}
    found = {}
    with contextlib.suppress(nvml.NVMLError):  # no driver, or a GPU that does not account
        nvml.nvmlInit()
        for i in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(i)
            found[f"GPU {i}"] = (1000 * nvml.nvmlDeviceGetTotalEnergyConsumption(handle), 0)
    return found
