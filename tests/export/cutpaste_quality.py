"""Train CutPaste on synthetic boards and measure what the training is good for, by kind of defect.

    python tests/export/cutpaste_quality.py --results benchmarks/results/cutpaste.json \\
        --docs docs/cutpaste.md --repeat

The commands are those that a user types: ``kad-export synth``, ``kad-export cutpaste``,
``kad evaluate``. The network as it was before its training is exported from the same command, by
``--checkpoint``, so that the two columns of the table differ in the training alone.
KAD_WEIGHTS_DIR names the folder with resnet18_trunk.safetensors, which ends with layer3; layer4
and the head are drawn from the seed. It is an error when a kind of defect is ranked no better after
the training than before; with ``--repeat`` all is done a second time, and figures or losses that
are not the same bit by bit are an error too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from kad_bench.pages import replace_between
from kad_export.cutpaste.checkpoint import (
    load_checkpoint,
    read_document,
    to_arrays,
    write_document,
)
from kad_export.cutpaste.network import initialise
from sklearn.metrics import roc_auc_score

from kad_sdk.dataset import read_mask, resize_mask, scan_dataset
from kad_sdk.detector import Detector
from kad_sdk.images import read_image

SYNTH = "--category white-with-edges --boards 12 --test-boards 24 --size 1200x1400 --seed 2"
TRAINING = (
    "--resize 0.5 --tile 64 --stride 64 --train-stride 32 --optimizer adam --learning-rate 0.001 "
    "--epochs 4 --freeze-epochs 4 --steps-per-epoch 25 --validation-tiles 128 --threads 1 "
    "--augment scar-width=1,6 --augment scar-length=10,25 --augment black-dot-diameter=3,5 "
    "--augment white-dot-diameter=3,6 --augment arc-radius=17,45 --augment arc-thickness=2.5"
)
FIGURES = {
    "tile_roc_auc": "tile ROC-AUC",
    "average_precision": "tile average precision",
    "best_f1": "tile best F1",
    "image_roc_auc": "board ROC-AUC",
    "pixel_roc_auc": "pixel ROC-AUC: map of tile scores, of Grad-CAM",
}
SHARES = (0.0, 0.01, 0.05)  # of a tile's area
BEGIN, END = "<!-- quality: made by `make cutpaste` -->", "<!-- end of quality -->"


def run(*words: str | Path) -> dict[str, float]:
    """Run a command of this environment; returns the time it took."""
    program, begun = Path(sys.executable).with_name(str(words[0])), time.monotonic()
    process = subprocess.Popen([program, *map(str, words[1:])])
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{shlex.join(map(str, words))} ended with {process.returncode}")
    minutes = (time.monotonic() - begun) / 60
    return {"minutes": minutes, "processor_minutes": (used.ru_utime + used.ru_stime) / 60}


def evaluate(artifact: Path, boards: Path, folder: Path) -> dict:
    """Score the test boards; returns the tiles' ROC-AUC of all and of each kind, and counts."""
    if not (folder / "metrics.json").exists():
        run("kad", "evaluate", artifact, boards, "--out", folder, "--threads", "1")
    metrics = json.loads((folder / "metrics.json").read_text())
    kinds = {
        kind: {key: facts[key] for key in ("defect_tiles", "tile_roc_auc", "tile_recall")}
        for kind, facts in metrics["kinds"].items()
        if facts.get("defect_tiles")
    }
    counts = {name: metrics["counts"][name] for name in ("normal_tiles", "anomalous_tiles")}
    counts["by_share"] = by_share(artifact, boards)
    keys = (*FIGURES, "recall", "precision", "aupro")
    return {**{key: metrics[key] for key in keys}, **counts, "kinds": kinds}


def by_share(artifact: Path, boards: Path) -> dict[str, dict]:
    """Give the tiles' ROC-AUC where only tiles count as defective of which so much is."""
    scores, shares = [], []
    with Detector.open(artifact, threads=1, maps=False) as detector:
        tile = detector.artifact.manifest.preprocessing.tile
        for sample in scan_dataset(boards).test:
            image = read_image(sample.path)
            result = detector.score(image, sample.annotation)
            mask = resize_mask(read_mask(sample, *image.shape[:2]), result.frame_size) > 0
            scores += [one.score for one in result.tiles]
            shares += [mask[t.y : t.y + tile, t.x : t.x + tile].mean() for t in result.tiles]
    score, share = np.array(scores), np.array(shares)
    found = {}
    for limit in SHARES:
        defect = share > limit
        kept = defect | (share == 0)
        area = float(roc_auc_score(defect[kept], score[kept]))
        found[f"{limit:.0%}"] = {"tiles": int(defect.sum()), "tile_roc_auc": area}
    return found


def untrained(best: Path, weights: Path, target: Path) -> Path:
    """Write the network that a training started from, as a checkpoint of that training."""
    trained = load_checkpoint(best)
    network, _ = initialise(trained.config, str(weights), trained.options.seed)
    write_document(target, to_arrays(network.state_dict()), read_document(best)[1])
    return target


