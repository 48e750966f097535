"""What training and export can be told: the options of ``kad-export cutpaste``, with defaults."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kad_export.cutpaste.augment import VARIANTS, AugmentationSettings
from kad_export.cutpaste.density import DENSITIES, MIN_SAMPLES
from kad_export.cutpaste.network import NetworkConfig
from kad_export.data import NORMALISATIONS
from kad_export.options import BOARD_SCORES, check_options, is_resize
from kad_sdk.manifest import Denoise
from kad_sdk.thresholds import DEFAULT_THRESHOLD, ThresholdMethod

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DEVICES", "MAPS", "OPTIMIZERS", "ExportOptions", "TrainingOptions"]

OPTIMIZERS = ("sgd", "adam")
DEVICES = ("auto", "cpu", "cuda")
MAPS = ("grad-cam", "tile-score")


@dataclass(frozen=True)
class TrainingOptions:
    """What to train on and how; the command line has the same names and defaults.

    Attributes
    ----------
    backbone : str
        ``"resnet18"`` or ``"resnet50"``.
    weights : str
        What the encoder starts from, see :func:`kad_export.weights.load_weights`.
    tile, stride, train_stride : int
        px; the stride is that of scoring, and of training too where ``train_stride`` is None.
    resize, denoise, normalisation
        As for PatchCore, see :class:`kad_export.options.PatchCoreOptions`.
    variant : str
        A key of :data:`kad_export.cutpaste.augment.VARIANTS`; ``"3-way"`` has three classes.
    augmentation : AugmentationSettings
        Sizes and blending.
    epochs, batch, learning_rate, momentum, weight_decay : numbers
        Of the thesis, section 5.4.3. A batch holds each of its tiles once for every class: as it is
        and augmented (equation 4.11), so 32 tiles for 2 classes at 64.
    optimizer : str
        ``"sgd"``, or ``"adam"`` (thesis, outlook), for which `momentum` is its first beta.
    freeze_epochs : int
        In so many first epochs the layers that the weights give stay as they are, batch norm's
        statistics too; what was drawn at random learns alone. The thesis does not: 0.
    patience : int
        Training stops after this many epochs in which the loss on held-out tiles did not fall.
    steps_per_epoch : int or None
        So many batches of tiles drawn at random make an epoch; None: as many as the tiles fill.
    validation_tiles : int
        At most so many held-out tiles, drawn once, judge each epoch, with their augmentations.
    holdout : float
        Share of training boards held out; of a single board, its far end.
    seed : int
        Of every random draw.
    device : str
        ``"auto"``: a CUDA device where there is one.
    memory_bytes : int
        For decoded boards.
    workers, threads : int or None
        Threads that cut and augment tiles; threads of PyTorch on the CPU. None: by the machine.
    checkpoint_seconds : float
        Longest time of training that a kill can cost.
    resume : bool
        Go on with the run where it stopped.

    Raises
    ------
    InvalidArgumentError
        A value beyond its limits.
    BackboneError
        No such backbone.
    """

    backbone: str = "resnet18"
    weights: str = "imagenet"
    tile: int = 224
    stride: int = 112
    train_stride: int | None = None
    resize: tuple[int, int] | float | None = None
    denoise: Denoise | None = None
    normalisation: str = "imagenet"
    variant: str = "thesis"
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    epochs: int = 15
    batch: int = 64
    learning_rate: float = 1e-4
    momentum: float = 0.9
    weight_decay: float = 3e-5
    optimizer: str = "sgd"
    freeze_epochs: int = 0
    patience: int = 5
    steps_per_epoch: int | None = None
    validation_tiles: int = 1024
    holdout: float = 0.1
    seed: int = 0
    device: str = "auto"
    memory_bytes: int = 4 * 2**30
    workers: int | None = None
    threads: int | None = None
    checkpoint_seconds: float = 60.0
    resume: bool = False

    def __post_init__(self) -> None:
        normalisations = ("dataset", *NORMALISATIONS)
        checks = {
            "tile": (32 <= self.tile <= 4096, "32 to 4096 px"),
            "stride": (self.stride >= 1, "at least 1 px"),
            "train_stride": (self.train_stride is None or self.train_stride >= 1, "at least 1 px"),
            "resize": (is_resize(self.resize), "None, (height, width) in px, or a factor (float)"),
            "normalisation": (self.normalisation in normalisations, ", ".join(normalisations)),
            "variant": (self.variant in VARIANTS, ", ".join(VARIANTS)),
            "epochs": (1 <= self.epochs <= 10_000, "1 to 10000"),
            "batch": (2 * self.classes <= self.batch <= 65536, f"{2 * self.classes} to 65536"),
            "learning_rate": (0 < self.learning_rate <= 10, "above 0, at most 10"),
            "momentum": (0 <= self.momentum < 1, "0 or more, below 1"),
            "weight_decay": (0 <= self.weight_decay < 1, "0 or more, below 1"),
            "optimizer": (self.optimizer in OPTIMIZERS, ", ".join(OPTIMIZERS)),
            "freeze_epochs": (self.freeze_epochs >= 0, "at least 0"),
            "patience": (self.patience >= 1, "at least 1 epoch"),
            "steps_per_epoch": (
                self.steps_per_epoch is None or self.steps_per_epoch >= 1,
                "None, or at least 1",
            ),
            "validation_tiles": (self.validation_tiles >= 1, "at least 1"),
            "holdout": (0 < self.holdout < 1, "a share between 0 and 1"),
            "seed": (0 <= self.seed < 2**32, "0 to 2^32 - 1"),
            "device": (self.device in DEVICES, ", ".join(DEVICES)),
            "memory_bytes": (self.memory_bytes >= 1, "at least 1 byte"),
            "workers": (self.workers is None or 1 <= self.workers <= 256, "None, or 1 to 256"),
            "threads": (self.threads is None or self.threads >= 1, "None, or at least 1"),
            "checkpoint_seconds": (self.checkpoint_seconds >= 0, "0 or more"),
        }
        check_options(self, checks)
        self.network()

    @property
    def classes(self) -> int:
        """Number of classes of the variant, normal included."""
        return 1 + len(VARIANTS.get(self.variant, ((),)))

    @property
    def tiles_per_batch(self) -> int:
        """Tiles in a batch, each of which is there once for every class."""
        return self.batch // self.classes

    def network(self) -> NetworkConfig:
        """Give the network to train.

        Raises
        ------
        BackboneError
            No such backbone.
        """
        return NetworkConfig(self.backbone, self.classes)

    @classmethod
    def restored(cls, settings: Mapping[str, Any]) -> TrainingOptions:
        """Give the options of a training from the settings that its checkpoint keeps.

        What may differ when a training goes on is not among them and has its default.

        Raises
        ------
        TypeError, KeyError, KadError
            They are not those of a training.
        """
        names = {entry.name for entry in dataclasses.fields(cls)} - {"weights"}
        given = {name: _tuples(settings[name]) for name in names & settings.keys()}
        if given["denoise"] is not None:
            given["denoise"] = Denoise(**given["denoise"])
        augmentation = {name: _tuples(value) for name, value in given["augmentation"].items()}
        return cls(**{**given, "augmentation": AugmentationSettings(**augmentation)})


@dataclass(frozen=True)
class ExportOptions:
    """What to make of a trained network; the command line has the same names and defaults.

    Attributes
    ----------
    density : str
        ``"gaussian"`` or ``"kernel"``: the estimate of :mod:`kad_export.cutpaste.density`.
    density_tiles : int
        The density is fitted on at most so many of the tiles learnt from, drawn at random.
    map : str
        ``"grad-cam"``, or ``"tile-score"``: every pixel of a tile gets its score.
    threshold : str
        See :mod:`kad_sdk.thresholds`; found on the boards that the training held out.
    sigma : float
        Smoothing of tile maps, px.
    board_score : str
        ``"largest-tile"`` or ``"map-peak"``: what decides a board. Grad-CAM ranks the places
        within a tile, so its peak says no more of the board than the tile's score does.
    score_batch, threads
        Tiles computed at a time; processor threads (None: all).
    force : bool
        Replace an artifact that exists.

    Raises
    ------
    InvalidArgumentError
        A value beyond its limits, or a threshold's rule that is not one.
    """

    density: str = "gaussian"
    density_tiles: int = 10_000
    map: str = "grad-cam"
    threshold: str = DEFAULT_THRESHOLD
    sigma: float = 4.0
    board_score: str = "largest-tile"
    score_batch: int = 16
    threads: int | None = None
    force: bool = False

    def __post_init__(self) -> None:
        checks = {
            "density": (self.density in DENSITIES, ", ".join(DENSITIES)),
            "density_tiles": (self.density_tiles >= MIN_SAMPLES, f"at least {MIN_SAMPLES}"),
            "map": (self.map in MAPS, ", ".join(MAPS)),
            "sigma": (0 < self.sigma <= 256, "above 0, at most 256 px"),
            "board_score": (self.board_score in BOARD_SCORES, ", ".join(BOARD_SCORES)),
            "score_batch": (self.score_batch >= 1, "at least 1 tile"),
            "threads": (self.threads is None or self.threads >= 1, "None, or at least 1"),
        }
        check_options(self, checks)
        ThresholdMethod.parse(self.threshold)


def _tuples(value: Any) -> Any:
    """JSON has lists where options have tuples."""
    return tuple(value) if isinstance(value, list) else value
