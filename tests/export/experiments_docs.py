"""Run grids of experiments, and put their tables and pictures into the docs.

    python tests/export/experiments_docs.py boards build/experiments --docs docs/experiments.md \\
        --images docs/images --results benchmarks/results/experiments.json

``boards`` is the thesis' grid on synthetic boards, ``surfaces`` that of surfaces.yaml on the images
in KAD_DATA_DIR. The commands are those that a user types. What is done already in the folder is not
done again. KAD_WEIGHTS_DIR names ImageNet's weights where they cannot be downloaded;
``--resnet50-weights random:0`` stands in where those of ResNet-50 cannot be had at all, and the
tables say so.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from kad_bench.pages import replace_between

CATEGORIES = {"white": 11, "white-with-edges": 12}  # with the seeds of their boards
SYNTH = "--boards 8 --test-boards 12 --size 1200x1400"
SETTINGS = (
    *("resize=0.5", "tile=112", "stride=56", "train-stride=56", "max-bank=5000"),
    *("cutpaste:optimizer=adam", "cutpaste:learning-rate=0.0005", "cutpaste:epochs=3"),
    *("cutpaste:steps-per-epoch=20", "cutpaste:batch=32", "cutpaste:validation-tiles=64"),
    *("cutpaste:map=tile-score", "cutpaste:augment=transparency=60 min-contrast=3"),
)
HERE = Path(__file__).parent
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 85]


def board_commands(resnet50_weights: str) -> list[list[str]]:
    """Give the commands of the grid on synthetic boards, in a folder of their own."""
    synth = [
        shlex.split(f"kad-export synth boards/{name} --category {name} {SYNTH} --seed {seed}")
        for name, seed in CATEGORIES.items()
    ]
    settings = [*SETTINGS, f"resnet50:weights={resnet50_weights}"]
    grid = ["kad-export", "experiments", "boards", "--grid", "thesis", "--out", "grid"]
    return [*synth, [*grid, *(word for text in settings for word in ("--set", text))]]


def surface_commands(folder: Path) -> list[list[str]]:
    """Give the command of the grid on real surfaces, once its inputs lie in a folder."""
    links = {"data": Path(os.environ["KAD_DATA_DIR"]), "surfaces.yaml": HERE / "surfaces.yaml"}
    for name, target in links.items():
        if not (folder / name).exists():
            (folder / name).symlink_to(target.absolute())
    return [shlex.split("kad-export experiments data --grid surfaces.yaml --out grid")]


def run(folder: Path, words: list[str]) -> None:
    """Run a command of this environment in a folder."""
    program = Path(sys.executable).absolute().with_name(words[0])
    subprocess.run([program, *words[1:]], cwd=folder, check=True)


def page(folder: Path, images: Path, typed: list[list[str]], *, examples: bool) -> str:
    """Give the tables, one heading level down, with the commands and the pictures.

    `examples` are pictures of boards: those of others' data sets are not ours to show.
    """
    text = (folder / "grid" / "experiments.md").read_text(encoding="utf-8")
    tables = text.partition("\n")[2].strip().replace("\n## ", "\n### ")
    lines = ["```", *map(shlex.join, typed), "```", "", tables]
    pictures = {"roc.png": "Curves", **({"examples.png": "Boards"} if examples else {})}
    best = json.loads((folder / "grid" / "experiments.json").read_bytes())["best"]
    for category, by_method in best.items():
        runs = [folder / "grid" / "runs" / name for name in by_method.values()]
        names = " and ".join(by_method.values())
        for picture, told in pictures.items():
            target = images / f"experiments_{category}_{picture.removesuffix('.png')}.jpg"
            stack = side_by_side([cv2.imread(str(run / "evaluation" / picture)) for run in runs])
            cv2.imwrite(str(target), stack, QUALITY)
            lines += ["", f"![{told} of {names}](images/{target.name})"]
    return "\n".join(lines)


def side_by_side(pictures: list[np.ndarray]) -> np.ndarray:
    """Lay pictures out in a row, on white."""
    height = max(picture.shape[0] for picture in pictures)
    padded = [
        np.pad(p, ((0, height - p.shape[0]), (0, 0), (0, 0)), constant_values=255) for p in pictures
    ]
    return np.hstack(padded)


def main() -> None:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("study", choices=("boards", "surfaces"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--docs", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--resnet50-weights", default="imagenet")
    given = parser.parse_args()
    folder = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    surfaces = given.study == "surfaces"
    typed = surface_commands(folder) if surfaces else board_commands(given.resnet50_weights)
    for words in typed:
        if words[1] != "synth" or not (folder / words[2]).exists():
            run(folder, words)
    given.results.write_bytes((folder / "grid" / "experiments.json").read_bytes())
    begin = f"<!-- {given.study}: made by `make experiments` -->"
    text = page(folder, given.images, typed, examples=not surfaces)
    replace_between(given.docs, begin, f"<!-- end of {given.study} -->", text)


if __name__ == "__main__":
    main()
