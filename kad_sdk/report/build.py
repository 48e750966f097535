"""Score a data set and write the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kad_sdk import metrics
from kad_sdk.defaults import REPORT_BOARDS, REPORT_FINDINGS, REPORT_PICTURE_SIDE
from kad_sdk.evaluation import check_test_images, figures_of, score_test_images
from kad_sdk.facts import describe
from kad_sdk.report.gather import Evidence
from kad_sdk.report.page import Content, render
from kad_sdk.report.training import TrainingImages
from kad_sdk.storage import made_folder, write_atomic
from kad_sdk.tsne import FEWEST, lay_out

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    import numpy as np
    from numpy.typing import NDArray

    from kad_sdk.dataset import Dataset
    from kad_sdk.detector import Detector
    from kad_sdk.tally import Tally

__all__ = ["write_report"]


def write_report(
    detector: Detector,
    dataset: Dataset,
    out: str | PathLike[str],
    *,
    max_boards: int = REPORT_BOARDS,
    max_findings: int = REPORT_FINDINGS,
    max_side: int = REPORT_PICTURE_SIDE,
    progress: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """Evaluate a detector on a data set's test images and write one HTML page about it.

    The page holds its pictures, styles and scripts; it asks nothing of any network.

    Parameters
    ----------
    detector
        An open detector, with maps.
    dataset
        What :func:`kad_sdk.scan_dataset` found.
    out
        The file; written when all is done, whole or not at all.
    max_boards
        Boards whose map is on the page, those with a wrong verdict first.
    max_findings
        Missed defects shown, and false alarms shown, those farthest from the threshold first.
    max_side
        Longer side of a board's picture, px. Misses and false alarms are cut from the whole board.
    progress
        Called with 1 after each image.

    Returns
    -------
    dict
        The figures, as :func:`kad_sdk.evaluate` gives them.

    Raises
    ------
    DatasetError
        There are no test images, or a mask does not fit its image.
    MissingDependencyError
        scikit-learn is not installed; found before anything is scored.
    OutputError
        The file cannot be written.
    KadError
        An image cannot be read or scored; the text names it.
    """
    check_test_images(dataset)
    metrics.require()
    path = Path(out)
    limits = {"max_boards": max_boards, "max_findings": max_findings, "max_side": max_side}
    evidence = Evidence(detector, **limits)
    with made_folder(path.parent):
        tally = score_test_images(detector, dataset, progress, evidence)
        figures = figures_of(tally, detector, dataset)
        manifest = detector.artifact.manifest
        training = TrainingImages(manifest, dataset.root)
        findings = [*evidence.missed.by_rank(), *evidence.false_alarms.by_rank()]
        content = Content(
            figures=figures,
            rows=tally.rows,
            levels=[tally.tiles(), tally.images()],
            map_threshold=detector.map_threshold,
            evidence=evidence,
            findings=findings,
            training=training.patches(findings),
            no_training=training.reason,
            facts=describe(manifest, detector.artifact.inspection),
            places=_places(tally),
        )
        write_atomic(path, render(content).encode())
    return figures


def _places(tally: Tally) -> tuple[NDArray[np.float32], list[str]] | None:
    """Where t-SNE lays the tiles' embeddings; None where the method has none, or too few."""
    embeddings, kinds = tally.embeddings.tiles()
    return (lay_out(embeddings), kinds) if len(kinds) >= FEWEST else None
