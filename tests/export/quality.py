"""Measure detection quality on the real data sets, and write the README's table from it.

    python tests/export/quality.py --results benchmarks/results/quality.json --readme README.md

For each case below: ``kad-export patchcore``, ``kad evaluate``, and compare_with_torch.py, which
scores the same images with a plain PyTorch implementation. KAD_WEIGHTS_DIR and KAD_DATA_DIR name
the weights and the data. A case whose result is in the file already is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kad_bench.pages import replace_between

BEGIN, END = "<!-- quality: made by `make quality` -->", "<!-- end of quality -->"
FIGURES = ("image_roc_auc", "pixel_roc_auc", "aupro", "tile_roc_auc")


@dataclass(frozen=True)
class Case:
    """A data set and the options of its export."""

    data: str
    how: str
    options: str

    @property
    def command(self) -> str:
        """What a user would type."""
        return f"kad-export patchcore {self.data} --out X.kad {self.options}"


CASES = (
    Case("kolektor_sdd", "half resolution, tiles", "--resize 0.5 --max-bank 5000"),
    Case(
        "kolektor_sdd",
        "the same, largest tile decides",
        "--resize 0.5 --max-bank 5000 --board-score largest-tile",
    ),
    Case("kolektor_sdd", "native resolution, tiles", "--train-stride 224 --sigma 8"),
    Case("kolektor_sdd", "whole image at 224 px", "--resize 224 --coreset 0.07 --max-bank 4000"),
    Case(
        "magnetic_tile",
        "whole image at 224 px",
        "--resize 224 --coreset 0.03 --max-bank 4000 --holdout 0.02",
    ),
    Case(
        "magnetic_tile",
        "whole image at 160 px",
        "--resize 160 --tile 160 --sigma 8 --coreset 0.06 --max-bank 4000 --holdout 0.02",
    ),
    Case("hazelnut", "whole image at 224 px", "--resize 224 --coreset 0.1"),
)


def run(*words: str | Path) -> None:
    """Run a command of this environment."""
    program = Path(sys.executable).with_name(str(words[0]))
    subprocess.run([program, *map(str, words[1:])], check=True)


def measure(case: Case, data: Path, weights: Path, folder: Path) -> dict:
    """Export, evaluate, compare; returns what the results file keeps of it."""
    artifact, source = folder / "x.kad", data / case.data
    options = [*case.options.split(), "--weights", weights, "--force"]
    run("kad-export", "patchcore", source, "--out", artifact, *options)
    run("kad", "evaluate", artifact, source, "--out", folder / "evaluation")
    comparison = folder / "comparison.json"
    script = Path(__file__).with_name("compare_with_torch.py")
    run("python", script, artifact, source, "--weights", weights, "--json", comparison)
    metrics = json.loads((folder / "evaluation" / "metrics.json").read_text())
    kept = (*FIGURES, "average_precision", "best_f1", "counts", "image", "kinds", "artifact")
    return {
        "case": case.command,
        "data": case.data,
        "how": case.how,
        **{key: metrics[key] for key in kept},
        "comparison": json.loads(comparison.read_text()),
    }


def table(results: list[dict]) -> str:
    """Lay out the results as Markdown: the runtime's figures, and how far plain PyTorch's are."""
    lines = [
        "| data | how | bank | image AUROC | pixel AUROC | AUPRO | tile AUROC | defective images "
        "found | false alarms | plain PyTorch: figures | patches |",
        f"|---|---|---|{'---|' * 8}",
    ]
    for result in results:
        comparison = result["comparison"]
        figures = max(abs(result[key] - comparison["plain_pytorch"][key]) for key in FIGURES)
        patches = comparison["largest_relative_difference"]["distance"]
        (right, false_alarms), (missed, found) = result["image"]["confusion_matrix"]
        cells = [
            result["data"],
            result["how"],
            f"{result['artifact']['bank_rows']:,}",
            *(f"{result[key]:.4f}" for key in FIGURES),
            f"{found} of {missed + found}",
            f"{false_alarms} of {right + false_alarms}",
            f"{figures:.0e}",
            f"{patches:.0e}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    commands = "\n".join(result["case"] for result in results)
    return "\n".join([*lines, "", "```", commands, "```"])


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--results", type=Path, required=True, help="JSON to fill in")
    parser.add_argument("--readme", type=Path, help="Markdown file whose table is replaced")
    given = parser.parse_args()
    data = Path(os.environ["KAD_DATA_DIR"])
    weights = Path(os.environ["KAD_WEIGHTS_DIR"]) / "resnet18_trunk.safetensors"
    known = json.loads(given.results.read_text()) if given.results.exists() else []
    by_command = {result["case"]: result for result in known}
    for case in CASES:
        if case.command not in by_command:
            with tempfile.TemporaryDirectory() as folder:
                by_command[case.command] = measure(case, data, weights, Path(folder))
        results = [by_command[c.command] for c in CASES if c.command in by_command]
        given.results.parent.mkdir(parents=True, exist_ok=True)
        given.results.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))  # noqa: T201
    if given.readme:
        replace_between(given.readme, BEGIN, END, table(results))


if __name__ == "__main__":
    main()
