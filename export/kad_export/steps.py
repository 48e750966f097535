"""Steps that the exports of all methods share: outputs, judging boards, thresholds, writing."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from kad_export.describe import summary
from kad_export.holdout import crop_tiles, pick_golden, score_boards
from kad_sdk import manifest as schema
from kad_sdk.artifact import Artifact, write_artifact
from kad_sdk.artifact_folder import check_target
from kad_sdk.calibration import calibration_boards
from kad_sdk.errors import OutputError
from kad_sdk.thresholds import Calibration, ThresholdMethod, calibrate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from kad_export.report import Silent
    from kad_sdk.artifact_layout import Tensors
    from kad_sdk.dataset import Dataset, Sample
    from kad_sdk.inspection import Inspection
    from kad_sdk.rules import RulesEntry
    from kad_sdk.scoring import BoardScorer

__all__ = [
    "check_output",
    "find_thresholds",
    "labelled_boards",
    "map_settings",
    "write",
]


def check_output(path: Path, *, force: bool) -> Path:
    """Refuse an output that cannot be written, before any work is done.

    Raises
    ------
    OutputError
        Not called ``NAME.kad``, exists already, a link, or its folder is missing or read-only.
    """
    folder = path.absolute().parent
    if path.suffix != ".kad":
        raise OutputError(f"{path}: an artifact is a folder NAME.kad: call it {path.name}.kad")
    if not folder.is_dir():
        raise OutputError(f"{path}: the folder {folder} does not exist: make it first")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{path}: nothing can be written into {folder}: name another folder")
    check_target(path, replace=force)
    return path


def labelled_boards(dataset: Dataset, threshold: str) -> list[Sample] | None:
    """Give the test boards that a threshold of labelled tiles is found on; None for other methods.

    Raises
    ------
    CalibrationError
        The method needs labelled boards, or defects, and there are none.
    """
    method = ThresholdMethod.parse(threshold)
    return calibration_boards(dataset, method) if method.labelled else None


def map_settings(sigma: float) -> schema.MapSettings:
    """Give the manifest's entry of a smoothing of `sigma` px, cut off at 4 sigma."""
    return schema.MapSettings(sigma, radius=math.ceil(4 * sigma))


def find_thresholds(
    samples: Sequence[Sample],
    scorer: BoardScorer,
    *,
    load: Callable[[Sample], np.ndarray],
    preprocessing: schema.Preprocessing,
    threshold: str,
    console: Silent,
) -> tuple[Calibration, np.ndarray]:
    """Find the thresholds on boards that the method has not learnt from, and crop golden tiles.

    Parameters
    ----------
    samples
        The boards.
    scorer
        All that scores them, as the runtime will.
    load
        Sample to prepared board, for the crops.
    preprocessing
        As in the manifest.
    threshold
        See :mod:`kad_sdk.thresholds`.

    Returns
    -------
    Calibration
    golden : (G, t, t, 3) uint8
        Crops of the same boards.

    Raises
    ------
    CalibrationError
        The boards cannot give what the method asks for.
    """
    with console.step("threshold"):
        tiles, places = score_boards(samples, scorer, preprocessing, console)
        calibration = calibrate(ThresholdMethod.parse(threshold), tiles)
        golden = crop_tiles(pick_golden(places, calibration), load, preprocessing.tile)
    for text in calibration.warnings:
        console.warn(text)
    return calibration, golden


def write(
    target: Path,
    manifest: schema.Manifest,
    files: Mapping[str, bytes | Tensors],
    console: Silent,
    *,
    force: bool,
    rules: Sequence[RulesEntry] = (),
    before: Inspection | None = None,
) -> Path:
    """Write the artifact, read it as a reader will, and show the summary.

    Raises
    ------
    ArtifactError, OutputError
        See :func:`kad_sdk.artifact.write_artifact`.
    """
    with console.step("writing"):
        path = write_artifact(target, manifest, files, replace=force, rules=rules, before=before)
        written = Artifact.open(path)  # every check of a reader passes
    console.table(f"exported {path}", summary(written.manifest, console))
    return path
