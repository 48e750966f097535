"""The bank: right rows from the right places, within the stated budget, nothing left behind."""

from __future__ import annotations

import dataclasses
import multiprocessing
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bank_build import CHUNK_ROWS, Spec, make_boards, peak_of_selection
from kad_export import budget, shards
from kad_export.bank import build_bank, nearest_rows
from kad_export.budget import BankSettings, Probe, check_disk, make_plan, scratch_folder
from kad_export.coreset import select_coreset
from kad_export.errors import ExportError, JobError, MemoryBudgetError
from kad_export.features import BoardTiles
from kad_export.report import Silent
from kad_kernels.reference import nearest

from kad_sdk.errors import OutputError

PROBE = Probe(
    dims=384,
    resident_bytes=500 << 20,
    seconds_per_board=0.1,
    seconds_per_tile=0.02,
    seconds_per_pair=1e-11,
)


@pytest.fixture
def on_disk(monkeypatch):
    """Let every plan put the projected features on disk, in many shards, with a small pool."""
    plan = budget.make_plan
    monkeypatch.setattr(shards, "SHARD_TILES", 9)
    monkeypatch.setattr(
        "kad_export.bank.make_plan",
        lambda *words, **more: dataclasses.replace(
            plan(*words, **more), disk_bytes=1, pool_rows=30
        ),
    )


