"""The command ``kad-export patchcore``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kad_export import cli_options as shared
from kad_export.cli_options import Parsed, option, parse_layers

__all__ = ["patchcore"]


@click.command(context_settings={"max_content_width": 100})
@shared.data_and_out
@option("--backbone", default="resnet18", help="Frozen network: resnet18, resnet50, ...")
@option(
    "--layers",
    default="layer2,layer3",
    type=Parsed("names", parse_layers),
    help="Layers that give the features, comma-separated.",
)
@option("--pooling", default="same-bilinear", help="same-bilinear or valid-adaptive.")
@shared.WEIGHTS
@option(
    "--precision",
    default="fp32",
    type=click.Choice(["fp32", "fp16", "int8"]),
    help="What the network computes in; bank and thresholds are made by the same graph.",
)
@shared.tiling
@option(
    "--mode",
    default="tiles",
    type=click.Choice(["tiles", "windows"]),
    help="How boards go through the network: in tiles that overlap, or each pixel once.",
)
@option(
    "--window",
    type=click.IntRange(16, 1 << 15),
    help="Of --mode windows only: side of a square window without its halo, px; others have no "
    "more pixels. Default: by --window-memory.",
)
@option(
    "--window-memory",
    type=Parsed("size", shared.parse_memory),
    help="Of --mode windows only: what the network may take for a window. Default: 1.5GB.",
)
@option(
    "--coreset",
    default=0.01,
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of patches that the bank keeps.",
)
@option(
    "--max-bank",
    default=10_000,
    type=click.IntRange(1),
    help="Most rows of the bank: the time of scoring grows with them.",
)
@option(
    "--trim-outliers",
    default=0,
    type=click.IntRange(0),
    help="So many of the patches farthest from the bank are passed over in every step.",
)
@shared.SEED
@shared.boards
@shared.holdout("to set a threshold of good boards. Default: 0.1", default=None)
@option(
    "--reweighting",
    default="thesis",
    type=click.Choice(["none", "thesis", "paper"]),
    help="How a tile's score weighs the bank around the nearest row.",
)
@shared.decisions(board_score="map-peak")
@shared.resources
@option(
    "--scratch",
    type=click.Path(path_type=Path),
    help="Folder for temporary files.  [default: the system's]",
)
@option(
    "--points",
    default="float32",
    type=click.Choice(["float32", "float16"]),
    help="Type of stored projected features: float16 halves the disk, and changes the bank.",
)
@option(
    "--resume",
    is_flag=True,
    help="Keep unfinished work in --scratch, a folder of its own, and go on with what is there; "
    "it is removed at the end, other files in it are not.",
)
@option(
    "--engine",
    default="local",
    type=click.Choice(["local", "ray"]),
    help="Who computes features and holds them; ray: a cluster that shares --scratch.",
)
@option(
    "--workers", type=click.IntRange(1), help="Of --engine ray only. Default: one per --threads."
)
@option("--batch", default=16, type=click.IntRange(1), help="Tiles computed at a time.")
@shared.writing
def patchcore(data: Path, out: Path, memory: int, resize: Any, quiet: bool, **given: Any) -> None:
    """Fit PatchCore to the normal boards in DATA and export it.

    DATA is a folder with train/ and test/ of board images (and annotations.json), a folder in the
    MVTec AD layout, or a folder of images of normal boards.
    """
    from kad_export.pipeline import PatchCoreOptions, export_patchcore
    from kad_export.report import Console

    options = PatchCoreOptions(
        memory_bytes=memory,
        window_memory_bytes=given.pop("window_memory"),
        resize=None if resize == "none" else resize,
        **given,
    )
    export_patchcore(data, out, options, console=Console(quiet=quiet))
