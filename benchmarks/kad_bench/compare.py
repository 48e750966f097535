"""Two runs' documents against each other: which times have changed by more than their noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kad_bench.tables import case_name, format_seconds, markdown
from kad_sdk.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Change", "changes_table", "compare_documents"]


@dataclass(frozen=True)
class Change:
    """A median time before and after.

    `low` and `high` bound the ratio after / before: the two medians' own bounds, divided.
    """

    place: str
    before_s: float
    after_s: float
    low: float
    high: float

    @property
    def ratio(self) -> float:
        """After over before."""
        return self.after_s / self.before_s

    def regressed(self, limit: float) -> bool:
        """Whether it takes longer by more than a share `limit`, noise aside."""
        return self.low > 1 + limit

    def verdict(self, limit: float) -> str:
        """Say it in a word."""
        if self.regressed(limit):
            return "SLOWER"
        if self.high < 1:
            return "faster"
        return "slower, within the limit" if self.low > 1 else "within noise"


def compare_documents(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """Compare every time of kad's that both documents have.

    Raises
    ------
    InvalidArgumentError
        They have no time in common, or are not of this format.
    """
    old, new = dict(_times(before)), dict(_times(after))
    found = [_change(place, old[place], new[place]) for place in old if place in new]
    if not found:
        raise InvalidArgumentError(
            "the two files have no suite, case and engine in common: expected runs of the same "
            "suites and profile"
        )
    return found


def _times(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    for suite, results in document["suites"].items():
        for case in results["cases"]:
            for engine, figures in case["engines"].items():
                if engine.startswith("kad"):  # that a peer became slower is no regression
                    yield f"{suite}: {case_name(case)}: {engine}", figures["seconds"]


def _change(place: str, before: dict[str, float], after: dict[str, float]) -> Change:
    return Change(
        place,
        before["median"],
        after["median"],
        after.get("low", after["min"]) / before.get("high", before["max"]),
        after.get("high", after["max"]) / before.get("low", before["min"]),
    )


def changes_table(changes: Sequence[Change], limit: float) -> str:
    """Lay changes out as Markdown, the largest ratio first."""
    header = ["time of", "before", "after", "after / before", "noise bounds", "verdict"]
    rows = [
        [
            *(change.place, format_seconds(change.before_s), format_seconds(change.after_s)),
            *(f"{change.ratio:.3f}", f"{change.low:.3f} to {change.high:.3f}"),
            change.verdict(limit),
        ]
        for change in sorted(changes, key=lambda change: -change.ratio)
    ]
    return markdown(header, rows)
