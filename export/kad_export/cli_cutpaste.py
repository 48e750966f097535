"""The command ``kad-export cutpaste``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from kad_export import cli_options as shared
from kad_export.cli_options import Parsed, option
from kad_sdk.errors import InvalidArgumentError

__all__ = ["cutpaste"]

EXPORT_OPTIONS = ("density", "density_tiles", "map", "threshold", "sigma", "board_score")


def _parse_augmentation(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE or NAME=LOW,HIGH."""
    name, sign, value = text.partition("=")
    try:
        numbers = tuple(float(part) if "." in part else int(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    if not (name and sign) or len(numbers) not in {1, 2}:
        raise ValueError(f"NAME=VALUE or NAME=LOW,HIGH is expected, got {text!r}")
    return name.strip().replace("-", "_"), numbers if len(numbers) == 2 else numbers[0]


def _parse_precision(text: str) -> str:
    """Refuse what CutPaste is not exported in."""
    if text != "fp32":
        raise ValueError(
            f"{text!r}: CutPaste is exported in fp32 alone, since its Grad-CAM hangs on the side "
            "of every ReLU, which rounding moves; leave it out, or use kad-export patchcore"
        )
    return text


_network = shared.options(
    option(
        "--backbone",
        default="resnet18",
        type=click.Choice(["resnet18", "resnet50"]),
        help="The encoder.",
    ),
    shared.WEIGHTS,
    option(
        "--precision",
        default="fp32",
        type=Parsed("precision", _parse_precision),
        expose_value=False,
        help="fp32 alone.",
    ),
)

_augmentation = shared.options(
    option(
        "--variant",
        default="thesis",
        type=click.Choice(["thesis", "cutpaste", "3-way"]),
        help="What anomalous tiles are made by: scars, dots and arcs; plain CutPaste; CutPaste and "
        "scars as classes of their own.",
    ),
    option(
        "--augment",
        multiple=True,
        type=Parsed("name=value", _parse_augmentation),
        help="A size of the augmentations, such as transparency=15 or scar-width=2,12; can be "
        "given several times. See docs/cutpaste.md.",
    ),
)

_optimisation = shared.options(
    option("--epochs", default=15, type=click.IntRange(1), help="At most so many."),
    option("--batch", default=64, type=click.IntRange(4), help="Tiles, augmented ones included."),
    option("--optimizer", default="sgd", type=click.Choice(["sgd", "adam"])),
    option(
        "--learning-rate",
        default=1e-4,
        type=click.FloatRange(0, 10, min_open=True),
        help="Falls to 0 along a cosine.",
    ),
    option("--momentum", default=0.9, type=click.FloatRange(0, 1, max_open=True)),
    option("--weight-decay", default=3e-5, type=click.FloatRange(0, 1, max_open=True)),
    option(
        "--freeze-epochs",
        default=0,
        type=click.IntRange(0),
        help="In so many first epochs the layers that --weights gives stay as they are. Default: "
        "0, all of the network is trained.",
    ),
    option(
        "--patience",
        default=5,
        type=click.IntRange(1),
        help="Stop after so many epochs in which the loss on held-out tiles did not fall.",
    ),
    option("--steps-per-epoch", type=click.IntRange(1), help="Default: as many as the tiles fill."),
    option(
        "--validation-tiles",
        default=1024,
        type=click.IntRange(1),
        help="Most held-out tiles that judge an epoch.",
    ),
    shared.holdout("to judge epochs and to set the threshold"),
    shared.SEED,
)

_running = shared.options(
    option(
        "--device",
        default="auto",
        type=click.Choice(["auto", "cpu", "cuda"]),
        help="What trains; auto: a CUDA device where there is one.",
    ),
    shared.resources,
    option("--workers", type=click.IntRange(1, 256), help="Threads that cut and augment tiles."),
    option(
        "--checkpoint-seconds",
        default=60.0,
        type=click.FloatRange(0),
        help="Longest time of training that a kill can cost.",
    ),
)

_export = shared.options(
    option(
        "--density",
        default="gaussian",
        type=click.Choice(["gaussian", "kernel"]),
        help="Of normal embeddings; the score is the distance from it.",
    ),
    option(
        "--density-tiles",
        default=10_000,
        type=click.IntRange(16),
        help="Most tiles that it is fitted on.",
    ),
    option(
        "--map",
        default="grad-cam",
        type=click.Choice(["grad-cam", "tile-score"]),
        help="What shows where: Grad-CAM within each tile, or each tile's score.",
    ),
    shared.decisions(board_score="largest-tile"),
    option("--score-batch", default=16, type=click.IntRange(1), help="Tiles scored at a time."),
)


@click.command(context_settings={"max_content_width": 100})
@shared.data_and_out
@option(
    "--run",
    "run_dir",
    type=click.Path(path_type=Path),
    help="Folder of the training. Default: NAME.run beside NAME.kad.",
)
@option("--resume", is_flag=True, help="Go on with the training in --run, or start it.")
@option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="Train nothing: export this checkpoint, such as NAME.run/best.safetensors.",
)
@_network
@shared.tiling
@shared.boards
@_augmentation
@_optimisation
@_running
@_export
@shared.writing
@click.pass_context
def cutpaste(
    context: click.Context,
    data: Path,
    out: Path,
    *,
    run_dir: Path | None,
    checkpoint: Path | None,
    score_batch: int,
    force: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Train CutPasteNet on the normal boards in DATA and export it.

    DATA is as for patchcore. Killed at any moment, the training goes on with --resume and the same
    options. A finished one is exported anew with --checkpoint, for another density, map or
    threshold.
    """
    from kad_export.cutpaste.options import ExportOptions
    from kad_export.cutpaste.pipeline import export_checkpoint, export_cutpaste
    from kad_export.report import Console

    chosen = {name: given.pop(name) for name in EXPORT_OPTIONS}
    options = ExportOptions(
        score_batch=score_batch, threads=given["threads"], force=force, **chosen
    )
    console = Console(quiet=quiet)
    if checkpoint is None:
        training = _training_options(**given)
        export_cutpaste(data, out, training, options, run_dir=run_dir, console=console)
        return
    for name in ("run_dir", *given):
        if name != "threads" and _is_given(context, name):
            flag = "--run" if name == "run_dir" else f"--{name.replace('_', '-')}"
            raise click.UsageError(
                f"{flag} is for a training, and --checkpoint keeps its own settings: give one of "
                "them"
            )
    export_checkpoint(data, checkpoint, out, options, console=console)


def _training_options(*, memory: int, resize: Any, augment: Any, **given: Any) -> Any:
    from kad_export.cutpaste.augment import AugmentationSettings
    from kad_export.cutpaste.options import TrainingOptions

    known = AugmentationSettings.__dataclass_fields__
    for name, _ in augment:
        if name not in known:
            raise click.BadParameter(
                f"no size {name!r}: expected one of {', '.join(known)}", param_hint="--augment"
            )
    try:
        augmentation = AugmentationSettings(**dict(augment))
    except InvalidArgumentError as error:
        raise click.BadParameter(str(error), param_hint="--augment") from None
    return TrainingOptions(
        memory_bytes=memory,
        resize=None if resize == "none" else resize,
        augmentation=augmentation,
        **given,
    )


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE
