"""Markdown pages that hold generated tables between two marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kad_sdk.errors import InvalidArgumentError
from kad_sdk.storage import write_atomic

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["replace_between"]


def replace_between(page: Path, begin: str, end: str, text: str) -> None:
    """Put a text between two marks of a page, in place of what stands there.

    Raises
    ------
    InvalidArgumentError
        The page lacks the marks.
    """
    before, found_begin, rest = page.read_text().partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise InvalidArgumentError(f"{page}: expected the marks {begin} and {end}")
    write_atomic(page, f"{before}{begin}\n{text}\n{end}{after}".encode())
