"""What the commands of ``kad`` share: options, and opening a detector as they say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from kad_sdk.detector import Detector

__all__ = [
    "ARTIFACT",
    "BATCH",
    "JSON",
    "MAP_THRESHOLD",
    "TILE_THRESHOLD",
    "open_detector",
    "running",
]

ARTIFACT = click.argument("artifact", type=click.Path(path_type=Path))
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def running(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say how the network and the stages run."""
    options = [
        click.option(
            "--provider",
            type=click.Choice(["cpu", "cuda", "tensorrt"]),
            default="cpu",
            show_default=True,
            help="What runs the network; never replaced by another.",
        ),
        click.option("--device-id", type=click.IntRange(0), default=0, help="Which GPU."),
        click.option(
            "--build-engine",
            is_flag=True,
            help="TensorRT may build an engine where there is none, which takes minutes.",
        ),
        click.option("--threads", type=click.IntRange(1), help="Default: all processors."),
        click.option(
            "--level",
            type=click.Choice(["scalar", "avx2", "avx512", "avx512vnni"]),
            help="Force an instruction set; scores are the same at each.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


BATCH = click.option(
    "--batch", type=click.IntRange(1), help="Tiles at a time.  [default: 16, with cuda 64]"
)
TILE_THRESHOLD = click.option(
    "--tile-threshold", type=float, help="Use instead of the artifact's tau of tiles."
)
MAP_THRESHOLD = click.option(
    "--map-threshold", type=float, help="Use instead of the artifact's tau of the map."
)


def open_detector(
    artifact: Path,
    *,
    provider: str,
    device_id: int,
    threads: int | None,
    level: str | None,
    build_engine: bool = False,
    batch: int | None = None,
    tile_threshold: float | None = None,
    map_threshold: float | None = None,
    maps: bool = True,
) -> Detector:
    """Open a detector as the options of `running` and the others say."""
    from kad_sdk._native import force_cpu_level
    from kad_sdk.detector import Detector

    if level is not None:
        force_cpu_level(level)
    return Detector.open(
        artifact,
        provider,
        threads,
        batch,
        device_id=device_id,
        tile_threshold=tile_threshold,
        map_threshold=map_threshold,
        maps=maps,
        build_engine=build_engine,
    )
