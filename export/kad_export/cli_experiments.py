"""The command ``kad-export experiments``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kad_export.cli_options import Parsed, option

if TYPE_CHECKING:
    from kad_export.experiments.grid import Grid

__all__ = ["experiments"]


def _parse_setting(text: str) -> Any:
    from kad_export.experiments.grid import parse_setting

    return parse_setting(text)


@click.command(context_settings={"max_content_width": 100})
@click.argument("data", type=click.Path(path_type=Path))
@option("--grid", required=True, help="thesis, or a YAML file.")
@option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the results.")
@option(
    "--category",
    "categories",
    multiple=True,
    help="Folder in DATA to run the grid on, instead of the grid's own; can be given several "
    "times. A dot is DATA itself.",
)
@option(
    "--set",
    "settings",
    multiple=True,
    type=Parsed("[scope:]name=value", _parse_setting),
    help="An option of the exports, such as max-bank=5000; SCOPE is a method, a category or a "
    "backbone, such as cutpaste:epochs=3. Can be given several times.",
)
@option(
    "--provider",
    default="cpu",
    type=click.Choice(["cpu", "cuda", "tensorrt"]),
    help="What runs the network in the evaluation.",
)
@option("--keep-going", is_flag=True, help="After a run that failed go on with the next.")
@option("--list", "listing", is_flag=True, help="List the runs and their commands, run none.")
@option("--quiet", is_flag=True, help="Only the summary.")
def experiments(
    data: Path, grid: str, out: Path, *, listing: bool, quiet: bool, **given: Any
) -> None:
    """Run a grid of experiments on the boards in DATA: export and evaluate each, one row a run.

    DATA holds a folder for each category, with train/ and test/ in it. Runs that are done in OUT
    are kept; the same command goes on after an interruption. Writes OUT/experiments.md, .csv and
    .json after each run.
    """
    from kad_export.experiments.experiment import run_experiments
    from kad_export.experiments.grid import read_grid
    from kad_export.report import Console

    chosen = read_grid(grid)
    if listing:
        click.echo(_list(data, chosen, given["categories"], given["settings"]))
        return
    console = Console(quiet=quiet)
    rows = run_experiments(data, chosen, out, console=console, **given)
    console.table(
        f"all {len(rows)} runs are done: {out / 'experiments.md'}",
        [(row.run.name, row.summary()) for row in rows],
    )


def _list(data: Path, grid: Grid, categories: tuple[str, ...], settings: tuple[Any, ...]) -> str:
    from kad_export.experiments.plan import plan_runs
    from kad_export.experiments.rows import command_text

    runs = plan_runs(grid, data, categories=categories, settings=settings)
    return "\n".join(f"{run.name}\n  {command_text(run)}" for run in runs)
