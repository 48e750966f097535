"""The runtime against plain PyTorch on real images: every patch distance, score, map and AUROC."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from compare_with_torch import agrees, compare, tile_truth
from kad_export.pipeline import PatchCoreOptions, export_patchcore
from plain_patchcore import direct, nearest, plan

from kad_sdk import Artifact
from kad_sdk.dataset import scan_dataset

if TYPE_CHECKING:
    from pathlib import Path

CASES = {
    # Tiles of images reduced by a factor: overlaps, flush edges; the thesis' re-weighting.
    "kolektor_sdd": {"resize": 0.6, "train_stride": 224, "sigma": 8.0},
    # Images of mixed sizes, brought to one: the antialiased filter in both directions.
    "magnetic_tile": {"resize": (224, 224), "reweighting": "none", "coreset": 0.05},
    # Native tiles; the thesis' own pooling, the paper's re-weighting, the largest tile decides.
    "hazelnut": {
        "stride": 32,
        "pooling": "valid-adaptive",
        "reweighting": "paper",
        "board_score": "largest-tile",
    },
}


@pytest.fixture
def subset(data_dir: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A data set of a few images: 6 to learn from, one of each kind and two good ones to test."""
    source, root = data_dir / request.param, tmp_path / request.param
    if not source.is_dir():
        pytest.skip(f"{source} is missing")
    wanted = [*sorted((source / "train" / "good").iterdir())[:6]]
    for kind in sorted((source / "test").iterdir()):
        for image in sorted(kind.iterdir())[: 2 if kind.name == "good" else 1]:
            mask = source / "ground_truth" / kind.name / f"{image.stem}_mask.png"
            wanted += [image, mask] if mask.is_file() else [image]
    for path in wanted:
        link = root / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    return root


@pytest.mark.parametrize("subset", CASES, indirect=True)
def test_runtime_agrees_with_plain_pytorch(subset: Path, weights_file: Path) -> None:
    options = PatchCoreOptions(weights=str(weights_file), threads=2, **CASES[subset.name])
    artifact = Artifact.open(export_patchcore(subset, subset / "a.kad", options))
    samples = list(scan_dataset(subset).test)
    found = compare(artifact, samples, weights_file, threads=2)
    assert found["images"] == len(samples) >= 3
    assert found["patches"] == found["tiles"] * 784
    assert found["plain_pytorch"]["image_roc_auc"] is not None
    assert max(found["largest_relative_difference"].values()) < 1e-4
    assert found["decisions_that_differ"] == 0
    assert agrees(found), found


def test_the_plain_search_finds_what_direct_differences_find() -> None:
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(300, 24, generator=generator, dtype=torch.float64)
    queries = torch.randn(70, 24, generator=generator, dtype=torch.float64)
    dist, rows = nearest(queries, bank)
    expected, expected_rows = direct(queries, bank).min(dim=1)
    assert torch.equal(rows, expected_rows)
    assert torch.allclose(dist, expected, rtol=1e-12, atol=0)


def test_the_comparison_can_fail() -> None:
    same = {"image_roc_auc": 0.9, "tile_roc_auc": 0.8, "pixel_roc_auc": 0.7, "aupro": None}
    found = {
        "plain_pytorch": same,
        "runtime": dict(same),
        "largest_relative_difference": {"distance": 9e-5},
    }
    assert agrees(found)
    assert not agrees({**found, "largest_relative_difference": {"distance": 2e-4}})
    assert not agrees({**found, "runtime": {**same, "pixel_roc_auc": 0.702}})


def test_plain_tiles_and_labels() -> None:
    assert plan(250, 224, tile=224, stride=112) == [(0, 0), (0, 26)]
    mask = np.zeros((40, 40), bool)
    mask[19, 39] = True
    assert tile_truth(mask, [(0, 0), (20, 0), (20, 20)], (40, 40), tile=20) == [0, 1, 0]
    # Halved, the pixel covers (9.5, 19.5) to (10, 20): the upper right tile alone.
    assert tile_truth(mask, [(0, 0), (10, 0), (10, 10)], (20, 20), tile=10) == [0, 1, 0]
