"""The scorer of a GPU against the CPU's, in numba's simulator or on a GPU.

Both are given one network, ONNX Runtime's on the CPU, so that their scores must be the same bits.
Without both all are skipped; ``tests/kernels/test_simulator.py`` runs them in a process of its own.
"""

from __future__ import annotations

import ctypes
import math
import os

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("numba.cuda", reason="numba-cuda is not installed: pip install 'kad-sdk[gpu]'")

from kad_kernels._cuda import cuda
from kad_kernels.device import gpu_is_available

from kad_sdk.annotations import Annotation
from kad_sdk.artifact import PatchCoreArtifact
from kad_sdk.cuda import CudaPatchCoreScorer, open_batches
from kad_sdk.detector import Detector
from kad_sdk.errors import (
    ArtifactCorruptError,
    InvalidArgumentError,
    NotFiniteError,
    ProviderUnavailableError,
)
from kad_sdk.patchcore import PatchCoreScorer
from kad_sdk.session import NetworkSession

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"

if not SIMULATED and not gpu_is_available():
    pytest.skip(
        "neither a GPU nor numba's simulator (NUMBA_ENABLE_CUDASIM=1)", allow_module_level=True
    )

pytestmark = pytest.mark.gpu

SIZE = (48, 64)  # 2 x 3 tiles
WHOLE = Annotation()
BATCH = 4  # not a divisor of 6


class HostNetwork:
    """Runs a session on the host, between two copies: one network for both engines."""

    provider, device, precision = "cuda", "cuda:0", "fp32"

    def __init__(self, session, batches):
        self._session, self._batches = session, batches
        self.spoil = None

    def run(self, tiles, n):
        self._batches.wait()
        maps = self._session.run(tiles.copy_to_host()[:n])
        if self.spoil is not None:
            maps[0][self.spoil] = np.nan
        return [cuda.to_device(x) for x in maps]


@pytest.fixture
def artifact(tiny, tmp_path):
    return PatchCoreArtifact.open(tiny.write(tmp_path / "tiny.kad"))


def open_cuda(artifact, *, maps=True):
    batches = open_batches(artifact, batch=BATCH)
    network = HostNetwork(NetworkSession(artifact.network, threads=1), batches)
    return CudaPatchCoreScorer(network, batches, artifact=artifact, threads=1, maps=maps)


def open_cpu(artifact):
    return PatchCoreScorer.open(artifact, maps=True, threads=1, batch=BATCH)


def assert_same(found, expected):
    np.testing.assert_array_equal(found.xy, expected.xy)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.tiles.patches, expected.tiles.patches)
    np.testing.assert_array_equal(found.tiles.rows, expected.tiles.rows)
    np.testing.assert_array_equal(found.map, expected.map)


def images(make_board):
    """A board in the forms that cameras give: RGB, BGR, a part of a wider one, grey, RGBA."""
    board = make_board(3, *SIZE, defect=True)
    wider = np.zeros((SIZE[0], SIZE[1] + 9, 3), np.uint8)
    wider[:, 4 : 4 + SIZE[1]] = board
    return {
        "rgb": (board, None),
        "bgr": (board[..., ::-1].copy(), "bgr8"),
        "part": (wider[:, 4 : 4 + SIZE[1]], None),
        "grey": (board[..., 0].copy(), None),
        "rgba": (np.concatenate([board, board[..., :1]], axis=2), None),
    }


def test_boards_score_as_on_the_cpu(artifact, make_board):
    on_gpu, on_cpu = open_cuda(artifact), open_cpu(artifact)
    for name, (image, pixel_format) in images(make_board).items():
        if SIMULATED and name not in {"bgr", "part"}:  # slow
            continue
        expected = on_cpu.score(image, WHOLE, pixel_format)
        found = on_gpu.score(image, WHOLE, pixel_format)
        assert_same(found, expected)
        stages = ["prepare", "upload", "preprocess", "network", "features", "search", "scores"]
        assert [stage for stage in found.timings if stage in stages] == stages
    on_gpu.close()


