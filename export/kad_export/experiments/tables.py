"""The results of a grid as JSON, CSV and Markdown.

The Markdown has the thesis' tables 6.1 to 6.4 with this grid's figures, each with the thesis' own
row of the same experiment below it, in italics.
"""

from __future__ import annotations

import csv
import io
import json
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kad_export.experiments.published import best_published
from kad_export.experiments.rows import best_rows
from kad_export.report import format_bytes, format_seconds
from kad_sdk import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kad_export.experiments.published import Published
    from kad_export.experiments.rows import Row

__all__ = ["markdown", "tables"]

FORMAT, FORMAT_VERSION = "kad-experiments", 1
_METHODS = {"patchcore": "PatchCore", "cutpaste": "CutPaste"}
_COMPARISONS = {"white": "table 6.3", "white-with-edges": "table 6.4"}
_FIGURES = ("ROC-AUC", "average precision", "accuracy", "precision", "recall", "confusion matrix")
_OTHER_DATA = (
    "Rows in italics are the thesis' own. They were measured on **other data**, the thesis' "
    "boards, which are not public: compare the order of the rows, not their figures."
)
_MATRIX = (
    "Figures are of tiles, each labelled by its crop of the ground truth; confusion matrix: "
    "[[normal, false alarms], [missed, found]]."
)


def tables(grid: str, rows: Sequence[Row]) -> dict[str, str]:
    """Give the texts of all three files, by suffix."""
    return {"csv": _csv(rows), "md": markdown(grid, rows), "json": _json(grid, rows)}


