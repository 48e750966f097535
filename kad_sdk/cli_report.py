"""``kad report``: one page about how an artifact does on a data set."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from kad_sdk.cli_options import (
    ARTIFACT,
    BATCH,
    MAP_THRESHOLD,
    TILE_THRESHOLD,
    open_detector,
    running,
)
from kad_sdk.defaults import REPORT_BOARDS, REPORT_FINDINGS, REPORT_PICTURE_SIDE

__all__ = ["report"]


@click.command()
@ARTIFACT
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="HTML file to write.")
@running
@BATCH
@TILE_THRESHOLD
@MAP_THRESHOLD
@click.option(
    "--max-boards",
    type=click.IntRange(0),
    default=REPORT_BOARDS,
    show_default=True,
    help="Boards whose map is on the page, wrong verdicts first.",
)
@click.option(
    "--max-findings",
    type=click.IntRange(0),
    default=REPORT_FINDINGS,
    show_default=True,
    help="Missed defects shown, and false alarms shown.",
)
@click.option(
    "--max-side",
    type=click.IntRange(64),
    default=REPORT_PICTURE_SIDE,
    show_default=True,
    help="Scale boards' pictures down to this, px.",
)
def report(
    artifact: Path,
    data: Path,
    out: Path,
    *,
    max_boards: int,
    max_findings: int,
    max_side: int,
    **how: Any,
) -> None:
    """Score the test images of DATA and write one HTML page about what was found and missed.

    The page holds its pictures: it can be mailed, and opens without a network. It takes about half
    a megabyte a board.
    """
    from kad_sdk.dataset import scan_dataset
    from kad_sdk.evaluation import format_table
    from kad_sdk.report import write_report

    dataset = scan_dataset(data, need_train=False)
    limits = {"max_boards": max_boards, "max_findings": max_findings, "max_side": max_side}
    with (
        open_detector(artifact, **how) as detector,
        click.progressbar(
            length=len(dataset.test), label="images", file=sys.stderr, show_pos=True
        ) as bar,
    ):
        figures = write_report(detector, dataset, out, **limits, progress=bar.update)
    click.echo(format_table(figures))
    click.echo(f"written to {out}")
