"""``inspection.json``: what is set on site, beside what the export made.

An artifact is as it was exported; its thresholds may be found anew, and rules be set. Both lie in a
file of their own, which the manifest does not list and which holds the manifest's SHA-256: so it is
bound to the very network, bank, preprocessing and scoring that the manifest tells of, and refused
with others.
Earlier calibrations and rules stay in it, as many as there is room for. The keys are explained in
``docs/artifact.md``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import json
from bisect import bisect_left
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, Literal

from kad_sdk.errors import ArtifactCorruptError, ArtifactVersionError, OutputError
from kad_sdk.manifest_entries import (  # noqa: TC001 - read at run time by schema.decode
    Amount,
    Digest,
    Fraction,
    NonNegative,
    Positive,
    PositiveFloat32,
    Text,
    Thresholds,
)
from kad_sdk.rules import NO_RULES, Rules, RulesEntry
from kad_sdk.schema import Range, SchemaError, decode
from kad_sdk.storage import strict_json

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "INSPECTION",
    "INSPECTION_LIMIT_BYTES",
    "CalibrationEntry",
    "FalseAlarms",
    "Inspection",
    "Tau",
    "manifest_digest",
]

INSPECTION = "inspection.json"
INSPECTION_LIMIT_BYTES = 1 << 20
FORMAT = "kad-inspection"

Share = Annotated[float, Range(0, 1)]


@dataclass(frozen=True)
class Tau:
    """A threshold.

    Attributes
    ----------
    value : float
        tau.
    scale : float
        Spread s of the normalised score 1 / (1 + exp(-(x - tau) / s)).
    interval : (float, float)
        Within which other boards of the same kind would have put tau.
    """

    value: PositiveFloat32
    scale: Positive
    interval: tuple[NonNegative, NonNegative]


@dataclass(frozen=True)
class FalseAlarms:
    """The share of good ones that a threshold flags: in its sample, and expected of fresh ones."""

    share: Share
    interval: tuple[Share, Share]


@dataclass(frozen=True)
class _Calibration:
    """A calibration as version 1 has it."""

    method: Text
    time: Text
    tile: Tau
    map: Tau
    confidence: Fraction
    good_boards: Amount
    defective_boards: Amount
    normal_tiles: Amount
    defect_tiles: Amount
    tile_false_alarms: FalseAlarms | None
    board_false_alarms: FalseAlarms | None


@dataclass(frozen=True)
class CalibrationEntry(_Calibration):
    """One calibration: thresholds, how they were found, on what, and what they do.

    `confidence` is that of all intervals. The false alarms of tiles are those of `tile`; those of
    boards of whatever decides a board; None without good ones. `rules` were in force.
    """

    rules: Rules = NO_RULES


@dataclass(frozen=True)
class Inspection:
    """What ``inspection.json`` holds; an artifact without the file has an empty one.

    Attributes
    ----------
    manifest : str
        SHA-256 of the manifest that it belongs to.
    calibrations : tuple of CalibrationEntry
        Oldest first: the last is in force, and without any the manifest's thresholds are.
    rules : tuple of RulesEntry
        Oldest first: the last is in force.
    """

    manifest: Digest
    calibrations: tuple[CalibrationEntry, ...] = ()
    rules: tuple[RulesEntry, ...] = ()
    version: Literal[2] = 2

    @property
    def rules_in_force(self) -> Rules:
        """The rules in force; without any, empty ones."""
        return self.rules[-1].rules if self.rules else NO_RULES

    @property
    def rules_of_thresholds(self) -> Rules:
        """The rules under which the thresholds in force were found; an export knows none."""
        return self.calibrations[-1].rules if self.calibrations else NO_RULES

    def thresholds(self, exported: Thresholds) -> Thresholds:
        """Give the thresholds in force; `exported` are the manifest's."""
        if not self.calibrations:
            return exported
        last = self.calibrations[-1]
        return dataclasses.replace(
            exported,
            tile=last.tile.value,
            tile_scale=last.tile.scale,
            map=last.map.value,
            map_scale=last.map.scale,
            method=last.method,
            samples=last.normal_tiles + last.defect_tiles,
        )

    def to_json(self) -> str:
        """Write it as text: sorted keys; the same content gives the same text."""
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        text = json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
        return text + "\n"

    def to_file(self) -> bytes:
        """Give the content of the file, read back as both doors read it before it is written.

        Where the file has no room for the whole history, its oldest entries are left out.

        Raises
        ------
        OutputError
            A value is out of range, or what is in force is too large by itself.
        """
        earlier = max(0, len(self.calibrations) - 1) + max(0, len(self.rules) - 1)
        try:
            gone = bisect_left(range(earlier), True, key=self._fits_without)
            text = self._without_oldest(gone).to_json().encode()
            content = strict_json(text, limit=INSPECTION_LIMIT_BYTES)
            del content["format"]
            decode(Inspection, content)
        except ValueError as error:
            raise OutputError(
                f"{INSPECTION}: {error}; no reader would take it, so what was set before stays: "
                "set other values, or fewer rules"
            ) from error
        return text

    def _fits_without(self, n: int) -> bool:
        text = self._without_oldest(n).to_json().encode()
        return len(text) <= INSPECTION_LIMIT_BYTES

    def _without_oldest(self, n: int) -> Inspection:
        """Leave out the n oldest entries of both lists; the last of each is in force, and stays."""
        earlier: Iterable[CalibrationEntry | RulesEntry] = heapq.merge(
            self.calibrations[:-1], self.rules[:-1], key=attrgetter("time")
        )
        of_rules = sum(isinstance(entry, RulesEntry) for entry in islice(earlier, n))
        return dataclasses.replace(
            self, calibrations=self.calibrations[n - of_rules :], rules=self.rules[of_rules:]
        )

    @classmethod
    def from_json(cls, text: bytes, *, manifest: str, name: str = INSPECTION) -> Inspection:
        """Read and check it; `manifest` is the SHA-256 of the manifest, `name` for errors.

        Raises
        ------
        ArtifactVersionError
            The format is not ours, or another version.
        ArtifactCorruptError
            Not strict JSON, a key missing or unknown, a value of the wrong type or out of range, or
            the manifest that it belongs to is another.
        """
        try:
            content = strict_json(text, limit=INSPECTION_LIMIT_BYTES)
        except ValueError as error:
            raise ArtifactCorruptError(f"{name}: {error}; {_ADVICE}") from error
        if not isinstance(content, dict):
            raise ArtifactCorruptError(f"{name}: expected a JSON object; {_ADVICE}")
        version = _check_version(content, name)
        del content["format"]
        try:
            found = _from_version_1(content) if version == 1 else decode(cls, content)
        except SchemaError as error:
            raise ArtifactCorruptError(f"{name}: {error}; {_ADVICE}") from error
        if found.manifest != manifest:
            raise ArtifactCorruptError(
                f"{name}: was made for a manifest of SHA-256 {found.manifest}, and this one's is "
                f"{manifest}: thresholds of another artifact do not hold here; {_ADVICE}"
            )
        return found


