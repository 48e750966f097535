"""Peak memory of a fresh process, by board area, batch and rows of the bank.

Every process scores an image and gives its map. The thesis' path scores some of the tiles alone,
because its memory does not grow with their number. All scores are compared with the thesis' path,
its distances in float64, before a size is given.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from kad_bench.board_runs import BoardFile, ThesisBoard
from kad_bench.laws import growth
from kad_bench.model_cases import MODELS, SWEEP
from kad_bench.models import save_weights, write_with_rows
from kad_bench.process_probe import Job, probe_process
from kad_bench.tables import suite_table as table
from kad_bench.thesis_path import THESIS
from kad_bench.tile_paths import (
    KAD,
    PRODUCT_TOLERANCE,
    TOLERANCE,
    Found,
    check_found,
    thesis_tiles,
)

if TYPE_CHECKING:
    from kad_bench.models import Model
    from kad_bench.suites import Settings

__all__ = ["run", "table"]

_THESIS_TILES = 2


@dataclass(frozen=True)
class Profile:
    """Sides of square boards, px; tiles at a time; rows of the bank."""

    sides: tuple[int, ...]
    batches: tuple[int, ...]
    rows: tuple[int, ...]


PROFILES = {
    "smoke": Profile((448,), (), ()),
    "regular": Profile((500, 1000, 2000, 2800), (1, 4, 16), (1_250, 2_500, 5_000, 10_000)),
    "full": Profile((500, 1000, 2000, 4000), (1, 4, 16, 64), (9_000, 18_000, 36_000, 72_500)),
}


def run(settings: Settings) -> dict[str, Any]:
    """Measure every model of the profile, and how memory grows.

    Returns
    -------
    dict
        ``cases``, ``growth``; see :mod:`kad_bench.suites`.
    """
    profile = PROFILES[settings.profile]
    cases, found = [], []
    for spec in MODELS[settings.profile]:
        settings.say(f"memory: {spec.name}")
        with tempfile.TemporaryDirectory() as folder:
            probe = _Probe(spec.prepare(settings), Path(folder), settings)
            cases.append(_case(probe, profile.sides[0]))
            if spec == SWEEP[settings.profile]:
                found = _growth(probe, profile)
    return {"cases": cases, "growth": found}


@dataclass(frozen=True)
class _Probe:
    """Fresh processes that score the middle of a model's board."""

    model: Model
    folder: Path
    settings: Settings
    known: dict[Any, tuple[dict[str, int], dict[str, float]]] = field(default_factory=dict)

    @cached_property
    def weights(self) -> Path:
        return save_weights(self.model, self.folder / "weights.pth")

    def sizes(
        self, engine: str, side: int, *, rows: int | None = None, batch: int = 16
    ) -> tuple[dict[str, int], dict[str, float]]:
        """Let an engine score `side` x `side` px; the same is asked once.

        Returns
        -------
        sizes : dict
            ``peak``, ``opened`` and ``device`` bytes, as far as the system tells them.
        accuracy : dict
            See :func:`kad_bench.tile_paths.check_found`.

        Raises
        ------
        WrongAnswerError
            A score is wrong.
        """
        key = (engine, side, rows, batch)
        if key not in self.known:
            self.known[key] = self._measure(engine, self._board(side), rows, batch)
        return self.known[key]

    def _measure(
        self, engine: str, board: BoardFile, rows: int | None, batch: int
    ) -> tuple[dict[str, int], dict[str, float]]:
        settings = self.settings
        found = probe_process(
            Job(
                "kad" if engine == KAD else "thesis",
                str(self._artifact(rows)),
                str(board.path),
                str(self.weights),
                *(settings.threads, settings.provider, batch, _THESIS_TILES),
            )
        )
        exact = thesis_tiles(self.model, device=settings.device, rows=rows, exact=True)
        right = ThesisBoard(exact, board)().found._replace(maps=None)
        scores = np.array(found["scores"])
        scores = scores[board.chosen] if engine == KAD else scores
        tolerance = TOLERANCE if engine == KAD else PRODUCT_TOLERANCE
        accuracy = check_found(engine, right, Found(scores, None), tolerance=tolerance)
        sizes = {kind: found[f"{kind}_bytes"] for kind in ("peak", "opened", "device")}
        return {kind: size for kind, size in sizes.items() if size is not None}, accuracy

    def _board(self, side: int) -> BoardFile:
        path = self.folder / f"{side}.png"
        if not path.is_file():
            board = self.model.read_board()
            top, left = ((size - side) // 2 for size in board.shape[:2])
            cv2.imwrite(str(path), board[top : top + side, left : left + side, ::-1])
        preprocessing = self.model.artifact.manifest.preprocessing
        return BoardFile.plan(path, None, preprocessing, _THESIS_TILES)

    def _artifact(self, rows: int | None) -> Path:
        if rows in (None, self.model.artifact.manifest.bank.rows):
            return self.model.artifact.path
        path = self.folder / f"{rows}.kad"
        if not path.is_dir():
            write_with_rows(self.model, rows, path, self.settings.threads)
        return path


def _case(probe: _Probe, side: int) -> dict[str, Any]:
    """Measure both engines on a small board."""
    engines: dict[str, dict[str, Any]] = {}
    for engine in (KAD, THESIS):
        sizes, accuracy = probe.sizes(engine, side)
        engines[engine] = {"memory_bytes": sizes, "accuracy": accuracy}
    engines[KAD]["batch"] = 16
    engines[THESIS] |= {"batch": 1, "notes": f"scores {_THESIS_TILES} of the tiles"}
    bank = probe.model.artifact.bank
    return {
        "case": probe.model.name,
        "what": f"a fresh process scores {side} x {side} px; the bank alone takes "
        f"{bank.nbytes / 1e6:.0f} MB",
        "unit": "start",
        "engines": engines,
        "ratios": {},
        "skipped": {},
    }


def _growth(probe: _Probe, profile: Profile) -> list[dict[str, Any]]:
    """Measure both engines by area and rows, and kad by batch."""
    if not Path("/proc/self/status").is_file():
        return []  # this system does not say how much memory a process has
    probe.settings.say("memory: area, batch, bank size")

    def peak_mb(engine: str, side: int, **options: int) -> float:
        return probe.sizes(engine, side, **options)[0]["peak"] / 1e6

    small, middle = (*profile.sides, *profile.sides)[:2]
    both = (KAD, THESIS)
    areas = {e: [[side * side / 1e6, peak_mb(e, side)] for side in profile.sides] for e in both}
    rows = {e: [[n, peak_mb(e, small, rows=n)] for n in profile.rows] for e in both}
    batches = {KAD: [[n, peak_mb(KAD, middle, batch=n)] for n in profile.batches]}
    by = {"megapixels of the board": areas, "tiles at a time": batches, "rows of the bank": rows}
    y = "peak memory, MB"
    return [growth(x, y, points) for x, points in by.items() if points[KAD]]
