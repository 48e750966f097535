"""A detector on a GPU, in numba's simulator: one process of its own, see ``test_simulator.py``."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import threading
import time
import weakref

import numpy as np
import onnxruntime
import pytest

if os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":
    pytest.skip("needs numba's simulator (NUMBA_ENABLE_CUDASIM=1)", allow_module_level=True)

from kad_sdk._native import NativeBoard
from kad_sdk.annotations import Annotation, Rect
from kad_sdk.cuda import CudaPatchCoreScorer
from kad_sdk.detector import Detector
from kad_sdk.errors import AnnotationError, InvalidArgumentError, NotFiniteError
from kad_sdk.recording import SharedLock, gpu_lock
from kad_sdk.scoring import TileFindings
from kad_sdk.verify import verify_artifact

SIZE = (48, 64)  # 2 x 3 tiles
SMALL = (32, 48)  # 2 tiles
BATCH = 4  # not a divisor of 6


@pytest.fixture
def artifact(tiny, tmp_path):
    return tiny.write(tmp_path / "tiny.kad")


class BoundOnHost:
    """ONNX Runtime's session of a GPU wheel: reads and writes bound memory, computes on the CPU."""

    def __init__(self, session):
        self._session = session
        self.ran = []

    def __getattr__(self, name):
        return getattr(self._session, name)

    def get_providers(self):
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def io_binding(self):
        return Bound()

    def run_with_iobinding(self, binding, options):
        del options
        (name, tiles), *outputs = binding.arrays.items()
        self.ran.append(len(tiles))
        maps = self._session.run([key for key, _ in outputs], {name: np.nan_to_num(tiles)})
        for (_, room), values in zip(outputs, maps, strict=True):
            room[:] = values


class Bound:
    """Arrays over the addresses that were bound; the simulator's are the host's."""

    def __init__(self):
        self.arrays = {}

    def bind_input(self, name, device, device_id, dtype, shape, address):
        assert (device, device_id, dtype) == ("cuda", 0, np.float32)
        memory = (ctypes.c_float * math.prod(shape)).from_address(address)
        self.arrays[name] = np.frombuffer(memory, dtype).reshape(shape)

    bind_output = bind_input


@pytest.fixture
def sessions(monkeypatch):
    """Give the sessions that the fake wheel makes."""
    made, real = [], onnxruntime.InferenceSession

    def session(data, **options):
        if options["providers"] == ["CPUExecutionProvider"]:
            return real(data, **options)
        assert options["provider_options"][0].get("user_compute_stream") in ("0", None)
        made.append(BoundOnHost(real(data, providers=["CPUExecutionProvider"])))
        return made[-1]

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(
        onnxruntime,
        "get_available_providers",
        lambda: [f"{name}ExecutionProvider" for name in ("CUDA", "CPU")],
    )
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    return made


def test_a_detector_with_onnx_runtime_on_the_gpus_memory(artifact, make_board, sessions):
    board = make_board(3, *SIZE, defect=True)
    expected = Detector.open(artifact, threads=1).score(board)
    with Detector.open(artifact, "cuda", threads=1, batch=BATCH) as detector:
        found = detector.score(board)
        assert (detector.provider, detector.device, detector.precision) == (
            *("cuda", "cuda:0"),
            "fp32",
        )
    np.testing.assert_array_equal(found.map, expected.map)
    assert [tile.score for tile in found.tiles] == [tile.score for tile in expected.tiles]
    assert found.regions == expected.regions
    # Once on opening, where the graph is recorded; the last batch is as large as the others.
    assert sessions[0].ran == [BATCH, BATCH, BATCH]


def test_boards_that_are_sent_ahead(artifact, make_board, sessions):
    boards = [make_board(seed, 32, 48, defect=False) for seed in range(3)]
    detector = Detector.open(artifact, "cuda", threads=1, batch=2)
    uploads, asked = detector._scorer._uploads, []
    real = uploads._fill
    uploads._fill = lambda place, image: (asked.append(id(image)), real(place, image))[1]
    results = detector.score_batch(boards)
    assert sorted(asked) == sorted(id(board) for board in boards)  # each is uploaded once
    on_cpu = Detector.open(artifact, threads=1)
    for board, result in zip(boards, results, strict=True):
        on_cpu.send_ahead(board)  # does nothing
        np.testing.assert_array_equal(result.map, on_cpu.score(board).map)
    detector.close()
    detector.close()
    with pytest.raises(InvalidArgumentError, match="this detector is closed"):
        detector.score(boards[0])
    assert len(sessions) == 1


def test_verify_runs_the_search_that_scores(artifact, sessions, monkeypatch):
    found = verify_artifact(artifact, provider="cuda", threads=1)
    assert (found.passed, found.provider, found.device) == (True, "cuda", "cuda:0")
    assert sessions[0].ran == [3, 3]  # on opening, then the golden tiles in the GPU's memory
    real = CudaPatchCoreScorer.score_tiles

    def shifted(self, tiles, watch=None):
        found = real(self, tiles, watch)
        return TileFindings(found.scores, found.patches + np.float32(0.1), found.rows)

    monkeypatch.setattr(CudaPatchCoreScorer, "score_tiles", shifted)
    failed = verify_artifact(artifact, provider="cuda", threads=1)
    assert [check.name for check in failed.checks if not check.passed] == ["patch distances"]


