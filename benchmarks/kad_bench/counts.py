"""The guard against regressions that needs no clock: exact counts of what a run had to do.

Operations, bytes and candidates are the same on a busy machine as on an idle one. They may differ a
little between processors, whose networks round differently, so a count may grow by 1 %. What the
search and the selection do depends on the level of instructions that the processor offers: the file
keeps their counts for several levels side by side, and a run is held to those of its own.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kad_bench.tables import case_name
from kad_sdk.errors import InvalidArgumentError, KadError
from kad_sdk.storage import write_atomic

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "CountRegressionError",
    "check_counts",
    "collect_counts",
    "name_unheld",
    "read_counts",
    "write_counts",
]

ALLOWED_GROWTH = 0.01
_BY_LEVEL = ("search", "tile", "coreset", "bank")  # suites whose counts depend on the instructions

_EXPECTED = "expected a file that kad-bench run --write-counts wrote"

Counts = dict[str, dict[str, int]]


class CountRegressionError(KadError):
    """A count is larger than the committed one, or is missing."""


def collect_counts(document: dict[str, Any]) -> Counts:
    """Take all counts out of a run's document: ``suite: case: engine`` to name to number.

    What depends on the level of instructions has it in its name: ``search (avx2)``.
    """
    level = _level(document)
    return {
        f"{_titled(suite, level)}: {case_name(case)}: {engine}": figures["counts"]
        for suite, results in document["suites"].items()
        for case in results["cases"]
        for engine, figures in case["engines"].items()
        if figures.get("counts")
    }


def _level(document: dict[str, Any]) -> str:
    return str(document["environment"]["cpu"]["kad_level"])


def _titled(suite: str, level: str) -> str:
    return f"{suite} ({level})" if suite in _BY_LEVEL else suite


def _beginnings(document: dict[str, Any]) -> tuple[str, ...]:
    """How the places of a run's suites begin, at its level."""
    return tuple(f"{_titled(suite, _level(document))}: " for suite in document["suites"])


def read_counts(path: Path) -> Counts:
    """Read what :func:`write_counts` wrote.

    Raises
    ------
    InvalidArgumentError
        It is not such a file.
    """
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise InvalidArgumentError(f"{path}: {_EXPECTED}, got no JSON: {error}") from error
    if not isinstance(found, dict) or not all(map(_are_counts, found.values())):
        raise InvalidArgumentError(f"{path}: {_EXPECTED}, got other JSON")
    return found


def _are_counts(found: object) -> bool:
    return isinstance(found, dict) and all(isinstance(n, int) for n in found.values())


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
    InvalidArgumentError
        The file is not one that :func:`write_counts` wrote.
    """
    expected, found = read_counts(path), collect_counts(document)
    held = _beginnings(document)  # what was run
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
            f"kad-bench run smoke --write-counts {path}"
        )
    return better


def name_unheld(document: dict[str, Any], path: Path) -> str:
    """Say which suites have counts in a run, and none at its level in a file; empty: none."""
    expected, level = read_counts(path), _level(document)
    titles = {suite: f"{_titled(suite, level)}: " for suite in document["suites"]}
    counted = tuple(collect_counts(document))
    unheld = [
        suite
        for suite, title in titles.items()
        if any(place.startswith(title) for place in counted)
        and not any(place.startswith(title) for place in expected)
    ]
    if not unheld:
        return ""
    return f"not held at level {level}, of which {path} has no counts: {', '.join(unheld)}"


def write_counts(document: dict[str, Any], path: Path) -> None:
    """Keep a run's counts as what later runs are held to.

    Counts of other suites, and of other levels of instructions, stay as they are in the file.

    Raises
    ------
    InvalidArgumentError
        There is a file that this function did not write.
    """
    kept = read_counts(path) if path.exists() else {}
    others = {k: v for k, v in kept.items() if not k.startswith(_beginnings(document))}
    every = dict(sorted((others | collect_counts(document)).items()))
    write_atomic(path, json.dumps(every, indent=1).encode() + b"\n")
