"""What an inspector sets: where boards are not judged, where more or less strictly, from what size.

Rules are in px of the board's image as it is given; they lie in ``inspection.json`` beside the
thresholds. Zones have a factor of the threshold instead of one of their own, so that they hold
when the threshold is found anew. What the rules mean for the score is said in ``docs/artifact.md``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from kad_sdk._native import MapJudge
from kad_sdk.annotations import Rect, scale_rect
from kad_sdk.errors import InvalidArgumentError
from kad_sdk.manifest_entries import Text  # noqa: TC001 - read at run time by schema.decode
from kad_sdk.schema import Range, SchemaError, decode
from kad_sdk.storage import strict_json

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["NO_RULES", "PlacedRules", "Rules", "RulesEntry", "Zone", "read_rules"]

_LIMIT_BYTES = 1 << 20

Start = Annotated[int, Range(0, 2**31 - 1)]
Side = Annotated[int, Range(1, 2**31 - 1)]
Place = tuple[Start, Start, Side, Side]  # x, y, width, height
Factor = Annotated[float, Range(0.01, 100)]
Margin = Annotated[int, Range(0, 1 << 16)]


@dataclass(frozen=True)
class Zone:
    """A rectangle [x, y, width, height] whose threshold is `factor` times the board's."""

    rect: Place
    factor: Factor


@dataclass(frozen=True)
class Rules:
    """What is judged, px of the image; what of a rectangle lies outside of it is left out.

    Attributes
    ----------
    ignore : tuple of (x, y, width, height)
        Nothing is judged in them.
    zones : tuple of Zone
        Where they overlap, the smallest factor counts.
    edge_margin_px : int
        So near to the edge of its active area nothing is judged.
    min_region_area_px : int or None
        Smaller regions are no defects; None: as exported, and a single pixel decides a board.
    """

    ignore: tuple[Place, ...] = ()
    zones: tuple[Zone, ...] = ()
    edge_margin_px: Margin = 0
    min_region_area_px: Side | None = None

    def __bool__(self) -> bool:
        """Whether anything is set."""
        return self != NO_RULES

    def placed(
        self, size: tuple[int, int], frame: tuple[int, int], borders: Sequence[Rect] = ()
    ) -> PlacedRules:
        """Bring the rules to the frame that a board is scored in.

        Rectangles and the margin grow to whole px, as labels do.

        Parameters
        ----------
        size, frame : (height, width)
            Of the image, and of the frame, px.
        borders
            Active areas, px of the frame.
        """
        zones = [(self._place(zone.rect, size, frame), zone.factor) for zone in self.zones]
        ignored = [self._place(rect, size, frame) for rect in self.ignore]
        margins = [min(-(-self.edge_margin_px * frame[i] // size[i]), frame[i]) for i in (1, 0)]
        judge = MapJudge(
            *frame,
            ignored=[place for place in ignored if place],
            zones=[(place, factor) for place, factor in zones if place],
            edge_margin=(margins[0], margins[1]),
            borders=borders,
        )
        return PlacedRules(judge, self._min_area(size, frame))

    def _place(self, rect: Place, size: tuple[int, int], frame: tuple[int, int]) -> Rect | None:
        x, y, width, height = rect
        if x >= size[1] or y >= size[0]:
            return None
        inside = Rect(x, y, min(width, size[1] - x), min(height, size[0] - y))
        return scale_rect(inside, size, frame, grow=True)

    def _min_area(self, size: tuple[int, int], frame: tuple[int, int]) -> int | None:
        area = self.min_region_area_px
        return None if area is None else -(-area * frame[0] * frame[1] // (size[0] * size[1]))

    def to_dict(self) -> dict[str, Any]:
        """Give them as plain values."""
        return {
            "ignore": [list(rect) for rect in self.ignore],
            "zones": [{"rect": list(zone.rect), "factor": zone.factor} for zone in self.zones],
            "edge_margin_px": self.edge_margin_px,
            "min_region_area_px": self.min_region_area_px,
        }

    def to_json(self) -> str:
        """Write them as :func:`read_rules` reads them."""
        return json.dumps(self.to_dict(), indent=1) + "\n"


NO_RULES = Rules()


@dataclass(frozen=True)
class RulesEntry:
    """Rules, and when they were set."""

    time: Text
    rules: Rules


@dataclass(frozen=True, eq=False)
class PlacedRules:
    """Rules in px of a frame."""

    judge: MapJudge
    min_area_px: int | None


def read_rules(text: bytes, name: str) -> Rules:
    """Read rules from JSON; keys that are left out set nothing.

    Raises
    ------
    InvalidArgumentError
        Not strict JSON, an unknown key, or a value of the wrong type or range.
    """
    try:
        content = strict_json(text, limit=_LIMIT_BYTES)
        if not isinstance(content, dict):
            raise SchemaError(f"expected an object with {', '.join(_NOTHING)}")
        given: dict[str, Any] = {**_NOTHING, **content}
        rules: Rules = decode(Rules, given)
    except ValueError as error:
        raise InvalidArgumentError(f"{name}: {error}; correct it there") from error
    return rules


_NOTHING = NO_RULES.to_dict()
