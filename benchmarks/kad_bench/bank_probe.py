"""Open a bank in a fresh process: how long it takes, and how much memory the index holds.

    python -m kad_bench.bank_probe FEATURES THREADS INDEX

prints one JSON object. FEATURES is a file of :mod:`kad_bench.features`. INDEX is a file that holds
the bank's index, as an artifact does; where there is none, the index is built, and stored there
afterwards. A process of its own, because freed memory of earlier work would hide what the index
takes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kad_bench.level import follow_level
from kad_sdk._native import NativeIndex, StoredIndex
from kad_sdk.search import MapLayout
from kad_sdk.tensors import read_tensors, write_tensors

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["probe_bank"]

_BANK = "0" * 64  # where there are no hashes, any name of the bank does


def probe_bank(features: Path, threads: int) -> dict[str, Any]:
    """Open the bank of a file in a process of its own: build its index; then take in a stored one.

    Returns
    -------
    dict
        ``open_s``: map the file and build the index; ``first_tile_s``: answer the first tile's base
        maps, k = 1; ``index_bytes``: what the index holds beside the bank; ``added_bytes``: memory
        that the process took meanwhile, without what is mapped, None where the system does not
        say; ``stored``: the same with the index that an artifact would hold.
    """
    command = [sys.executable, "-m", "kad_bench.bank_probe", str(features), str(threads)]
    with tempfile.TemporaryDirectory() as folder:
        command.append(f"{folder}/index.safetensors")
        built, stored = (
            json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)  # noqa: S603
            for _ in range(2)
        )
    return {**built, "stored": stored}


def _probe(features: Path, threads: int, file: Path) -> dict[str, Any]:
    before = _own_memory()
    start = time.perf_counter()
    tensors = read_tensors(features)
    names = sorted(name for name in tensors if name.startswith("good_"))
    maps = [tensors[name][:1] for name in names]
    layout = MapLayout([x.shape[1:] for x in maps], maps[0].shape[2:], "bilinear")
    stored = StoredIndex(read_tensors(file)["index"], _BANK) if file.is_file() else None
    index = NativeIndex(tensors["bank"], layout=layout, threads=threads, stored=stored)
    opened = time.perf_counter()
    after = _own_memory()
    asked = {"grid": layout.grid, "resampling": layout.resampling, "threads": threads}
    index.query_maps(maps, 1, **asked)
    answered = time.perf_counter()
    if stored is None:
        data = index.store(_BANK, threads=threads)
        if data is not None:
            write_tensors(file, {"index": data})
    return {
        "open_s": opened - start,
        "first_tile_s": answered - opened,
        "index_bytes": index.info()["bytes"],
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
    features, threads, index = arguments
    follow_level()
    json.dump(_probe(Path(features), int(threads), Path(index)), sys.stdout)


if __name__ == "__main__":
    _main(sys.argv[1:])
