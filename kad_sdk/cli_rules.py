"""``kad rules``: show, set and take back what an inspector wants judged."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kad_sdk.cli_options import ARTIFACT, JSON

if TYPE_CHECKING:
    from kad_sdk.artifact import Artifact
    from kad_sdk.inspection import Inspection
    from kad_sdk.rules import Rules

__all__ = ["rules"]


_RECTANGLE = r"(\d+),(\d+),(\d+),(\d+)"
_ZONE = _RECTANGLE + r"=(\d*\.?\d+(?:e-?\d+)?)"
_KEYS = {"edge_margin": "edge_margin_px", "min_area": "min_region_area_px"}


def _rectangles(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> list[Any]:
    return [[int(part) for part in _parts(_RECTANGLE, "x,y,width,height", v)] for v in values]


def _zones(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> list[Any]:
    parts = [_parts(_ZONE, "x,y,width,height=factor", value) for value in values]
    return [{"rect": [int(side) for side in rect], "factor": float(f)} for *rect, f in parts]


def _parts(expression: str, form: str, value: str) -> tuple[str, ...]:
    found = re.fullmatch(expression, re.sub(r"\s", "", value))
    if found is None:
        raise click.BadParameter(f"expected {form}, in px of the image, got {value!r}")
    return found.groups()


@click.command()
@ARTIFACT
@click.option(
    "--ignore",
    metavar="X,Y,W,H",
    multiple=True,
    callback=_rectangles,
    help="Judge nothing there; repeatable.",
)
@click.option(
    "--zone",
    "zones",
    metavar="X,Y,W,H=FACTOR",
    multiple=True,
    callback=_zones,
    help="There, FACTOR times the threshold; repeatable.",
)
@click.option(
    "--edge-margin", type=int, help="Judge nothing so near to the active area's edge, px."
)
@click.option("--min-area", type=int, help="Smaller regions are no defects, px.")
@click.option("--clear", is_flag=True, help="Begin with no rules.")
@click.option("--set", "file", type=click.Path(path_type=Path), help="All rules from a JSON file.")
@click.option("--rollback", is_flag=True, help="Take back what was set last.")
@JSON
def rules(
    artifact: Path,
    *,
    clear: bool,
    file: Path | None,
    rollback: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Show the rules that are set on ARTIFACT, or set others.

    \b
    kad rules board.kad                                    show them
    kad rules board.kad --ignore 100,200,50,60 --edge-margin 20
    kad rules board.kad --zone 0,0,4000,300=1.5            less strict there
    kad rules board.kad --clear                            none
    kad rules board.kad --json > rules.json                to be edited
    kad rules board.kad --set rules.json

    In px of the board's image as it is given. Options add to what is set; with --clear they are
    all that is. Detectors that are open keep their rules. The earlier ones stay in the artifact:
    --rollback puts them in force again.
    """  # noqa: D301
    from kad_sdk.artifact import Artifact

    added = {key: value for key, value in given.items() if value not in (None, [])}
    changes = clear or bool(added)
    if changes + rollback + (file is not None) > 1:
        raise click.UsageError("give options that set rules, or --set FILE, or --rollback")
    opened = Artifact.open(artifact)
    inspection = opened.inspection
    if rollback:
        inspection = _taken_back(opened)
    elif file is not None:
        inspection = _with(inspection, _read(file))
    elif changes:
        inspection = _with(inspection, _changed(opened.rules, added, clear=clear))
    if inspection is not opened.inspection:
        opened.set_inspection(inspection)
    _tell(opened, inspection, as_json=as_json)
    if changes or file is not None:
        click.echo(f"take it back with: kad rules {opened.path} --rollback", err=as_json)


def _read(file: Path) -> Rules:
    from kad_sdk.errors import InvalidArgumentError
    from kad_sdk.rules import read_rules

    try:
        text = file.read_bytes()
    except OSError as error:
        raise InvalidArgumentError(f"{file}: cannot be read: {error.strerror}") from error
    return read_rules(text, str(file))


def _changed(before: Rules, added: dict[str, Any], *, clear: bool) -> Rules:
    """Add rectangles to those that are set, and put numbers in place of them."""
    from kad_sdk.rules import NO_RULES, read_rules

    content = (NO_RULES if clear else before).to_dict()
    for key, value in added.items():
        if isinstance(value, list):
            content[key] = [*content[key], *value]
        else:
            content[_KEYS[key]] = value
    return read_rules(json.dumps(content).encode(), "the options")


def _with(before: Inspection, wanted: Rules) -> Inspection:
    from kad_sdk.rules import RulesEntry

    entry = RulesEntry(datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), wanted)
    return replace(before, rules=(*before.rules, entry))


def _taken_back(opened: Artifact) -> Inspection:
    from kad_sdk.errors import InvalidArgumentError

    inspection = opened.inspection
    if not inspection.rules:
        raise InvalidArgumentError(f"{opened.path}: no rules were set; there are none to take back")
    return replace(inspection, rules=inspection.rules[:-1])


def _tell(opened: Artifact, inspection: Inspection, *, as_json: bool) -> None:
    """Print the rules in force, as text or as nothing but JSON, and warn of what follows."""
    from kad_sdk.facts import rules_lines, rules_notes

    if as_json:
        click.echo(inspection.rules_in_force.to_json(), nl=False)
    else:
        click.echo(f"{opened.path.name}: rules")
        for line in rules_lines(inspection.rules_in_force):
            click.echo(f"  {line}")
    for note in rules_notes(inspection):
        click.echo(f"kad: warning: {note}", err=True)
