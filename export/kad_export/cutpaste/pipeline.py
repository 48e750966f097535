"""From normal boards to a CutPaste artifact: the steps of ``kad-export cutpaste`` in order."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kad_export.cutpaste.checkpoint import load_checkpoint
from kad_export.cutpaste.density import fit_density
from kad_export.cutpaste.describe import (
    DENSITY_FILE,
    EXPLAIN_FILE,
    describe_cutpaste,
    describe_density,
    describe_network,
)
from kad_export.cutpaste.embedder import Embedder
from kad_export.cutpaste.gradcam import ExplainedCutPasteNet
from kad_export.cutpaste.material import split_boards
from kad_export.cutpaste.network import EMBEDDING_DIMS
from kad_export.cutpaste.options import ExportOptions, TrainingOptions
from kad_export.cutpaste.train import train_cutpaste
from kad_export.cutpaste.verify import (
    TOLERANCE,
    expected_scores,
    parity_gate,
    same_cam,
    steady,
)
from kad_export.describe import (
    GOLDEN_FILE,
    NETWORK_FILE,
    describe_thresholds,
    describe_training,
    versions,
)
from kad_export.errors import CheckpointError, OutputMismatchError
from kad_export.onnx_export import encode_graph
from kad_export.report import Silent
from kad_export.steps import check_output, find_thresholds, labelled_boards, map_settings, write
from kad_export.survey import survey_boards
from kad_sdk import manifest as schema
from kad_sdk._native import default_threads
from kad_sdk.cutpaste import CutPasteScorer
from kad_sdk.dataset import scan_dataset
from kad_sdk.density import NormalDensity
from kad_sdk.session import NetworkSession
from kad_sdk.verify import golden_inputs

if TYPE_CHECKING:
    import os

    import numpy as np
    from numpy.typing import NDArray

    from kad_export.cutpaste.checkpoint import Checkpoint
    from kad_export.cutpaste.density import Density
    from kad_export.cutpaste.network import CutPasteNet
    from kad_export.features import BoardTiles
    from kad_sdk.dataset import Dataset, Sample
    from kad_sdk.thresholds import Calibration

__all__ = ["export_checkpoint", "export_cutpaste"]

ABOVE_CHANCE = 0.05
"""A network that has learnt something is right by more than this share beyond guessing."""


def export_cutpaste(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    training: TrainingOptions | None = None,
    options: ExportOptions | None = None,
    *,
    run_dir: str | os.PathLike[str] | None = None,
    console: Silent | None = None,
) -> Path:
    """Train CutPasteNet on a folder of normal boards and export the best checkpoint.

    Parameters
    ----------
    data : path
        Data folder, see :func:`kad_sdk.dataset.scan_dataset`.
    out : path
        The artifact to make, ``NAME.kad``.
    training : TrainingOptions, optional
        What to train and how.
    options : ExportOptions, optional
        What to make of the trained network.
    run_dir : path, optional
        The training's folder, which is kept; by default ``NAME.run`` beside the artifact.
    console : Silent, optional
        Told the progress; silent by default.

    Returns
    -------
    Path
        The artifact.

    Raises
    ------
    KadError
        As :func:`kad_export.cutpaste.train.train_cutpaste` and :func:`export_checkpoint`; what
        can be known before the training is told before it.
    """
    options, console = options or ExportOptions(), console or Silent()
    target = check_output(Path(out), force=options.force)
    labelled_boards(scan_dataset(data), options.threshold)
    run = Path(run_dir) if run_dir else target.with_suffix(".run")
    best = train_cutpaste(data, run, training, console=console)
    return export_checkpoint(data, best, target, options, console=console)


def export_checkpoint(
    data: str | os.PathLike[str],
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: ExportOptions | None = None,
    *,
    console: Silent | None = None,
) -> Path:
    """Fit the density and the thresholds to a trained network, verify it, write it as an artifact.

    Nothing is written before the parity gate has passed; a failure or Ctrl-C at any point leaves no
    artifact.

    Parameters
    ----------
    data : path
        The data folder that the network was trained on.
    checkpoint : path
        What :func:`kad_export.cutpaste.train.train_cutpaste` has written.
    out : path
        The artifact to make, ``NAME.kad``.
    options : ExportOptions, optional
        What to make of it.
    console : Silent, optional
        Told the progress; silent by default.

    Returns
    -------
    Path
        The artifact.

    Raises
    ------
    CheckpointError
        It cannot be read, or was trained on other boards.
    DensityError
        The density of normal tiles cannot be estimated.
    ParityError
        The runtime does not compute what PyTorch does.
    KadError
        Other ways to fail, see :mod:`kad_sdk.errors` and :mod:`kad_export.errors`.
    """
    options, console = options or ExportOptions(), console or Silent()
    target = check_output(Path(out), force=options.force)
    trained = load_checkpoint(checkpoint)
    material = _material(scan_dataset(data), trained, Path(checkpoint), options, console)
    console.line("exporting the network to ONNX")
    with console.step("network"):
        network = _compile(trained, options)
    embedder = Embedder(
        network.session, trained.preprocessing, options.score_batch, _threads(options)
    )
    with console.step("density"):
        seed = trained.options.seed
        embeddings = embedder.draw(material.boards, options.density_tiles, seed, console)
        density = fit_density(options.density, embeddings, seed=seed)
    fitted = _Fitted(trained, network, density, options)
    calibration, golden = find_thresholds(
        material.judge,
        fitted.scorer(),
        load=embedder.load,
        preprocessing=trained.preprocessing,
        threshold=options.threshold,
        console=console,
    )
    with console.step("parity gate"):
        drawn = len(golden)
        golden, choice = _comparable(golden, fitted)
        console.line(f"comparing the runtime with PyTorch on {len(golden)} golden tiles")
        expected, figures = _verify(golden, fitted, calibration)
        figures |= {"drawn": drawn, "choice": choice}
    manifest = schema.CutPasteManifest(
        created_by=versions(),
        network=describe_network(trained),
        preprocessing=trained.preprocessing,
        cutpaste=fitted.settings,
        map=map_settings(options.sigma),
        density=describe_density(density),
        thresholds=describe_thresholds(calibration, options.board_score),
        golden=schema.CutPasteGolden(GOLDEN_FILE, len(golden), TOLERANCE),
        training=material.training,
        cutpaste_training=trained.run,
        verification=figures,
    )
    _warn_of_chance(trained, console)
    files = {**network.graphs, DENSITY_FILE: density.tensors, GOLDEN_FILE: expected}
    return write(target, manifest, files, console, force=options.force)


@dataclass(frozen=True)
class _Material:
    """Boards that the network has learnt from, boards that set the thresholds, and a digest."""

    boards: list[BoardTiles]
    judge: list[Sample]
    training: schema.Training


@dataclass(frozen=True)
class _Network:
    """The network on both sides: PyTorch's module, and its graphs in the runtime."""

    module: CutPasteNet
    graphs: dict[str, bytes]  # file name to content
    session: NetworkSession
    explaining: NetworkSession | None
    grid: tuple[int, int]  # of a tile's map


