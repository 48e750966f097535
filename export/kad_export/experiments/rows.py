"""A run's result as one row: what is kept of an evaluation, and what the tables show of it."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kad_export.experiments.published import Published, find_published

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kad_export.experiments.plan import Run

__all__ = ["FIGURES", "Row", "best_rows", "command_text", "keep_figures"]

FIGURES = (
    *("tile_roc_auc", "average_precision", "accuracy", "precision", "recall", "confusion_matrix"),
    *("threshold", "best_f1", "image_roc_auc", "pixel_roc_auc", "aupro"),
)
"""Keys of ``metrics.json`` that a row has; those of tiles first, as in the thesis' tables."""


def keep_figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a result keeps of ``metrics.json``."""
    kept = ("reasons", "counts", "regions", "kinds", "artifact", "data", "runtime")
    return {
        "figures": {name: metrics[name] for name in FIGURES},
        **{name: metrics[name] for name in kept},
        "ms_per_board": metrics["timings_ms"]["score_total"]["mean"],
    }


def command_text(run: Run) -> str:
    """Give the export's command as a user would type it, without paths of this machine."""
    category = "DATA" if run.category == "." else f"DATA/{run.category}"
    return shlex.join(["kad-export", run.method, category, "--out", "X.kad", *run.words()])


@dataclass(frozen=True)
class Row:
    """A run and what is known of it: its result, or why there is none.

    Attributes
    ----------
    run : Run
    result : mapping or None
        As kept by :mod:`kad_export.experiments.store`.
    error : str or None
        Why it failed just now.
    """

    run: Run
    result: Mapping[str, Any] | None = None
    error: str | None = None

    @property
    def state(self) -> str:
        """``"done"``, ``"failed"`` or ``"to do"``."""
        if self.result is not None:
            return "done"
        return "to do" if self.error is None else "failed"

    @property
    def published(self) -> Published | None:
        """The thesis' row of the same experiment."""
        run = self.run
        return find_published(run.method, run.category, run.backbone, denoised=run.denoised)

    @property
    def weights(self) -> str:
        """What the network started from, as the artifact names it."""
        return "" if self.result is None else str(self.result["artifact"]["weights"])

    def option(self, name: str) -> str:
        """Give an option's value as the grid has it, or its default."""
        value = self.run.options.get(name, self.run.values[name])
        return "none" if value is None else str(value)

    def figure(self, name: str) -> Any:
        """Give one of `FIGURES`; None where there is none."""
        return None if self.result is None else self.result["figures"][name]

    def summary(self) -> str:
        """Say in a few words how it went."""
        if self.result is None:
            return self.state if self.error is None else f"failed: {self.error}"
        names = {"tile_roc_auc": "ROC-AUC", "precision": "precision", "recall": "recall"}
        return ", ".join(
            f"{text} {'-' if (value := self.figure(name)) is None else f'{value:.4f}'}"
            for name, text in names.items()
        )

    def document(self) -> dict[str, Any]:
        """Give the row as JSON values."""
        run = self.run
        return {
            "run": run.name,
            "method": run.method,
            "category": run.category,
            "backbone": run.backbone,
            "denoised": run.denoised,
            "options": dict(run.options),
            "state": self.state,
            "error": self.error,
            **{name: self.figure(name) for name in FIGURES},
            **{k: v for k, v in (self.result or {}).items() if k != "figures"},
            "thesis": None if self.published is None else asdict(self.published),
        }

    def flat(self) -> dict[str, Any]:
        """Give the row as the values of one line of CSV, by column."""
        result = self.result or {}
        steps = {step: result.get(step, _NOT_RUN) for step in ("export", "scoring")}
        return {
            "run": self.run.name,
            "method": self.run.method,
            "category": self.run.category,
            "backbone": self.run.backbone,
            "denoise": self.option("denoise"),
            "weights": self.weights,
            "state": self.state,
            "error": self.error,
            **{name: self.figure(name) for name in FIGURES if name != "confusion_matrix"},
            **_cells(self.figure("confusion_matrix")),
            "bank_rows": result.get("artifact", {}).get("bank_rows"),
            "ms_per_board": result.get("ms_per_board"),
            **{f"{step}_{name}": v for step, used in steps.items() for name, v in used.items()},
            **_published(self.published),
            "command": command_text(self.run),
        }


_NOT_RUN = dict.fromkeys(("seconds", "processor_seconds", "peak_bytes"))


def _published(row: Published | None) -> dict[str, Any]:
    names = ("table", "number", "roc_auc", "accuracy", "precision", "recall")
    values = {f"thesis_{name}": None if row is None else getattr(row, name) for name in names}
    return values | _cells(None if row is None else row.confusion_matrix, "thesis_")


def _cells(matrix: Any, prefix: str = "") -> dict[str, int | None]:
    """Name the entries of a confusion matrix; None where there is none."""
    names = ("true_negatives", "false_alarms", "missed", "found")
    cells = [None] * 4 if matrix is None else [cell for line in matrix for cell in line]
    return {f"{prefix}{name}": cell for name, cell in zip(names, cells, strict=True)}


def best_rows(rows: list[Row], category: str) -> dict[str, Row]:
    """Give each method's run with the largest ROC-AUC on a category, as tables 6.3 and 6.4 do."""
    best: dict[str, Row] = {}
    for row in rows:
        auc, method = row.figure("tile_roc_auc"), row.run.method
        if row.run.category != category or auc is None:
            continue
        if method not in best or auc > best[method].figure("tile_roc_auc"):
            best[method] = row
    return best
