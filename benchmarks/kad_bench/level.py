"""The level of instructions that a run uses: the processor's best, or a lower one that is forced.

What a suite measures in a process of its own is told of a forced level by a variable.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["at_level", "follow_level"]

_VARIABLE = "KAD_BENCH_LEVEL"


@contextmanager
def at_level(level: str | None) -> Iterator[None]:
    """Force a level while the block runs, here and in what it starts; None: the best one.

    Raises
    ------
    KadError
        There is no such level, or the processor lacks it.
    """
    if level is None:
        yield
        return
    _force(level)
    os.environ[_VARIABLE] = level
    try:
        yield
    finally:
        del os.environ[_VARIABLE]
        _force(None)


def follow_level() -> None:
    """Take over the level of the run that started this process."""
    level = os.environ.get(_VARIABLE)
    if level:
        _force(level)


def _force(level: str | None) -> None:
    from kad_sdk._native import force_cpu_level  # noqa: PLC0415 - a probe times this import

    force_cpu_level(level)
