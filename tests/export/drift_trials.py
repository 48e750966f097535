"""How often `kad drift` alarms, with a real network: on fresh boards, on darker and on lined ones.

Makes synthetic boards of one camera, fits PatchCore to the first, scores the others as they are and
changed, and compares days with references in 200 seeded trials for each change. Every trial draws
its reference and its day from boards that were scored, never the same board for both::

    KAD_WEIGHTS_DIR=weights python tests/export/drift_trials.py
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from kad_export.options import PatchCoreOptions
from kad_export.pipeline import export_patchcore
from kad_export.synth import generate_dataset

from kad_sdk import Detector, read_annotations, read_image
from kad_sdk.drift import compare_boards
from kad_sdk.score_log import entry_of

if TYPE_CHECKING:
    from collections.abc import Callable

    Change = Callable[[np.ndarray], np.ndarray]

TRIALS, N_FITTED, N_FRESH, N_CHANGED = 200, 8, 48, 14
N_REFERENCE, N_DAY = 30, 10
SIZE, SEED = (700, 700), 6


def dimmer(share: float) -> Change:
    """Less light."""
    return lambda image: (share * image).astype(np.uint8)


def lined(sigma: float) -> Change:
    """Lines of each colour down the board, with a standard deviation in grey levels."""
    lines = np.random.default_rng(SEED).normal(0, sigma, (1, SIZE[1], 3))
    return lambda image: np.clip(image + lines, 0, 255).astype(np.uint8)


CHANGES: dict[str, Change] = {
    "none: fresh boards": lambda image: image,
    "7 % less light": dimmer(0.93),
    "15 % less light": dimmer(0.85),
    "colour lines, 3 levels": lined(3),
    "colour lines, 6 levels": lined(6),
}


def score_boards(folder: Path, weights: Path) -> dict[str, np.ndarray]:
    """Measures (boards, F) for each change: of all fresh boards, or of the last ones."""
    boards, few = folder / "boards", folder / "few"
    generate_dataset(boards, boards=N_FITTED + N_FRESH, test_boards=1, size=SIZE, seed=SEED)
    generate_dataset(few, boards=N_FITTED, test_boards=1, size=SIZE, seed=SEED)  # its first ones
    options = PatchCoreOptions(weights=str(weights), holdout=0.2)
    annotations = read_annotations(boards / "annotations.json")
    found: dict[str, list[np.ndarray]] = {name: [] for name in CHANGES}
    with Detector.open(export_patchcore(few, folder / "x.kad", options)) as detector:
        for i in range(N_FITTED, N_FITTED + N_FRESH):
            name = f"train_{i:04d}.jpg"
            image = read_image(boards / "train" / name)
            last = i >= N_FITTED + N_FRESH - N_CHANGED
            for change in CHANGES if last else list(CHANGES)[:1]:
                pixels = CHANGES[change](image)
                entry = entry_of(detector, detector.score(pixels, annotations[name]), pixels, name)
                found[change].append(np.array([*entry.tile_quantiles, entry.brightness]))
    return {change: np.array(rows) for change, rows in found.items()}


def alarms(fresh: np.ndarray, changed: np.ndarray | None, rate: float) -> int:
    """Alarms of all trials; `changed` None: days of fresh boards."""
    rng, count = np.random.default_rng(SEED), 0
    for _ in range(TRIALS):
        if changed is None:
            order = rng.permutation(len(fresh))
            reference, day = fresh[order[:N_REFERENCE]], fresh[order[-N_DAY:]]
        else:
            others = fresh[: len(fresh) - N_CHANGED]
            reference = others[rng.permutation(len(others))[:N_REFERENCE]]
            day = changed[rng.permutation(N_CHANGED)[:N_DAY]]
        count += compare_boards(day, reference, false_alarm_rate=rate, permutations=1999).alarm
    return count


def only(rows: np.ndarray, kept: slice) -> np.ndarray:
    """Some measures alone: the others are the same for all boards, and say nothing."""
    alone = np.zeros_like(rows)
    alone[:, kept] = rows[:, kept]
    return alone


def table(found: dict[str, np.ndarray]) -> str:
    """Lay out the alarms of each change as Markdown: of scores, of brightness, of both."""
    lines = [
        f"| alarms in {TRIALS} trials | rate | tile scores alone | brightness alone | both |",
        "|---|---|---|---|---|",
    ]
    fresh = next(iter(found.values()))
    for change, rows in found.items():
        for rate in (0.01, 0.05):
            counts = [
                alarms(only(fresh, kept), None if rows is fresh else only(rows, kept), rate)
                for kept in (np.s_[:-1], np.s_[-1:], np.s_[:])
            ]
            lines.append(f"| {change} | {rate} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


def main() -> None:
    """Run as a script."""
    weights = Path(os.environ["KAD_WEIGHTS_DIR"]) / "resnet18_trunk.safetensors"
    with tempfile.TemporaryDirectory() as folder:
        print(table(score_boards(Path(folder), weights)))  # noqa: T201


if __name__ == "__main__":
    main()
