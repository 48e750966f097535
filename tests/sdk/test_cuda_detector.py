"""A detector on a GPU, in numba's simulator: one process of its own, see ``test_simulator.py``."""

from __future__ import annotations

import ctypes
import math
import os

import numpy as np
import onnxruntime
import pytest

if os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":
    pytest.skip("needs numba's simulator (NUMBA_ENABLE_CUDASIM=1)", allow_module_level=True)

from kad_sdk.cuda import CudaPatchCoreScorer
from kad_sdk.detector import Detector
from kad_sdk.errors import InvalidArgumentError
from kad_sdk.scoring import TileFindings
from kad_sdk.verify import verify_artifact

SIZE = (48, 64)  # 2 x 3 tiles
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
