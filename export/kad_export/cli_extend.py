"""The command ``kad-export extend``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kad_export import cli_options as shared
from kad_export.cli_options import option

__all__ = ["extend"]


@click.command(context_settings={"max_content_width": 100})
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("data", metavar="NEWBOARDS", type=click.Path(path_type=Path))
@option("--out", required=True, type=click.Path(path_type=Path), help="The artifact, NAME.kad.")
@option(
    "--max-rows",
    type=click.IntRange(1),
    help="Rows to add at most. Default: as many as the first export would have taken of so many "
    "patches.",
)
@shared.resources
@option("--scratch", type=click.Path(path_type=Path), help="Folder for temporary files.")
@option("--batch", default=16, type=click.IntRange(1), help="Tiles computed at a time.")
@shared.writing
def extend(
    artifact: Path, data: Path, out: Path, *, memory: int, quiet: bool, **given: Any
) -> None:
    """Add the good boards in NEWBOARDS to the memory bank of ARTIFACT, as a new artifact.

    NEWBOARDS is a folder of images, or one with train/. The bank's rows stay, and rows of the new
    boards are added until these are covered as well as the old ones. Network, preprocessing,
    thresholds and rules stay too; the thresholds are to be found anew, with kad calibrate.

    All patches of the new boards become normal: a warning names those that ARTIFACT itself finds
    anomalous now. Rows cannot be taken out again, so keep ARTIFACT and write to another --out:
    --force onto the same path replaces the only copy.
    """
    from kad_export.extend import ExtendOptions, extend_artifact
    from kad_export.report import Console

    options = ExtendOptions(memory_bytes=memory, **given)
    extend_artifact(artifact, data, out, options, console=Console(quiet=quiet))