@dataclass(frozen=True)
class _Fitted:
    """All that scores a tile; what is left to find is the threshold."""

    trained: Checkpoint
    network: _Network
    density: Density
    options: ExportOptions

    @property
    def settings(self) -> schema.CutPaste:
        return describe_cutpaste(self.trained.config, self.options.map, self.network.grid)

    @property
    def runtime_density(self) -> NormalDensity:
        density = self.density
        return NormalDensity(density.kind, bandwidth=density.bandwidth, **density.tensors)

    def scorer(self) -> CutPasteScorer:
        return CutPasteScorer(
            self.network.explaining or self.network.session,
            self.runtime_density,
            preprocessing=self.trained.preprocessing,
            cutpaste=self.settings,
            map_settings=map_settings(self.options.sigma),
            threads=_threads(self.options),
            batch=self.options.score_batch,
        )


def _material(
    dataset: Dataset, trained: Checkpoint, path: Path, options: ExportOptions, console: Silent
) -> _Material:
    """Find the boards again that the network was trained on, and those it was not."""
    learn, held_out = split_boards(dataset, trained.options)
    judge = labelled_boards(dataset, options.threshold) or held_out
    cutting = dataclasses.replace(trained.options, threads=options.threads)
    boards = survey_boards(learn, judge, cutting, console)
    training = describe_training(dataset, boards)
    if training.fingerprint != trained.learnt.fingerprint:
        raise CheckpointError(
            f"{path} was not trained on the {len(boards)} boards that {dataset.root} would have it "
            "learn from: boards were added, removed or changed since. Give the folder as it was, "
            "or train again"
        )
    return _Material(boards, judge, training)


