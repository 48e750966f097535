"""Defects by kind: an optional file beside a data set of boards, for figures of each kind.

``defects.json`` names, for each defective test board, its defects and a box around each, ``[x, y,
width, height]`` in pixels of the stored image; where a defect lies exactly is what the ground truth
inside its box says::

    {"231117_0302_1.jpg": [{"kind": "black scar", "box": [2210, 318, 33, 150]}]}
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping  # noqa: TC003 - read at run time by schema.decode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np

from kad_sdk.errors import AnnotationError
from kad_sdk.schema import Pattern, Range, SchemaError, decode
from kad_sdk.storage import strict_json

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["DEFECTS_NAME", "OTHER", "Defect", "check_boxes", "masks_by_kind", "read_defects"]

DEFECTS_NAME = "defects.json"
OTHER = "other"
"""Kind of what the ground truth marks outside of every box."""

_LIMIT_BYTES = 256 << 20
_RESERVED = "good|unlabelled|other"

Place = Annotated[int, Range(0, (1 << 31) - 1)]
Length = Annotated[int, Range(1, (1 << 31) - 1)]
Kind = Annotated[
    str,
    Pattern(
        rf"(?!(?:{_RESERVED})$)[^\x00-\x1f]{{1,64}}",
        "a name of 1 to 64 characters other than good, unlabelled and other",
    ),
]


@dataclass(frozen=True)
class Defect:
    """A defect of a board: its kind, and a box (x, y, width, height) around it, px."""

    kind: Kind
    box: tuple[Place, Place, Length, Length]


@dataclass(frozen=True)
class _File:
    defects: Mapping[str, tuple[Defect, ...]]


def read_defects(path: Path) -> dict[str, tuple[Defect, ...]]:
    """Read a file of defects.

    Returns
    -------
    dict
        Image file name to its defects.

    Raises
    ------
    AnnotationError
        The file cannot be read or is not of the form above; the text names the entry.
    """
    try:
        document = strict_json(path.read_bytes().removeprefix(codecs.BOM_UTF8), limit=_LIMIT_BYTES)
        file: _File = decode(_File, {"defects": document})
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read: {error.strerror}") from error
    except SchemaError as error:
        raise AnnotationError(f"{path}: {error}; correct it there") from error
    except ValueError as error:
        raise AnnotationError(f"{path}: not a file of defects in JSON: {error}") from error
    return dict(file.defects)


def masks_by_kind(
    defects: tuple[Defect, ...], mask: NDArray[np.bool_], name: str
) -> dict[str, NDArray[np.bool_]]:
    """Split a board's ground truth by the kinds of its defects.

    Parameters
    ----------
    defects
        Of the board.
    mask
        (H, W), True where the ground truth marks a defect.
    name
        The board's, for errors.

    Returns
    -------
    dict
        Kind to (H, W) bool: the ground truth in the boxes of that kind, and what lies in none of
        them under `OTHER`. Pixels of overlapping boxes belong to each; kinds without a pixel are
        left out.

    Raises
    ------
    AnnotationError
        A box leaves the board.
    """
    check_boxes(defects, mask.shape, name)
    kinds = {defect.kind: np.zeros_like(mask) for defect in defects}
    rest = mask.copy()
    for defect in defects:
        x, y, width, height = defect.box
        box = np.s_[y : y + height, x : x + width]
        kinds[defect.kind][box] = mask[box]
        rest[box] = False
    return {kind: found for kind, found in {**kinds, OTHER: rest}.items() if found.any()}


def check_boxes(defects: tuple[Defect, ...], size: tuple[int, ...], name: str) -> None:
    """Raise AnnotationError when a box leaves the board called `name`, of (height, width) px."""
    height, width = size
    for defect in defects:
        x, y, box_width, box_height = defect.box
        if x + box_width > width or y + box_height > height:
            raise AnnotationError(
                f"{name}: the box {list(defect.box)} of a {defect.kind} in {DEFECTS_NAME} reaches "
                f"outside the image of {width} x {height} px; measure it on this image at its full "
                "size"
            )
