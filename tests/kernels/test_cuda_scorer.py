"""The scorer of a GPU against the CPU's, in numba's simulator or on a GPU.

Both are given one network, some lines of NumPy, so that their scores must be the same bits; nothing
else is needed that a machine with a GPU might lack.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("numba.cuda", reason="numba-cuda is not installed: pip install 'kad-sdk[gpu]'")

from kad_kernels import reference, reference_tiles
from kad_kernels._cuda import cuda
from kad_kernels.tensor.rows import FEWEST_ROWS
from tensor_tests import EMULATED, emulate_or_skip

from kad_sdk._native import NativeIndex
from kad_sdk.annotations import Annotation
from kad_sdk.cuda import CudaPatchCoreScorer, open_batches
from kad_sdk.errors import (
    ArtifactCorruptError,
    NotFiniteError,
    ProviderUnavailableError,
)
from kad_sdk.manifest import MapSettings, NetworkOutput, PatchCore, Preprocessing
from kad_sdk.patchcore import PatchCoreScorer

emulate_or_skip()

pytestmark = pytest.mark.gpu

TILE, SIZE = 32, (48, 64)  # 2 x 3 tiles
WHOLE = Annotation()
BATCH = 4  # not a divisor of 6
SIDES, CHANNELS = (8, 4), (5, 6)


class NumpyNetwork:
    """Two layers: the tile's means over squares, mixed to channels, and rectified."""

    provider, device, precision = "cpu", "cpu", "fp32"
    spoil = None

    def __init__(self):
        generator = np.random.default_rng(7)
        self._mixing = [generator.standard_normal((n, 3)).astype(np.float32) for n in CHANNELS]

    def run(self, tiles):
        maps = []
        for side, mixing in zip(SIDES, self._mixing, strict=True):
            size = TILE // side
            means = tiles.reshape(len(tiles), 3, side, size, side, size).mean((3, 5))
            mixed = [np.einsum("cd,dhw->chw", mixing, tile) for tile in means]  # one by one: the
            maps.append(np.maximum(np.stack(mixed), 0).astype(np.float32))  # batch changes no bit
        if self.spoil is not None:
            maps[0][self.spoil] = np.nan
        return maps


class HostNetwork:
    """Runs a network of the host, between two copies."""

    provider, device, precision = "cuda", "cuda:0", "fp32"

    def __init__(self, network, batches):
        self.network, self._batches = network, batches

    def run(self, tiles, n):
        self._batches.wait()
        return [cuda.to_device(x) for x in self.network.run(tiles.copy_to_host()[:n])]

    def close(self):
        pass


def make_board(seed, height, width):
    """A bright board with faint noise; the defect is a dark square of 12 px at (40, 30)."""
    generator = np.random.default_rng(seed)
    board = 200 + generator.integers(-8, 9, (height, width, 3))
    board[30:42, 40:52] = 20
    return board.astype(np.uint8)


@pytest.fixture
def artifact():
    """As much of an artifact as the scorers look at."""
    generator = np.random.default_rng(11)
    tiles = generator.standard_normal((5, 3, TILE, TILE)).astype(np.float32) * 0.1 + 1
    manifest = SimpleNamespace(
        preprocessing=Preprocessing(
            tile=TILE,
            stride=16,
            train_stride=16,
            resize=None,
            mean=(0.5, 0.45, 0.4),
            std=(0.25, 0.3, 0.2),
            normalisation="dataset",
            denoise=None,
        ),
        patchcore=PatchCore("bilinear", "same-bilinear", (8, 8), "thesis", 3),
        map=MapSettings(1.0, 3),
        network=SimpleNamespace(
            outputs=[
                NetworkOutput(f"map_{i}", n, s, s)
                for i, (n, s) in enumerate(zip(CHANNELS, SIDES, strict=True))
            ]
        ),
    )
    features = reference_tiles.patch_features(
        NumpyNetwork().run(tiles), grid=(8, 8), resampling="bilinear"
    )
    bank = features.reshape(-1, sum(CHANNELS))[::8].copy()
    neighbors = reference.nearest(bank, bank, 6)[1][:, 1:]
    return SimpleNamespace(manifest=manifest, bank=bank, neighbors=neighbors)


def open_cuda(artifact, *, maps=True, tier="auto"):
    batches = open_batches(artifact, batch=BATCH, tier=tier)
    network = HostNetwork(NumpyNetwork(), batches)
    return CudaPatchCoreScorer(network, batches, artifact=artifact, threads=1, maps=maps)


def open_cpu(artifact):
    manifest = artifact.manifest
    return PatchCoreScorer(
        NumpyNetwork(),
        NativeIndex(artifact.bank),
        preprocessing=manifest.preprocessing,
        patchcore=manifest.patchcore,
        map_settings=manifest.map,
        neighbors=artifact.neighbors,
        threads=1,
        batch=BATCH,
    )


def assert_same(found, expected):
    np.testing.assert_array_equal(found.xy, expected.xy)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.tiles.patches, expected.tiles.patches)
    np.testing.assert_array_equal(found.tiles.rows, expected.tiles.rows)
    np.testing.assert_array_equal(found.map, expected.map)


def images():
    """A board in the forms that cameras give: RGB, BGR, a part of a wider one, grey, RGBA."""
    board = make_board(3, *SIZE)
    wider = np.zeros((SIZE[0], SIZE[1] + 9, 3), np.uint8)
    wider[:, 4 : 4 + SIZE[1]] = board
    return {
        "rgb": (board, None),
        "bgr": (board[..., ::-1].copy(), "bgr8"),
        "part": (wider[:, 4 : 4 + SIZE[1]], None),
        "grey": (board[..., 0].copy(), None),
        "rgba": (np.concatenate([board, board[..., :1]], axis=2), None),
    }


def test_boards_score_as_on_the_cpu(artifact):
    on_gpu, on_cpu = open_cuda(artifact), open_cpu(artifact)
    for name, (image, pixel_format) in images().items():
        if EMULATED and name not in {"bgr", "part"}:  # slow
            continue
        expected = on_cpu.score(image, WHOLE, pixel_format)
        found = on_gpu.score(image, WHOLE, pixel_format)
        assert_same(found, expected)
        stages = ["prepare", "upload", "preprocess", "network", "features", "search", "scores"]
        assert [stage for stage in found.timings if stage in stages] == stages
    on_gpu.close()


def test_boards_score_alike_with_a_bank_screened_on_tensor_cores(artifact):
    generator = np.random.default_rng(2)
    few, wanted = artifact.bank, FEWEST_ROWS + 77
    rows = few[generator.integers(len(few), size=wanted)]
    artifact.bank = rows + generator.standard_normal(rows.shape).astype(np.float32) * 0.01
    artifact.neighbors = generator.integers(wanted, size=(wanted, 5)).astype(np.int64)
    on_gpu, on_cpu = open_cuda(artifact, tier="tensor"), open_cpu(artifact)
    board = make_board(3, *SIZE)
    assert_same(on_gpu.score(board), on_cpu.score(board))
    on_gpu.close()


def test_16_bits_are_cut_on_the_host(artifact):
    image = make_board(3, 32, 48).astype(np.uint16) * 257
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


def test_base_maps_that_are_not_finite(artifact):
    scorer, board = open_cuda(artifact), make_board(3, 32, 48)
    scorer._network.network.spoil = np.s_[1, 2, 3, 4]
    text = "the base maps of tile 1 hold NaN or Inf at patch 28"
    with pytest.raises(NotFiniteError, match=f"^{text}"):
        scorer.score(board)
    scorer._network.network.spoil = None
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
