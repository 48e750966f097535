"""Build one bank of generated features in a fresh process: what it takes.

    python -m kad_bench.bank_build '{"tiles": 2826, "dims": 384, ...}'

takes the fields of :class:`BankRun` and prints one JSON object. A process of its own, because the
peak of its memory is what is asked for.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kad_export.bank import build_bank
from kad_export.budget import BankSettings, scratch_folder
from kad_export.report import Silent, parse_bytes, peak_memory_bytes

from kad_bench.generated import GeneratedExtractor, generated_boards
from kad_bench.level import follow_level

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["POINTS", "BankRun", "build_in_process"]

POINTS = "float16"  # as which projected features lie on disk


@dataclass(frozen=True)
class BankRun:
    """What is built.

    Attributes
    ----------
    tiles, dims : int
        Of the training boards; channels of a feature.
    memory : str
        Budget of the process, as for ``--memory``.
    threads : int
        As for :class:`kad_export.budget.BankSettings`.
    """

    tiles: int
    dims: int
    memory: str
    threads: int


def build_in_process(wanted: BankRun) -> dict[str, Any]:
    """Build in a process of its own.

    Returns
    -------
    dict
        ``candidates``, ``rows``, ``projected_dims``; ``plan``, what was announced before the start;
        ``peak_bytes`` of the process; ``disk_bytes`` of projected features; ``seconds`` and
        ``cpu_seconds`` of each step; ``counts``, ``radius`` and ``separation`` of the coreset;
        ``sha256`` of the selected rows.
    """
    command = [sys.executable, "-m", "kad_bench.bank_build", json.dumps(asdict(wanted))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class _Watch(Silent):
    """Keeps the processor's time of each step too, the plan, and what lies on disk."""

    def __init__(self, scratch: Path) -> None:
        super().__init__()
        self.cpu_seconds: dict[str, float] = {}
        self.plan, self.disk_bytes = "", 0
        self._scratch = scratch

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step."""
        start = time.process_time()
        with super().step(name):
            yield
        self.cpu_seconds[name] = time.process_time() - start
        there = sum(path.stat().st_size for path in self._scratch.iterdir())
        self.disk_bytes = max(self.disk_bytes, there)

    def line(self, text: str) -> None:
        """Keep the plan."""
        self.plan = text


def _build(wanted: BankRun) -> dict[str, Any]:
    extract = GeneratedExtractor(dims=wanted.dims, threads=wanted.threads)
    with scratch_folder(None) as folder:
        watch = _Watch(folder)
        settings = BankSettings(
            folder,
            points=POINTS,
            memory_bytes=parse_bytes(wanted.memory),
            threads=wanted.threads,
        )
        bank = build_bank(generated_boards(wanted.tiles), extract, settings, watch)
    coreset = bank.coreset
    return {
        "candidates": bank.candidates,
        "rows": len(bank.bank),
        "projected_dims": bank.projected_dims,
        "plan": watch.plan,
        "peak_bytes": peak_memory_bytes(),
        "disk_bytes": watch.disk_bytes,
        "seconds": watch.seconds | {f"coreset: {k}": v for k, v in coreset.seconds.items()},
        "cpu_seconds": watch.cpu_seconds,
        "counts": coreset.counts,
        "radius": coreset.radius,
        "separation": coreset.separation,
        "sha256": hashlib.sha256(coreset.index.tobytes()).hexdigest(),
    }


if __name__ == "__main__":
    follow_level()
    json.dump(_build(BankRun(**json.loads(sys.argv[1]))), sys.stdout)