def test_16_bits_are_cut_on_the_host(artifact, make_board):
    image = make_board(3, 32, 48, defect=False).astype(np.uint16) * 257
    on_gpu = open_cuda(artifact)
    assert_same(on_gpu.score(image), open_cpu(artifact).score(image))
    on_gpu.close()


def test_tiles_score_as_on_the_cpu(artifact):
    tiles = np.random.default_rng(0).standard_normal((BATCH + 1, 3, 32, 32)).astype(np.float32)
    on_gpu = open_cuda(artifact, maps=False)
    found, expected = on_gpu.score_tiles(tiles), open_cpu(artifact).score_tiles(tiles)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.patches, expected.patches)
    on_gpu.close()


def test_a_board_that_is_sent_ahead(artifact, make_board):
    boards = [make_board(seed, 32, 48, defect=False) for seed in range(3)]
    scorer = open_cuda(artifact)
    detector = Detector(artifact, scorer, maps=True, tile_threshold=None, map_threshold=None)
    asked = []
    real = scorer._uploads._fill
    scorer._uploads._fill = lambda place, image: (asked.append(id(image)), real(place, image))[1]
    results = detector.score_batch(boards)
    assert sorted(asked) == sorted(id(board) for board in boards)  # each is uploaded once
    on_cpu = open_cpu(artifact)
    for board, result in zip(boards, results, strict=True):
        np.testing.assert_array_equal(result.map, on_cpu.score(board).map)
    detector.close()
    detector.close()
    with pytest.raises(InvalidArgumentError, match="this detector is closed"):
        detector.score(boards[0])


def test_base_maps_that_are_not_finite(artifact, make_board):
    scorer, board = open_cuda(artifact), make_board(3, *SIZE, defect=False)
    scorer._network.spoil = np.s_[1, 2, 3, 4]
    text = "the base maps of tile 1 hold NaN or Inf at patch 28"
    with pytest.raises(NotFiniteError, match=f"^{text}"):
        scorer.score(board)
    scorer._network.spoil = None
    assert_same(
        scorer.score(board), open_cpu(artifact).score(board)
    )  # it goes on with the next board
    scorer.close()


def test_a_bank_that_does_not_fit(artifact):
    with pytest.raises(ArtifactCorruptError, match="export the artifact again"):
        open_batches(_Cut(artifact), batch=2)


class _Cut:
    """An artifact whose bank lacks a column."""

    def __init__(self, artifact):
        self.manifest, self.neighbors = artifact.manifest, artifact.neighbors
        self.bank = artifact.bank[:, 1:]


def test_a_gpu_that_is_not_there(artifact):
    with pytest.raises(ProviderUnavailableError, match="GPU 99 is not there: expected a number"):
        open_batches(artifact, batch=2, device_id=99)


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


@pytest.mark.skipif(not SIMULATED, reason="addresses are the host's in the simulator alone")
def test_a_detector_with_onnx_runtime_on_the_gpus_memory(artifact, make_board, monkeypatch):
    board = make_board(3, *SIZE, defect=True)
    expected = Detector.open(artifact.path, threads=1).score(board)
    made, real = [], onnxruntime.InferenceSession

    def session(data, **options):
        if options["providers"] == ["CPUExecutionProvider"]:
            return real(data, **options)
        assert options["provider_options"][0]["user_compute_stream"] == "0"
        made.append(BoundOnHost(real(data, providers=["CPUExecutionProvider"])))
        return made[-1]

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    with Detector.open(artifact.path, "cuda", threads=1, batch=BATCH) as detector:
        found = detector.score(board)
        assert (detector.provider, detector.device, detector.precision) == (
            *("cuda", "cuda:0"),
            "fp32",
        )
    np.testing.assert_array_equal(found.map, expected.map)
    assert [tile.score for tile in found.tiles] == [tile.score for tile in expected.tiles]
    assert found.regions == expected.regions
    assert made[0].ran == [BATCH, BATCH]  # the last batch is as large as the others
