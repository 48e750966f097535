"""Find an artifact's thresholds anew, on boards that it was not fitted on.

Boards are scored as :class:`kad_sdk.Detector` scores them, and the rules of
:mod:`kad_sdk.thresholds` are applied. How far tau, and the rate of false alarms, hang on the boards
that happened to be at hand is told by a bootstrap (Efron & Tibshirani 1993, percentile intervals)
in which boards are drawn, good and defective ones apart: the tiles of a board share a moment and a
material, and drawing tiles would promise far more than is known.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from kad_sdk.dataset import read_mask, resize_mask, tile_labels
from kad_sdk.errors import AnnotationError, CalibrationError, InvalidArgumentError, KadError
from kad_sdk.images import read_image
from kad_sdk.inspection import CalibrationEntry, FalseAlarms, Tau
from kad_sdk.judge import told_tiles
from kad_sdk.manifest import PatchCoreManifest
from kad_sdk.prepare import bright_tiles, prepare_image
from kad_sdk.rules import NO_RULES
from kad_sdk.thresholds import (
    DEFAULT_THRESHOLD,
    ThresholdMethod,
    TileScores,
    calibrate,
    find_taus,
    tile_peaks,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from kad_sdk.dataset import Dataset, Sample
    from kad_sdk.detector import Detector
    from kad_sdk.manifest import Manifest, Preprocessing
    from kad_sdk.rules import Rules

__all__ = ["calibration_boards", "calibration_entry", "name_warning", "score_tiles"]

CONFIDENCE, RESAMPLES = 0.95, 999
FEW_BOARDS = 20  # below that the bootstrap itself is rough


def calibration_boards(dataset: Dataset, method: ThresholdMethod) -> list[Sample]:
    """Give the boards that a threshold is found on: none that the artifact was fitted on.

    Methods that need labels take the test boards with ground truth, the others the good ones of
    them, or all images of a plain folder.

    Raises
    ------
    CalibrationError
        There are no such boards.
    AnnotationError
        Some of them have an annotation and others none: those would be scored whole, with their
        black surround.
    """
    boards = (_labelled_boards if method.labelled else _good_boards)(dataset, method)
    _check_annotated_alike(dataset, boards)
    return boards


def _labelled_boards(dataset: Dataset, method: ThresholdMethod) -> list[Sample]:
    """Give the test boards with ground truth; defective ones have normal tiles too."""
    known = [s for s in dataset.test if s.label == 0 or (s.label == 1 and s.mask_path)]
    if not (any(s.label for s in known) if method.needs_defects else known):
        what = "labelled defects" if method.needs_defects else "ground truth"
        raise CalibrationError(
            f"threshold {method} needs boards with {what}, and {dataset.root} has none: add boards "
            "with ground truth to test/ (an empty one says that a board is good), or take a "
            "threshold from good boards alone, such as false-alarms-per-board=0.01 or "
            f"{DEFAULT_THRESHOLD}"
        )
    return known


def _good_boards(dataset: Dataset, method: ThresholdMethod) -> list[Sample]:
    """Give the images of a plain folder, else the good boards in test/."""
    if dataset.layout == "folder":
        return list(dataset.train)
    good = [sample for sample in dataset.test if sample.label == 0]
    if not good:
        raise CalibrationError(
            f"threshold {method} needs good boards, and {dataset.root} has none in test/ (an empty "
            "ground truth says that a board is good): add some that the artifact was not fitted "
            "on, or give a folder of them"
        )
    return good


def _check_annotated_alike(dataset: Dataset, boards: list[Sample]) -> None:
    """Refuse annotations of some boards: one surround would be the largest score of them all."""
    bare = [sample.name for sample in boards if sample.annotation is None]
    if 0 < len(bare) < len(boards):
        raise AnnotationError(
            f"{dataset.root}: the annotations name {len(boards) - len(bare)} of {len(boards)} "
            f"boards, and not {bare[0]}: the threshold would be that of its surround. Expected all "
            "or none: add an entry for each (an empty one, {}, is all of the image)"
        )


def name_warning(samples: list[Sample], manifest: Manifest) -> str | None:
    """Say how many boards have names of images that the bank was made of, if any.

    As much of a board's path is compared as the bank's name has, folders and all: each kind of an
    MVTec data set begins with 000.png.
    """
    if not isinstance(manifest, PatchCoreManifest):
        return None
    fitted = set(manifest.bank.images)
    same = sum(not fitted.isdisjoint(_endings(sample.path)) for sample in samples)
    if not same:
        return None
    have = "has the name of an image" if same == 1 else "have the names of images"
    return (
        f"{same} of {len(samples)} boards {have} that the artifact was fitted on: if they are the "
        "same, the bank knows them, and the threshold comes out too low; leave them out"
    )


def _endings(path: Path) -> Iterator[str]:
    """Give a file's name, its name with its folder, and so on up to all of its path."""
    parts = path.absolute().parts
    return ("/".join(parts[i:]) for i in range(len(parts)))


