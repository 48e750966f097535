"""The process of one command, which tells at its end what it took.

    python -m kad_export.experiments.child REPORT kad-export|kad|check-networks WORDS...

A command that failed leaves no report; its message is on standard error, its exit code is kept.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kad_export.report import peak_memory_bytes
from kad_sdk.cli_group import EXIT_ERROR
from kad_sdk.errors import KadError
from kad_sdk.storage import writing

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check_networks"]


def check_networks(networks: str) -> None:
    """Build each network that a grid's runs need, so that a missing one is known before the first.

    Parameters
    ----------
    networks
        JSON: ``{"method", "backbone", "weights", "tile", "seed"}`` each, and ``"layers"``,
        ``"pooling"`` for PatchCore.

    Raises
    ------
    BackboneError, WeightsError
        A network that cannot be had.
    """
    from kad_export.cutpaste.network import NetworkConfig, initialise  # noqa: PLC0415 - torch
    from kad_export.patchcore import build_network  # noqa: PLC0415

    for entry in json.loads(networks):
        if entry["method"] == "patchcore":
            network = build_network(
                entry["backbone"], entry["layers"], entry["pooling"], entry["weights"]
            )
            network.grid(entry["tile"])
        else:
            initialise(NetworkConfig(entry["backbone"], 2), entry["weights"], entry["seed"])


def _run(name: str, words: Sequence[str]) -> int:
    from kad_export.cli import main as kad_export  # noqa: PLC0415 - only what is called is imported
    from kad_sdk.cli import main as kad  # noqa: PLC0415

    try:
        {"kad-export": kad_export, "kad": kad}[name].main(args=list(words), prog_name=name)
    except SystemExit as done:
        return int(done.code or 0)
    return 0


def _main(report: str, name: str, *words: str) -> int:
    began = time.monotonic()
    try:
        if name == "check-networks":
            check_networks(*words)
        elif code := _run(name, words):
            return code
        usage = resource.getrusage(resource.RUSAGE_SELF)
        used = {
            "seconds": time.monotonic() - began,
            "processor_seconds": usage.ru_utime + usage.ru_stime,
            "peak_bytes": peak_memory_bytes(),
        }
        with writing(Path(report)):
            Path(report).write_text(json.dumps(used), encoding="utf-8")
    except KadError as error:
        sys.stderr.write(f"kad-export: {error}\n")
        return EXIT_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
