"""Whole boards in windows, against tiles and the thesis' path, from the file to written results.

Windows are checked against a single pass of PyTorch over all of a part of the board, its distances
in float64: with windows so small that several of them make the part, and as the artifact has them;
and the whole board against itself in windows of other sizes, and cropped.
Windows in 8-bit integers are checked in the same way, against a single pass of their own graph.
Tiles are checked against PyTorch in the same way, the thesis' path as the board suite does. Then
all of them score a board in turn, round by round. Both modes have the pooling that kad-export has
by default, the thesis' path its own. Windows give other scores than tiles, and 8-bit integers other
ones than float32: their quality is another matter, see tests/export/windows_quality.py.
"""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from kad_export import reference
from kad_export.verify import expected_scores
from kad_export.windows import first_patches

from kad_bench.answers import WrongAnswerError
from kad_bench.board_runs import BoardFile, KadBoard, ThesisBoard, check_board
from kad_bench.board_suite import board_figures
from kad_bench.measure import interleave, ratios
from kad_bench.model_cases import SWEEP
from kad_bench.process_probe import Job, probe_process
from kad_bench.tables import suite_table as table
from kad_bench.thesis_path import THESIS
from kad_bench.tile_paths import KAD, PRODUCT_TOLERANCE, TOLERANCE, Found, thesis_tiles
from kad_sdk._native import NativeIndex, preprocess, preprocess_window
from kad_sdk.annotations import Annotation, Rect
from kad_sdk.detector import Detector
from kad_sdk.session import NetworkSession
from kad_sdk.windows import WindowScorer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kad_bench.board_runs import Round
    from kad_bench.models import Model, ModelSpec
    from kad_bench.suites import Settings
    from kad_sdk.scoring import BoardScores

__all__ = ["INT8", "TILES", "WINDOWS", "check_windows", "model_specs", "run", "table"]

WINDOWS, INT8, TILES = f"{KAD}, windows", f"{KAD}, windows, int8", f"{KAD}, tiles"
SMALL_WINDOW = 256  # px
WINDOW_TOLERANCE = 1e-4  # of the largest distance


@dataclass(frozen=True)
class Profile:
    """How much is measured.

    Rounds, tiles of the thesis' path (None: all), side in px of the part that is checked, and sizes
    of windows, px, that must give the same map.
    """

    rounds: int
    thesis_tiles: int | None
    checked: int
    windows: tuple[int, ...]


PROFILES = {
    "smoke": Profile(1, None, 448, (128, 256)),
    "regular": Profile(5, 32, 720, (1024, 1536)),
    "full": Profile(10, 128, 1280, (1024, 1536)),
}


def run(settings: Settings) -> dict[str, Any]:
    """Measure the profile's model in both modes.

    Returns
    -------
    dict
        ``cases``; see :mod:`kad_bench.suites`.
    """
    torch.set_num_threads(settings.threads)
    profile = PROFILES[settings.profile]
    specs = model_specs(settings.profile)
    models = {name: spec.prepare(settings) for name, spec in specs.items()}
    tiles, windows = models[TILES], models[WINDOWS]
    settings.say("windows: checking")
    accuracy = {
        name: check_windows(models[name], profile.checked, settings)
        | check_invariance(models[name], profile.windows, settings)
        for name in (WINDOWS, INT8)
    }
    settings.say("windows: measuring")
    board = BoardFile.plan(
        tiles.board,
        tiles.annotation,
        tiles.artifact.manifest.preprocessing,
        profile.thesis_tiles,
    )
    taken = _measure(models, board, profile, settings)
    accuracy |= _check_tiles(models[THESIS], tiles, board, taken, settings)
    engines = {
        name: board_figures(found, board, settings) | {"accuracy": accuracy[name]}
        for name, found in taken.items()
    }
    for name in (WINDOWS, INT8, TILES):
        engines[name]["memory_bytes"] = _peak(models[name], settings)
    for name in (WINDOWS, INT8):
        seen = models[name].artifact.manifest.patchcore.windows
        side, halo = seen.window_px, seen.halo_px
        engines[name]["notes"] = f"windows as large as {side} x {side} px, halo {halo} px"
    part = f"{len(board.chosen)} of {len(board.xy):,} tiles, scaled to all"
    engines[THESIS]["notes"] = "all tiles" if board.whole else part
    seconds = {name: [one.seconds for one in found] for name, found in taken.items()}
    ours = {name: ratios(seconds[name], seconds[WINDOWS]) for name in (TILES, THESIS)}
    case = {
        "case": windows.name,
        "what": f"{windows.what}; {len(board.xy):,} tiles",
        "unit": "board",
        "engines": engines,
        "ratios": {WINDOWS: ours},
        "skipped": {},
    }
    return {"cases": [case]}


