"""Compare the detection quality of windows with that of tiles, and write the table into the docs.

    python tests/export/windows_quality.py --results benchmarks/results/windows_quality.json \
        --docs docs/windows.md

For each case below and both modes: ``kad-export patchcore`` with the same options, and ``kad
evaluate``. KAD_WEIGHTS_DIR and KAD_DATA_DIR name the weights and the data; synthetic boards are
painted first. A run whose result is in the file already is not made again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from kad_bench.pages import replace_between
from quality import FIGURES, run
from sklearn.metrics import roc_auc_score

BEGIN, END = "<!-- windows quality: made by `make windows` -->", "<!-- end of windows quality -->"
MODES = ("tiles", "windows")
INT8 = "windows, int8"  # of the split that a data set comes with
NAMES = ("image AUROC", "pixel AUROC", "AUPRO", "tile AUROC")
TOLERANCE = 0.005
RESAMPLINGS = 1000
SPLITS = 4


@dataclass(frozen=True)
class Case:
    """A data set, and the options that both modes are exported with.

    `synth` are the options of ``kad-export synth`` where the boards are painted; otherwise `data`
    is a folder of KAD_DATA_DIR. `tiles` are options of tiles alone. `splits` are further ways to
    share the normal images of `data` between training and test, as many as there are in each.
    """

    name: str
    options: str
    data: str = ""
    synth: str = ""
    tiles: str = ""
    splits: int = 0

    def command(self, mode: str) -> str:
        """What a user would type."""
        windows = "--mode windows"
        own = {"tiles": self.tiles, "windows": windows, INT8: f"{windows} --precision int8"}[mode]
        words = f"kad-export patchcore {self.data or 'BOARDS'} --out X.kad {self.options} {own}"
        return " ".join(words.split())


_BOARDS = "--boards 6 --test-boards 24 --size 1400x1200 --seed 5"
CASES = (
    Case(
        "KolektorSDD, half resolution",
        "--resize 0.5 --max-bank 5000",
        "kolektor_sdd",
        splits=SPLITS,
    ),
    Case(
        "the same, largest tile decides",
        "--resize 0.5 --max-bank 5000 --board-score largest-tile",
        "kolektor_sdd",
    ),
    Case(
        "KolektorSDD, native resolution",
        "--sigma 8",
        "kolektor_sdd",
        tiles="--train-stride 224",
        splits=SPLITS,
    ),
    Case("synthetic, White", "--max-bank 4000", synth=f"{_BOARDS} --category white"),
    Case(
        "synthetic, White with Edges",
        "--max-bank 4000",
        synth=f"{_BOARDS} --category white-with-edges",
    ),
)


def measure(case: Case, mode: str, split: int, source: Path, weights: Path, folder: Path) -> dict:
    """Export in one mode and evaluate; returns what the results file keeps of it."""
    artifact = folder / f"{mode.replace(', ', '-')}.kad"
    words = case.command(mode).split()
    options = words[words.index("X.kad") + 1 :]
    common = ["--weights", weights, "--force", "--quiet"]
    run("kad-export", "patchcore", source, "--out", artifact, *options, *common)
    run("kad", "evaluate", artifact, source, "--out", folder / mode)
    metrics = json.loads((folder / mode / "metrics.json").read_text())
    kept = {
        "case": case.name,
        "mode": mode,
        "split": split,
        "command": case.command(mode),
        "synth": case.synth,
        **{key: metrics[key] for key in (*FIGURES, "average_precision", "counts")},
        "bank_rows": metrics["artifact"]["bank_rows"],
    }
    if split == 0:  # the interval of its difference is told
        kept["image_scores"] = read_scores(folder / mode / "scores.csv")
    return kept


def read_scores(path: Path) -> dict[str, list[float]]:
    """Read each image's label, 1 for defective ones, and its score."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] in {"0", "1"}]
    return {row["name"]: [int(row["label"]), float(row["score"])] for row in rows}


def image_interval(before: dict, after: dict) -> tuple[float, float]:
    """Give where 95 % of resamplings of the images put the difference of image AUROC."""
    names = sorted(before["image_scores"])
    label, first = np.array([before["image_scores"][name] for name in names]).T
    second = np.array([after["image_scores"][name][1] for name in names])
    generator, kinds = np.random.default_rng(0), [np.flatnonzero(label == k) for k in (0, 1)]
    found = []
    for _ in range(RESAMPLINGS):
        drawn = np.concatenate([generator.choice(kind, len(kind)) for kind in kinds])
        scores = (roc_auc_score(label[drawn], s[drawn]) for s in (second, first))
        found.append(next(scores) - next(scores))
    low, high = np.percentile(found, (2.5, 97.5))
    return float(low), float(high)


