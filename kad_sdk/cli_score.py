"""The work of ``kad score``: which boards go where, and writing what was found."""

from __future__ import annotations

import json
import resource
import statistics
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kad_sdk.annotations import find_annotation
from kad_sdk.errors import (
    AnnotationError,
    ImageReadError,
    ImageTooSmallError,
    InvalidArgumentError,
)
from kad_sdk.images import list_images, read_image
from kad_sdk.render import map_npy, map_png, picture_png, render_map, render_overlay
from kad_sdk.score_log import append_entry, entry_of
from kad_sdk.scoring import Stopwatch
from kad_sdk.storage import made_folder, write_together

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from kad_sdk.annotations import Annotation
    from kad_sdk.detector import Detector
    from kad_sdk.result import Result

__all__ = ["Job", "Outputs", "Summary", "plan_jobs", "score_job"]

# What is wrong with one board alone: the others are still scored.
BOARD_ERRORS = (ImageReadError, ImageTooSmallError, AnnotationError)


@dataclass(frozen=True)
class Job:
    """One board: its file, and its outputs' path without suffix, relative to the output folder."""

    image: Path
    stem: Path
    annotation: Annotation | None


@dataclass(frozen=True)
class Outputs:
    """What is written for a board besides its JSON, and where."""

    folder: Path
    maps: bool
    npy: bool
    hot: bool
    overlay: bool
    heat: bool
    max_side: int | None
    log_scores: Path | None = None


@dataclass
class Summary:
    """Times and verdicts over the boards so far."""

    stages: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    begin: float = field(default_factory=time.perf_counter)
    scored: int = 0
    anomalous: int = 0
    failed: int = 0

    def add(self, result: Result, timings_ms: Mapping[str, float]) -> None:
        """Take in a board."""
        self.scored += 1
        self.anomalous += result.anomalous
        for stage, ms in timings_ms.items():
            self.stages[stage].append(ms)

    def lines(self) -> list[str]:
        """Lay out the medians as a table, and the peak memory."""
        medians = {stage: statistics.median(values) for stage, values in self.stages.items()}
        medians["total"] = total = medians.pop("total", 0.0)  # the last row
        rows = [
            f"  {stage:<12}{ms:>12.1f}{100 * ms / total if total else 0:>8.1f} %"
            for stage, ms in medians.items()
        ]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB
        head = f"{self.scored} scored, {self.anomalous} anomalous, {self.failed} failed"
        if not self.stages:
            return [head]
        rate = 60 * self.scored / (time.perf_counter() - self.begin)
        tail = f"{rate:.1f} boards a minute, peak memory {peak:.0f} MiB"
        return [head, f"  {'stage':<12}{'median ms':>12}", *rows, tail]


def plan_jobs(
    images: Sequence[Path], annotations: Mapping[str, Annotation] | None, out: Path
) -> list[Job]:
    """List the boards; those of a folder keep their place in it.

    Raises
    ------
    ImageReadError
        A file or folder is missing, or a folder holds no images.
    AnnotationError
        An image is not named in `annotations`.
    InvalidArgumentError
        Two boards would be written to the same files, or `out` lies among the images.
    """
    for entry in images:
        folder = entry if entry.is_dir() else entry.parent
        if out.resolve() == folder.resolve() or (
            entry.is_dir() and out.resolve().is_relative_to(entry.resolve())
        ):
            raise InvalidArgumentError(
                f"--out {out} lies among the images: results could replace images, and would be "
                "scored as boards the next time; name another folder"
            )
    places: list[tuple[Path, Path]] = []
    for entry in images:
        if entry.is_dir():
            places += [(p, p.relative_to(entry).with_suffix("")) for p in list_images(entry)]
        elif entry.is_file():
            places.append((entry, Path(entry.stem)))
        else:
            raise ImageReadError(f"{entry}: no such image file or folder")
    taken: dict[Path, Path] = {}
    for image, stem in places:
        other = taken.setdefault(stem, image)
        if other.resolve() != image.resolve():
            raise InvalidArgumentError(
                f"{other} and {image} would both be written to {stem}.json; rename one, score "
                "them in two calls, or give a folder above both"
            )
    return [
        Job(image, stem, None if annotations is None else find_annotation(annotations, image))
        for stem, image in taken.items()
    ]


def score_job(detector: Detector, job: Job, outputs: Outputs) -> tuple[Result, dict[str, float]]:
    """Score a board and write its files, all or none; the JSON comes last.

    Returns
    -------
    tuple
        The result, and stage to ms with ``read``, ``encode`` (the pictures are made), ``write``
        and ``total``; the JSON has those up to ``encode``.
    """
    begin = time.perf_counter()
    watch = Stopwatch()
    with watch.stage("read"):
        image = read_image(job.image)
    result = detector.score(image, job.annotation)
    timings = {**watch.ms, **result.timings_ms}
    base = outputs.folder / job.stem
    watch = Stopwatch()
    files = {}
    if outputs.maps:
        with watch.stage("encode"):
            files = _pictures(image, result, base, outputs, detector.threads)
    timings = {**timings, **watch.ms, "total": 1e3 * (time.perf_counter() - begin)}
    high = 2 * result.map_threshold
    scale = {"file": _beside(base, "_map.png").name, "value_1": 0.0, "value_65535": high}
    content = {
        **result.to_dict(),
        "image": job.image.name,
        "timings_ms": {stage: round(ms, 3) for stage, ms in timings.items()},
        "map": scale if outputs.maps else None,
        "provider": detector.provider,
        "device": detector.device,
        "precision": detector.precision,
        "artifact": detector.artifact.path.name,
    }
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    with watch.stage("write"), made_folder(base.parent):
        write_together({**files, _beside(base, ".json"): [text.encode()]})
        if outputs.log_scores is not None:
            append_entry(outputs.log_scores, entry_of(detector, result, image, job.image.name))
    return result, {**timings, **watch.ms, "total": 1e3 * (time.perf_counter() - begin)}


def _pictures(
    image: NDArray[Any], result: Result, base: Path, outputs: Outputs, threads: int
) -> dict[Path, list[bytes]]:
    """Make the files that show where; encoding takes one thread for each."""
    side = outputs.max_side

    def overlay() -> bytes:
        return picture_png(render_overlay(image, result, max_side=side, heat=outputs.heat))

    def hot() -> bytes:
        return picture_png(render_map(result, max_side=side))

    anomaly_map = result.need_map()
    makers: dict[str, Callable[[], bytes]] = {"_overlay.png": overlay} if outputs.overlay else {}
    makers["_map.png"] = partial(map_png, anomaly_map, high=2 * result.map_threshold)
    if outputs.npy:
        makers["_map.npy"] = partial(map_npy, anomaly_map)
    if outputs.hot:
        makers["_hot.png"] = hot
    with ThreadPoolExecutor(min(threads, len(makers))) as pool:
        made = pool.map(lambda make: [make()], makers.values())
        return dict(zip((_beside(base, ending) for ending in makers), made, strict=True))


def _beside(base: Path, ending: str) -> Path:
    return base.with_name(base.name + ending)
