"""The suites that ``kad-bench run`` knows, and the document that a run writes.

A suite is a module, named in `SUITES`, with two functions:

``run(settings) -> dict``
    Measures; gives plain JSON values. It checks every answer before it takes a time, and raises
    where one is wrong.
``table(results) -> str``
    Markdown, from those values alone.

What ``run`` gives may hold keys of the suite's own. These mean the same in every suite, so that
``table``, ``compare``, ``report`` and the guard of ``run smoke`` need to know none of them:

``cases``
    List of objects, one for each thing that several engines did:

    ``case``, ``what``
        Its name, and how it was made. ``queries`` and ``k``, where given, belong to the name.
    ``unit``
        What one time is for, and what rates count: ``"tile"``, ``"board"``, ``"start"``.
    ``engines``
        Name to figures, all optional: ``seconds`` is :func:`kad_bench.measure.summarise` of the
        times of one unit; ``batch``, units in a call; ``counts``, name to an exact number that the
        same code always gives
        (operations, bytes, candidates), held by the guard; ``accuracy`` and ``rates``, name to a
        number; ``stages_s``, stage to seconds of one unit, in order; ``memory_bytes``, kind to
        bytes; ``energy_j``, device to joules of one unit; ``notes``, text.
    ``ratios``
        An engine of kad to a peer to the summary of peer's time over kad's, round by round.
    ``skipped``
        Peer to why it did not run.
``failed``
    Case to why it failed, where a suite goes on after that.
``growth``
    List of objects: how ``y`` grows with ``x``, both in words with their unit; ``points``, engine
    to a list of ``[x, y]``; ``law``, engine to :func:`kad_bench.laws.fit_law`.
``roofline``
    ``peaks``, see :func:`kad_bench.peaks.measure_peaks`, and ``points``, name to ``flop``,
    ``bytes`` and ``seconds``.
"""

from __future__ import annotations

import datetime as dt
import importlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kad_bench.environment import collect
from kad_bench.noise import ProcessorUse, name_busy_suites
from kad_bench.pages import replace_between
from kad_sdk.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "FORMAT",
    "GROUPS",
    "LEVELS",
    "SUITES",
    "Settings",
    "check_format",
    "default_cache",
    "document_table",
    "has_measured",
    "read_document",
    "replace_table",
    "run_suites",
    "suite_markdown",
]

FORMAT = 1  # of the document; raised when a reader of older ones would go wrong
_EXPECTED = "expected a file that kad-bench run --json wrote"
_PARTS = (  # of every document, as paths of keys
    *(("environment", "cpu", "model"), ("environment", "cpu", "kad_level"), ("environment", "git")),
    *(("run", key) for key in ("profile", "threads", "started", "processor_use")),
    ("suites",),
)
_CASE = {"case", "engines", "ratios", "skipped"}  # keys of every case
LEVELS = ("smoke", "regular", "full")
TABLE_BEGIN, TABLE_END = "<!-- kad-bench table: {} -->", "<!-- end of table -->"
SUITES = {
    name: f"kad_bench.{name}_suite"
    for name in (
        *("search", "coreset", "bank"),
        *("network", "tile", "board", "windows", "startup", "memory", "precision"),
        *("gpu_search", "gpu_coreset", "gpu_board"),
    )
}
GROUPS = {"gpu": ("gpu_search", "gpu_coreset", "gpu_board")}


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
    provider : str
        What runs the network where a suite opens an artifact: ``"cpu"``, ``"cuda"``,
        ``"tensorrt"``.
    takt_s : float
        Time within which a line wants each board.
    """

    profile: str
    threads: int
    cache: Path
    say: Callable[[str], None]
    provider: str = "cpu"
    takt_s: float = 60.0

    @property
    def device(self) -> str:
        """Where PyTorch runs beside that provider: ``"cpu"`` or ``"cuda"``."""
        return "cpu" if self.provider == "cpu" else "cuda"


def run_suites(
    names: Sequence[str],
    settings: Settings,
    keep: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Run suites by name.

    Parameters
    ----------
    names : sequence of str
        Keys of `SUITES`.
    settings : Settings
    keep : callable
        Given the document so far after each suite, so that an error in a later one loses nothing.

    Returns
    -------
    dict
        ``format``, ``environment`` (:func:`kad_bench.environment.collect`), ``run`` (profile,
        threads, provider, takt, start, load average before and after, and for each suite what
        :class:`kad_bench.noise.ProcessorUse` saw), ``suites`` (name to results).
    """
    before = os.getloadavg()
    run: dict[str, Any] = {
        "profile": settings.profile,
        "threads": settings.threads,
        "provider": settings.provider,
        "takt_s": settings.takt_s,
        "started": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "load_average_before_and_after": [before, before],
        "processor_use": {},
    }
    document = {"format": FORMAT, "environment": collect(), "run": run, "suites": {}}
    for name in names:
        watch = ProcessorUse()
        document["suites"][name] = importlib.import_module(SUITES[name]).run(settings)
        run["processor_use"][name] = watch.read()
        run["load_average_before_and_after"][1] = os.getloadavg()
        keep(document)
    return document


