"""Score a data set's test images and say how well the verdicts fit its ground truth.

``metrics.json`` holds the figures of three levels. The top-level keys are the thesis' tables 6.1 to
6.4: figures of the *tiles*, each labelled by its crop of the ground truth; ``levels`` says so key
by key. The same figures of whole *images* stand in the block ``image``, what is known of the
*pixels* in ``pixel``. A figure that the data cannot give is null, and ``reasons`` says why.

Images are scored one at a time, whatever the size of the data set.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kad_sdk import metrics, plots
from kad_sdk.errors import DatasetError
from kad_sdk.facts import summarise
from kad_sdk.storage import made_folder, write_together
from kad_sdk.tally import Row, Scored, Tally
from kad_sdk.tsne import tsne_png

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    from kad_sdk.dataset import Dataset
    from kad_sdk.detector import Detector

__all__ = ["check_test_images", "evaluate", "figures_of", "format_table", "score_test_images"]

_COLUMNS = (  # of scores.csv
    *("name", "kind", "label", "score", "normalised_score", "anomalous", "regions", "tiles"),
    *("defect_tiles", "defects", "found_defects", "false_regions"),
    *("height", "width", "score_total_ms"),
)


def evaluate(
    detector: Detector,
    dataset: Dataset,
    out: str | PathLike[str],
    *,
    progress: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """Evaluate a detector on a data set's test images.

    Writes into `out`: ``metrics.json``, ``scores.csv`` (one row an image), ``roc.png``,
    ``scores.png`` and ``examples.png``, and ``tsne.png`` where the method embeds tiles. An image
    without a known label is scored and listed, and left out of every figure; one that is known to
    be defective but has no mask counts at image level only.

    Parameters
    ----------
    detector
        An open detector.
    dataset
        What :func:`kad_sdk.scan_dataset` found.
    out
        Folder; made when it is not there.
    progress
        Called with 1 after each image.

    Returns
    -------
    dict
        What is in ``metrics.json``.

    Raises
    ------
    DatasetError
        There are no test images, or a mask does not fit its image.
    MissingDependencyError
        scikit-learn or matplotlib is not installed; found before anything is scored.
    OutputError
        A file cannot be written.
    KadError
        An image cannot be read or scored; the text names it.
    """
    check_test_images(dataset)
    metrics.require()
    plots.require()
    folder = Path(out)
    with made_folder(folder):  # at once: that it cannot be made is not found out hours later
        tally = score_test_images(detector, dataset, progress)
        figures = figures_of(tally, detector, dataset)
        _write(folder, tally, figures, detector.map_threshold)
    return figures


def check_test_images(dataset: Dataset) -> None:
    """Raise DatasetError where a data set has no test images."""
    if not dataset.test:
        raise DatasetError(
            f"{dataset.root}: no test images; put boards with and without defects into test/"
        )


def score_test_images(
    detector: Detector,
    dataset: Dataset,
    progress: Callable[[int], object] | None = None,
    observe: Callable[[Scored], None] | None = None,
) -> Tally:
    """Score a data set's test images one by one; `observe` as :class:`Tally` takes it."""
    tile = detector.artifact.manifest.preprocessing.tile
    tally = Tally(detector.tile_threshold, detector.threshold, tile, observe)
    for sample in dataset.test:
        tally.add(sample, detector)
        if progress is not None:
            progress(1)
    return tally


def figures_of(tally: Tally, detector: Detector, dataset: Dataset) -> dict[str, Any]:
    """Give what is in ``metrics.json``."""
    return {
        **tally.figures(),
        "artifact": summarise(detector.artifact),
        "data": _data_facts(dataset, tally.fingerprint.hexdigest()),
        "runtime": _runtime_facts(detector),
    }


def _write(folder: Path, tally: Tally, figures: dict[str, Any], map_threshold: float) -> None:
    """Write all files or none."""
    levels = [tally.tiles(), tally.images()]
    files = {
        "scores.csv": _csv(tally.rows),
        "roc.png": plots.curves_png(levels),
        "scores.png": plots.scores_png(levels),
        "examples.png": plots.examples_png(tally.gallery.chosen(), map_threshold),
        **_tsne(tally),
        "metrics.json": (json.dumps(figures, indent=2, allow_nan=False) + "\n").encode(),
    }
    write_together({folder / name: [data] for name, data in files.items()})


def _tsne(tally: Tally) -> dict[str, bytes]:
    """Draw the tiles' embeddings, where the method has some."""
    embeddings, kinds = tally.embeddings.tiles()
    return {"tsne.png": tsne_png(embeddings, kinds)} if kinds else {}