def test_a_board_that_fails_is_not_taken_for_the_next_one_in_its_array(
    artifact, make_board, sessions
):
    buffers = [make_board(seed, *SMALL, defect=False) for seed in range(2)]
    other = make_board(5, *SMALL, defect=True)
    outside = Annotation(borders=(Rect(0, 0, 999, 999),))
    with Detector.open(artifact, "cuda", threads=1, batch=BATCH) as detector:
        detector.send_ahead(buffers[0])
        with pytest.raises(AnnotationError):
            detector.score(buffers[0], outside)
        assert detector._scorer._uploads._ahead == []
        with pytest.raises(AnnotationError):
            detector.score_batch(buffers, [outside, None])  # the second is on its way by then
        for buffer in buffers:
            buffer[:] = other
        found = detector.score(buffers[1])
    expected = Detector.open(artifact, threads=1).score(other)
    np.testing.assert_array_equal(found.map, expected.map)


def test_a_graph_is_recorded_alone_and_boards_are_not(artifact, make_board, sessions, monkeypatch):
    asked = []  # by whom, and whether the lock is held by one alone, and shared

    def note(who, real):
        def noted(*arguments, **options):
            asked.append((who, gpu_lock._alone is not None, bool(gpu_lock._sharing)))
            return real(*arguments, **options)

        return noted

    from kad_kernels import batches, upload

    monkeypatch.setattr(
        BoundOnHost, "run_with_iobinding", note("run", BoundOnHost.run_with_iobinding)
    )
    monkeypatch.setattr(batches, "open_rows", note("open", batches.open_rows))
    monkeypatch.setattr(batches.Batches, "empty_maps", note("maps", batches.Batches.empty_maps))
    monkeypatch.setattr(upload._Place, "fill", note("upload", upload._Place.fill))
    detector = Detector.open(artifact, "cuda", threads=1, batch=BATCH)
    alone, shared = (True, False), (False, True)
    assert asked == [("open", *shared), ("maps", *shared), ("run", *alone)]
    del asked[:]
    board = make_board(3, *SMALL, defect=False)
    detector.send_ahead(board)
    detector._scorer._uploads._ahead[0].filled.result()  # in a thread of its own
    assert asked == [("upload", *shared)]
    detector.score(board)
    assert asked[1:] == [("run", *shared)]
    detector.close()
    assert not gpu_lock._sharing


def test_a_board_whose_upload_waits_behind_a_recording(artifact, make_board, sessions, monkeypatch):
    """A recording waits for the board, and the board for its upload, which so must not wait."""
    lock, recorded, stuck = SharedLock(), [], []
    monkeypatch.setattr("kad_sdk.cuda.gpu_lock", lock)
    detector = Detector.open(artifact, "cuda", threads=1, batch=BATCH)
    uploads, board = detector._scorer._uploads, make_board(3, *SMALL, defect=False)
    real = uploads._around

    def record():
        with lock.alone():
            recorded.append(True)

    def let_go():
        stuck.append(True)
        with lock._changed:
            lock._waiting = 0
            lock._changed.notify_all()

    recording, watch = threading.Thread(target=record, daemon=True), threading.Timer(20, let_go)

    def late():  # the board is being scored, and a recording waits
        while not lock._sharing:
            time.sleep(0.001)
        recording.start()
        while not lock._waiting:
            time.sleep(0.001)
        return real()

    uploads._around = late
    watch.start()
    detector.send_ahead(board)
    detector.score(board)
    watch.cancel()
    assert not stuck
    recording.join(20)
    assert recorded
    detector.close()


def test_a_board_that_fails_on_the_host_lets_go_of_the_gpu(
    artifact, make_board, sessions, monkeypatch
):
    detector = Detector.open(artifact, "cuda", threads=1, batch=1)
    board = make_board(3, *SMALL, defect=False)

    def fail(*arguments, **options):
        raise NotFiniteError

    with monkeypatch.context() as patch:
        patch.setattr(NativeBoard, "add", fail)
        with pytest.raises(NotFiniteError) as caught:
            detector.score(board)
    assert caught.tb is not None  # as long as it is looked at
    assert not gpu_lock._sharing
    assert not detector._scorer._lock.locked()
    detector.score(board)
    detector.close()


def test_closing_waits_for_the_network_and_frees_the_stream_last(artifact, sessions, monkeypatch):
    from kad_kernels.batches import Batches

    detector = Detector.open(artifact, "cuda", threads=1, batch=1)
    scorer, ended = detector._scorer, []
    monkeypatch.setattr(Batches, "wait", lambda self: ended.append("wait"))
    scorer._network._thread.submit(lambda: (time.sleep(0.2), ended.append("run")))  # left behind
    weakref.finalize(sessions.pop(), ended.append, "session")
    weakref.finalize(scorer._batches, ended.append, "batches")
    del scorer
    detector.close()
    gc.collect()
    assert ended == ["run", "wait", "session", "batches"]
