"""The command ``kad-export``: artifacts from folders of boards, and synthetic boards.

Exit codes: 0 done; 1 an error, told in one message; 2 wrong usage; 130 Ctrl-C; 143 SIGTERM.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from kad_sdk import __version__
from kad_sdk.cli_group import Commands, Texts

__all__ = ["main"]

_TEXTS = Texts(
    name="kad-export",
    stopped="nothing unfinished was left behind",
    no_memory="lower --memory, --batch or --max-bank",
    no_space="free some space, or name another --scratch or --out",
)


class _Parsed(click.ParamType):
    """A parameter read by a function; what it refuses is a usage error."""

    def __init__(self, name: str, parse: Any) -> None:
        self.name, self._parse = name, parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the parameter's text."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _parse_size(text: str) -> tuple[int, int]:
    height, sign, width = text.lower().partition("x")
    size = (int(height), int(width if sign else height))
    if min(size) < 1:
        raise ValueError(f"a height and a width of at least 1 px are expected, got {text!r}")
    return size


def _parse_resize(text: str) -> tuple[int, int] | float | str:
    try:
        if text.lower() == "none":
            return "none"
        return float(text) if "." in text else _parse_size(text)
    except ValueError:
        raise ValueError(  # noqa: B904 - int()'s own message adds nothing
            f"HEIGHTxWIDTH, N for both, a factor such as 0.5, or none is expected, got {text!r}"
        )


def _parse_denoise(text: str) -> Any:
    from kad_sdk.manifest import Denoise

    parts = text.split(",")
    try:
        if len(parts) != 4:
            raise ValueError  # noqa: TRY301 - one message for all that can be wrong
        settings = Denoise(float(parts[0]), float(parts[1]), int(parts[2]), int(parts[3]))
    except ValueError:
        raise ValueError(f"H,H_COLOR,TEMPLATE,SEARCH is expected, got {text!r}")  # noqa: B904
    windows = (settings.template_window, settings.search_window)
    if min(settings.h, settings.h_color) < 0 or min(windows) < 1 or not all(w % 2 for w in windows):
        raise ValueError(f"strengths of 0 or more and odd windows are expected, got {text!r}")
    return settings


def _parse_memory(text: str) -> int:
    from kad_export.report import parse_bytes

    return parse_bytes(text)


def _parse_threshold(text: str) -> str:
    from kad_export.calibrate import ThresholdMethod

    return str(ThresholdMethod.parse(text))


def _parse_layers(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


@click.group(cls=Commands, texts=_TEXTS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kad-export")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Fit anomaly detectors to folders of normal boards and export them as artifacts."""


def _option(*names: str, **settings: Any) -> Any:
    return click.option(*names, show_default=True, **settings)


@main.command(context_settings={"max_content_width": 100})
@click.argument("data", type=click.Path(path_type=Path))
@_option("--out", required=True, type=click.Path(path_type=Path), help="The artifact, NAME.kad.")
@_option("--backbone", default="resnet18", help="Frozen network: resnet18, resnet50, ...")
@_option(
    "--layers",
    default="layer2,layer3",
    type=_Parsed("names", _parse_layers),
    help="Layers that give the features, comma-separated.",
)
@_option("--pooling", default="same-bilinear", help="same-bilinear or valid-adaptive.")
@_option(
    "--weights", default="imagenet", help="imagenet, a .pth or .safetensors file, random:SEED."
)
@_option("--tile", default=224, type=click.IntRange(1, 4096), help="Side of a tile, px.")
@_option("--stride", default=112, type=click.IntRange(1), help="Between tiles in scoring, px.")
@_option("--train-stride", type=click.IntRange(1), help="In training, px. Default: --stride.")
@_option(
    "--resize",
    default="none",
    type=_Parsed("size", _parse_resize),
    help="Bring boards to HEIGHTxWIDTH, to N x N, or by a factor such as 0.5; none: native size.",
)
@_option(
    "--coreset",
    default=0.01,
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of patches that the bank keeps.",
)
@_option(
    "--max-bank",
    default=10_000,
    type=click.IntRange(1),
    help="Most rows of the bank: the time of scoring grows with them.",
)
@_option("--seed", default=0, type=click.IntRange(0, 2**32 - 1), help="Of every random draw.")
@_option(
    "--denoise",
    is_flag=False,
    flag_value="3,3,7,21",
    type=_Parsed("h,h_color,template,search", _parse_denoise),
    help="Non-local means before anything else; alone: 3,3,7,21 (OpenCV's defaults).",
)
@_option(
    "--normalisation",
    default="imagenet",
    type=click.Choice(["dataset", "imagenet", "white", "white-with-edges"]),
    help="Where mean and standard deviation come from.",
)
@_option(
    "--threshold",
    default="normal-max=1.05",
    type=_Parsed("method", _parse_threshold),
    help="normal-max=FACTOR, quantile=Q (held-out normal tiles); f1, youden, recall=R, "
    "false-alarms=R (labelled test tiles).",
)
@_option(
    "--holdout",
    default=0.1,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of training images held out to set the threshold.",
)
@_option(
    "--reweighting",
    default="thesis",
    type=click.Choice(["none", "thesis", "paper"]),
    help="How a tile's score weighs the bank around the nearest row.",
)
@_option(
    "--sigma",
    default=4.0,
    type=click.FloatRange(0, 256, min_open=True),
    help="Smoothing of the anomaly map, px.",
)
@_option(
    "--board-score",
    default="map-peak",
    type=click.Choice(["map-peak", "largest-tile"]),
    help="What decides a board: the largest value of its map, or its largest tile score.",
)
@_option(
    "--memory", default="4GB", type=_Parsed("size", _parse_memory), help="Budget, such as 8GB."
)
@_option("--scratch", type=click.Path(path_type=Path), help="Folder for temporary files.")
@_option("--threads", type=click.IntRange(1), help="Default: all processors.")
@_option("--batch", default=16, type=click.IntRange(1), help="Tiles computed at a time.")
@_option("--force", is_flag=True, help="Replace an artifact that exists.")
@_option("--quiet", is_flag=True, help="Only warnings and the summary.")
def patchcore(data: Path, out: Path, memory: int, resize: Any, quiet: bool, **given: Any) -> None:
    """Fit PatchCore to the normal boards in DATA and export it.

    DATA is a folder with train/ and test/ of board images (and annotations.json), a folder in the
    MVTec AD layout, or a folder of images of normal boards.
    """
    from kad_export.pipeline import PatchCoreOptions, export_patchcore
    from kad_export.report import Console

    options = PatchCoreOptions(
        memory_bytes=memory, resize=None if resize == "none" else resize, **given
    )
    export_patchcore(data, out, options, console=Console(quiet=quiet))


@main.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@_option("--boards", default=8, type=click.IntRange(1), help="Normal boards to learn from.")
@_option("--test-boards", default=8, type=click.IntRange(0), help="Boards to test, some defective.")
@_option("--size", default="4730x4074", type=_Parsed("size", _parse_size), help="HEIGHTxWIDTH, px.")
@_option("--category", default="white", type=click.Choice(["white", "white-with-edges"]))
@_option("--seed", default=0, type=click.IntRange(0, 2**32 - 1), help="Of every random draw.")
@_option("--quiet", is_flag=True, help="Only the summary.")
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
