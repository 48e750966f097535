"""The command ``kad-export tensorrt``."""

from __future__ import annotations

from pathlib import Path

import click

from kad_export.cli_options import option

__all__ = ["tensorrt"]


@click.command(context_settings={"max_content_width": 100})
@click.argument("artifact", type=click.Path(path_type=Path))
@option(
    "--batch",
    default=16,
    type=click.IntRange(1, 4096),
    help="Largest batch of tiles; that of scoring has to be no larger.",
)
@option("--device-id", default=0, type=click.IntRange(0), help="Which GPU.")
@option("--force", is_flag=True, help="Build anew what is there.")
@option("--quiet", is_flag=True, help="Only the summary.")
def tensorrt(artifact: Path, *, batch: int, device_id: int, force: bool, quiet: bool) -> None:
    """Build TensorRT's engines of ARTIFACT on this machine, ahead of scoring.

    They are kept in $XDG_CACHE_HOME/kad/tensorrt, for this GPU, this version of TensorRT and of
    ONNX Runtime, and this network: kad score --provider tensorrt takes them from there, and is
    refused without them.
    """
    from kad_export.report import Console
    from kad_export.tensorrt import EngineOptions, build_engines

    build_engines(artifact, EngineOptions(batch, device_id, force), console=Console(quiet=quiet))
