"""A small data set in the MVTec AD layout, and one export of it that several tests look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from convert_once import convert_once
from kad_export.options import PatchCoreOptions
from kad_export.pipeline import export_patchcore

if TYPE_CHECKING:
    from pathlib import Path

TILE = 64


def write_board(path: Path, seed: int, *, spot: bool = False, size: tuple[int, int] = (160, 128)):
    """Write a smooth, noisy grey board; with a spot: also its mask in the MVTec layout."""
    rng = np.random.default_rng(seed)
    board = cv2.GaussianBlur(rng.normal(0, 60, size), (0, 0), 3) * 2 + 150 + rng.normal(0, 4, size)
    mask = np.zeros(size, np.uint8)
    if spot:
        cv2.circle(mask, (40, 50), 12, 255, -1)
        board[mask > 0] = rng.integers(0, 256, int((mask > 0).sum()))
        target = path.parents[2] / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), mask)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.clip(board, 0, 255).astype(np.uint8))


@pytest.fixture(scope="session", autouse=True)
def memory_of_a_fresh_process():
    """Let an export find what a process of its own would hold: that of the tests holds more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kad_export.budget.resident_memory_bytes", lambda: 1 << 30)
        yield


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory) -> Path:
    """Four normal boards to learn from, two normal and two spotted ones to test."""
    root = tmp_path_factory.mktemp("small")
    for i in range(4):
        write_board(root / "train" / "good" / f"{i:03}.png", i)
    for i in range(2):
        write_board(root / "test" / "good" / f"{i:03}.png", 10 + i)
        write_board(root / "test" / "spot" / f"{i:03}.png", 20 + i, spot=True)
    return root


@pytest.fixture(scope="session")
def quick_options() -> dict[str, object]:
    """Options that make an export small: random weights, tiles of 64 px."""
    return {
        "weights": "random:0",
        "tile": TILE,
        "stride": 48,
        "train_stride": 32,
        "coreset": 0.05,
        "threads": 2,
    }


@pytest.fixture(scope="session")
def small_artifact(tmp_path_factory, small_dataset, quick_options, graphs) -> Path:
    """The small data set, exported."""
    out = tmp_path_factory.mktemp("artifact") / "small.kad"
    with pytest.MonkeyPatch.context() as patch:
        convert_once(graphs, patch)
        return export_patchcore(small_dataset, out, PatchCoreOptions(**quick_options))
