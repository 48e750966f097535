"""How much of the processors others took while something was measured.

Load averages lag and count this process too; the kernel's own accounts do not.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

__all__ = ["ProcessorUse", "disturbed_text"]

_BUSY = (0, 1, 2, 5, 6)  # columns of /proc/stat: user, nice, system, irq, softirq
_STEAL = 7
_DISTURBED = 0.1  # share of the processors' time that others take


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


def disturbed_text(run: dict[str, Any]) -> str:
    """Say in which suites of a run others took so much that times are not to be trusted.

    Parameters
    ----------
    run
        The block ``run`` of a document, with what :meth:`ProcessorUse.read` gave for each suite.
    """
    found = []
    for suite, use in run["processor_use"].items():
        others = (use["other_cpu_s"] or 0.0) + (use["steal_s"] or 0.0)
        share = others / max(others + use["own_cpu_s"], 1e-9)
        if share > _DISTURBED:
            found.append(f"{suite} ({100 * share:.0f} %)")
    if not found:
        return ""
    return f"others took a part of the processors' time, so times mean little: {', '.join(found)}"


def _own_s() -> float:
    return sum(os.times()[:4])
