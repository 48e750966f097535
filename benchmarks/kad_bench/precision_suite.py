"""The precisions of an export side by side: detection quality, time of a tile, size.

Each precision is exported on its own, by ``kad-export patchcore --precision``, and evaluated as
``kad evaluate`` does. Banks differ besides by the draw that selects them, so float32 is exported
once more with another seed: a difference of AUROC that is no larger than the one between these two
says nothing of a precision.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from kad_export.options import PatchCoreOptions
from kad_export.pipeline import export_patchcore

from kad_bench.answers import WrongAnswerError
from kad_bench.features import data_folder
from kad_bench.measure import interleave, ratios, summarise
from kad_bench.models import Boards, prepare_boards
from kad_bench.precision_report import table
from kad_sdk import Detector
from kad_sdk._native import plan_tiles, preprocess
from kad_sdk.artifact import PatchCoreArtifact
from kad_sdk.dataset import scan_dataset
from kad_sdk.evaluation import score_test_images
from kad_sdk.images import read_image
from kad_sdk.prepare import prepare_image
from kad_sdk.scoring import Stopwatch
from kad_sdk.verify import verify_artifact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from kad_bench.suites import Settings
    from kad_sdk.dataset import Dataset

__all__ = ["CASES", "run", "table"]

PRECISIONS = ("fp32", "fp16", "int8")
OTHER_SEED = "fp32, seed 1"
BATCH = 16
FIGURES = ("image_roc_auc", "pixel_roc_auc", "aupro", "tile_roc_auc")


@dataclass(frozen=True)
class Case:
    """A data set, and how it is exported; without a name synthetic boards, and random weights."""

    data: str | None
    how: str
    options: dict[str, Any] = field(default_factory=dict)

    def folder(self, settings: Settings) -> Path:
        """Where the images are."""
        if self.data is None:
            return prepare_boards(Boards(train=2, test=4, size=(600, 560)), settings)
        return data_folder(self.data)

    def export_options(self, precision: str, seed: int, threads: int) -> PatchCoreOptions:
        """Give the options of one export."""
        weights = "imagenet" if self.data else "random:0"
        return PatchCoreOptions(
            weights=weights, precision=precision, seed=seed, threads=threads, **self.options
        )


_WHOLE = {"resize": (224, 224)}
CASES = (
    Case("kolektor_sdd", "half resolution", {"resize": 0.5, "max_bank": 5000}),
    Case("kolektor_sdd", "whole image", {**_WHOLE, "coreset": 0.07, "max_bank": 4000}),
    Case(
        "magnetic_tile",
        "whole image",
        {**_WHOLE, "coreset": 0.03, "max_bank": 4000, "holdout": 0.02},
    ),
    Case("hazelnut", "whole image", {**_WHOLE, "coreset": 0.1}),
)
"""Those of the README's table of detection quality, ResNet-18 at 224 px."""

PROFILES = {
    "smoke": (
        (Case(None, "synthetic", {"train_stride": 224, "coreset": 1.0, "max_bank": 200}),),
        2,
    ),
    "regular": (CASES, 25),
    "full": (CASES, 99),
}
"""Profile to cases, and rounds of the times."""


def run(settings: Settings) -> dict[str, Any]:
    """Export, evaluate and time every case in every precision.

    Returns
    -------
    dict
        ``cases``, see :mod:`kad_bench.suites`; each with ``network_ratios``, float32's time of the
        network over that of another precision, and of each engine ``size_bytes`` and ``off``, how
        far base maps are from float32 PyTorch's.
    """
    cases, rounds = PROFILES[settings.profile]
    return {"cases": [_measure(case, rounds, settings) for case in cases]}


