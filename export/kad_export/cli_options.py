"""What the commands of ``kad-export`` share: parameters read by functions, groups of options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[..., None]

__all__ = [
    "SEED",
    "WEIGHTS",
    "Parsed",
    "boards",
    "data_and_out",
    "decisions",
    "holdout",
    "option",
    "options",
    "parse_layers",
    "parse_memory",
    "parse_size",
    "resources",
    "tiling",
    "writing",
]


class Parsed(click.ParamType):
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


def option(*names: str, **settings: Any) -> Any:
    """Make an option whose help shows its default."""
    return click.option(*names, show_default=True, **settings)


def options(*several: Any) -> Callable[[Command], Command]:
    """Join options into one decorator; the help lists them in the order given."""

    def decorate(command: Command) -> Command:
        for one in reversed(several):
            command = one(command)
        return command

    return decorate


def parse_size(text: str) -> tuple[int, int]:
    """Read HEIGHTxWIDTH, or N for both, px."""
    height, sign, width = text.lower().partition("x")
    size = (int(height), int(width if sign else height))
    if min(size) < 1:
        raise ValueError(f"a height and a width of at least 1 px are expected, got {text!r}")
    return size


def parse_memory(text: str) -> int:
    """Read bytes of a size such as 8GB."""
    from kad_export.report import parse_bytes

    return parse_bytes(text)


def parse_layers(text: str) -> tuple[str, ...]:
    """Read names separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _parse_resize(text: str) -> tuple[int, int] | float | str:
    try:
        if text.lower() == "none":
            return "none"
        return float(text) if "." in text else parse_size(text)
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


def _parse_threshold(text: str) -> str:
    from kad_sdk.thresholds import ThresholdMethod

    return str(ThresholdMethod.parse(text))


SEED = option("--seed", default=0, type=click.IntRange(0, 2**32 - 1), help="Of every random draw.")

WEIGHTS = option(
    "--weights", default="imagenet", help="imagenet, a .pth or .safetensors file, random:SEED."
)

tiling = options(
    option("--tile", default=224, type=click.IntRange(1, 4096), help="Side of a tile, px."),
    option("--stride", default=112, type=click.IntRange(1), help="Between tiles in scoring, px."),
    option(
        "--train-stride",
        type=click.IntRange(1),
        help="In training, px. Default: --stride; with --mode windows every patch, once.",
    ),
    option(
        "--resize",
        default="none",
        type=Parsed("size", _parse_resize),
        help="Bring boards to HEIGHTxWIDTH, to N x N, or by a factor such as 0.5; none: native "
        "size.",
    ),
)
"""How boards are cut; ``resize`` is "none" where it is not given."""

boards = options(
    option(
        "--denoise",
        is_flag=False,
        flag_value="3,3,7,21",
        type=Parsed("h,h_color,template,search", _parse_denoise),
        help="Non-local means before anything else; alone: 3,3,7,21 (OpenCV's defaults).",
    ),
    option(
        "--normalisation",
        default="imagenet",
        type=click.Choice(["dataset", "imagenet", "white", "white-with-edges"]),
        help="Where mean and standard deviation come from.",
    ),
)
"""What is done to boards and tiles before the network."""


def decisions(board_score: str) -> Callable[[Command], Command]:
    """Give the options of how scores and maps become decisions."""
    return options(
        option(
            "--threshold",
            default="normal-max=1.05",
            type=Parsed("method", _parse_threshold),
            help="normal-max=FACTOR, quantile=Q (held-out normal tiles); f1, youden, recall=R, "
            "false-alarms=R (labelled test tiles); false-alarms-per-board=R (held-out boards).",
        ),
        option(
            "--sigma",
            default=4.0,
            type=click.FloatRange(0, 256, min_open=True),
            help="Smoothing of the anomaly map, px.",
        ),
        option(
            "--board-score",
            default=board_score,
            type=click.Choice(["map-peak", "largest-tile"]),
            help="What decides a board: the largest value of its map, or its largest tile score.",
        ),
    )


def holdout(why: str, *, default: float | None = 0.1) -> Any:
    """Give the option of how many boards are held out."""
    return option(
        "--holdout",
        default=default,
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        help=f"Share of training images held out {why}.",
    )


resources = options(
    option(
        "--memory", default="4GB", type=Parsed("size", parse_memory), help="Budget, such as 8GB."
    ),
    option("--threads", type=click.IntRange(1), help="Default: all processors."),
)
"""What the work may take."""

writing = options(
    option("--force", is_flag=True, help="Replace an artifact that exists."),
    option("--quiet", is_flag=True, help="Only warnings and the summary."),
)
"""Where it goes, and what is told."""

data_and_out = options(
    click.argument("data", type=click.Path(path_type=Path)),
    option("--out", required=True, type=click.Path(path_type=Path), help="The artifact, NAME.kad."),
)
"""What is read, and what is written."""
