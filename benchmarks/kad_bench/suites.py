"""The suites that ``kad-bench run`` knows, and the document that a run writes.

A suite is a module with ``run(settings) -> dict`` (plain JSON values) and ``table(results) -> str``
(Markdown, from those values alone). It checks its answers before it gives a time.
"""

from __future__ import annotations

import datetime as dt
import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kad_bench.environment import collect
from kad_sdk.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "FORMAT",
    "LEVELS",
    "SUITES",
    "Settings",
    "default_cache",
    "document_table",
    "run_suites",
]

FORMAT = 1  # of the document; raised when a reader of older ones would go wrong
LEVELS = ("smoke", "regular", "full")
SUITES = {"search": "kad_bench.search_suite"}


@dataclass(frozen=True)
class Settings:
    """What a suite is told.

    Attributes
    ----------
    profile : str
        One of LEVELS.
    threads : int
        For every engine.
    cache : Path
        Folder of files that are made once.
    say : callable
        Told what is being done.
    """

    profile: str
    threads: int
    cache: Path
    say: Callable[[str], None]


def run_suites(names: Sequence[str], settings: Settings) -> dict[str, Any]:
    """Run suites by name.

    Returns
    -------
    dict
        ``format``, ``environment`` (:func:`kad_bench.environment.collect`), ``run`` (profile,
        threads, start, load average before and after), ``suites`` (name to results).
    """
    environment, loads = collect(), [os.getloadavg()]
    started = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    results = {name: importlib.import_module(SUITES[name]).run(settings) for name in names}
    loads.append(os.getloadavg())
    run = {
        "profile": settings.profile,
        "threads": settings.threads,
        "started": started,
        "load_average_before_and_after": loads,
    }
    return {"format": FORMAT, "environment": environment, "run": run, "suites": results}


def document_table(document: dict[str, Any]) -> str:
    """Lay a run's document out as Markdown.

    Raises
    ------
    InvalidArgumentError
        It is not such a document, or of another format.
    """
    found = document.get("format")
    if found != FORMAT:
        raise InvalidArgumentError(
            f"expected results of format {FORMAT}, got {found}: run kad-bench run again"
        )
    cpu, run = document["environment"]["cpu"], document["run"]
    commit = (document["environment"]["git"] or {}).get("commit", "unknown")
    head = (
        f"{cpu['model']}, {run['threads']} threads, kad level {cpu['kad_level']}, "
        f"commit {commit[:12]}, {run['started']}"
    )
    tables = [
        importlib.import_module(SUITES[name]).table(results)
        for name, results in document["suites"].items()
    ]
    return "\n\n".join([head, *tables]) + "\n"


def default_cache() -> Path:
    """Where made features are kept: ``kad/bench`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "kad" / "bench"
