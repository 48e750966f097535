"""From a folder of normal boards to an artifact: the steps of ``kad-export patchcore`` in order."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kad_export.bank import Bank, build_bank
from kad_export.budget import BankSettings, scratch_folder
from kad_export.data import load_board
from kad_export.describe import (
    BANK_FILE,
    GOLDEN_FILE,
    NETWORK_FILE,
    describe_bank,
    describe_network,
    describe_thresholds,
    describe_training,
    subject,
    versions,
)
from kad_export.errors import ExportError
from kad_export.features import ExtractorSpec, PatchExtractor
from kad_export.holdout import split_board, split_holdout
from kad_export.job import Job
from kad_export.onnx_export import OnnxOutput, export_onnx
from kad_export.options import HOLDOUT, N_NEIGHBORS, WINDOW_MEMORY_BYTES, PatchCoreOptions
from kad_export.patchcore import PatchCoreNetwork, build_network
from kad_export.precision import LIMITS, RangeTiles, convert, precision_gate
from kad_export.report import Silent
from kad_export.steps import check_output, find_thresholds, labelled_boards, map_settings, write
from kad_export.stored_index import store_index
from kad_export.survey import measure_normalisation, survey_boards
from kad_export.verify import TOLERANCE, expected_of_maps, expected_scores, parity_gate
from kad_export.windows import (
    WindowExtractor,
    choose_windows,
    in_window_order,
    label_margin_px,
    training_blocks,
    training_stride,
    window_gate,
)
from kad_sdk import manifest as schema
from kad_sdk._native import NativeIndex, default_threads
from kad_sdk.dataset import Dataset, Sample, scan_dataset
from kad_sdk.patchcore import PatchCoreScorer
from kad_sdk.session import NetworkSession
from kad_sdk.verify import golden_inputs
from kad_sdk.windows import WindowScorer

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import numpy as np

    from kad_export.features import BoardTiles
    from kad_sdk.thresholds import Calibration

__all__ = ["PatchCoreOptions", "export_patchcore"]

WINDOW_GATE_PX = 640  # side of the part of a board on which windows are compared with one pass


@dataclass(frozen=True)
class _Network:
    """The network on both sides: PyTorch's module, and the graph in the runtime."""

    module: PatchCoreNetwork
    outputs: tuple[OnnxOutput, ...]
    graph: bytes
    session: NetworkSession
    grid: tuple[int, int]
    windows: schema.Windows | None
    precision: str
    how: dict[str, Any]  # the graph came to its precision

    @property
    def tolerance(self) -> schema.Tolerance:
        """Of golden tiles."""
        limit = LIMITS.get(self.precision)
        return TOLERANCE if limit is None else limit.golden

    @property
    def resampling(self) -> str:
        """How base maps come to one grid."""
        return self.module.resampling if self.windows is None else "aligned-bilinear"


@dataclass(frozen=True)
class _Learnt:
    """What the training boards gave, and what of it is still to be described."""

    network: _Network
    preprocessing: schema.Preprocessing
    boards: list[BoardTiles]
    extract: PatchExtractor
    settings: BankSettings
    bank: Bank
    job: Job | None


@dataclass(frozen=True)
class _Fitted:
    """All that scores a tile; what is left to find is the threshold."""

    network: _Network
    preprocessing: schema.Preprocessing
    settings: schema.PatchCore
    bank: Bank
    index: NativeIndex
    threads: int


