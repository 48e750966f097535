"""Two runs' documents against each other: which times and sizes changed by more than their noise.

That all of n times lie above all of n others happens by chance once in binom(2n, n): in 252 for
five, in 20 for three, in 2 for one. So the bounds of fewer than five times are widened by what a
shared machine does to a single time. A size in memory differs little from run to run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kad_bench.tables import case_name, format_seconds, markdown
from kad_sdk.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "Change",
    "changes_table",
    "check_machines",
    "compare_documents",
    "name_missing",
]

_FEW = 5  # times: bounds of fewer are widened
_NOISE_OF_FEW = 1.25  # factor, each way
_NOISE_OF_SIZES = 1.02
_MACHINE = {
    "processor": ("environment", "cpu", "model"),
    "level of instructions": ("environment", "cpu", "kad_level"),
    "threads": ("run", "threads"),
    "provider": ("run", "provider"),
    "profile": ("run", "profile"),
}
_Key = tuple[str, str, str, str]  # suite, case, engine, what is measured


@dataclass(frozen=True)
class _Value:
    """A time in seconds or a size in bytes, with its bounds."""

    value: float
    low: float
    high: float
    seconds: bool

    def text(self) -> str:
        return format_seconds(self.value) if self.seconds else f"{self.value / 1e6:.1f} MB"


@dataclass(frozen=True)
class Change:
    """A value before and after, the text of both.

    `ratio` is after / before; `low` and `high` bound it: the two values' own bounds, divided.
    """

    place: str
    before: str
    after: str
    ratio: float
    low: float
    high: float

    def regressed(self, limit: float) -> bool:
        """Whether it grew by more than a share `limit`, noise aside."""
        return self.low > 1 + limit

    def verdict(self, limit: float) -> str:
        """Say it in a word."""
        if self.regressed(limit):
            return "WORSE"
        if self.high < 1:
            return "better"
        return "worse, within the limit" if self.low > 1 else "within noise"


def compare_documents(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """Compare every time and every size in memory of kad's that both documents have.

    Raises
    ------
    InvalidArgumentError
        They have none in common, or are not of this format.
    """
    old, new = dict(_values(before)), dict(_values(after))
    found = [_change(key, old[key], new[key]) for key in old if key in new]
    if not found:
        raise InvalidArgumentError(
            "the two files have no suite, case and engine in common: expected runs of the same "
            "suites and profile"
        )
    return found


def name_missing(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Name suites, cases, engines and figures of kad's that `after` lacks, each at its highest."""
    old, new = dict(_values(before)), dict(_values(after))
    there = {*new, *_places(after)}
    lacking = (
        next(key[:depth] for depth in range(1, 5) if key[:depth] not in there)
        for key in old
        if key not in new
    )
    return list(dict.fromkeys(": ".join(place) for place in lacking))


def _places(document: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Suites, cases and engines that a document has."""
    for suite, results in document["suites"].items():
        yield (suite,)
        for case in results["cases"]:
            yield suite, case_name(case)
            yield from ((suite, case_name(case), engine) for engine in case["engines"])


def check_machines(before: dict[str, Any], after: dict[str, Any], *, across: bool) -> list[str]:
    """Hold two documents to one machine and way to measure; with `across` say what differs.

    Raises
    ------
    InvalidArgumentError
        Processor, level, threads, provider or profile differ, and `across` is not set.
    """
    found = {what: [_at(d, keys) for d in (before, after)] for what, keys in _MACHINE.items()}
    differences = [f"{what}: {a} before, {b} after" for what, (a, b) in found.items() if a != b]
    if differences and not across:
        raise InvalidArgumentError(
            "the two files were not measured alike: expected the same processor, level, threads, "
            f"provider and profile, got {'; '.join(differences)}: measure both on one machine, or "
            "give --across-machines"
        )
    return differences


def _at(document: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        document = document.get(key, "unknown")
    return document


def _values(document: dict[str, Any]) -> Iterator[tuple[_Key, _Value]]:
    for suite, results in document["suites"].items():
        for case in results["cases"]:
            for engine, figures in case["engines"].items():
                if not engine.startswith("kad"):  # that a peer became slower is no regression
                    continue
                place = suite, case_name(case), engine
                if "seconds" in figures:
                    yield (*place, "time"), _time(figures["seconds"])
                for kind, size in figures.get("memory_bytes", {}).items():
                    yield (*place, f"{kind} memory"), _size(size)


def _time(seconds: dict[str, float]) -> _Value:
    wider = _NOISE_OF_FEW if seconds["n"] < _FEW else 1.0
    low, high = seconds.get("low", seconds["min"]), seconds.get("high", seconds["max"])
    return _Value(seconds["median"], low / wider, high * wider, seconds=True)


def _size(size: float) -> _Value:
    return _Value(size, size / _NOISE_OF_SIZES, size * _NOISE_OF_SIZES, seconds=False)


def _change(key: _Key, before: _Value, after: _Value) -> Change:
    *place, kind = key
    return Change(
        *(f"{kind}: {': '.join(place)}", before.text(), after.text()),
        after.value / before.value,
        after.low / before.high,
        after.high / before.low,
    )


def changes_table(changes: Sequence[Change], limit: float) -> str:
    """Lay changes out as Markdown, the largest ratio first."""
    header = ["what", "before", "after", "after / before", "noise bounds", "verdict"]
    rows = [
        [
            *(change.place, change.before, change.after),
            *(f"{change.ratio:.3f}", f"{change.low:.3f} to {change.high:.3f}"),
            change.verdict(limit),
        ]
        for change in sorted(changes, key=lambda change: -change.ratio)
    ]
    return markdown(header, rows)
