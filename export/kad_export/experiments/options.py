"""Options as texts, read by the very commands that take them: one spelling, one set of checks."""

from __future__ import annotations

import difflib
from functools import cache
from typing import TYPE_CHECKING, Any

import click

from kad_export.cli_cutpaste import cutpaste
from kad_export.cli_patchcore import patchcore
from kad_export.errors import GridError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["METHODS", "RESOURCES", "known_options", "option_words", "parse_options", "unknown"]

METHODS = {"patchcore": patchcore, "cutpaste": cutpaste}
"""A method to its command."""

RESOURCES = frozenset({
    *("memory", "threads", "workers", "scratch", "engine", "checkpoint-seconds", "score-batch"),
})  # fmt: skip
"""Options that figures do not depend on: they may change between runs that are compared."""

_OURS = frozenset({"out", "force", "quiet", "resume", "run", "checkpoint"})  # set by the experiment


@cache
def known_options(method: str) -> Mapping[str, click.Option]:
    """Give the options of a method's command that a grid may set, by name."""
    found = {
        option.opts[0].removeprefix("--"): option
        for option in METHODS[method].params
        if isinstance(option, click.Option) and option.expose_value  # the others have one value
    }
    return {name: option for name, option in found.items() if name not in _OURS}


def unknown(what: str, name: str, expected: Iterable[str]) -> GridError:
    """Make the error for a name that is not among those expected."""
    names = list(expected)
    close = difflib.get_close_matches(name, names, n=1)
    meant = f"; is {close[0]!r} meant?" if close else ""
    return GridError(f"unknown {what} {name!r}: expected one of {', '.join(names)}{meant}")


def option_words(method: str, options: Mapping[str, str]) -> list[str]:
    """Give options as words of a command line.

    ``none`` leaves out an option that has no default, such as denoise. An option that can be given
    several times, such as augment, takes its texts apart at spaces.
    """
    words = []
    for name, text in options.items():
        option = known_options(method)[name]
        if text == "none" and not _defaults(method)[option.name]:
            continue
        values = text.split() if option.multiple else [text]
        words += [f"--{name}={value}" for value in values]
    return words


def parse_options(method: str, options: Mapping[str, str]) -> dict[str, Any]:
    """Read options as the method's command does.

    Returns
    -------
    dict
        The values of all options that a grid may set, given or not, by name.

    Raises
    ------
    GridError
        A value that the command refuses.
    """
    try:
        values = _read(method, option_words(method, options))
    except click.UsageError as error:
        raise GridError(f"{method}: {error.format_message()}") from error
    return {name: values[option.name] for name, option in known_options(method).items()}


def _read(method: str, words: list[str]) -> dict[str, Any]:
    return METHODS[method].make_context(method, ["DATA", "--out=X.kad", *words]).params


@cache
def _defaults(method: str) -> dict[str, Any]:
    return _read(method, [])