def export_patchcore(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: PatchCoreOptions | None = None,
    *,
    console: Silent | None = None,
) -> Path:
    """Fit PatchCore to a folder of normal boards, verify it, and write it as an artifact.

    Nothing is written before the parity gate has passed; a failure or Ctrl-C at any point leaves
    neither an artifact nor scratch files, but with ``resume`` the work in the scratch folder.

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
    with ExitStack() as held:  # the folder of a job that can be resumed
        return _export(data, Path(out), options, console, held)


def _export(
    data: str | os.PathLike[str],
    out: Path,
    options: PatchCoreOptions,
    console: Silent,
    held: ExitStack,
) -> Path:
    target = check_output(out, force=options.force)
    dataset = scan_dataset(data)
    learn, judge = _split(dataset, options)
    learnt = _learn(learn, judge, options, console, held)
    fitted = _fit(learnt.network, learnt.preprocessing, learnt.bank, options)
    calibration, golden = _calibrate(judge, fitted, learnt.extract, options, console)
    console.line(f"comparing the runtime with PyTorch on {len(golden)} golden tiles")
    with console.step("parity gate"):
        expected, figures = _verify(golden, fitted, calibration)
        if fitted.network.windows is not None:
            figures["windows"] = _verify_windows(learnt.extract.load(judge[0]), fitted)
    network = fitted.network
    with console.step("index"):
        described = describe_network(network.module, network.outputs, options.precision)
        tensors, outputs = fitted.bank.tensors(), described.outputs
        index = store_index(tensors, outputs, fitted.settings, threads=fitted.threads)
    manifest = schema.PatchCoreManifest(
        created_by=versions(),
        network=described,
        preprocessing=fitted.preprocessing,
        patchcore=fitted.settings,
        map=map_settings(options.sigma),
        bank=describe_bank(fitted.bank, learnt.boards, learnt.settings, has_index=bool(index)),
        thresholds=describe_thresholds(calibration, options.board_score),
        golden=schema.PatchCoreGolden(GOLDEN_FILE, len(golden), network.tolerance),
        training=describe_training(dataset, learnt.boards),
        verification=figures,
    )
    files = {NETWORK_FILE: network.graph, BANK_FILE: tensors, GOLDEN_FILE: expected, **index}
    path = write(target, manifest, files, console, force=options.force)
    if learnt.job is not None:
        learnt.job.remove()
    return path


def _learn(
    learn: Sequence[Sample],
    judge: Sequence[Sample],
    options: PatchCoreOptions,
    console: Silent,
    held: ExitStack,
) -> _Learnt:
    """Compile the network, and select the bank from what it finds on the training boards."""
    module = _load_network(options, console)
    blocks = None
    if options.mode == "windows":
        blocks = training_blocks(module, options.tile)
        options = replace(options, train_stride=training_stride(blocks, options.train_stride))
    boards = survey_boards(learn, judge, options, console, blocks=blocks)
    stride = options.stride if options.mode == "windows" else None
    preprocessing = measure_normalisation(learn, options, console, stride=stride)
    with scratch_folder(None if options.resume else options.scratch) as scratch:
        console.line("exporting the network to ONNX")
        with console.step("network"):
            tiles = _range_tiles(boards, preprocessing, options)
            network = _compile(module, options, scratch, tiles)
        settings = _bank_settings(options, options.scratch if options.resume else scratch)
        spec = ExtractorSpec(
            network.graph,
            preprocessing,
            network.grid,
            network.resampling,
            options.batch,
            settings.threads,
            network.windows,
        )
        extract = spec.build(network.session)
        if isinstance(extract, WindowExtractor):
            boards = in_window_order(boards, extract)
        job = None
        if options.resume:
            job = held.enter_context(Job.open(options.scratch, subject(spec, boards, settings)))
        bank = build_bank(boards, extract, settings, console, job=job, spec=spec)
    return _Learnt(network, preprocessing, boards, extract, settings, bank, job)


def _load_network(options: PatchCoreOptions, console: Silent) -> PatchCoreNetwork:
    with console.step("network"):
        module = build_network(options.backbone, options.layers, options.pooling, options.weights)
    console.line(
        f"network: {options.backbone} to {module.layers[-1]}, weights: {module.weights.source} "
        f"({module.weights.name})"
    )
    return module


def _split(dataset: Dataset, options: PatchCoreOptions) -> tuple[list[Sample], list[Sample]]:
    """Images to learn from, and images whose tiles set the thresholds."""
    labelled = labelled_boards(dataset, options.threshold)
    if labelled is not None:
        return list(dataset.train), labelled
    share = options.holdout or HOLDOUT
    if len(dataset.train) > 1:
        return split_holdout(dataset.train, share, options.seed)
    first, second = split_board(dataset.train[0], share, options.tile, options.resize)
    return [first], [second]


def _threads(options: PatchCoreOptions) -> int:
    return options.threads or default_threads()


def _range_tiles(
    boards: Sequence[BoardTiles], preprocessing: schema.Preprocessing, options: PatchCoreOptions
) -> RangeTiles:
    def load(sample: Sample) -> np.ndarray:
        return load_board(
            sample, resize=options.resize, denoise=options.denoise, threads=_threads(options)
        )

    return RangeTiles(boards, load, preprocessing, options.seed, _threads(options))


def _compile(
    module: PatchCoreNetwork, options: PatchCoreOptions, scratch: Path, tiles: RangeTiles
) -> _Network:
    file = scratch / NETWORK_FILE
    in_windows = options.mode == "windows"
    outputs = export_onnx(module, file, tile=options.tile, dynamic=in_windows)
    exact = file.read_bytes()
    windows = None
    if in_windows:
        windows = choose_windows(
            exact,
            tile=options.tile,
            window=options.window,
            memory_bytes=options.window_memory_bytes or WINDOW_MEMORY_BYTES,
            label_margin=label_margin_px(module, options.tile),
        )
        tiles = replace(tiles, around=windows.halo_px)
    graph, how = convert(exact, options.precision, tiles)
    session = NetworkSession(graph, threads=_threads(options))
    grid = module.grid(options.tile)
    return _Network(module, outputs, graph, session, grid, windows, options.precision, how)


def _bank_settings(options: PatchCoreOptions, scratch: Path) -> BankSettings:
    return BankSettings(
        scratch=scratch,
        fraction=options.coreset,
        max_rows=options.max_bank,
        seed=options.seed,
        trim_outliers=options.trim_outliers,
        points=options.points,
        memory_bytes=options.memory_bytes,
        threads=_threads(options),
        engine=options.engine,
        workers=options.workers,
    )


def _fit(
    network: _Network, preprocessing: schema.Preprocessing, bank: Bank, options: PatchCoreOptions
) -> _Fitted:
    """Settle how distances become a score, now that the bank is known."""
    rows, wanted = len(bank.bank), N_NEIGHBORS[options.reweighting]
    if rows <= wanted:
        raise ExportError(
            f"re-weighting {options.reweighting!r} needs {wanted} bank rows beside the nearest, "
            f"and the bank has {rows}: raise --coreset or --max-bank, or use --reweighting none"
        )
    settings = schema.PatchCore(
        resampling=network.resampling,
        pooling=network.module.pooling,
        grid=network.grid,
        reweighting=options.reweighting,
        n_neighbors=wanted,
        mode=options.mode,
        windows=network.windows,
    )
    threads = _threads(options)
    index = NativeIndex(bank.bank, threads=threads)
    return _Fitted(network, preprocessing, settings, bank, index, threads)


def _calibrate(
    samples: Sequence[Sample],
    fitted: _Fitted,
    extract: PatchExtractor,
    options: PatchCoreOptions,
    console: Silent,
) -> tuple[Calibration, np.ndarray]:
    """Find the thresholds, and crop golden tiles (G, t, t, 3) uint8 from the same boards."""
    make = PatchCoreScorer if fitted.network.windows is None else WindowScorer
    scorer = make(
        fitted.network.session,
        fitted.index,
        preprocessing=fitted.preprocessing,
        patchcore=fitted.settings,
        map_settings=map_settings(options.sigma),
        neighbors=fitted.bank.neighbors,
        threads=fitted.threads,
        batch=options.batch,
    )
    return find_thresholds(
        samples,
        scorer,
        load=extract.load,
        preprocessing=fitted.preprocessing,
        threshold=options.threshold,
        console=console,
    )


def _verify(
    golden: np.ndarray, fitted: _Fitted, calibration: Calibration
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Pass the parity gate; returns the tensors of ``golden.safetensors`` and the figures.

    Below float32 the golden base maps are the graph's own, by which other machines are measured;
    how far they are from PyTorch's has a gate of its own.
    """
    network, tiles = fitted.network, golden_inputs(golden, fitted.preprocessing)  # (G, 3, t, t)
    layers = network.module.layers
    common = {
        "neighbors": fitted.bank.neighbors,
        "settings": fitted.settings,
        "tau": calibration.tile,
    }
    off, bank = {}, fitted.bank.bank
    if network.precision == "fp32":
        expected = expected_scores(network.module, tiles, bank=bank, **common)
    else:
        named = {"layers": layers, "precision": network.precision}
        gate = precision_gate(network.module, network.session, tiles, **named)
        off = {"precision": {**network.how, **gate}}
        expected = expected_of_maps(network.session.run(tiles), bank=bank, **common)
    figures = parity_gate(
        expected,
        network.session,
        fitted.index,
        tiles,
        layers=layers,
        tolerance=network.tolerance,
        threads=fitted.threads,
        **common,
    )
    tensors = {f"base_map_{i}": maps for i, maps in enumerate(expected.base_maps)}
    tensors |= {"tiles": golden, "dist": expected.dist, "score": expected.score}
    return tensors | {"anomalous": expected.anomalous}, {**figures, **off}


def _verify_windows(image: np.ndarray, fitted: _Fitted) -> dict[str, Any]:
    """Compare windows with one pass over the middle of a board; returns the figures."""
    network = fitted.network
    y, x = (max(side - WINDOW_GATE_PX, 0) // 2 for side in image.shape[:2])
    return window_gate(
        network.module,
        network.session,
        image[y : y + WINDOW_GATE_PX, x : x + WINDOW_GATE_PX],
        windows=network.windows,
        preprocessing=fitted.preprocessing,
        precision=network.precision,
        tolerance=network.tolerance.base_map,
    )