@dataclass(frozen=True)
class _InspectionOfVersion1:
    """Version 1 knows no rules."""

    manifest: Digest
    calibrations: tuple[_Calibration, ...]
    version: Literal[1]


def _from_version_1(content: dict[str, Any]) -> Inspection:
    old: _InspectionOfVersion1 = decode(_InspectionOfVersion1, content)
    calibrations = (CalibrationEntry(**vars(entry)) for entry in old.calibrations)
    return Inspection(old.manifest, tuple(calibrations))


_ADVICE = "copy the artifact again, or remove this file and calibrate anew"


def manifest_digest(text: bytes) -> str:
    """Give the SHA-256 of a manifest's bytes, by which an inspection is bound to it."""
    return hashlib.sha256(text).hexdigest()


def _check_version(content: dict[str, Any], name: str) -> int:
    if content.get("format") != FORMAT:
        raise ArtifactVersionError(
            f"{name}: expected format {FORMAT!r}, got {content.get('format')!r}: {_ADVICE}"
        )
    version = content.get("version")
    if type(version) is not int:
        raise ArtifactCorruptError(f"{name}: version: expected an integer, got {version!r}")
    if version not in {1, 2}:
        raise ArtifactVersionError(
            f"{name}: version {version} cannot be read by this version of kad-sdk, which reads 1 "
            "and 2: upgrade kad-sdk"
        )
    return version