def _json(grid: str, rows: Sequence[Row]) -> str:
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "grid": grid,
        "created_by": {"kad-sdk": __version__},
        "machine": _machine(),
        "rows": [row.document() for row in rows],
        "best": {
            category: {method: row.run.name for method, row in best_rows(rows, category).items()}
            for category in _categories(rows)
        },
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _machine() -> dict[str, Any]:
    """Say what the times were taken on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {"processor": next(models, platform.processor()), "processors": os.cpu_count()}


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    flat = [row.flat() for row in rows]
    writer = csv.DictWriter(text, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _categories(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.run.category for row in rows))


def markdown(grid: str, rows: Sequence[Row]) -> str:
    """Lay out all tables as Markdown."""
    done, published = sum(row.state == "done" for row in rows), any(row.published for row in rows)
    lines = [f"# Experiments: grid {grid}", "", f"{done} of {len(rows)} runs are done. {_MATRIX}"]
    if published:
        lines += ["", _OTHER_DATA]
    for method, name in _METHODS.items():
        of_method = [row for row in rows if row.run.method == method]
        if of_method:
            lines += ["", *_method_table(name, of_method)]
    for category in _categories(rows):
        lines += _comparison(category, rows)
    lines += ["", *_cost_table(rows), "", *_data_table(rows), "", *_commands(rows)]
    return "\n".join(lines) + "\n"


def _method_table(title: str, rows: Sequence[Row]) -> Iterator[str]:
    published = next((row.published for row in rows if row.published), None)
    yield f"## {title}" + (f" (thesis, table {published.table})" if published else "")
    yield ""
    varied = _varied(rows)
    yield from _head("", "category", *varied, "weights", *_FIGURES)
    for number, row in enumerate(rows, 1):
        options = [row.option(name) for name in varied]
        yield _line(str(number), row.run.category, *options, row.weights, *_figures(row))
        if row.published is not None:
            yield _italics(*_published_cells(row.published, varied))


def _varied(rows: Sequence[Row]) -> list[str]:
    """Options that tell the rows apart; backbone and denoise always, weights never."""
    names = [name for row in rows for name in row.run.options if name != "weights"]
    return [
        name
        for name in dict.fromkeys(("backbone", "denoise", *names))
        if name in {"backbone", "denoise"} or len({row.option(name) for row in rows}) > 1
    ]


def _published_cells(row: Published, varied: Sequence[str]) -> list[str]:
    known = {"backbone": row.backbone, "denoise": "yes" if row.denoised else "none"}
    options = [known.get(name, "") for name in varied]
    return [f"thesis, no. {row.number}", row.category, *options, "ImageNet", *_published(row)]


def _published(row: Published) -> list[str]:
    figures = (row.roc_auc, None, row.accuracy, row.precision, row.recall)
    shown = ["" if value is None else f"{value:.4f}" for value in figures]
    return [*shown, _matrix(row.confusion_matrix)]


def _figures(row: Row) -> list[str]:
    if row.result is None:
        return [row.state, *[""] * (len(_FIGURES) - 1)]
    names = ("tile_roc_auc", "average_precision", "accuracy", "precision", "recall")
    values = (row.figure(name) for name in names)
    shown = ["-" if value is None else f"{value:.4f}" for value in values]
    return [*shown, _matrix(row.figure("confusion_matrix"))]


def _comparison(category: str, rows: Sequence[Row]) -> Iterator[str]:
    """Set the best run of each method side by side, as tables 6.3 and 6.4 do."""
    best = best_rows(rows, category)
    if len(best) < 2:
        return
    where = f" (thesis, {_COMPARISONS[category]})" if category in _COMPARISONS else ""
    yield from ("", f"## PatchCore against CutPaste: {category}{where}", "")
    yield "The run of each method with the largest ROC-AUC."
    yield ""
    yield from _head("", "backbone", "denoise", "weights", *_FIGURES, "board ROC-AUC")
    for method, row in best.items():
        auc, options = row.figure("image_roc_auc"), (row.option("backbone"), row.option("denoise"))
        board = "-" if auc is None else f"{auc:.4f}"
        yield _line(_METHODS[method], *options, row.weights, *_figures(row), board)
        top = best_published(method, category)
        if top is not None:
            name, _, *cells = _published_cells(top, ("backbone", "denoise"))
            yield _italics(f"{_METHODS[method]}, {name}", *cells, "")


def _cost_table(rows: Sequence[Row]) -> Iterator[str]:
    yield "## Time and memory"
    yield ""
    yield "Export: fitting or training, thresholds, verification. Scoring: the test boards."
    yield ""
    heads = ("export", "processor time", "memory", "scoring", "a board", "memory", "bank rows")
    yield from _head("run", *heads)
    for row in rows:
        if row.result is not None:
            yield _line(row.run.name, *_cost(row.result))


def _cost(result: Mapping[str, Any]) -> list[str]:
    export, scoring = result["export"], result["scoring"]
    bank = result["artifact"].get("bank_rows")
    return [
        format_seconds(export["seconds"]),
        format_seconds(export["processor_seconds"]),
        format_bytes(export["peak_bytes"]),
        format_seconds(scoring["seconds"]),
        f"{result['ms_per_board']:,.0f} ms",
        format_bytes(scoring["peak_bytes"]),
        "" if bank is None else f"{bank:,}",
    ]


def _data_table(rows: Sequence[Row]) -> Iterator[str]:
    machine = _machine()
    yield "## Data and machine"
    yield ""
    yield from _head("category", "test boards", "normal tiles", "defective tiles")
    for category in _categories(rows):
        counts = [r.result["counts"] for r in rows if r.result and r.run.category == category]
        for one in counts[:1]:
            tiles = (f"{one['normal_tiles']:,}", f"{one['anomalous_tiles']:,}")
            yield _line(category, f"{one['images']:,}", *tiles)
    yield ""
    yield f"kad {__version__}; {machine['processor']}, {machine['processors']} processors."


def _commands(rows: Sequence[Row]) -> Iterator[str]:
    yield "## Commands"
    yield ""
    yield "```"
    for row in rows:
        if row.result is not None:
            yield row.result["command"]
    yield "```"
    for row in rows:
        if row.error is not None:
            yield from ("", f"{row.run.name} failed: {row.error}")


def _matrix(matrix: Any) -> str:
    if matrix is None:
        return "-"
    return "[" + ", ".join(f"[{a:,}, {b:,}]" for a, b in matrix) + "]"


def _head(*names: str) -> tuple[str, str]:
    return _line(*names), "|" + "---|" * len(names)


def _italics(*cells: str) -> str:
    return _line(*(f"*{cell}*" if cell else "" for cell in cells))


def _line(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
