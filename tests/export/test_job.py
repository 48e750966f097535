"""A bank build that is killed, wherever that is, goes on and gives the same bank."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import pickle
import signal
import time
import tracemalloc

import numpy as np
import pytest
from bank_build import build, build_and_die, count_events, patch_small
from kad_export.budget import scratch_folder
from kad_export.coreset import select_coreset
from kad_export.coreset.driver import Selected
from kad_export.errors import ExportError, JobError
from kad_export.job import Job, SavedWorker
from kad_export.shards import ShardedPoints, as_stored, plan_shards, write_shard

from kad_sdk.errors import NotFiniteError, OutputError


@pytest.fixture
def small(monkeypatch):
    patch_small(monkeypatch)


@pytest.mark.usefixtures("small")
def test_killed_at_any_event_and_resumed(tmp_path, monkeypatch):
    with monkeypatch.context() as patches:
        counter = count_events(patches)
        expected = build(tmp_path / "whole")
        n_events = next(counter) - 1
    assert n_events > 50
    for at in np.unique(np.linspace(1, n_events, 16).astype(int)):
        folder = tmp_path / f"killed-{at}"
        assert build_and_die(folder, at, monkeypatch) == -signal.SIGKILL
        assert build(folder) == expected, f"killed at event {at} of {n_events}"


@pytest.mark.usefixtures("small")
def test_killed_again_and_again(tmp_path, monkeypatch):
    expected = build(tmp_path / "whole")
    codes = [build_and_die(tmp_path / "job", 9, monkeypatch) for _ in range(12)]
    assert codes[:3] == 3 * [-signal.SIGKILL]
    assert build(tmp_path / "job") == expected


@pytest.mark.usefixtures("small")
def test_what_is_done_is_not_done_again(tmp_path, monkeypatch):
    build(tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert {"job.json", "points-00000.bin", "selected.safetensors", "state-00000.bin"} <= files

    def never(*_args, **_more):
        raise AssertionError

    monkeypatch.setattr("kad_export.shards.as_stored", never)
    monkeypatch.setattr("kad_export.engine.as_stored", never)
    monkeypatch.setattr("kad_export.job.SavedWorker.flush", never)
    build(tmp_path)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("rows", [None, 2, 9])
def test_state_of_more_rows_than_are_left_is_made_again(tmp_path, monkeypatch, rows):
    """The selected rows were damaged and removed, as the error asks for, or are older ones."""
    expected, flush, left = build(tmp_path), SavedWorker.flush, iter(range(500))

    def counted(worker, *arguments):
        assert next(left, None) is not None, "no end after 500 passes"
        return flush(worker, *arguments)

    monkeypatch.setattr(SavedWorker, "flush", counted)
    job = Job(tmp_path, lasting=True)
    selected = job.load_selected()
    (tmp_path / "selected.safetensors").unlink()
    if rows is not None:
        job.save_selected(Selected(selected.rows[:rows], selected.dist[:rows]))
    assert build(tmp_path) == expected


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("size", [4_000, 20_000])
def test_full_disk_is_told_and_the_job_goes_on(tmp_path, monkeypatch, small_disk, size):
    expected = build(tmp_path / "whole")
    monkeypatch.setattr("kad_export.bank.check_disk", lambda *_: None)  # it fills up later
    with small_disk(size) as disk:
        if size > 4_000 and not disk.is_mount():
            pytest.skip("every single file is smaller than this limit")
        with pytest.raises(OutputError, match="free some space, name another folder"):
            build(disk)
        left = {path.name: path.read_bytes() for path in disk.iterdir()}
    assert ("points-00000.bin" in left) == (size > 4_000)
    assert not any(name.endswith((".part", ".tmp")) for name in left)
    again = tmp_path / "again"
    again.mkdir()
    for name, content in left.items():
        (again / name).write_bytes(content)
    assert build(again) == expected


def test_a_job_of_something_else_is_refused(tmp_path):
    folder = tmp_path / "job"
    Job.open(folder, {"seed": 1, "images": "a"}).close()
    with Job.open(folder, {"images": "a", "seed": 1}) as job:
        assert job.lasting
    with pytest.raises(JobError, match="unfinished job with other seed: give the options"):
        Job.open(folder, {"seed": 2, "images": "a"})
    (folder / "job.json").write_text("{")
    with pytest.raises(JobError, match="cannot be read"):
        Job.open(folder, {"seed": 1})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "holiday.jpg").touch()
    (tmp_path / "other" / "points-00000.part").touch()
    with pytest.raises(JobError, match="neither empty nor an unfinished job"):
        Job.open(tmp_path / "other", {})
    assert _names(tmp_path / "other") == ["holiday.jpg", "points-00000.part"]


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("file", "Not a directory"),
        ("file/job", "Not a directory"),
        ("/proc/kad/job", "No such file"),
    ],
)
def test_a_place_for_no_folder_is_told_as_without_a_job(tmp_path, place, why):
    (tmp_path / "file").touch()
    texts = []
    for use in (lambda folder: Job.open(folder, {}), lambda folder: _enter(scratch_folder(folder))):
        with pytest.raises(ExportError, match=rf"{place} \({why}.*\): name a writable") as caught:
            use(tmp_path / place)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


def _enter(context) -> None:
    with context:
        pass


def test_two_at_once_are_kept_apart(tmp_path):
    """Also in one process; what the first is writing stays, and its end lets others in."""
    folder = tmp_path / "job"
    with Job.open(folder, {"seed": 1}) as job:
        (folder / "points-00000.part").write_bytes(b"half a shard")
        before = _names(folder)
        for subject in ({"seed": 1}, {"seed": 2}):
            with pytest.raises(JobError, match=f"another export is at work in {folder}: wait"):
                Job.open(folder, subject)
        assert _names(folder) == before
        pickle.loads(pickle.dumps(job)).close()  # as it goes to workers of a cluster
        with pytest.raises(JobError, match="another export is at work"):
            Job.open(folder, {"seed": 1})
    Job.open(folder, {"seed": 1}).close()
    assert _names(folder) == ["job.json", "job.lock"]


def test_a_kill_lets_others_in(tmp_path):
    folder, fork = tmp_path / "job", multiprocessing.get_context("fork")
    held = fork.Event()

    def hold() -> None:
        with Job.open(folder, {}):
            held.set()
            time.sleep(60)

    process = fork.Process(target=hold)
    process.start()
    try:
        assert held.wait(30)
        with pytest.raises(JobError, match="another export is at work"):
            Job.open(folder, {})
    finally:
        process.kill()
        process.join(30)
    Job.open(folder, {}).close()


def test_a_lock_that_is_removed_meanwhile_is_none(tmp_path, monkeypatch):
    """A job that ends removes its lock after another process has opened it."""
    Job.open(tmp_path, {}).close()
    lock, left = fcntl.flock, iter(range(2))

    def removing(file, how):
        if next(left) == 0:
            (tmp_path / "job.lock").unlink()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", removing)
    with Job.open(tmp_path, {}):
        assert next(left, None) is None
        monkeypatch.undo()
        with pytest.raises(JobError, match="another export is at work"):
            Job.open(tmp_path, {})


def _names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_damaged_files_are_found(tmp_path):
    Job.open(tmp_path, {}).close()
    job = Job(tmp_path, lasting=True)
    assert job.load_selected() == Selected()
    job.save_selected(Selected([5, 2], [np.inf, 1.5]))
    assert job.load_selected() == Selected([5, 2], [np.inf, 1.5])
    (tmp_path / "selected.safetensors").write_bytes(b"damaged")
    with pytest.raises(JobError, match="is damaged"):
        job.load_selected()


@pytest.mark.usefixtures("small")
def test_only_what_a_job_has_made_is_removed(tmp_path):
    own, shared = tmp_path / "own", tmp_path / "shared"
    for folder in (own, shared):
        build(folder)
        for name in ("points-00009.part", ".state-00000.bin.0123.tmp", ".job.json.0123.tmp"):
            (folder / name).touch()
    others = ["kad-export-abc", "points-of-mine.bin", "state.csv"]
    (shared / others[0]).mkdir()
    (shared / others[0] / "network.onnx").touch()
    for name in others[1:]:
        (shared / name).touch()
    assert len(_names(own)) > 7
    for folder in (own, shared):
        with Job.open(folder, {"boards": 8}) as job:
            job.remove()
    assert not own.exists()
    assert _names(shared) == others
    assert _names(shared / others[0]) == ["network.onnx"]


class _Board:
    def __init__(self, tiles: int) -> None:
        self.xy = np.zeros((tiles, 2), np.int32)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_sharded_points_give_rows_back(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr("kad_export.shards.SHARD_TILES", 4)
    shards = plan_shards([_Board(n) for n in (1, 3, 2, 5, 1)], patches=3)
    assert [(s.tiles, s.first_row, s.rows) for s in shards] == [(4, 0, 12), (7, 12, 21), (1, 33, 3)]
    points = np.random.default_rng(0).normal(size=(36, 5)).astype(np.float32)
    stored = as_stored(points, dtype).astype(np.float32)
    for s in shards:
        block = as_stored(points[s.first_row : s.first_row + s.rows], dtype)
        write_shard(tmp_path / s.name, iter([block[:2], block[2:]]))
    found = ShardedPoints(tmp_path, shards, 5, dtype)
    rows = np.array([35, 0, 12, 11, 33])
    np.testing.assert_array_equal(found[:], stored)
    np.testing.assert_array_equal(found[10:34], stored[10:34])
    np.testing.assert_array_equal(found[rows], stored[rows])
    part = ShardedPoints(tmp_path, shards[1:], 5, dtype)
    np.testing.assert_array_equal(part[:], stored[12:])
    os.truncate(tmp_path / shards[2].name, 20)
    with pytest.raises(OutputError, match=r"ends .* bytes early"):
        found[:]
    found.close()
    part.close()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_sharded_points_are_read_piece_by_piece(tmp_path, dtype):
    """A file may be as large as all points: not both are held at once."""
    (shard,) = plan_shards([_Board(400_000)], patches=1)
    write_shard(tmp_path / shard.name, [np.ones((400_000, 8), dtype)])
    stored = ShardedPoints(tmp_path, [shard], 8, dtype)
    tracemalloc.start()
    try:
        points = stored[:]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        stored.close()
    assert (points == 1).all()
    assert points.nbytes <= peak < 1.2 * points.nbytes


def test_half_precision_that_overflows_is_refused():
    with pytest.raises(NotFiniteError, match=r"reach 7e\+04, and float16 ends at 65504"):
        as_stored(np.full((1, 2), 7e4, np.float32), "float16")


def test_half_precision_selects_on_what_is_stored(tmp_path, monkeypatch):
    patch_small(monkeypatch)
    points = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)
    stored = as_stored(points, "float16")
    write_shard(tmp_path / "points-00000.bin", [stored])
    shards = plan_shards([_Board(500)], patches=1)
    found = select_coreset(ShardedPoints(tmp_path, shards, 6, "float16"), 50, eps=None)
    expected = select_coreset(stored.astype(np.float32), 50, eps=None, backend="reference")
    np.testing.assert_array_equal(found, expected)
