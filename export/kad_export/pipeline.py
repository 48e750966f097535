"""From a folder of normal boards to an artifact: the steps of ``kad-export patchcore`` in order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kad_export.bank import Bank, build_bank
from kad_export.budget import BankSettings, scratch_folder
from kad_export.calibrate import (
    DEFAULT_THRESHOLD,
    Calibration,
    ThresholdMethod,
    calibrate,
)
from kad_export.data import NORMALISATIONS, load_board, load_training_board, tile_statistics
from kad_export.describe import (
    GOLDEN_FILE,
    NETWORK_FILE,
    describe_bank,
    describe_network,
    describe_thresholds,
    describe_training,
    summary,
    versions,
)
from kad_export.errors import ExportError
from kad_export.features import BoardTiles, PatchExtractor
from kad_export.holdout import crop_tiles, pick_golden, score_boards, split_board, split_holdout
from kad_export.onnx_export import export_onnx
from kad_export.patchcore import build_network
from kad_export.report import Silent
from kad_export.verify import TOLERANCE, expected_scores, parity_gate
from kad_sdk import manifest as schema
from kad_sdk._native import NativeIndex, preprocess
from kad_sdk.artifact import Artifact, write_artifact
from kad_sdk.dataset import Dataset, Sample, scan_dataset
from kad_sdk.errors import DatasetError, InvalidArgumentError, OutputError
from kad_sdk.scoring import BoardScorer
from kad_sdk.session import NetworkSession, default_threads

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

__all__ = ["PatchCoreOptions", "export_patchcore"]

_MAP = schema.MapSettings(sigma=4.0, radius=16)  # px (thesis, chapter 4); cut off at four sigmas
N_NEIGHBORS = {"none": 0, "thesis": 3, "paper": 9}  # the paper counts m* itself


@dataclass(frozen=True)
class PatchCoreOptions:
    """What ``kad-export patchcore`` can be told; the same names, the same defaults."""

    backbone: str = "resnet18"
    layers: tuple[str, ...] = ("layer2", "layer3")
    pooling: str = "same-bilinear"
    weights: str = "imagenet"
    tile: int = 224
    stride: int = 112
    train_stride: int | None = None  # None: as stride
    resize: tuple[int, int] | None = None
    denoise: schema.Denoise | None = None
    normalisation: str = "imagenet"
    coreset: float = 0.01
    max_bank: int = 10_000
    seed: int = 0
    threshold: str = DEFAULT_THRESHOLD
    holdout: float = 0.1
    reweighting: str = "thesis"
    memory_bytes: int = 4 * 2**30
    scratch: Path | None = None
    threads: int | None = None  # None: all processors of this process
    batch: int = 16
    force: bool = False

    def __post_init__(self) -> None:
        checks = {
            "tile": (1 <= self.tile <= 4096, "1 to 4096 px"),
            "stride": (self.stride >= 1, "at least 1 px"),
            "train_stride": (self.train_stride is None or self.train_stride >= 1, "at least 1 px"),
            "coreset": (0 < self.coreset <= 1, "a fraction above 0, at most 1"),
            "max_bank": (self.max_bank >= 1, "at least 1 row"),
            "seed": (0 <= self.seed < 2**32, "0 to 2^32 - 1"),
            "holdout": (0 < self.holdout < 1, "a share between 0 and 1"),
            "batch": (self.batch >= 1, "at least 1 tile"),
            "threads": (self.threads is None or self.threads >= 1, "at least 1"),
            "reweighting": (self.reweighting in N_NEIGHBORS, ", ".join(N_NEIGHBORS)),
            "normalisation": (
                self.normalisation in ("dataset", *NORMALISATIONS),
                ", ".join(("dataset", *NORMALISATIONS)),
            ),
        }
        for name, (good, expected) in checks.items():
            if not good:
                raise InvalidArgumentError(
                    f"{name}: expected {expected}, got {getattr(self, name)!r}"
                )
        ThresholdMethod.parse(self.threshold)


def export_patchcore(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: PatchCoreOptions | None = None,
    *,
    console: Silent | None = None,
) -> Path:
    """Fit PatchCore to a folder of normal boards, verify it, and write it as an artifact.

    Nothing is written before the parity gate has passed; a failure or Ctrl-C at any point leaves
    neither an artifact nor scratch files.

    Parameters
    ----------
    data : path
        Data folder, see :func:`kad_sdk.dataset.scan_dataset`.
    out : path
        The artifact to make, ``NAME.kad``.
    options : PatchCoreOptions, optional
        What to make and how.
    console : Silent, optional
        Told the progress; silent by default.

    Returns
    -------
    Path
        The artifact.

    Raises
    ------
    KadError
        Each way to fail has its own class, see :mod:`kad_sdk.errors` and
        :mod:`kad_export.errors`.
    """
    options, console = options or PatchCoreOptions(), console or Silent()
    target = check_output(Path(out), force=options.force)
    dataset = scan_dataset(data)
    learn, judge = _split(dataset, options)
    with scratch_folder(options.scratch) as scratch:
        export = _Export(options, console, scratch)
        boards = export.survey(learn)
        preprocessing = export.measure(learn)
        bank = export.build_bank(boards, preprocessing)
        index = NativeIndex(bank.bank, threads=export.threads)
        settings = export.patchcore_settings(len(bank.bank))
        fitted = {
            "preprocessing": preprocessing,
            "settings": settings,
            "bank": bank,
            "index": index,
        }
        calibration, golden = export.calibrate(judge, **fitted)
        expected, figures = export.verify(golden, calibration=calibration, **fitted)
        with console.step("writing"):
            manifest = schema.Manifest(
                created_by=versions(),
                network=describe_network(export.network, export.onnx),
                preprocessing=preprocessing,
                patchcore=settings,
                map=_MAP,
                bank=describe_bank(bank, boards, export.bank_settings),
                thresholds=describe_thresholds(calibration),
                golden=schema.Golden(GOLDEN_FILE, len(golden), TOLERANCE),
                training=describe_training(dataset, boards),
                verification=figures,
            )
            path = write_artifact(
                target,
                manifest,
                network=export.graph,
                bank=bank.tensors(),
                golden=expected,
                replace=options.force,
            )
    console.table(f"exported {path}", summary(Artifact.open(path).manifest, console))
    return path


def check_output(path: Path, *, force: bool) -> Path:
    """Refuse an output that exists or has no folder to lie in, before any work is done."""
    if path.suffix != ".kad":
        raise OutputError(f"{path}: an artifact is a folder NAME.kad: call it {path.name}.kad")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"{path}: the folder {path.absolute().parent} does not exist: make it")
    if path.exists() and not force:
        raise OutputError(f"{path} exists already: remove it, or replace it with --force")
    return path


def _split(dataset: Dataset, options: PatchCoreOptions) -> tuple[list[Sample], list[Sample]]:
    """Images to learn from, and images whose tiles set the thresholds."""
    if ThresholdMethod.parse(options.threshold).labelled:
        known = [s for s in dataset.test if s.label == 0 or (s.label == 1 and s.mask_path)]
        return list(dataset.train), known
    if len(dataset.train) > 1:
        return split_holdout(dataset.train, options.holdout, options.seed)
    first, second = split_board(dataset.train[0], options.holdout, options.tile, options.resize)
    return [first], [second]


class _Export:
    """One run: the options, the exported network, and the steps that need both."""

    def __init__(self, options: PatchCoreOptions, console: Silent, scratch: Path) -> None:
        self.options, self.console = options, console
        self.threads = options.threads or default_threads()
        with console.step("network"):
            self.network = build_network(
                options.backbone, options.layers, options.pooling, options.weights
            )
            self.onnx = export_onnx(self.network, scratch / NETWORK_FILE, tile=options.tile)
            self.graph = (scratch / NETWORK_FILE).read_bytes()
            self.session = NetworkSession(self.graph, threads=self.threads)
        self.bank_settings = BankSettings(
            fraction=options.coreset,
            max_rows=options.max_bank,
            seed=options.seed,
            memory_bytes=options.memory_bytes,
            scratch=scratch,
            threads=self.threads,
        )
        self.grid = self.network.grid(options.tile)
        weights = self.network.weights
        console.line(
            f"network: {options.backbone} to {self.network.layers[-1]}, weights: {weights.source} "
            f"({weights.name})"
        )

    def survey(self, samples: Sequence[Sample]) -> list[BoardTiles]:
        """Plan the training tiles of every board, before anything is computed."""
        options, boards = self.options, []
        with (
            self.console.step("images"),
            self.console.progress("images", len(samples), "boards") as bar,
        ):
            for sample in samples:
                image, xy = load_training_board(
                    sample,
                    tile=options.tile,
                    stride=options.train_stride or options.stride,
                    resize=options.resize,
                    denoise=None,  # the plan is that of the board as it was taken
                    threads=self.threads,
                )
                boards.append(BoardTiles(sample, xy, *image.shape[:2]))
                bar.advance()
        if not any(len(board.xy) for board in boards):
            raise DatasetError(
                f"none of the tiles of the {len(samples)} training images passes the filters: all "
                "are too dark (a mean grey level above 31 of 255 is expected) or touch a label; "
                "check the images' exposure and annotations.json"
            )
        return [board for board in boards if len(board.xy)]

    def measure(self, samples: Sequence[Sample]) -> schema.Preprocessing:
        """Settle mean and standard deviation, and with them how boards become tiles."""
        options = self.options
        stride = options.train_stride or options.stride
        if options.normalisation != "dataset":
            mean, std = NORMALISATIONS[options.normalisation]
        else:
            with (
                self.console.step("statistics"),
                self.console.progress("statistics", len(samples), "boards") as bar,
            ):
                mean, std, _ = tile_statistics(
                    samples,
                    tile=options.tile,
                    stride=stride,
                    resize=options.resize,
                    denoise=options.denoise,
                    threads=self.threads,
                    progress=bar.advance,
                )
        return schema.Preprocessing(
            tile=options.tile,
            stride=options.stride,
            train_stride=stride,
            resize=options.resize,
            mean=tuple(float(np.float32(v)) for v in mean),
            std=tuple(float(np.float32(v)) for v in std),
            normalisation=options.normalisation,
            denoise=options.denoise,
        )

    def build_bank(self, boards: Sequence[BoardTiles], preprocessing: schema.Preprocessing) -> Bank:
        """Features of all tiles, thinned to a coreset."""
        options = self.options
        extract = PatchExtractor(
            self.session,
            self._load,
            tile=options.tile,
            mean=preprocessing.mean,
            std=preprocessing.std,
            grid=self.grid,
            resampling=self.network.resampling,
            batch=options.batch,
            threads=self.threads,
        )
        return build_bank(boards, extract, self.bank_settings, self.console)

    def patchcore_settings(self, rows: int) -> schema.PatchCore:
        """Settle how maps become features and distances a score."""
        reweighting = self.options.reweighting
        wanted = N_NEIGHBORS[reweighting]
        if wanted and rows < 2:
            raise ExportError(
                f"re-weighting {reweighting!r} compares bank rows with each other, and the bank "
                f"has {rows}: raise --coreset or --max-bank, or use --reweighting none"
            )
        return schema.PatchCore(
            resampling=self.network.resampling,
            pooling=self.network.pooling,
            grid=self.grid,
            reweighting=reweighting,
            n_neighbors=min(wanted, rows - 1 + (reweighting == "paper")),
        )

    def calibrate(
        self,
        samples: Sequence[Sample],
        *,
        preprocessing: schema.Preprocessing,
        settings: schema.PatchCore,
        bank: Bank,
        index: NativeIndex,
    ) -> tuple[Calibration, np.ndarray]:
        """Find the thresholds, and crop golden tiles (G, t, t, 3) uint8 from the same boards."""
        scorer = BoardScorer(
            self.session,
            index,
            preprocessing=preprocessing,
            patchcore=settings,
            map_settings=_MAP,
            neighbors=bank.neighbors,
            threads=self.threads,
            batch=self.options.batch,
        )
        with self.console.step("threshold"):
            tiles, places = score_boards(samples, scorer, preprocessing, self.console)
            calibration = calibrate(ThresholdMethod.parse(self.options.threshold), tiles)
            golden = crop_tiles(pick_golden(places, calibration), self._load, self.options.tile)
        for text in calibration.warnings:
            self.console.warn(text)
        return calibration, golden

    def verify(
        self,
        golden: np.ndarray,
        *,
        preprocessing: schema.Preprocessing,
        settings: schema.PatchCore,
        bank: Bank,
        index: NativeIndex,
        calibration: Calibration,
    ) -> tuple[dict[str, np.ndarray], dict[str, object]]:
        """Pass the parity gate; returns the golden tensors and the gate's figures."""
        corner = np.zeros((1, 2), np.int32)
        tiles = np.concatenate(
            [
                preprocess(
                    image, corner, tile=len(image), mean=preprocessing.mean, std=preprocessing.std
                )
                for image in golden
            ]
        )  # (G, 3, t, t)
        common = {
            "neighbors": bank.neighbors,
            "settings": settings,
            "tau": calibration.tile,
        }
        with self.console.step("parity gate"):
            expected = expected_scores(self.network, tiles, bank=bank.bank, **common)
            figures = parity_gate(
                expected,
                self.session,
                index,
                tiles,
                layers=self.network.layers,
                tolerance=TOLERANCE,
                threads=self.threads,
                **common,
            )
        tensors = {f"base_map_{i}": maps for i, maps in enumerate(expected.base_maps)}
        tensors |= {"tiles": golden, "dist": expected.dist, "score": expected.score}
        return tensors | {"anomalous": expected.anomalous}, figures

    def _load(self, sample: Sample) -> np.ndarray:
        return load_board(
            sample,
            resize=self.options.resize,
            denoise=self.options.denoise,
            threads=self.threads,
        )