def split_anew(source: Path, folder: Path, seed: int) -> Path:
    """Lay out a data set in the MVTec AD layout with other normal images in training, by links."""
    parts = [sorted((source / part / "good").iterdir()) for part in ("train", "test")]
    images = [*parts[0], *parts[1]]
    order = np.random.default_rng(seed).permutation(len(images))
    for part, chosen in zip(("train", "test"), np.split(order, [len(parts[0])]), strict=True):
        (folder / part / "good").mkdir(parents=True)
        for i in chosen.tolist():
            link = folder / part / "good" / f"{i:04}{images[i].suffix}"
            link.symlink_to(images[i].resolve())
    for kind in (source / "test").iterdir():
        if kind.name != "good":
            (folder / "test" / kind.name).symlink_to(kind.resolve())
    (folder / "ground_truth").symlink_to((source / "ground_truth").resolve())
    return folder


def measure_case(case: Case, split: int, modes: list[str], weights: Path) -> list[dict]:
    """Measure a case in some modes; split 0 is the one that the data set comes with."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "boards"
        if case.synth:
            run("kad-export", "synth", source, *case.synth.split(), "--quiet")
        else:
            source = Path(os.environ["KAD_DATA_DIR"]) / case.data
        if split:
            source = split_anew(source, folder / "split", split)
        return [measure(case, mode, split, source, weights, folder) for mode in modes]


def table(results: list[dict]) -> str:
    """Lay out the results as Markdown: tiles, windows, and the difference."""
    lines = [
        f"| boards | mode | bank | {' | '.join(NAMES)} |",
        f"|---|---|---|{'---|' * len(NAMES)}",
    ]
    by_mode = {(r["case"], r["split"], r["mode"]): r for r in results}
    commands = []
    for case in CASES:
        pairs = [
            [by_mode.get((case.name, split, mode)) for mode in MODES]
            for split in range(case.splits + 1)
        ]
        if any(None in pair for pair in pairs):
            continue
        for one in pairs[0]:
            figures = " | ".join(f"{one[key]:.4f}" for key in FIGURES)
            lines.append(f"| {case.name} | {one['mode']} | {one['bank_rows']:,} | {figures} |")
            commands.append(one["command"])
        gains = [[pair[1][key] - pair[0][key] for key in FIGURES] for pair in pairs]
        low, high = image_interval(*pairs[0])
        cells = list(map(_gain, gains[0]))
        cells[0] += f" (95 %: {low:+.3f} to {high:+.3f})"
        lines.append(f"| | difference | | {' | '.join(cells)} |")
        if case.splits:
            lines.append(f"| | of {case.splits} other splits | | {_of_splits(gains[1:])} |")
        int8 = by_mode.get((case.name, 0, INT8))
        if int8 is not None:
            before = [pairs[0][1][key] for key in FIGURES]
            figures = " | ".join(
                f"{int8[key]:.4f} ({int8[key] - value:+.4f})"
                for key, value in zip(FIGURES, before, strict=True)
            )
            lines.append(f"| {case.name} | {INT8} | {int8['bank_rows']:,} | {figures} |")
            commands.append(int8["command"])
        if case.synth:
            commands.append(f"  with BOARDS of kad-export synth BOARDS {case.synth}")
    text = "\n".join(commands)
    return "\n".join([*lines, "", "```", text, "```"])


def _of_splits(gains: list[list[float]]) -> str:
    """Give the mean difference of each figure, the smallest and the largest."""
    return " | ".join(
        f"{_gain(float(np.mean(each)))} ({min(each):+.3f} to {max(each):+.3f})"
        for each in zip(*gains, strict=True)
    )


def _gain(difference: float) -> str:
    words = "better" if difference > 0 else "lower"
    mark = "" if abs(difference) <= TOLERANCE else f" {words}"
    return f"{difference:+.4f}{mark}"


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--results", type=Path, required=True, help="JSON to fill in")
    parser.add_argument("--docs", type=Path, help="Markdown file whose table is replaced")
    given = parser.parse_args()
    weights = Path(os.environ["KAD_WEIGHTS_DIR"]) / "resnet18_trunk.safetensors"
    results = json.loads(given.results.read_text()) if given.results.exists() else []
    known = {(r["case"], r["split"], r["command"]) for r in results}
    runs = [(case, split) for case in CASES for split in range(case.splits + 1)]
    for case, split in runs:
        modes = MODES if split else (*MODES, INT8)
        missing = [mode for mode in modes if (case.name, split, case.command(mode)) not in known]
        if missing:
            results += measure_case(case, split, missing, weights)
            given.results.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))  # noqa: T201
    if given.docs:
        replace_between(given.docs, BEGIN, END, table(results))


if __name__ == "__main__":
    main()
