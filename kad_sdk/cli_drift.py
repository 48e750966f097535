"""``kad drift``: compare a day's log of scores with a reference."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kad_sdk.cli_options import ARTIFACT, JSON

if TYPE_CHECKING:
    from kad_sdk.drift import Drift

__all__ = ["EXIT_DRIFT", "drift"]

EXIT_DRIFT = 3


@click.command()
@ARTIFACT
@click.argument("log", type=click.Path(path_type=Path))
@click.option(
    "--reference",
    required=True,
    type=click.Path(path_type=Path),
    help="Log of good boards, when all was well.",
)
@click.option("--last", type=click.IntRange(1), help="Only the last boards of LOG.")
@click.option(
    "--false-alarms",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.01,
    show_default=True,
    help="Probability of an alarm when nothing has changed.",
)
@JSON
def drift(
    artifact: Path,
    log: Path,
    *,
    reference: Path,
    last: int | None,
    false_alarms: float,
    as_json: bool,
) -> None:
    """Compare tile scores and brightness of the boards in LOG with those of a reference.

    Both logs come from `kad score --log-scores`. The exit code is 3 when they differ: camera, light
    or material have changed, and thresholds that were set before may no longer hold. Defects do not
    count: they cover few tiles, and what the bulk of the tiles scores is compared.
    """
    from kad_sdk.artifact import Artifact
    from kad_sdk.drift import compare_boards
    from kad_sdk.score_log import log_measures, read_log, scoring_id

    scoring = scoring_id(Artifact.open(artifact).manifest)
    before, now = read_log(reference), read_log(log, last=last)
    how = {"scoring": scoring, "precision": before[0].precision}
    found = compare_boards(
        log_measures(now, log, **how),
        log_measures(before, reference, **how),
        false_alarm_rate=false_alarms,
    )
    if as_json:
        click.echo(json.dumps({"alarm": found.alarm, **asdict(found)}, indent=1))
    else:
        click.echo("\n".join(_lines(found)))
    if found.alarm:
        raise click.exceptions.Exit(EXIT_DRIFT)


def _lines(found: Drift) -> list[str]:
    head = f"{found.n_day} boards against {found.n_reference} of the reference"
    lines = [head, f"  {'':<14}{'reference':>12}{'now':>12}{'shift':>10}{'p':>10}"]
    for s in found.shifts:
        shift = f"{(s.day - s.reference) / s.spread:+.1f} IQR" if s.spread else "-"
        lines.append(
            f"  {s.measure:<14}{s.reference:>12.5g}{s.day:>12.5g}{shift:>10}{s.p_value:>10.4f}"
        )
    rate = f"p = {found.p_value:.4f}, false-alarm rate {found.false_alarm_rate:g}"
    if not found.alarm:
        return [*lines, f"no drift: {rate}"]
    most = found.largest
    way = "higher" if most.day > most.reference else "lower"
    return [
        *lines,
        f"DRIFT: {most.measure} is {way} than in the reference ({rate})",
        "look at camera, light and material; when the change is to stay, calibrate or fit again",
    ]