def _all_features(boards, images) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every patch feature, its board and its centre, one tile at a time."""
    extract = Spec(images, batch=1).build()
    features, image, centre = [], [], []
    for i, board in enumerate(boards):
        for tile, corner in zip(
            extract(images[board.sample.name], board.xy), board.xy, strict=True
        ):
            features.append(tile[0])
            image += [i] * 16
            centre += [(corner[0] + 4 * c + 2, corner[1] + 4 * r + 2) for r, c in np.ndindex(4, 4)]
    return np.concatenate(features), np.array(image), np.array(centre)


@pytest.mark.parametrize("disk", [False, True], ids=["in-memory", "on-disk"])
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_rows_are_the_coreset_with_their_sources(request, tmp_path, batch, disk):
    if disk:
        request.getfixturevalue("on_disk")
    boards, images = make_boards(7)
    features, image, centre = _all_features(boards, images)
    expected = select_coreset(features, 40, seed=3)
    bank = build_bank(
        boards,
        Spec(images, batch=batch).build(),
        BankSettings(tmp_path, fraction=40 / len(features), seed=3),
        Silent(),
    )

    np.testing.assert_array_equal(bank.coreset.index, expected)
    np.testing.assert_array_equal(bank.bank, features[expected])
    np.testing.assert_array_equal(bank.source_image, image[expected])
    np.testing.assert_array_equal(bank.source_xy, centre[expected])
    assert bank.candidates == len(features)
    assert {name: t.dtype.name for name, t in bank.tensors().items()} == {
        "bank": "float32",
        "neighbors": "int64",
        "source_image": "int32",
        "source_xy": "int32",
    }
    assert not list(tmp_path.iterdir())


def test_second_pass_computes_only_tiles_with_a_selected_row(tmp_path):
    boards, images = make_boards(7)
    extract = Spec(images).build()
    build_bank(boards, extract, BankSettings(tmp_path, max_rows=1), Silent())
    probed = 3 + 6  # one batch to set up, two that are timed
    assert extract.session.tiles == probed + sum(len(b.xy) for b in boards) + 1


def test_ray_that_is_not_installed_is_named_first(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)  # as where there is no such package
    monkeypatch.delitem(sys.modules, "kad_export.engine_ray", raising=False)
    boards, images = make_boards(2)
    extract = Spec(images).build()
    with pytest.raises(JobError, match=r"--engine ray needs .* pip install 'kad-sdk\[ray\]'"):
        build_bank(
            boards, extract, BankSettings(tmp_path, engine="ray"), Silent(), spec=Spec(images)
        )
    assert extract.session.tiles == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_scratch_is_removed_on_failure(monkeypatch, tmp_path, on_disk, error):
    boards, images = make_boards(3)

    def fail(*_args, **_kwargs):
        assert {path.name for path in tmp_path.iterdir()} == {
            "points-00000.bin",
            "points-00001.bin",
        }
        raise error

    monkeypatch.setattr("kad_export.bank.run_selection", fail)
    with pytest.raises(error):
        build_bank(boards, Spec(images).build(), BankSettings(tmp_path), Silent())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("n_bytes", [100, 3_000], ids=["at-once", "half-way"])
def test_scratch_that_cannot_be_written(monkeypatch, tmp_path, on_disk, n_bytes):
    boards, images = make_boards(3)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limit[1]))
    try:
        with pytest.raises(OutputError, match="name another folder with --scratch"):
            build_bank(boards, Spec(images).build(), BankSettings(tmp_path), Silent())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not list(tmp_path.iterdir())


def test_scratch_in_a_missing_folder(tmp_path):
    with (
        pytest.raises(ExportError, match="name a writable folder with --scratch"),
        scratch_folder(tmp_path / "missing"),
    ):
        pass


@pytest.mark.parametrize(
    ("fraction", "max_rows", "candidates", "rows"),
    [(0.01, 10_000, 78_400, 784), (0.01, 10_000, 10**7, 10_000), (0.01, 10_000, 10, 1)],
)
def test_bank_rows(fraction, max_rows, candidates, rows):
    assert BankSettings(Path(), fraction=fraction, max_rows=max_rows).rows(candidates) == rows


@pytest.mark.parametrize("before", [0, 40])
@pytest.mark.parametrize("kind", ["few directions", "flat"])
def test_selection_in_memory_takes_what_is_planned(monkeypatch, tmp_path, kind, before):
    """Also where no few directions hold most of the variance, and beside rows of a bank."""
    monkeypatch.setattr(budget, "CHUNK_ROWS", CHUNK_ROWS)
    tiles = 256
    settings = BankSettings(tmp_path, max_rows=300, before=before, memory_bytes=4 << 30)
    boards = [BoardTiles(None, np.zeros((tiles, 2), np.int32), 100, 100)]
    plan = make_plan(boards, 784, dataclasses.replace(PROBE, dims=200, resident_bytes=0), settings)
    assert plan.disk_bytes == 0
    # A fresh process: what others have left in memory would be used, and not be counted.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as child:
        peak = child.submit(peak_of_selection, before, kind, plan, settings).result()
    points = 4 * plan.candidates * plan.projected_dims
    assert points < peak < plan.memory_bytes - budget.RESERVE_BYTES


def _plan_for(n_tiles: int, memory_bytes: int, before: int = 0):
    boards = [BoardTiles(None, np.zeros((n_tiles, 2), np.int32), 4730, 4074)]
    settings = BankSettings(Path(), memory_bytes=memory_bytes, before=before)
    return make_plan(boards, 784, PROBE, settings)


def test_projected_features_go_to_disk_when_memory_is_short():
    large, small = _plan_for(11_899, 64 << 30), _plan_for(11_899, 4 << 30)
    assert large.disk_bytes == 0
    assert small.disk_bytes == 4 * 11_899 * 784 * small.projected_dims > 10 << 30
    assert small.memory_bytes < 4 << 30 < large.memory_bytes


def test_largest_case_of_the_thesis_fits_the_default_memory():
    plan = _plan_for(185_875, BankSettings(Path()).memory_bytes)
    assert plan.candidates == 145_726_000
    assert plan.rows == 10_000


def test_memory_budget_that_cannot_hold_the_work():
    with pytest.raises(MemoryBudgetError, match=r"512.0 MB cannot hold .* Raise --memory to 1.4GB"):
        _plan_for(100, 512 << 20)
    with pytest.raises(MemoryBudgetError, match=r"or lower --batch or --max-bank$"):
        _plan_for(100, 512 << 20)
    with pytest.raises(MemoryBudgetError, match=r"or lower --batch or --max-rows$"):
        _plan_for(100, 512 << 20, before=50)


def test_plan_is_printed_with_memory_disk_and_time():
    text = str(_plan_for(11_899, 4 << 30))
    assert "10,000 of 9,328,816 patches" in text
    assert "of memory" in text
    assert "of disk" in text
    assert " min " in text or " h " in text


def test_disk_that_cannot_hold_the_work(monkeypatch, tmp_path):
    monkeypatch.setattr(budget.shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    plan, settings = _plan_for(11_899, 4 << 30), BankSettings(tmp_path / "scratch")
    with pytest.raises(MemoryBudgetError, match=r"GB of disk, and .* has 1.0 MB free.* --points"):
        check_disk(plan, settings)
    with pytest.raises(MemoryBudgetError, match=r"raise --memory, or add fewer boards at a time$"):
        check_disk(plan, dataclasses.replace(settings, before=50))


@pytest.mark.parametrize(("n_rows", "columns"), [(1, 0), (2, 1), (9, 8), (40, 8)])
def test_nearest_rows_leave_out_the_row_itself(n_rows, columns):
    bank = np.random.default_rng(0).normal(size=(n_rows, 5)).astype(np.float32)
    found = nearest_rows(bank, threads=1)
    assert found.shape == (n_rows, columns)
    if columns:
        np.testing.assert_array_equal(found, nearest(bank, bank, columns + 1)[1][:, 1:])


def test_nearest_rows_of_many_copies():
    found = nearest_rows(np.zeros((12, 3), np.float32), threads=1)
    assert found.shape == (12, 8)
    assert (found != np.arange(12)[:, None]).all()
