"""``kad calibrate``: find an artifact's thresholds anew, or take the last ones back."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from kad_sdk.cli_options import ARTIFACT, BATCH, open_detector, running

if TYPE_CHECKING:
    from kad_sdk.artifact import Artifact

__all__ = ["calibrate"]


@click.command()
@ARTIFACT
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option(
    "--by",
    "method",
    help="f1, youden, recall=0.95, false-alarms=0.001 from labelled tiles; quantile=0.999, "
    "normal-max=1.05 from normal tiles, false-alarms-per-board=0.01 from good boards.",
)
@click.option("--rollback", is_flag=True, help="Take back the last calibration.")
@running
@BATCH
@click.pass_context
def calibrate(
    context: click.Context,
    /,
    artifact: Path,
    data: Path | None,
    *,
    method: str | None,
    rollback: bool,
    **how: Any,
) -> None:
    """Find the thresholds of ARTIFACT anew on the boards in DATA, and set them.

    DATA is a folder of good boards, or one with test/: of it the good boards, or for methods of
    labelled tiles all that have a ground truth. They must be others than those that the artifact
    was fitted on. Detectors that are open keep their thresholds. The earlier ones stay in the
    artifact: --rollback puts them in force again.
    """
    from kad_sdk.artifact import Artifact

    if {data is not None, method is not None} != {not rollback}:
        raise click.UsageError("give DATA and --by METHOD, or --rollback alone")
    given = [n for n in how if context.get_parameter_source(n) is ParameterSource.COMMANDLINE]
    if rollback and given:
        raise click.UsageError(
            f"--{given[0].replace('_', '-')} says how boards are scored, and --rollback scores "
            "none: leave it out"
        )
    if data is None or method is None:
        _take_back(Artifact.open(artifact))
    else:
        _calibrate(artifact, data, method, **how)


def _calibrate(path: Path, data: Path, method: str, **how: Any) -> None:
    from kad_sdk.calibration import (
        calibration_boards,
        calibration_entry,
        name_warning,
        score_tiles,
    )
    from kad_sdk.dataset import scan_dataset
    from kad_sdk.facts import calibration_lines
    from kad_sdk.thresholds import ThresholdMethod

    wanted = ThresholdMethod.parse(method)
    boards = calibration_boards(scan_dataset(data, need_train=False), wanted)
    with (
        open_detector(path, **how) as detector,
        click.progressbar(
            length=len(boards), label="boards", file=sys.stderr, show_pos=True
        ) as bar,
    ):
        opened = detector.artifact
        tiles = score_tiles(detector, boards, bar.update)
    by_map = opened.thresholds.board == "map-peak"
    inspection = opened.inspection
    rules = inspection.rules_in_force
    entry, warnings = calibration_entry(wanted, tiles, by_map=by_map, rules=rules)
    opened.set_inspection(replace(inspection, calibrations=(*inspection.calibrations, entry)))
    same = name_warning(boards, opened.manifest)
    for text in (*warnings, *([same] if same else ())):
        click.echo(f"kad: warning: {text}", err=True)
    before = opened.thresholds
    click.echo(f"{path.name}: {wanted}")
    click.echo(f"  tiles {before.tile:.6g} -> {entry.tile.value:.6g}")
    click.echo(f"  map   {before.map:.6g} -> {entry.map.value:.6g}")
    for text in calibration_lines(entry):
        click.echo(f"  {text}")
    click.echo(f"take it back with: kad calibrate {path} --rollback")


def _take_back(opened: Artifact) -> None:
    from kad_sdk.errors import InvalidArgumentError

    inspection, now = opened.inspection, opened.thresholds
    if not inspection.calibrations:
        raise InvalidArgumentError(
            f"{opened.path}: the thresholds are those that this artifact was written with; there "
            "is no calibration of it to take back"
        )
    earlier = replace(inspection, calibrations=inspection.calibrations[:-1])
    opened.set_inspection(earlier)
    old = earlier.thresholds(opened.manifest.thresholds)
    click.echo(f"{opened.path.name}: back to {old.method}")
    click.echo(f"  tiles {now.tile:.6g} -> {old.tile:.6g}")
    click.echo(f"  map   {now.map:.6g} -> {old.map:.6g}")