def _csv(rows: list[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        defects = "" if row.tile_truth is None else int(row.tile_truth.sum())
        label = "" if row.sample.label is None else row.sample.label
        facts = [row.sample.name, row.sample.kind, label, repr(row.score)]
        facts += [repr(row.normalised_score), int(row.anomalous), row.n_regions]
        facts += [row.tile_scores.size, defects, *_region_counts(row), *row.size]
        writer.writerow([*facts, f"{row.timings_ms['score_total']:.2f}"])
    return text.getvalue().encode()


def _region_counts(row: Row) -> list[int | str]:
    if row.match is None:
        return ["", "", ""]
    scored = [defect for defect in row.match.defects if defect.scored]
    return [len(scored), sum(defect.found for defect in scored), len(row.match.false_regions)]


def _runtime_facts(detector: Detector) -> dict[str, Any]:
    return {
        "provider": detector.provider,
        "device": detector.device,
        "precision": detector.precision,
        "threads": detector.threads,
        "batch": detector.batch,
        "tile_threshold": detector.tile_threshold,
        "map_threshold": detector.map_threshold,
    }


def _data_facts(dataset: Dataset, fingerprint: str) -> dict[str, Any]:
    return {
        "name": dataset.root.resolve().name,
        "layout": dataset.layout,
        "test_images": len(dataset.test),
        "fingerprint": fingerprint,
    }


def format_table(figures: dict[str, Any]) -> str:
    """Lay out what :func:`evaluate` returned as text: figures by level, by kind, and reasons."""
    counts, image, reasons = figures["counts"], figures["image"], figures["reasons"]
    rows = [
        ("", "tiles", "images", "pixels"),
        ("ROC-AUC", *(_show(figures[f"{level}_roc_auc"]) for level in ("tile", "image", "pixel"))),
        ("AUPRO (FPR <= 0.3)", "", "", _show(figures["aupro"])),
        *(
            (label, _show(figures[key]), _show(image[key]), "")
            for label, key in (
                ("average precision", "average_precision"),
                ("best F1", "best_f1"),
                ("accuracy", "accuracy"),
                ("precision", "precision"),
                ("recall", "recall"),
            )
        ),
        *_matrix_rows(figures["confusion_matrix"], image["confusion_matrix"]),
        ("normal", f"{counts['normal_tiles']:,}", f"{counts['normal_images']:,}", ""),
        ("anomalous", f"{counts['anomalous_tiles']:,}", f"{counts['anomalous_images']:,}", ""),
    ]
    lines = [f"{a:<20}{b:>10}{c:>10}{d:>10}".rstrip() for a, b, c, d in rows]
    taus = f"tiles flagged at {figures['threshold']:.6g}, images at {image['threshold']:.6g}"
    lines += [taus, _region_line(figures["regions"]), "", *_kind_lines(figures["kinds"])]
    if counts["unlabelled_images"]:
        lines.append(f"left out: {counts['unlabelled_images']} images without a known label")
    lines += [f"no {name}: {reason}" for name, reason in reasons.items()]
    return "\n".join(lines)


def _region_line(regions: dict[str, Any]) -> str:
    if not regions["images"]:
        return "regions: no image with a ground truth"
    line = (
        f"regions: {regions['found_defects']:,} of {regions['defects']:,} defects found, "
        f"{regions['false_regions_per_image']:.3g} false regions an image"
    )
    if regions["unscored_defects"]:
        line += f"; {regions['unscored_defects']:,} defects lie where nothing is scored"
    return line


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _matrix_rows(tile: Any, image: Any) -> list[tuple[str, str, str, str]]:
    def cell(matrix: Any, i: int, j: int) -> str:
        return "-" if matrix is None else f"{matrix[i][j]:,}"

    places = (("found", 1, 1), ("missed", 1, 0), ("false alarms", 0, 1))
    return [(label, cell(tile, i, j), cell(image, i, j), "") for label, i, j in places]


def _kind_lines(kinds: dict[str, dict[str, Any]]) -> list[str]:
    head = f"{'kind':<20}{'images':>10}{'flagged':>10}{'AUROC':>10}"
    lines = [f"{head}{'tiles':>10}{'recall':>10}{'AUROC':>10}{'defects':>10}{'found':>10}"]
    for kind, facts in kinds.items():
        line = f"{kind:<20}{facts['images']:>10,}{facts['flagged']:>10,}"
        if "image_recall" in facts:
            line += f"{_show(facts['image_roc_auc']):>10}{facts['defect_tiles']:>10,}"
            line += f"{_show(facts['tile_recall']):>10}{_show(facts['tile_roc_auc']):>10}"
            line += f"{facts['defects']:>10,}{facts['found_defects']:>10,}"
        lines.append(line)
    return lines
