"""README's performance table, made from the committed results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kad_bench.noise import name_busy_suites
from kad_bench.pages import replace_between
from kad_bench.tables import case_name, format_seconds, like_with_like, markdown, ratio_text
from kad_sdk.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["BEGIN", "END", "performance_table", "write_readme"]

BEGIN, END = "<!-- performance: made by `kad-bench readme` -->", "<!-- end of performance -->"
_SUITES = {
    "board": "a whole board",
    "windows": "a whole board, in windows",
    "tile": "a tile",
    "search": "search of the bank",
}


def performance_table(documents: Sequence[dict[str, Any]]) -> str:
    """Lay out kad against its peers as Markdown, boards first."""
    rows = []
    for suite, what in _SUITES.items():
        for case in (c for d in documents for c in d["suites"].get(suite, {}).get("cases", [])):
            for ours, peer, ratio in _shown(suite, case):
                row = [what, case_name(case), ours, _time(case, ours), _difference(case, ours)]
                row += [peer, _time(case, peer), _difference(case, peer)]
                rows.append([*row, ratio_text(ratio), str(ratio["n"])])
    if not rows:
        raise InvalidArgumentError(
            f"the results hold none of the suites {', '.join(_SUITES)}: run kad-bench run again"
        )
    header = ["what", "network, bank", "how", "time", "largest difference", "against", "its time"]
    header += ["its largest difference", "kad is faster by", "rounds"]
    notes = dict.fromkeys(map(_note, documents))  # each once, in order
    parts = [*notes, markdown(header, rows), "\n".join(_remarks(documents))]
    return "\n\n".join(filter(None, parts))


def _remarks(documents: Sequence[dict[str, Any]]) -> list[str]:
    """Say what part of a board the thesis' path scored, and who could not be measured."""
    found = []
    for document in documents:
        for suite, what in _SUITES.items():
            for case in document["suites"].get(suite, {}).get("cases", []):
                name = f"{what}, {case_name(case)}"
                if case.get("thesis_tiles", 0) < case.get("tiles", 0):
                    found.append(
                        f"- {name}: the thesis' path scored {case['thesis_tiles']} of "
                        f"{case['tiles']:,} tiles"
                    )
                found += [f"- {name}: {p} not run: {why}" for p, why in case["skipped"].items()]
    return list(dict.fromkeys(found))


def _shown(suite: str, case: dict[str, Any]) -> list[tuple[str, str, dict[str, float]]]:
    """Of the search, whose cases are many, the peer that comes closest.

    What a detector does is shown where there is that: a search of base maps.
    """
    found = like_with_like(case)
    return found if suite != "search" else [min(found, key=lambda one: one[2]["median"])]


def _note(document: dict[str, Any]) -> str:
    """Say where and when the suites of the table were run."""
    cpu, run = document["environment"]["cpu"], document["run"]
    commit = document["environment"]["git"] or {"commit": "unknown", "dirty": False}
    changed = " with changes" if commit["dirty"] else ""
    suites = " and ".join(suite for suite in _SUITES if suite in document["suites"])
    return (
        f"{suites}: {cpu['model']}, {run['threads']} threads, {cpu['kad_level']}, float32, commit "
        f"{commit['commit'][:12]}{changed}, {run['started'][:10]}; medians, and the bounds of "
        f"their ratio{'. '.join(['', *name_busy_suites(document)])}."
    )


def _time(case: dict[str, Any], engine: str) -> str:
    """Time of one unit; the search suite's engines are not given the same number of queries."""
    figures = case["engines"][engine]
    each = figures["seconds"]["median"] / figures.get("queries", 1)
    return format_seconds(each)


def _difference(case: dict[str, Any], engine: str) -> str:
    """Largest difference from the right answer that was found, in shares of the largest value."""
    figures = case["engines"][engine]
    if "largest_error_of_allowed" in figures:  # search: of a squared distance
        return f"{figures['largest_error_of_allowed']:.2g} of what is allowed"
    accuracy = figures.get("accuracy", {})
    found = [value for name, value in accuracy.items() if name.endswith("difference")]
    return f"{max(found):.1e}" if found else "–"


def write_readme(documents: Sequence[dict[str, Any]], readme: Path) -> None:
    """Replace the table between the two marks of a Markdown file.

    Raises
    ------
    InvalidArgumentError
        The file lacks the marks.
    """
    replace_between(readme, BEGIN, END, performance_table(documents))