def has_measured(document: dict[str, Any]) -> bool:
    """Whether any engine of any case was measured."""
    suites = document["suites"].values()
    return any(case["engines"] for results in suites for case in results["cases"])


def document_table(document: dict[str, Any]) -> str:
    """Lay a run's document out as Markdown.

    Raises
    ------
    InvalidArgumentError
        It is not such a document, or of another format.
    """
    check_format(document)
    cpu, run = document["environment"]["cpu"], document["run"]
    git = document["environment"]["git"] or {"commit": "unknown", "dirty": False}
    changed = " with changes" if git["dirty"] else ""
    head = (
        f"{cpu['model']}, {run['threads']} threads, kad level {cpu['kad_level']}, "
        f"commit {git['commit'][:12]}{changed}, {run['started']}"
    )
    tables = [suite_markdown(name, results) for name, results in document["suites"].items()]
    return "\n\n".join([head, *name_busy_suites(document), *tables]) + "\n"


def suite_markdown(name: str, results: dict[str, Any]) -> str:
    """Lay one suite's results out as Markdown."""
    text: str = importlib.import_module(SUITES[name]).table(results)
    return text


def read_document(path: Path) -> dict[str, Any]:
    """Read what ``run --json`` wrote.

    Raises
    ------
    InvalidArgumentError
        It is not such a document, or of another format.
    """
    try:
        document = json.loads(path.read_text())
    except ValueError as error:
        raise InvalidArgumentError(f"{path}: {_EXPECTED}, got no JSON: {error}") from error
    check_format(document, str(path))
    return dict(document)


def check_format(document: Any, name: str = "these results") -> None:
    """Raise InvalidArgumentError for what is no document of a run, or one of another format.

    Parameters
    ----------
    document
        Read from JSON.
    name : str
        What the error calls it.
    """
    if not isinstance(document, dict) or "format" not in document:
        raise InvalidArgumentError(f"{name}: {_EXPECTED}, got other JSON")
    if document["format"] != FORMAT:
        raise InvalidArgumentError(
            f"{name}: expected results of format {FORMAT}, got {document['format']}: "
            "run kad-bench run again"
        )
    wrong = [".".join(keys) for keys in _PARTS if not _has(document, keys)]
    if not wrong:
        found = _object(document["suites"])
        wrong = [f"suites.{suite}" for suite in found if not _is_suite(suite, found[suite])]
    if wrong or not document["suites"]:
        got = f"got one without a right {', '.join(wrong) or 'suites'}"
        raise InvalidArgumentError(f"{name}: {_EXPECTED}, {got}: run kad-bench run again")


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _has(document: dict[str, Any], keys: tuple[str, ...]) -> bool:
    *path, last = keys
    for key in path:
        document = _object(document.get(key))
    return last in document


def _is_suite(name: str, results: Any) -> bool:
    cases = _object(results).get("cases")
    return (
        name in SUITES
        and isinstance(cases, list)
        and all(_object(case).keys() >= _CASE for case in cases)
    )


def replace_table(page: Path, document: dict[str, Any]) -> None:
    """Put a run's tables between the marks of a Markdown file that name its suites.

    Raises
    ------
    InvalidArgumentError
        The file lacks the marks.
    """
    begin = TABLE_BEGIN.format(", ".join(document["suites"]))
    replace_between(page, begin, TABLE_END, f"\n{document_table(document)}")


def default_cache() -> Path:
    """Where made features are kept: ``kad/bench`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "kad" / "bench"
