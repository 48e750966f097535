"""The command ``kad-export``: artifacts from folders of boards, experiments, synthetic boards.

Exit codes: 0 done; 1 an error, told in one message; 2 wrong usage; 130 Ctrl-C; 143 SIGTERM.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from kad_export.cli_cutpaste import cutpaste
from kad_export.cli_experiments import experiments
from kad_export.cli_extend import extend
from kad_export.cli_options import SEED, Parsed, option, parse_size
from kad_export.cli_patchcore import patchcore
from kad_export.cli_tensorrt import tensorrt
from kad_sdk import __version__
from kad_sdk.cli_group import Commands, Texts

__all__ = ["main"]

_STOPPED = "nothing unfinished was left behind"
_RESUMABLE = f"{_STOPPED}, but for the work of --resume"
_TEXTS = Texts(
    name="kad-export",
    stopped=_STOPPED,
    memory=("--memory", "--batch", "--max-bank", "--max-rows", "--size"),
    no_space="free some space, or name another --scratch or --out",
    no_package="exports need pip install 'kad-sdk[cpu,export]'; scoring does not",
    stopped_by={
        "patchcore": _RESUMABLE,
        "cutpaste": _RESUMABLE,
        "experiments": "runs that are done are kept: the same command goes on",
    },
)


@click.group(cls=Commands, texts=_TEXTS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kad-export")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Fit anomaly detectors to folders of normal boards and export them as artifacts."""


main.add_command(patchcore)
main.add_command(cutpaste)
main.add_command(extend)
main.add_command(tensorrt)
main.add_command(experiments)


@main.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@option("--boards", default=8, type=click.IntRange(1), help="Normal boards to learn from.")
@option("--test-boards", default=8, type=click.IntRange(0), help="Boards to test, some defective.")
@option("--size", default="4730x4074", type=Parsed("size", parse_size), help="HEIGHTxWIDTH, px.")
@option("--category", default="white", type=click.Choice(["white", "white-with-edges"]))
@SEED
@option("--quiet", is_flag=True, help="Only the summary.")
def synth(folder: Path, quiet: bool, boards: int, test_boards: int, **given: Any) -> None:
    """Make synthetic boards with the seven kinds of defects and their ground truth in DIR."""
    from kad_export.report import Console
    from kad_export.synth import generate_dataset

    console = Console(quiet=quiet)
    with console.progress("boards", boards + test_boards, "boards") as bar:
        summary = generate_dataset(
            folder, boards=boards, test_boards=test_boards, progress=bar.advance, **given
        )
    click.echo(summary)


if __name__ == "__main__":
    sys.exit(main())