def model_specs(name: str) -> dict[str, ModelSpec]:
    """Give the model of each engine of a profile; the thesis' pools as the thesis does."""
    thesis = SWEEP[name]
    tiles = dataclasses.replace(thesis, pooling="same-bilinear")
    windows = dataclasses.replace(tiles, mode="windows")
    int8 = dataclasses.replace(windows, precision="int8")
    return {THESIS: thesis, TILES: tiles, WINDOWS: windows, INT8: int8}


def _measure(
    models: dict[str, Model], board: BoardFile, profile: Profile, settings: Settings
) -> dict[str, list[Round]]:
    running = {"provider": settings.provider, "threads": settings.threads}
    with (
        tempfile.TemporaryDirectory() as folder,
        Detector.open(models[TILES].artifact.path, **running) as by_tiles,
        Detector.open(models[WINDOWS].artifact.path, **running) as by_windows,
        Detector.open(models[INT8].artifact.path, **running) as by_int8,
    ):
        engines = {
            WINDOWS: KadBoard(by_windows, board, Path(folder)),
            INT8: KadBoard(by_int8, board, Path(folder)),
            TILES: KadBoard(by_tiles, board, Path(folder)),
            THESIS: ThesisBoard(thesis_tiles(models[THESIS], device=settings.device), board),
        }
        engines[WINDOWS]()  # the first windows of this size
        engines[INT8]()
        engines[THESIS]()
        taken: dict[str, list[Round]] = {name: [] for name in engines}
        calls = {name: lambda name=name: taken[name].append(engines[name]()) for name in engines}
        interleave(calls, profile.rounds)
    return taken


def _check_tiles(
    thesis: Model,
    tiles: Model,
    board: BoardFile,
    taken: dict[str, list[Round]],
    settings: Settings,
) -> dict[str, dict[str, float]]:
    """Compare every round of both that score tiles with their path in float64."""
    exact = ThesisBoard(thesis_tiles(thesis, device=settings.device, exact=True), board)
    right = {
        THESIS: (exact().found, PRODUCT_TOLERANCE),
        TILES: (Found(_tile_scores(tiles, board), None), TOLERANCE),
    }
    accuracy = {}
    for name, (expected, tolerance) in right.items():
        found = [check_board(name, expected, one.found, tolerance) for one in taken[name]]
        accuracy[name] = {key: max(worst[key] for worst in found) for key in found[0]}
    return accuracy


def _tile_scores(model: Model, board: BoardFile) -> NDArray[np.float32]:
    """Scores of the chosen tiles by PyTorch, the distances in float64."""
    manifest = model.artifact.manifest
    tiles = preprocess(
        model.read_board(),
        board.xy[board.chosen],
        tile=board.side,
        mean=manifest.preprocessing.mean,
        std=manifest.preprocessing.std,
    )
    expected = expected_scores(
        model.network,
        tiles,
        bank=np.array(model.artifact.bank),
        neighbors=np.array(model.artifact.neighbors),
        settings=manifest.patchcore,
        tau=manifest.thresholds.tile,
    )
    return expected.score