def measure(weights: Path, folder: Path) -> dict:
    """Make boards, train, export, evaluate; what is in the folder already is not done again."""
    boards, artifact, start = folder / "boards", folder / "trained.kad", folder / "untrained.kad"
    kept = folder / "result.json"
    folder.mkdir(parents=True, exist_ok=True)
    if kept.exists():
        return json.loads(kept.read_text())
    if not boards.exists():
        run("kad-export", "synth", boards, *SYNTH.split(), "--quiet")
    best, training = folder / "trained.run" / "best.safetensors", folder / "training.json"
    if not training.exists():
        options = [*TRAINING.split(), "--weights", weights, "--resume", "--force"]
        taken = run("kad-export", "cutpaste", boards, "--out", artifact, *options)
        training.write_text(json.dumps(taken))
    if not start.exists():
        first = untrained(best, weights, folder / "untrained.safetensors")
        plain = ("--map", "tile-score", "--quiet", "--threads", "1")
        run("kad-export", "cutpaste", boards, "--out", start, "--checkpoint", first, *plain)
    losses, document, _ = read_document(folder / "trained.run" / "last.safetensors")
    result = {
        "figures": {
            "trained": evaluate(artifact, boards, folder / "evaluation"),
            "untrained": evaluate(start, boards, folder / "before"),
            "loss": losses["curves/loss"].tolist(),
            "validations": document["validations"],
            "checkpoint_sha256": hashlib.sha256(best.read_bytes()).hexdigest(),
        },
        "verification": json.loads((artifact / "manifest.json").read_text())["verification"],
        "network": load_checkpoint(best).weights.name,
        "training_and_export": json.loads(training.read_text()),
    }
    kept.write_text(json.dumps(result))
    return result


def not_learnt(figures: dict) -> list[str]:
    """Name what the training did not make better: all defects, or one kind of them."""
    trained, before = (
        {"all": one, **one["kinds"]} for one in (figures["trained"], figures["untrained"])
    )
    return [
        kind for kind in trained if trained[kind]["tile_roc_auc"] <= before[kind]["tile_roc_auc"]
    ]


def commands() -> list[str]:
    """Give the commands that made the table, as a user types them."""
    return [
        f"kad-export synth boards {SYNTH}",
        f"kad-export cutpaste boards --out trained.kad {TRAINING} "
        "--weights resnet18_trunk.safetensors",
        "kad evaluate trained.kad boards --out evaluation",
    ]


def table(result: dict) -> str:
    """Lay out the result as Markdown."""
    figures = result["figures"]
    trained, before = figures["trained"], figures["untrained"]
    lines = ["| all defects | untrained | trained |", "|---|---|---|"]
    lines += [
        f"| {name} | {before[key]:.3f} | {trained[key]:.3f} |" for key, name in FIGURES.items()
    ]
    for limit, one in reversed(trained["by_share"].items()):
        if limit != "0%":
            name = f"tile ROC-AUC, of the {one['tiles']} tiles that are defective to over {limit}"
            first = before["by_share"][limit]["tile_roc_auc"]
            lines.insert(3, f"| {name} | {first:.3f} | {one['tile_roc_auc']:.3f} |")
    lines += ["", "| defect | tiles | ROC-AUC untrained | trained | found untrained | trained |"]
    lines.append("|---|---|---|---|---|---|")
    for kind in sorted(trained["kinds"]):
        both = (before["kinds"][kind], trained["kinds"][kind])
        areas = " | ".join(f"{one['tile_roc_auc']:.3f}" for one in both)
        found = " | ".join(f"{one['tile_recall']:.0%}" for one in both)
        lines.append(f"| {kind} | {both[1]['defect_tiles']} | {areas} | {found} |")
    false = (1 - one["precision"] for one in (before, trained))
    lines.append(f"| wrong among those found | | | | {' | '.join(f'{x:.0%}' for x in false)} |")
    minutes = result["training_and_export"]["processor_minutes"]
    validations = ", ".join(f"{v['loss']:.3f}" for v in figures["validations"])
    told = (
        f"Training and export took {minutes:.1f} minutes of processor time; loss on held-out tiles "
        f"by epoch: {validations}. Encoder: {result['network']}."
    )
    return "\n".join([*lines, "", told, "", "```", *commands(), "```"])


def main() -> None:
    """Measure, once or twice, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--docs", type=Path, required=True)
    parser.add_argument("--repeat", action="store_true")
    parser.add_argument("--keep", type=Path, help="keep boards, artifacts and evaluations here")
    given = parser.parse_args()
    if "KAD_WEIGHTS_DIR" not in os.environ:
        sys.exit("KAD_WEIGHTS_DIR is not set: it names the folder of resnet18_trunk.safetensors")
    weights = Path(os.environ["KAD_WEIGHTS_DIR"]) / "resnet18_trunk.safetensors"
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        names = ("first", "second") if given.repeat else ("first",)
        result, *others = (measure(weights, folder / name) for name in names)
    if any(other["figures"] != result["figures"] for other in others):
        sys.exit(f"another run gave other figures: {others[0]['figures']}")
    if worse := not_learnt(result["figures"]):
        sys.exit(f"the training made no better tile ROC-AUC of: {', '.join(worse)}")
    result["repeated"] = given.repeat
    result["commands"] = commands()
    given.results.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    replace_between(given.docs, BEGIN, END, table(result))


if __name__ == "__main__":
    main()
