"""Compare an artifact's runtime with plain PyTorch, patch by patch, on a data set's test images.

    python tests/export/compare_with_torch.py X.kad DATA --weights FILE [--limit N] [--json OUT]

Prints, as JSON, the figures of both and how far they are apart; with --json also writes it. Exits
with 1 when a patch distance differs by more than 1e-4 of its value, or an AUROC by more than 0.001.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from plain_patchcore import PlainPatchCore, read_rgb

from kad_sdk import Artifact
from kad_sdk._native import NativeIndex
from kad_sdk.dataset import Sample, read_mask, scan_dataset
from kad_sdk.metrics import PixelMetrics, roc_auc
from kad_sdk.patchcore import PatchCoreScorer
from kad_sdk.session import NetworkSession

DISTANCE_TOLERANCE = 1e-4  # of the distance
AUROC_TOLERANCE = 0.001


class Figures:
    """Scores, labels and maps of one of the two implementations."""

    def __init__(self) -> None:
        self.images, self.image_labels = [], []
        self.tiles, self.tile_labels = [], []
        self.pixels = PixelMetrics()

    def add(self, truth, *, image: float, tiles: np.ndarray, anomaly_map: np.ndarray) -> None:
        """Take in an image; `truth` is its label, its tiles' labels, and its mask."""
        image_label, tile_labels, mask = truth
        self.images.append(float(image))
        self.image_labels.append(image_label)
        self.tiles.extend(tiles.tolist())
        self.tile_labels.extend(tile_labels)
        self.pixels.add(anomaly_map.astype(np.float32), mask)

    def to_dict(self) -> dict[str, float | None]:
        """AUROC at each level, and AUPRO."""
        return {
            "image_roc_auc": roc_auc(self.image_labels, self.images),
            "tile_roc_auc": roc_auc(self.tile_labels, self.tiles),
            "pixel_roc_auc": self.pixels.roc_auc().value,
            "aupro": self.pixels.aupro().value,
        }


def tile_truth(mask: np.ndarray, xy, frame: tuple[int, int], tile: int) -> list[int]:
    """Label each tile 1 when a defect pixel of the image falls into it."""
    y, x = np.nonzero(mask)
    # A defect pixel covers this much of the frame that tiles are cut from.
    top, bottom = y * frame[0] / mask.shape[0], (y + 1) * frame[0] / mask.shape[0]
    left, right = x * frame[1] / mask.shape[1], (x + 1) * frame[1] / mask.shape[1]
    hits = [(right > i) & (left < i + tile) & (bottom > j) & (top < j + tile) for i, j in xy]
    return [int(hit.any()) for hit in hits]


class Pair:
    """The runtime and plain PyTorch, side by side on one artifact."""

    def __init__(self, artifact: Artifact, weights: Path, *, threads: int) -> None:
        manifest = artifact.manifest
        self.tau, self.tile = manifest.thresholds, manifest.preprocessing.tile
        self.plain = PlainPatchCore(manifest, artifact.bank, weights)
        self.runtime = PatchCoreScorer(
            NetworkSession(artifact.network, threads=threads),
            NativeIndex(artifact.bank, threads=threads),
            preprocessing=manifest.preprocessing,
            patchcore=manifest.patchcore,
            map_settings=manifest.map,
            neighbors=artifact.neighbors,
            threads=threads,
        )
        self.figures = {"plain_pytorch": Figures(), "runtime": Figures()}
        self.worst = dict.fromkeys(("distance", "tile_score", "image_score", "map"), 0.0)
        self.flips = self.patches = 0

    def add(self, sample: Sample) -> None:
        """Score an image both ways."""
        image = read_rgb(sample.path)
        mask = read_mask(sample, *image.shape[:2])
        ours = self.runtime.score(image)
        theirs = self.plain.score(image, self.runtime.prepare(image))
        assert ours.xy.tolist() == [list(corner) for corner in theirs.xy]
        by_map = self.tau.board == "map-peak"
        top = ours.map.max() if by_map else ours.scores.max()
        our_map = resized(ours.map, image.shape[:2])
        truth = (sample.label, tile_truth(mask, theirs.xy, ours.map.shape, self.tile), mask)
        both = self.figures["runtime"], self.figures["plain_pytorch"]
        both[0].add(truth, image=top, tiles=ours.scores, anomaly_map=our_map)
        both[1].add(truth, image=theirs.image, tiles=theirs.tiles, anomaly_map=theirs.map)
        self._differ("distance", ours.tiles.patches, theirs.dist)
        self._differ("tile_score", ours.scores, theirs.tiles, self.tau.tile)
        self._differ("image_score", top, theirs.image, self.tau.map if by_map else self.tau.tile)
        self._differ("map", our_map, theirs.map)
        self.patches += ours.tiles.patches.size

    def _differ(self, name: str, ours, theirs, threshold: float | None = None) -> None:
        relative = float(np.max(np.abs(ours - theirs) / theirs))
        self.worst[name] = max(self.worst[name], relative)
        if threshold is not None:
            self.flips += int(np.sum((ours >= threshold) != (theirs >= threshold)))

    def to_dict(self) -> dict:
        """Figures of both, and how far they are apart."""
        return {
            **{name: figures.to_dict() for name, figures in self.figures.items()},
            "largest_relative_difference": self.worst,
            "decisions_that_differ": self.flips,
            "images": len(self.figures["runtime"].images),
            "tiles": len(self.figures["runtime"].tiles),
            "patches": self.patches,
        }


def compare(artifact: Artifact, samples: list[Sample], weights: Path, *, threads: int) -> dict:
    """Score the samples both ways; progress goes to the error output."""
    pair = Pair(artifact, weights, threads=threads)
    for number, sample in enumerate(samples, 1):
        pair.add(sample)
        print(f"{number}/{len(samples)} {sample.name}: {pair.worst}", file=sys.stderr)  # noqa: T201
    return pair.to_dict()


def resized(anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bring a map to the image's own pixels, as the detector does."""
    from kad_sdk._native import resize_map

    return anomaly_map if anomaly_map.shape == size else resize_map(anomaly_map, *size)


def agrees(found: dict) -> bool:
    """Whether the two are as near to each other as they must be."""
    plain, runtime = found["plain_pytorch"], found["runtime"]
    near = [
        plain[key] is None or abs(plain[key] - runtime[key]) <= AUROC_TOLERANCE for key in plain
    ]
    return all(near) and found["largest_relative_difference"]["distance"] <= DISTANCE_TOLERANCE


def main() -> int:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, required=True, help="the network's .safetensors")
    parser.add_argument("--limit", type=int, help="every so many images that N are left")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    samples = list(scan_dataset(given.data).test)
    samples = samples[:: max(1, len(samples) // (given.limit or len(samples)))]
    found = compare(Artifact.open(given.artifact), samples, given.weights, threads=given.threads)
    text = json.dumps(found, indent=2)
    print(text)  # noqa: T201
    if given.json:
        given.json.write_text(text + "\n")
    return 0 if agrees(found) else 1


if __name__ == "__main__":
    sys.exit(main())