def check_windows(model: Model, side: int, settings: Settings) -> dict[str, float]:
    """Compare the patches of all tiles of a part of a board with one pass over it.

    The pass is PyTorch's, of 8-bit integers that of the artifact's graph.

    Parameters
    ----------
    model
        Whose artifact scores in windows.
    side
        Of the part, px; it is the middle of the model's board.

    Returns
    -------
    dict
        The largest difference over the largest distance.

    Raises
    ------
    WrongAnswerError
        It is above 1e-4.
    """
    image = model.read_board()
    y, x = ((length - side) // 2 for length in image.shape[:2])
    part = np.ascontiguousarray(image[y : y + side, x : x + side])
    right = _whole_image(model, part)
    worst = 0.0
    own = model.artifact.manifest.patchcore.windows
    for window in (SMALL_WINDOW, own.window_px):
        found = _in_windows(model, part, window, settings)
        first = first_patches(found.xy, own.patch_px)
        tile = model.artifact.manifest.patchcore.grid[0]
        expected = np.array(
            [right[row : row + tile, column : column + tile] for column, row in first]
        )
        dist = found.tiles.patches.reshape(expected.shape)
        difference = np.abs(dist - expected).max() / right.max()
        worst = max(worst, float(difference))
    if not worst <= WINDOW_TOLERANCE:
        raise WrongAnswerError(
            f"{model.artifact.path.name}: patch distances differ by {worst:.3g} of the largest "
            f"from those of one pass over the whole image, expected at most {WINDOW_TOLERANCE}"
        )
    return {"patch difference": worst}


@torch.inference_mode()
def _whole_image(model: Model, image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Patch distances (h, w), in float64, of one pass over an image."""
    settings = model.artifact.manifest.preprocessing
    height, width = image.shape[:2]
    pixels = preprocess_window(image, (0, 0, width, height), mean=settings.mean, std=settings.std)
    if model.artifact.manifest.network.precision == "fp32":
        maps = model.network(torch.from_numpy(pixels))
    else:
        maps = list(map(torch.from_numpy, NetworkSession(model.artifact.network).run(pixels)))
    grid = (maps[0].shape[2], maps[0].shape[3])
    features = reference.patch_features(maps, grid=grid, resampling="aligned-bilinear")[0]
    dist, _ = reference.nearest(features, torch.from_numpy(np.array(model.artifact.bank)))
    return dist.reshape(grid).numpy()


def check_invariance(model: Model, windows: Sequence[int], settings: Settings) -> dict[str, float]:
    """Compare the model's board with itself in other windows, and cropped where that is told.

    The crop takes whole cells off, as long as the active areas stay farther from the new edge than
    a feature reaches.

    Returns
    -------
    dict
        The largest difference of maps and tile scores over the map's largest value.

    Raises
    ------
    WrongAnswerError
        It is above 1e-4.
    """
    image, areas = model.read_board(), model.annotation
    own = model.artifact.manifest.patchcore.windows
    first = _in_windows(model, image, own.window_px, settings, areas)
    worst = 0.0
    for window in windows:
        worst = max(worst, _difference(first, _in_windows(model, image, window, settings, areas)))
    least = min((min(rect.x, rect.y) for rect in areas.borders), default=0)
    crop = (least - own.halo_px - own.align_px) // own.align_px * own.align_px
    if crop > 0:
        part = np.ascontiguousarray(image[crop:, crop:])
        found = _in_windows(model, part, own.window_px, settings, _moved(areas, crop))
        worst = max(worst, _difference(first, found, crop))
    if not worst <= WINDOW_TOLERANCE:
        raise WrongAnswerError(
            f"{model.artifact.path.name}: another size of windows, or a crop, changes the board by "
            f"{worst:.3g} of the map's largest value, expected at most {WINDOW_TOLERANCE}"
        )
    return {"difference by windows": worst}


def _difference(first: BoardScores, other: BoardScores, crop: int = 0) -> float:
    expected = first.map[crop:, crop:]
    if (np.isnan(expected) != np.isnan(other.map)).any():
        return float("inf")
    largest = np.nanmax(expected)
    maps = np.nanmax(np.abs(expected - other.map))
    return float(max(maps, np.abs(first.scores - other.scores).max()) / largest)


def _moved(areas: Annotation, crop: int) -> Annotation:
    """Areas of a board whose upper and left `crop` px were cut off."""

    def moved(rect: Rect) -> Rect:
        x, y = max(rect.x - crop, 0), max(rect.y - crop, 0)
        return Rect(x, y, rect.x + rect.width - crop - x, rect.y + rect.height - crop - y)

    borders, labels = (tuple(map(moved, rects)) for rects in (areas.borders, areas.labels))
    return Annotation(borders, tuple(rect for rect in labels if min(rect.width, rect.height) > 0))


def _in_windows(
    model: Model,
    image: NDArray[np.uint8],
    window: int,
    settings: Settings,
    annotation: Annotation | None = None,
) -> BoardScores:
    """Score an image with windows of another size than the artifact's."""
    artifact, manifest = model.artifact, model.artifact.manifest
    windows = dataclasses.replace(manifest.patchcore.windows, window_px=window)
    scorer = WindowScorer(
        NetworkSession(artifact.network, threads=settings.threads),
        NativeIndex(artifact.bank, threads=settings.threads),
        preprocessing=manifest.preprocessing,
        patchcore=dataclasses.replace(manifest.patchcore, windows=windows),
        map_settings=manifest.map,
        neighbors=artifact.neighbors,
        threads=settings.threads,
    )
    found = scorer.score(image, annotation)
    scorer.close()
    return found


def _peak(model: Model, settings: Settings) -> dict[str, int]:
    """Memory of a fresh process that scores the model's board."""
    job = Job("kad", str(model.artifact.path), str(model.board), "", settings.threads)
    found = probe_process(dataclasses.replace(job, provider=settings.provider))
    return {} if found["peak_bytes"] is None else {"peak": found["peak_bytes"]}