def _warn_of_chance(trained: Checkpoint, console: Silent) -> None:
    """Say so where the network tells held-out tiles, as many of each class, as a guess would."""
    right, classes = trained.run.validation_accuracy, trained.config.classes
    if right is not None and right <= 1 / classes + ABOVE_CHANCE:
        console.warn(
            f"the training taught the network nothing: it classifies {right:.3f} of held-out tiles "
            f"rightly, no better than chance, which is {1 / classes:.3f} for {classes} classes. "
            "Train longer, with a larger --epochs or --steps-per-epoch, or with another "
            "--learning-rate; see docs/cutpaste.md"
        )


def _threads(options: ExportOptions) -> int:
    return options.threads or default_threads()


def _compile(trained: Checkpoint, options: ExportOptions) -> _Network:
    module, tile = trained.network(), trained.preprocessing.tile
    outputs = {"logits": (trained.config.classes,), "embedding": (EMBEDDING_DIMS,)}
    graphs = {NETWORK_FILE: encode_graph(module, tile=tile, outputs=outputs)}
    grid = (1, 1)
    if options.map == "grad-cam":
        explained = ExplainedCutPasteNet(module)
        grid = explained.map_size(tile)
        outputs = {**outputs, "cam": (1, *grid)}
        graphs[EXPLAIN_FILE] = encode_graph(explained, tile=tile, outputs=outputs)
    session, *explaining = (
        NetworkSession(graph, threads=_threads(options)) for graph in graphs.values()
    )
    return _Network(module, graphs, session, explaining[0] if explaining else None, grid)


def _comparable(golden: NDArray[np.uint8], fitted: _Fitted) -> tuple[NDArray[np.uint8], str]:
    """Leave out golden tiles whose Grad-CAM hangs on rounding: they could not be compared.

    Where all of them do, those are taken on which the runtime and PyTorch round alike.
    """
    network = fitted.network
    if network.explaining is None:
        return golden, "all"
    inputs = golden_inputs(golden, fitted.trained.preprocessing)  # (G, 3, t, t)
    kept, choice = steady(network.module, inputs), "steady"
    if not kept.any():
        kept, choice = same_cam(network.module, network.explaining, inputs), "alike"
    if not kept.any():
        raise OutputMismatchError(
            f"Grad-CAM of none of {len(golden)} golden tiles is the same in PyTorch and in the "
            "runtime, and it changes with the last bits of their pixels: train longer, or export "
            "--map tile-score"
        )
    return golden[kept], choice


def _verify(
    golden: NDArray[np.uint8], fitted: _Fitted, calibration: Calibration
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Pass the parity gate; returns the tensors of ``golden.safetensors`` and the figures."""
    network = fitted.network
    tiles = golden_inputs(golden, fitted.trained.preprocessing)  # (G, 3, t, t)
    expected = expected_scores(
        network.module,
        tiles,
        fitted.density,
        tau=calibration.tile,
        explain=network.explaining is not None,
    )
    figures = parity_gate(
        expected,
        network.session,
        network.explaining,
        tiles,
        fitted.runtime_density,
        tau=calibration.tile,
        threads=_threads(fitted.options),
    )
    return {"tiles": golden, **expected.tensors()}, figures