def _measure(case: Case, rounds: int, settings: Settings) -> dict[str, Any]:
    name = f"{case.data or 'synthetic boards'}, {case.how}"
    data = case.folder(settings)
    dataset = scan_dataset(data)
    engines, paths = {}, {}
    with tempfile.TemporaryDirectory(dir=_made(settings.cache)) as folder:
        for engine in (*PRECISIONS, OTHER_SEED):
            precision, _, seed = engine.partition(", seed ")
            settings.say(f"precision: {name}: {engine}")
            options = case.export_options(precision, int(seed or 0), settings.threads)
            path = Path(folder) / f"{engine.replace(', ', '-')}.kad".replace(" ", "-")
            paths[engine] = export_patchcore(data, path, options)
            engines[engine] = _judge(paths[engine], dataset, settings)
            if case.data is None:  # random weights: the figures would say nothing
                engines[engine]["accuracy"] = {}
        del paths[OTHER_SEED]  # its time is that of float32
        seconds, stages, batch = _time(paths, dataset, rounds, settings)
    for engine, taken in seconds.items():
        engines[engine] |= {
            "seconds": summarise(taken),
            "stages_s": {stage: float(np.median(s)) for stage, s in stages[engine].items()},
            "batch": batch,
        }
    network = {engine: found["network"] for engine, found in stages.items()}
    first, *others = PRECISIONS
    return {
        "case": name,
        "what": f"{len(dataset.test)} test images; options {_words(case.options)}",
        "unit": "tile",
        "engines": {f"kad {engine}": figures for engine, figures in engines.items()},
        "ratios": {
            f"kad {other}": {f"kad {first}": ratios(seconds[first], seconds[other])}
            for other in others
        },
        "network_ratios": {
            f"kad {other}": ratios(network[first], network[other]) for other in others
        },
        "skipped": {},
    }


def _judge(path: Path, dataset: Dataset, settings: Settings) -> dict[str, Any]:
    """Check an artifact's golden tiles, and evaluate it on the test images."""
    if not verify_artifact(path, threads=settings.threads).passed:
        raise WrongAnswerError(f"{path.name}: its golden tiles are not reproduced: it is not timed")
    artifact = PatchCoreArtifact.open(path)
    with Detector.open(path, threads=settings.threads) as detector:
        figures = score_test_images(detector, dataset).figures()
    told = artifact.manifest.verification
    outputs = told.get("precision", told)["outputs"].values()
    off = {"largest": max(output["max_rel"] for output in outputs)}
    if "precision" in told:
        off["rms"] = max(output["rms_rel"] for output in outputs)
    return {
        "accuracy": {name: figures[name] for name in FIGURES if figures[name] is not None},
        "off": off,
        "size_bytes": {
            "network": len(artifact.network),
            "artifact": sum(entry.size for entry in artifact.manifest.files.values()),
        },
        "bank_rows": artifact.manifest.bank.rows,
    }


def _time(
    paths: dict[str, Path], dataset: Dataset, rounds: int, settings: Settings
) -> tuple[dict[str, list[float]], dict[str, dict[str, list[float]]], int]:
    """Time of a tile, input to score, by round, and by stage and round; tiles in a batch."""
    detectors = {name: Detector.open(p, threads=settings.threads) for name, p in paths.items()}
    tiles = _tiles(next(iter(detectors.values())), dataset)
    stages: dict[str, dict[str, list[float]]] = {
        name: {"network": [], "search": []} for name in detectors
    }

    def call(name: str, detector: Detector) -> Callable[[], None]:
        def score() -> None:
            watch = Stopwatch()
            detector._scorer.score_tiles(tiles, watch)
            for stage, found in stages[name].items():
                found.append(watch.ms[stage] / 1e3 / len(tiles))

        return score

    calls = {name: call(name, detector) for name, detector in detectors.items()}
    for name, once in calls.items():
        once()
        for found in stages[name].values():
            found.clear()
    seconds = interleave(calls, rounds)
    for detector in detectors.values():
        detector.close()
    a_tile = {name: [s / len(tiles) for s in taken] for name, taken in seconds.items()}
    return a_tile, stages, len(tiles)


def _tiles(detector: Detector, dataset: Dataset) -> NDArray[np.float32]:
    """Normalised tiles (b, 3, t, t) of the first test images: BATCH, or all if they are fewer."""
    prep = detector.artifact.manifest.preprocessing

    def of_images() -> Iterator[NDArray[np.float32]]:
        for sample in dataset.test:
            image = prepare_image(read_image(sample.path), resize=prep.resize, denoise=None)
            xy = plan_tiles(*image.shape[:2], tile=prep.tile, stride=prep.stride)
            yield from preprocess(image, xy, tile=prep.tile, mean=prep.mean, std=prep.std)

    found = [tile for tile, _ in zip(of_images(), range(BATCH), strict=False)]
    return np.ascontiguousarray(np.stack(found))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _words(options: dict[str, Any]) -> str:
    """Write options as the command line takes them."""

    def text(value: Any) -> str:
        return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)

    return " ".join(f"--{name.replace('_', '-')} {text(v)}" for name, v in options.items())
