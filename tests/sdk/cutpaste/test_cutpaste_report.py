"""The report of a method without a memory bank: tiles' embeddings, no training patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from kad_sdk import Detector, scan_dataset
from kad_sdk.report import write_report

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("map_name", ["grad-cam", "tile-score"])
def test_the_page_shows_embeddings_and_says_that_there_are_no_training_patches(
    tiny_cutpaste, make_board, tmp_path: Path, map_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    # t-SNE itself is looked at in test_tsne.py, and takes long beside this.
    monkeypatch.setattr("kad_sdk.report.build.lay_out", lambda embeddings: embeddings[:, :2])
    for kind, defect in (("good", False), ("hole", True)):
        folder = tmp_path / "kitchen" / "test" / kind
        folder.mkdir(parents=True)
        board = make_board(3, 90, 140, defect=defect)
        assert cv2.imwrite(str(folder / "0.png"), board)
        assert cv2.imwrite(str(folder / "1.png"), make_board(4, 90, 140, defect=True))
    (tmp_path / "kitchen" / "train" / "good").mkdir(parents=True)
    truth = tmp_path / "kitchen" / "ground_truth" / "hole"
    truth.mkdir(parents=True)
    mask = np.zeros((90, 140), np.uint8)
    mask[40:52, 70:82] = 255
    for i in (0, 1):
        assert cv2.imwrite(str(truth / f"{i}_mask.png"), mask)
    changes = {}
    if map_name == "tile-score":
        changes["manifest"], changes["files"] = tiny_cutpaste.by_tile_score()
    artifact = tiny_cutpaste.write(tmp_path / "x.kad", **changes)
    dataset = scan_dataset(tmp_path / "kitchen", need_train=False)
    with Detector.open(artifact, threads=1) as detector:
        write_report(detector, dataset, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text("utf-8")
    assert 'aria-label="t-SNE of tile embeddings"' in text
    assert "cutpaste keeps no training patches to compare with" in text
    assert "no training patch: the method keeps none" in text
    assert "Disagreement of tiles" in text
