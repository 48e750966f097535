"""New boards that the artifact itself finds anomalous: perhaps not the good ones they should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kad_sdk.detector import Detector, open_scorer
from kad_sdk.errors import AnnotationError, ImageTooSmallError
from kad_sdk.images import read_image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kad_export.report import Silent
    from kad_sdk.artifact import Artifact
    from kad_sdk.dataset import Sample

__all__ = ["anomalous_boards", "warn_of_anomalous"]

NAMED = 5


def warn_of_anomalous(
    artifact: Artifact, samples: Sequence[Sample], console: Silent, *, threads: int, batch: int
) -> None:
    """Say which boards are anomalous before they become normal; some may be false alarms.

    Parameters
    ----------
    artifact
        What they are added to, with the thresholds and rules that it has now.
    samples
        The new boards.
    console
        Told the progress, and the boards.
    threads, batch
        As a detector takes them.
    """
    with (
        console.step("judging"),
        console.progress("judging", len(samples), "boards") as bar,
        _detector(artifact, threads=threads, batch=batch) as detector,
    ):
        names = anomalous_boards(detector, samples, bar.advance)
    if not names:
        return
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    console.warn(
        f"{len(names)} of the {len(samples)} new boards {'is' if len(names) == 1 else 'are'} "
        f"anomalous by {artifact.path.name}: {', '.join(names[:NAMED])}{more}. Make sure that they "
        "are good: all of their patches become normal"
    )


def anomalous_boards(
    detector: Detector, samples: Sequence[Sample], advance: Callable[[int], object]
) -> list[str]:
    """Give the names of the boards that a detector rejects; `advance` is told 1 for each board.

    One that cannot be judged is none of them: its active area is smaller than a tile, say, which
    training does not ask for.
    """
    names = []
    for sample in samples:
        try:
            anomalous = detector.score(read_image(sample.path), sample.annotation).anomalous
        except (AnnotationError, ImageTooSmallError):
            anomalous = False
        if anomalous:
            names.append(sample.name)
        advance(1)
    return names


def _detector(artifact: Artifact, *, threads: int, batch: int) -> Detector:
    """Open the artifact that is at hand, which may have been replaced on disk meanwhile.

    Without maps where a board's largest tile decides: that takes less time.
    """
    maps = artifact.thresholds.board == "map-peak"
    scorer = open_scorer(
        artifact,
        provider="cpu",
        build_engine=False,
        maps=maps,
        threads=threads,
        batch=batch,
        device_id=0,
    )
    return Detector(artifact, scorer, maps=maps, tile_threshold=None, map_threshold=None)
