"""What an export can be told: the options of ``kad-export patchcore``, with their defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kad_export.data import NORMALISATIONS
from kad_export.precision import PRECISIONS
from kad_export.shards import POINT_TYPES
from kad_sdk.errors import InvalidArgumentError
from kad_sdk.thresholds import DEFAULT_THRESHOLD, ThresholdMethod

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kad_sdk.manifest import Denoise

__all__ = [
    "BOARD_SCORES",
    "ENGINES",
    "HOLDOUT",
    "LARGEST_WINDOW",
    "N_NEIGHBORS",
    "WINDOW_MEMORY_BYTES",
    "PatchCoreOptions",
    "check_options",
    "is_resize",
]

N_NEIGHBORS = {"none": 0, "thesis": 3, "paper": 8}
"""Re-weighting to the bank rows it uses beside m*; the paper counts m* itself as the ninth."""

HOLDOUT, WINDOW_MEMORY_BYTES = 0.1, 3 * 2**29  # where they are not given
LARGEST_WINDOW = 1 << 15  # px
ENGINES = ("local", "ray")
MODES = ("tiles", "windows")
BOARD_SCORES = ("map-peak", "largest-tile")


@dataclass(frozen=True)
class PatchCoreOptions:
    """What to export and how; the command line has the same names and defaults.

    Attributes
    ----------
    backbone, layers, pooling, weights
        The network, see :func:`kad_export.patchcore.build_network`.
    precision : str
        A key of :data:`kad_export.precision.PRECISIONS`: what the graph computes in.
    tile, stride, train_stride : int
        px; the stride is that of scoring, and of training too where ``train_stride`` is None. In
        windows, training takes blocks of patches, see :func:`kad_export.windows.block_px`, side by
        side where it is None: every patch is learnt from once, but for those of the last row and
        column of blocks, which overlap the ones before. A larger stride takes a regular sample.
    mode : str
        ``"tiles"``: every tile goes through the network by itself; ``"windows"``: every pixel goes
        through it once, and bank and thresholds are fitted to that.
    window, window_memory_bytes
        Of windows alone. Side of a square window without its halo, px, than which none has more
        pixels; None: the largest of which a pass stays within that memory (None: 1.5 GiB).
    resize : (height, width), float or None
        px, or a factor; None keeps the boards' own resolution.
    sigma : float
        Smoothing of tile maps, px.
    denoise : Denoise or None
        Non-local means before anything else.
    normalisation : str
        ``"dataset"``: measured on the training tiles; or a key of
        :data:`kad_export.data.NORMALISATIONS`.
    coreset, max_bank
        The bank keeps this share of the patches, and at most so many rows. Searching the bank is
        most of the time of scoring and grows with its rows, hence the absolute limit.
    trim_outliers : int
        In every step of the selection so many of the patches that are farthest from the bank are
        passed over; the last ones stay out of it for good.
    seed : int
        Of every random draw.
    board_score : str
        ``"map-peak"`` or ``"largest-tile"``: what decides a board. The map averages overlapping
        tiles and neighbouring patches, so its peak is the steadier of the two.
    threshold, holdout
        See :mod:`kad_sdk.thresholds`; share of training images held out for it (None: 0.1), where
        it is not found on labelled boards.
    reweighting : str
        ``"none"``, ``"thesis"`` or ``"paper"``.
    memory_bytes, scratch, threads, batch
        Budget, folder for temporary files, processor threads (None: all), tiles computed at a time.
    points : str
        ``"float32"`` or ``"float16"``: how projected features are stored, in memory too.
    resume : bool
        Keep the work in ``scratch`` when it is interrupted, and go on with what is there.
    engine, workers
        ``"local"`` or ``"ray"``; how many Ray workers (None: as many as have processors);
        ``workers`` is refused with ``"local"``.
    force : bool
        Replace an artifact that exists.
    """

    backbone: str = "resnet18"
    layers: tuple[str, ...] = ("layer2", "layer3")
    pooling: str = "same-bilinear"
    weights: str = "imagenet"
    precision: str = "fp32"
    tile: int = 224
    stride: int = 112
    train_stride: int | None = None  # None: as stride, or in windows side by side
    mode: str = "tiles"
    window: int | None = None  # None: by the memory
    window_memory_bytes: int | None = None
    resize: tuple[int, int] | float | None = None
    denoise: Denoise | None = None
    normalisation: str = "imagenet"
    coreset: float = 0.01
    max_bank: int = 10_000
    trim_outliers: int = 0
    seed: int = 0
    threshold: str = DEFAULT_THRESHOLD
    holdout: float | None = None
    reweighting: str = "thesis"
    sigma: float = 4.0  # thesis, section 5.3.4
    board_score: str = "map-peak"
    memory_bytes: int = 4 * 2**30
    scratch: Path | None = None
    threads: int | None = None  # None: all processors of this process
    batch: int = 16
    points: str = "float32"
    resume: bool = False
    engine: str = "local"
    workers: int | None = None
    force: bool = False

    def __post_init__(self) -> None:
        checks = {
            "precision": (self.precision in PRECISIONS, ", ".join(PRECISIONS)),
            "tile": (1 <= self.tile <= 4096, "1 to 4096 px"),
            "stride": (self.stride >= 1, "at least 1 px"),
            "train_stride": (self.train_stride is None or self.train_stride >= 1, "at least 1 px"),
            "mode": (self.mode in MODES, ", ".join(MODES)),
            "window": (
                self.window is None or 16 <= self.window <= LARGEST_WINDOW,
                f"16 to {LARGEST_WINDOW} px",
            ),
            "window_memory_bytes": (
                self.window_memory_bytes is None or self.window_memory_bytes >= 1,
                "at least 1 byte",
            ),
            "coreset": (0 < self.coreset <= 1, "a fraction above 0, at most 1"),
            "max_bank": (self.max_bank >= 1, "at least 1 row"),
            "trim_outliers": (self.trim_outliers >= 0, "at least 0 patches"),
            "points": (self.points in POINT_TYPES, ", ".join(POINT_TYPES)),
            "engine": (self.engine in ENGINES, ", ".join(ENGINES)),
            "workers": (self.workers is None or self.workers >= 1, "at least 1"),
            "seed": (0 <= self.seed < 2**32, "0 to 2^32 - 1"),
            "holdout": (self.holdout is None or 0 < self.holdout < 1, "a share between 0 and 1"),
            "batch": (self.batch >= 1, "at least 1 tile"),
            "threads": (self.threads is None or self.threads >= 1, "at least 1"),
            "resize": (
                is_resize(self.resize),
                "None, (height, width) of 1 to 65536 px, or a factor (float) above 0, at most 8",
            ),
            "memory_bytes": (self.memory_bytes >= 1, "at least 1 byte"),
            "sigma": (0 < self.sigma <= 256, "above 0, at most 256 px"),
            "board_score": (self.board_score in BOARD_SCORES, ", ".join(BOARD_SCORES)),
            "reweighting": (self.reweighting in N_NEIGHBORS, ", ".join(N_NEIGHBORS)),
            "normalisation": (
                self.normalisation in ("dataset", *NORMALISATIONS),
                ", ".join(("dataset", *NORMALISATIONS)),
            ),
        }
        check_options(self, checks)
        self._check_use()

    def _check_use(self) -> None:
        """Refuse options that would be of no effect beside the others."""
        if self.resume and self.scratch is None:
            raise InvalidArgumentError(
                "--resume needs --scratch DIR: the folder in which unfinished work is kept"
            )
        if self.workers is not None and self.engine == "local":
            raise InvalidArgumentError(
                f"--workers {self.workers} needs --engine ray: --engine local works in this "
                "process, with --threads"
            )
        sizes = {"--window": self.window, "--window-memory": self.window_memory_bytes}
        for name, value in sizes.items():
            if value is not None and self.mode != "windows":
                raise InvalidArgumentError(
                    f"{name} needs --mode windows: --mode {self.mode} has none; leave it out"
                )
        if None not in sizes.values():
            raise InvalidArgumentError(
                "--window-memory finds the size of windows, and --window gives it: leave one out"
            )
        if ThresholdMethod.parse(self.threshold).labelled and self.holdout is not None:
            raise InvalidArgumentError(
                f"--holdout {self.holdout} holds images out for thresholds of good boards, and "
                f"--threshold {self.threshold} is found on labelled ones in test/: leave one out"
            )


def check_options(options: object, checks: Mapping[str, tuple[bool, str]]) -> None:
    """Raise InvalidArgumentError for the first check, by name of the option, that does not hold."""
    for name, (good, expected) in checks.items():
        if not good:
            got = getattr(options, name)
            raise InvalidArgumentError(f"{name}: expected {expected}, got {got!r}")


def is_resize(value: object) -> bool:
    """Whether `value` is a size (height, width), a factor, or None."""
    if isinstance(value, tuple):
        return len(value) == 2 and all(isinstance(v, int) and 1 <= v <= 65536 for v in value)
    return value is None or (isinstance(value, float) and 0 < value <= 8)
