"""The guard against regressions that needs no clock: exact counts of what a run had to do.

Operations, bytes and candidates are the same on a busy machine as on an idle one. They may differ a
little between processors, whose networks round differently, so a count may grow by 1 %. What the
search does depends on the instructions that the processor offers, and is held on those alone that
the file was written with.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kad_bench.tables import case_name
from kad_sdk.errors import KadError
from kad_sdk.storage import write_atomic

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CountRegressionError", "check_counts", "collect_counts", "write_counts"]

ALLOWED_GROWTH = 0.01
_SEARCHING = ("search", "tile")  # suites whose counts depend on the instructions

Counts = dict[str, dict[str, int]]


class CountRegressionError(KadError):
    """A count is larger than the committed one, or is missing."""


def collect_counts(document: dict[str, Any]) -> Counts:
    """Take all counts out of a run's document: ``suite: case: engine`` to name to number.

    What searches has its level of instructions in its name: ``search (avx2)``.
    """
    level = document["environment"]["cpu"]["kad_level"]
    return {
        f"{_titled(suite, level)}: {case_name(case)}: {engine}": figures["counts"]
        for suite, results in document["suites"].items()
        for case in results["cases"]
        for engine, figures in case["engines"].items()
        if figures.get("counts")
    }


def _titled(suite: str, level: str) -> str:
    return f"{suite} ({level})" if suite in _SEARCHING else suite


def check_counts(document: dict[str, Any], path: Path) -> list[str]:
    """Compare the counts of the suites that a run holds with those that :func:`write_counts` wrote.

    Returns
    -------
    list of str
        Counts that have become smaller, in words; the file should be written anew then.

    Raises
    ------
    CountRegressionError
        A count has grown by more than 1 %, or the run lacks one of the file.
    """
    expected, found = json.loads(path.read_text()), collect_counts(document)
    level = document["environment"]["cpu"]["kad_level"]
    held = tuple(f"{_titled(suite, level)}: " for suite in document["suites"])  # what was run
    worse, better = [], []
    for place, counts in expected.items():
        if not place.startswith(held):
            continue
        for name, limit in counts.items():
            value = found.get(place, {}).get(name)
            got = "nothing" if value is None else f"{value:,}"
            text = f"{place}: {name}: expected at most {limit:,}, got {got}"
            if value is None or value > limit * (1 + ALLOWED_GROWTH):
                worse.append(text)
            elif value < limit * (1 - ALLOWED_GROWTH):
                better.append(text)
    if worse:
        listed = "\n".join(worse)
        raise CountRegressionError(
            f"more work than in {path}:\n{listed}\nIf this is meant, write the file anew with "
            "kad-bench run smoke --write-counts"
        )
    return better


def write_counts(document: dict[str, Any], path: Path) -> None:
    """Keep a run's counts as what later runs are held to."""
    write_atomic(path, json.dumps(collect_counts(document), indent=1).encode() + b"\n")
