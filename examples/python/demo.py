"""The main job, end to end: synthetic boards -> artifact -> scores, pictures and figures.

Runs the same commands a user would type and prints each of them::

    python examples/python/demo.py demo
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from kad_export.errors import WeightsError
from kad_export.weights import load_weights

BOARD_SIZE = "1400x1800"  # height x width, px; a real board is about 4730 x 4074
SEED = 1


def run(*command: str | Path) -> None:
    """Print a command and run it; stop the demo when it fails."""
    words = [str(word) for word in command]
    print(f"\n$ {shlex.join(words)}", flush=True)
    program = Path(sys.executable).with_name(words[0])  # the script of this environment
    code = subprocess.call([program, *words[1:]])  # noqa: S603 - commands of this file
    if code:
        sys.exit(code)


def choose_weights() -> str:
    """ImageNet weights where they can be had, else a seeded initialisation; says which."""
    try:
        weights = load_weights("imagenet", "resnet18")
    except WeightsError as error:
        print(f"No ImageNet weights here, so the network is initialised from a seed.\n{error}")
        print("The demo runs all the same; its figures are those of untrained features.")
        return "random:0"
    print(f"Weights: {weights.name}")
    return "imagenet"


def print_products(folder: Path, seconds: float) -> None:
    """Print the table of what was made and where."""
    metrics = json.loads((folder / "evaluation" / "metrics.json").read_text())
    rows = [
        ("synthetic boards", folder / "boards"),
        ("artifact to deploy", folder / "board.kad"),
        ("overlays, maps, verdicts", folder / "scores"),
        ("figures", folder / "evaluation" / "metrics.json"),
        ("ROC curve, histogram, examples", folder / "evaluation"),
    ]
    print(f"\nMade in {seconds:.0f} s:")
    for what, where in rows:
        print(f"  {what:32}{where}")
    for key in ("tile_roc_auc", "image_roc_auc", "pixel_roc_auc", "aupro"):
        print(f"  {key:32}{metrics[key]:.4f}")


def main() -> None:
    """Run the demo into the folder given on the command line."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    boards, artifact = folder / "boards", folder / "board.kad"
    for made in (boards, artifact, folder / "scores", folder / "evaluation"):
        shutil.rmtree(made, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    weights = choose_weights()
    run("kad-export", "synth", boards, "--boards", "6", "--size", BOARD_SIZE, "--seed", str(SEED))
    run(
        "kad-export", "patchcore", boards, "--out", artifact,
        "--weights", weights, "--train-stride", "224",
    )  # fmt: skip
    run("kad", "inspect", artifact)
    images = sorted((boards / "test").glob("*.jpg"))
    annotations = boards / "annotations.json"
    run("kad", "score", artifact, *images, "--annotations", annotations, "--out", folder / "scores")
    run("kad", "evaluate", artifact, boards, "--out", folder / "evaluation")
    print_products(folder, time.perf_counter() - started)
    if weights != "imagenet":
        print("These are the figures of an untrained network: no ImageNet weights were found.")


if __name__ == "__main__":
    main()