def score_tiles(
    detector: Detector, samples: list[Sample], progress: Callable[[int], object] | None = None
) -> TileScores:
    """Score boards by the rules in force and label their tiles by ground truth.

    Tiles that are not judged, or of which the rules hide all defects, are left out. `progress` is
    told 1 for each board.

    Raises
    ------
    KadError
        A board cannot be read or scored; the text names it.
    """
    tiles, preprocessing = TileScores(), detector.artifact.manifest.preprocessing
    tile = preprocessing.tile
    for sample in samples:
        image = read_image(sample.path)
        try:
            board = detector.board_scores(image, sample.annotation)
        except KadError as error:
            raise type(error)(f"{sample.name}: {error}") from error
        if board.map is None:
            raise InvalidArgumentError("detector: expected one with maps: open it with maps=True")
        mask = resize_mask(read_mask(sample, *image.shape[:2]), board.frame)
        kept = ~np.isnan(board.judged) & told_tiles(mask, ~np.isnan(board.map), board.xy, tile)
        defect, xy = tile_labels(mask, board.xy[kept], tile), board.xy[kept]
        tiles.add(board.judged[kept], tile_peaks(board.map, xy, tile), defect, board.map_score())
        tiles.dark += _n_dark(image, xy, preprocessing)
        if board.board is not None:
            board.board.close()
        if progress is not None:
            progress(1)
    return tiles


def _n_dark(image: NDArray[Any], xy: NDArray[np.integer[Any]], preprocessing: Preprocessing) -> int:
    """Count the tiles (n, 2) that are as dark as those that training leaves out."""
    # Denoising hardly moves a tile's mean, and takes longest of all: spare it here.
    plain = prepare_image(image, resize=preprocessing.resize, denoise=None)
    return int((~bright_tiles(plain, xy, preprocessing.tile)).sum())


def calibration_entry(
    method: ThresholdMethod,
    tiles: TileScores,
    *,
    by_map: bool,
    rules: Rules = NO_RULES,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[CalibrationEntry, tuple[str, ...]]:
    """Find thresholds, and how sure they are.

    Parameters
    ----------
    method
        How.
    tiles
        Of boards that the artifact was not fitted on.
    by_map
        Whether the map's peak decides a board, or its largest tile.
    rules
        Under which the boards were scored.
    resamples, seed
        Of the bootstrap.

    Returns
    -------
    CalibrationEntry
        Made now.
    tuple of str
        What the user should know about it.

    Raises
    ------
    CalibrationError
        The tiles at hand cannot give what the method asks for.
    """
    found = calibrate(method, tiles)
    taus = np.array([find_taus(method, one) for one in _resampled(tiles, resamples, seed)])
    good = sum(board.good for board in tiles.boards)
    defects = sum(int(board.defect.sum()) for board in tiles.boards)
    board_tau, level = (found.map, 1) if by_map else (found.tile, 0)
    entry = CalibrationEntry(
        method=str(method),
        time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        tile=Tau(found.tile, found.tile_scale, _interval(taus[:, 0])),
        map=Tau(found.map, found.map_scale, _interval(taus[:, 1])),
        confidence=CONFIDENCE,
        good_boards=good,
        defective_boards=len(tiles.boards) - good,
        normal_tiles=found.samples - defects,
        defect_tiles=defects,
        tile_false_alarms=_false_alarms(tiles.normal(by_map=False), found.tile, taus[:, 0]),
        board_false_alarms=_false_alarms(
            tiles.normal(by_map=by_map, per_board=True), board_tau, taus[:, level]
        ),
        rules=rules,
    )
    return entry, (*found.warnings, *_dark(tiles.dark), *_few_boards(len(tiles.boards)))


def _dark(n: int) -> tuple[str, ...]:
    if n == 0:
        return ()
    return (
        f"{n:,} tiles of the boards are as dark as the surround that training leaves out (mean "
        "grey of at most 31 of 255); they count, and may raise the thresholds. Where that is no "
        "part of a board, name the boards' active areas in annotations.json",
    )


def _few_boards(n: int) -> tuple[str, ...]:
    if n >= FEW_BOARDS:
        return ()
    return (f"the intervals come of {n} boards, and are rough: take {FEW_BOARDS} or more",)


def _resampled(tiles: TileScores, n: int, seed: int) -> Iterator[TileScores]:
    """Draw as many boards with replacement, good and defective ones apart."""
    rng = np.random.default_rng(seed)
    groups = [[b for b in tiles.boards if b.good == good] for good in (True, False)]
    for _ in range(n):
        yield TileScores([g[i] for g in groups if g for i in rng.integers(0, len(g), len(g))])


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(values, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return float(low), float(high)


def _false_alarms(
    normal: NDArray[np.floating], tau: float, taus: NDArray[np.float64]
) -> FalseAlarms | None:
    """Share of normal values (n,) at or above tau; and where that lies for taus (R,) of resamples.

    As tau of a resample is to this sample, so is tau of this sample to all boards there may be.
    """
    if not normal.size:
        return None
    ranked = np.sort(normal)
    shares = 1 - np.searchsorted(ranked, [tau, *taus]) / ranked.size
    return FalseAlarms(float(shares[0]), _interval(shares[1:]))
