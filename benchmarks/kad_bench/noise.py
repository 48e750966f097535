"""How much of the processors others took while something was measured.

Load averages lag and count this process too; the kernel's own accounts do not.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

__all__ = ["ProcessorUse", "name_busy_suites"]

_BUSY = (0, 1, 2, 5, 6)  # columns of /proc/stat: user, nice, system, irq, softirq
_STEAL = 7
_BUSY_SHARE = 0.1  # of the processors, that others may take before it is told


class ProcessorUse:
    """Counts from its making on.

    Parameters
    ----------
    root : Path
        Where ``proc`` is.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._stat = root / "proc/stat"
        self._wall, self._own, self._machine = time.perf_counter(), _own_s(), self._read_machine()

    def read(self) -> dict[str, float | None]:
        """Tell what has been used so far, in seconds of one processor.

        Returns
        -------
        dict
            ``wall_s``; ``own_cpu_s`` of this process and those that it has waited for;
            ``other_cpu_s`` of all others; ``steal_s``, taken by the host of a virtual machine.
            The last two are None where the system does not say.
        """
        found: dict[str, float | None] = {
            "wall_s": time.perf_counter() - self._wall,
            "own_cpu_s": _own_s() - self._own,
            "other_cpu_s": None,
            "steal_s": None,
        }
        now = self._read_machine()
        if now is not None and self._machine is not None:
            busy, steal = (b - a for a, b in zip(self._machine, now, strict=True))
            found["other_cpu_s"] = max(0.0, busy - (_own_s() - self._own))
            found["steal_s"] = steal
        return found

    def _read_machine(self) -> tuple[float, float] | None:
        """Busy and stolen seconds of all processors since the machine started."""
        try:
            columns = self._stat.read_text().splitlines()[0].split()[1:]
        except (OSError, IndexError):
            return None
        ticks = [int(column) / os.sysconf("SC_CLK_TCK") for column in columns]
        return sum(ticks[i] for i in _BUSY), ticks[_STEAL]


def name_busy_suites(document: dict[str, Any]) -> list[str]:
    """Say of which suites of a document others took more than a tenth of the processors meanwhile.

    Times mean little then.
    """
    cores = document["environment"]["cpu"].get("logical_cores") or 1
    found = []
    for suite, use in document["run"]["processor_use"].items():
        others = (use.get("other_cpu_s") or 0) + (use.get("steal_s") or 0)
        share = others / (use["wall_s"] * cores)
        if share > _BUSY_SHARE:
            found.append(f"{suite}: others took {share:.0%} of the processors meanwhile")
    return found


def _own_s() -> float:
    return sum(os.times()[:4])
