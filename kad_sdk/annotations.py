"""Annotation files: for each board its active areas and its label stickers.

The format is JSON, rectangles are ``[x, y, width, height]`` in pixels of the stored image::

    {"231117_0302_1.jpg": {"labels": [[659, 2231, 600, 1239]], "borders": [[617, 161, 3279, 3424]]}}

Both keys may be left out. No borders: the whole image is active.
"""

from __future__ import annotations

import codecs
import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kad_sdk.errors import AnnotationError
from kad_sdk.storage import strict_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

__all__ = ["Annotation", "Rect", "find_annotation", "read_annotations", "scale_rect"]

_KEYS = ("borders", "labels")
_LIMIT_BYTES = 256 << 20


class Rect(NamedTuple):
    """A rectangle in pixels: left, top, width, height."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Annotation:
    """Where a board is in its image, and where its stickers are.

    Attributes
    ----------
    borders : tuple of Rect
        Active areas; tiles are planned inside each. Empty: the whole image.
    labels : tuple of Rect
        Tiles that intersect one of these are dropped.
    """

    borders: tuple[Rect, ...] = ()
    labels: tuple[Rect, ...] = ()

    def check(self, height: int, width: int, name: str = "") -> None:
        """Raise AnnotationError when a rectangle leaves the image called `name`."""
        place = f"{name}: " if name else ""
        for key in _KEYS:
            for index, rect in enumerate(getattr(self, key)):
                if rect.x + rect.width > width or rect.y + rect.height > height:
                    raise AnnotationError(
                        f"{place}{key}[{index}] = {list(rect)} ([x, y, width, height]) reaches to "
                        f"({rect.x + rect.width}, {rect.y + rect.height}), outside the image of "
                        f"{width} x {height} px; measure it on this image at its full size"
                    )

    def resized(self, size: tuple[int, int], new_size: tuple[int, int]) -> Annotation:
        """Give the annotation for the same board at another size.

        Labels grow and borders shrink to whole pixels, so that no tile touches what it must not.

        Parameters
        ----------
        size, new_size : (height, width)
            px.

        Raises
        ------
        AnnotationError
            A border vanishes.
        """
        borders = tuple(scale_rect(rect, size, new_size, grow=False) for rect in self.borders)
        for index, rect in enumerate(borders):
            if rect.width < 1 or rect.height < 1:
                raise AnnotationError(
                    f"borders[{index}] = {list(self.borders[index])} vanishes when the image of "
                    f"{size[1]} x {size[0]} px is resized to {new_size[1]} x {new_size[0]} px"
                )
        labels = tuple(scale_rect(rect, size, new_size, grow=True) for rect in self.labels)
        return Annotation(borders, labels)


def read_annotations(path: str | PathLike[str]) -> dict[str, Annotation]:
    """Read an annotation file.

    Returns
    -------
    dict
        Image file name to its annotation.

    Raises
    ------
    AnnotationError
        The file is missing or not JSON, a key is unknown or given twice, or a rectangle is not four
        integers with x, y >= 0 and width, height >= 1. The message gives the place, such as
        ``231117_0302_1.jpg: borders[0][2]``.
    """
    try:
        return _parse(Path(path).read_bytes())
    except AnnotationError as error:
        raise AnnotationError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise AnnotationError(f"{path}: no such annotation file") from None
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read: {error.strerror}") from error


def find_annotation(
    annotations: Mapping[str, Annotation], image_path: str | PathLike[str]
) -> Annotation:
    """Give the annotation of an image, by its file name.

    Raises
    ------
    AnnotationError
        No entry has that name. The message gives the nearest names.
    """
    name = Path(image_path).name
    if name in annotations:
        return annotations[name]
    close = difflib.get_close_matches(name, annotations, n=3)
    advice = f"did you mean {', '.join(close)}?" if close else "add an entry for it"
    raise AnnotationError(
        f"{name}: not among the {len(annotations)} images that the annotations name; {advice}"
    )


def scale_rect(rect: Rect, size: tuple[int, int], new_size: tuple[int, int], *, grow: bool) -> Rect:
    """Give a rectangle of an image of `size` (height, width) for the same image of `new_size`.

    In integers, so that the result does not hang on rounding.

    Parameters
    ----------
    grow
        Whether it grows to whole px, or shrinks to them.
    """
    x0, x1 = _span(rect.x, rect.width, new_size[1], size[1], grow=grow)
    y0, y1 = _span(rect.y, rect.height, new_size[0], size[0], grow=grow)
    return Rect(x0, y0, x1 - x0, y1 - y0)


def _span(start: int, length: int, to: int, of: int, *, grow: bool) -> tuple[int, int]:
    first, last = start * to, (start + length) * to
    return (first // of, -(-last // of)) if grow else (-(-first // of), last // of)


def _parse(data: bytes) -> dict[str, Annotation]:
    try:
        document = strict_json(data.removeprefix(codecs.BOM_UTF8), limit=_LIMIT_BYTES)
    except ValueError as error:
        raise AnnotationError(
            f"not an annotation file in JSON: {error}; correct it there"
        ) from error
    if not isinstance(document, dict):
        raise AnnotationError(
            f"expected an object of image names, got {_kind(document)}; write "
            '{"NAME.jpg": {"borders": [[x, y, width, height]], "labels": []}}'
        )
    return {name: _annotation(name, entry) for name, entry in document.items()}


def _annotation(name: str, entry: object) -> Annotation:
    if not isinstance(entry, dict):
        raise AnnotationError(
            f"{name}: expected an object with {' and '.join(_KEYS)}, got {_kind(entry)}"
        )
    unknown = sorted(entry.keys() - set(_KEYS))
    if unknown:
        raise AnnotationError(
            f"{name}: unknown key {unknown[0]!r}; known are {' and '.join(_KEYS)}"
        )
    return Annotation(**{key: _rects(f"{name}: {key}", entry.get(key, [])) for key in _KEYS})


def _rects(place: str, value: object) -> tuple[Rect, ...]:
    if not isinstance(value, list):
        raise AnnotationError(
            f"{place}: expected a list of [x, y, width, height], got {_kind(value)}"
        )
    return tuple(_rect(f"{place}[{index}]", item) for index, item in enumerate(value))


def _rect(place: str, value: object) -> Rect:
    if not isinstance(value, list) or len(value) != 4:
        raise AnnotationError(f"{place}: expected [x, y, width, height], got {_kind(value)}")
    for index, (field, number) in enumerate(zip(Rect._fields, value, strict=True)):
        if type(number) is not int:  # bool is a kind of int
            raise AnnotationError(
                f"{place}[{index}]: {field} must be an integer, got {_kind(number)}"
            )
        lowest = 0 if field in ("x", "y") else 1
        if not lowest <= number < 2**31:
            raise AnnotationError(
                f"{place}[{index}]: {field} must be at least {lowest} px, got {number}"
            )
    return Rect(*value)


def _kind(value: object) -> str:
    """Name a JSON value in an error: what it is, and its text when that is short."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
