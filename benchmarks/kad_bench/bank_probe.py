"""Open a bank in a fresh process: how long it takes, and how much memory the index holds.

    python -m kad_bench.bank_probe FEATURES THREADS

prints one JSON object. FEATURES is a file of :mod:`kad_bench.features`. A process of its own,
because freed memory of earlier work would hide what the index takes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kad_sdk.search import MapLayout, SearchIndex
from kad_sdk.tensors import read_tensors

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["probe_bank"]


def probe_bank(features: Path, threads: int) -> dict[str, Any]:
    """Open the bank of a file in a process of its own.

    Returns
    -------
    dict
        ``open_s``: map the file and build the index; ``first_tile_s``: answer the first tile's base
        maps, k = 1; ``index_bytes``: what the index holds beside the bank; ``added_bytes``: memory
        that the process took meanwhile, without the mapped bank, None where the system does not
        say.
    """
    command = [sys.executable, "-m", "kad_bench.bank_probe", str(features), str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _probe(features: Path, threads: int) -> dict[str, Any]:
    before = _own_memory()
    start = time.perf_counter()
    tensors = read_tensors(features)
    names = sorted(name for name in tensors if name.startswith("good_"))
    maps = [tensors[name][:1] for name in names]
    layout = MapLayout([x.shape[1:] for x in maps], maps[0].shape[2:], "bilinear")
    index = SearchIndex(tensors["bank"], layout=layout, threads=threads)
    opened = time.perf_counter()
    after = _own_memory()
    index.query_maps(maps, grid=layout.grid, resampling=layout.resampling)
    return {
        "open_s": opened - start,
        "first_tile_s": time.perf_counter() - opened,
        "index_bytes": index.info().bytes,
        "added_bytes": None if before is None or after is None else after - before,
    }


def _own_memory() -> int | None:
    """Resident bytes that are not of mapped files."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return 1024 * int(fields["RssAnon"].split()[0])


def _main(arguments: Sequence[str]) -> None:
    features, threads = arguments
    json.dump(_probe(Path(features), int(threads)), sys.stdout)


if __name__ == "__main__":
    _main(sys.argv[1:])
