"""The GPU's stages from pixels to tile scores against NumPy, bit by bit.

On a GPU, or in small cases in the simulator, as ``test_cuda_kernels.py``.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

pytest.importorskip("numba.cuda", reason="numba-cuda is not installed: pip install 'kad-sdk[gpu]'")

from kad_kernels import nearest, reference, reference_tiles
from kad_kernels._cuda import cuda
from kad_kernels.batches import STAGES, Batches
from kad_kernels.device import gpu_is_available, has_tensor_tier
from kad_kernels.reference_tiles import REWEIGHTINGS
from kad_kernels.stages import ALL_FINITE
from kad_kernels.upload import Uploads

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"

if not SIMULATED and not gpu_is_available():
    pytest.skip(
        "neither a GPU nor numba's simulator (NUMBA_ENABLE_CUDASIM=1)", allow_module_level=True
    )

pytestmark = pytest.mark.gpu

MEAN, STD = (0.5, 0.45, 0.4), (0.25, 0.3, 0.2)
# grid, layers, resampling, tile, bank rows, batch, tiles
SHAPES = [
    ((4, 3), ((5, 4, 3), (3, 2, 2)), "bilinear", 4, 20, 2, 3),
    ((4, 4), ((5, 3, 3), (2, 2, 2)), "adaptive-average", 5, 20, 2, 2),
]
if not SIMULATED:
    SHAPES += [
        ((28, 28), ((128, 28, 28), (256, 14, 14)), "bilinear", 224, 700, 16, 20),
        ((28, 28), ((512, 26, 26), (1024, 12, 12)), "adaptive-average", 224, 700, 7, 9),
        ((33, 31), ((33, 33, 31), (65, 9, 7), (1, 1, 1)), "bilinear", 65, 64, 3, 4),
    ]


class Setting:
    """A bank, base maps and a board of one shape, and the stages for them."""

    def __init__(self, shape, reweighting="thesis", tier="auto"):
        self.grid, self.layers, self.resampling, self.tile, rows, self.batch, self.n = shape
        generator = np.random.default_rng(len(self.layers))
        dims, self.patches = sum(layer[0] for layer in self.layers), self.grid[0] * self.grid[1]
        self.maps = [
            generator.standard_normal((self.n, *layer)).astype(np.float32) for layer in self.layers
        ]
        self.bank = generator.standard_normal((rows, dims)).astype(np.float32)
        others = reference.nearest(self.bank, self.bank, 6)[1][:, 1:]
        self.board = generator.integers(0, 256, (3 * self.tile, 2 * self.tile + 3, 4), np.uint8)
        self.xy = np.stack(
            [
                generator.integers(0, self.tile + 4, self.n),
                generator.integers(0, 2 * self.tile + 1, self.n),
            ],
            axis=1,
        ).astype(np.int32)
        self.reweighting = {"reweighting": reweighting, "n_neighbors": 3}
        self.neighbors = others
        self.stages = Batches(
            self.bank,
            layers=self.layers,
            grid=self.grid,
            resampling=self.resampling,
            neighbors=None if reweighting == "none" else others,
            **self.reweighting,
            tile=self.tile,
            mean=MEAN,
            std=STD,
            batch=self.batch,
            tier=tier,
        )

    def batches(self):
        return [(i, min(self.batch, self.n - i)) for i in range(0, self.n, self.batch)]

    def features(self):
        return reference_tiles.patch_features(self.maps, grid=self.grid, resampling=self.resampling)

    def scores(self, features):
        found = [
            reference_tiles.tile_score(tile, self.bank, self.neighbors, **self.reweighting)
            for tile in features
        ]
        return np.array(found, np.float32)

    def run(self):
        """Find on all batches, which are given to the stream before any is waited for."""
        self.stages.begin(self.n, self.xy)
        tickets = []
        for first, n in self.batches():
            ticket = self.stages.put(np.zeros((n, 3, self.tile, self.tile), np.float32), first)
            padded = [np.full((self.batch, *m.shape[1:]), np.nan, np.float32) for m in self.maps]
            for room, values in zip(padded, self.maps, strict=True):
                room[:n] = values[first : first + n]
            self.stages.score(ticket, [cuda.to_device(room) for room in padded])
            tickets.append(ticket)
        return [self.stages.read(ticket) for ticket in tickets]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_tiles_are_those_of_the_reference(shape, order):
    setting = Setting(shape)
    stages, uploads = setting.stages, Uploads()
    table = reference_tiles.value_table(MEAN, STD)
    rows_apart = np.zeros((len(setting.board), 2, *setting.board.shape[1:]), np.uint8)
    rows_apart[:, 0] = setting.board
    for board in (setting.board[..., :3].copy(), setting.board, rows_apart[:, 0]):
        expected = reference_tiles.cut(board[..., list(order)], setting.xy, setting.tile, table)
        uploads.send_ahead(board)
        stages.begin(setting.n, setting.xy)
        with uploads.board(board) as pixels:
            pixels.ready.wait(stages.stream)
            for first, n in setting.batches():
                stages.cut(pixels, order, first, n)
                stages.wait()
                np.testing.assert_array_equal(
                    stages.tiles.copy_to_host()[:n], expected[first : first + n]
                )
    uploads.close()


def test_boards_sent_ahead_that_are_not_asked_for():
    uploads, boards = Uploads(), [np.full((9, 7), value, np.uint8) for value in range(4)]
    uploads.send_ahead(boards[0])
    with uploads.board(boards[1]) as pixels:
        for i in (2, 2, 3):  # the last drops the first
            uploads.send_ahead(boards[i])
        pixels.ready.synchronize()
        assert set(pixels.values.copy_to_host()[:63]) == {1}
        assert [waiting.image[0, 0] for waiting in uploads._ahead] == [2, 3]
        assert uploads._free == []
    for i in (3, 0, 2):
        with uploads.board(boards[i]) as pixels:
            pixels.ready.synchronize()
            assert set(pixels.values.copy_to_host()[:63]) == {i}
    assert len(uploads._free) == 3
    uploads.close()


def test_a_board_that_is_sent_again_is_brought_again():
    """A camera fills its buffers anew: the array is the same, the board another one."""
    uploads, buffer = Uploads(), np.full((9, 7), 1, np.uint8)
    for value in (2, 3):  # not asked for
        uploads.send_ahead(buffer)
        uploads._ahead[0].filled.result()
        buffer[:] = value
    uploads.send_ahead(buffer)
    assert len(uploads._ahead) == 1
    with uploads.board(buffer) as pixels:
        pixels.ready.synchronize()
        assert set(pixels.values.copy_to_host()[:63]) == {3}
    assert len(uploads._free) == 3
    uploads.close()


def test_a_board_that_is_forgotten():
    uploads, buffers = Uploads(), [np.full((9, 7), value, np.uint8) for value in (1, 2)]
    for buffer in buffers:
        uploads.send_ahead(buffer)
    uploads.forget(buffers[0])
    uploads.forget(buffers[0])  # it is not there any more
    buffers[0][:] = 3
    for buffer, value in zip(buffers, (3, 2), strict=True):
        with uploads.board(buffer) as pixels:
            pixels.ready.synchronize()
            assert set(pixels.values.copy_to_host()[:63]) == {value}
    assert len(uploads._free) == 3
    uploads.close()


@pytest.mark.parametrize("shape", SHAPES)
def test_features_distances_and_scores_are_those_of_the_reference(shape):
    setting = Setting(shape)
    features = setting.features()
    found = setting.run()
    last = setting.batches()[-1][1]
    np.testing.assert_array_equal(
        setting.stages._features.copy_to_host()[: last * setting.patches],
        features[-last:].reshape(-1, features.shape[2]),
    )
    dist, rows = reference.nearest(features.reshape(-1, features.shape[2]), setting.bank)
    shape = setting.n, setting.patches
    np.testing.assert_array_equal(np.concatenate([f.dist for f in found]), dist.reshape(shape))
    np.testing.assert_array_equal(np.concatenate([f.rows for f in found]), rows.reshape(shape))
    np.testing.assert_array_equal(
        np.concatenate([f.scores for f in found]), setting.scores(features)
    )
    assert all((f.bad == ALL_FINITE).all() for f in found)
    assert all(list(f.stages_ms) == list(STAGES) for f in found)


if not SIMULATED:

    @pytest.mark.skipif(not has_tensor_tier(), reason="no GPU with the tensor tier")
    def test_scores_by_the_tensor_tier():
        shape = (28, 28), ((128, 28, 28), (256, 14, 14)), "bilinear", 32, 2_100, 4, 5
        setting = Setting(shape, tier="tensor")
        features = setting.features()
        found = setting.run()
        np.testing.assert_array_equal(
            np.concatenate([f.scores for f in found]), setting.scores(features)
        )
        dist, _ = reference.nearest(features.reshape(-1, features.shape[2]), setting.bank)
        np.testing.assert_array_equal(
            np.concatenate([f.dist for f in found]).reshape(-1), dist[:, 0]
        )


@pytest.mark.parametrize("reweighting", [form for form in REWEIGHTINGS if form != "thesis"])
def test_scores_of_the_other_forms(reweighting):
    setting = Setting(SHAPES[0], reweighting)
    scores = np.concatenate([found.scores for found in setting.run()])
    np.testing.assert_array_equal(scores, setting.scores(setting.features()))


def test_more_neighbours_than_are_measured_side_by_side():
    setting = Setting(SHAPES[0], "paper")
    many = reference.nearest(setting.bank, setting.bank, 20)[1][:, 1:13]
    setting.neighbors, setting.reweighting["n_neighbors"] = many, 12
    setting.stages = Batches(
        setting.bank,
        layers=setting.layers,
        grid=setting.grid,
        resampling=setting.resampling,
        neighbors=many,
        **setting.reweighting,
        tile=setting.tile,
        mean=MEAN,
        std=STD,
        batch=setting.batch,
    )
    scores = np.concatenate([found.scores for found in setting.run()])
    np.testing.assert_array_equal(scores, setting.scores(setting.features()))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_feature_that_is_not_finite_is_told(value):
    setting = Setting(SHAPES[0])
    setting.maps[0][1, 2, 1, 2] = value
    found = setting.run()
    assert found[0].bad.tolist() == [ALL_FINITE, 1 * 3 + 2]
    assert (found[1].bad == ALL_FINITE).all()


def test_distances_that_overflow():
    setting = Setting(SHAPES[0])
    setting.maps[0][0, :, 1, 1] = 3e38
    found = setting.run()[0]
    assert found.dist[0, 1 * 3 + 1] == np.inf
    assert found.scores[0] == np.inf
    assert np.isfinite(found.scores[1])


def test_search_on_the_gpu_leaves_the_answer_there():
    generator = np.random.default_rng(1)
    bank = generator.standard_normal((70, 5)).astype(np.float32)
    rows = nearest.open_rows(bank)
    stream = cuda.stream()
    for n, k in ((3, 2), (2, 1), (66 if not SIMULATED else 4, 2)):
        queries = generator.standard_normal((n, 5)).astype(np.float32)
        dist, index = rows.query_device(cuda.to_device(queries), k, stream)
        stream.synchronize()
        expected = reference.nearest(queries, bank, k)
        np.testing.assert_array_equal(dist.copy_to_host(), expected[0])
        np.testing.assert_array_equal(index.copy_to_host(), expected[1])
    np.testing.assert_array_equal(rows.rows.copy_to_host(), bank)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="tier must be one of auto, portable, tensor, got 'best'"):
        nearest.open_rows(np.ones((2, 2), np.float32), "best")
    rows = nearest.open_rows(np.ones((2, 3), np.float32), "portable")
    with pytest.raises(ValueError, match="queries have 2 dimensions, the bank 3"):
        rows.query_device(cuda.to_device(np.ones((2, 2), np.float32)))
    with pytest.raises(ValueError, match="k must be 1 to 2, got 3"):
        rows.query_device(cuda.to_device(np.ones((2, 3), np.float32)), 3)
    setting = Setting(SHAPES[0])
    options = {
        "layers": setting.layers,
        "grid": setting.grid,
        "resampling": setting.resampling,
        "tile": 4,
        "mean": MEAN,
        "std": STD,
        "batch": 2,
        "reweighting": "thesis",
    }
    with pytest.raises(ValueError, match="the layers have 8 channels, the bank 7"):
        Batches(setting.bank[:, 1:], neighbors=None, n_neighbors=3, **options)
    with pytest.raises(ValueError, match="n_neighbors must be 1 to 5, got 6"):
        Batches(setting.bank, neighbors=setting.neighbors, n_neighbors=6, **options)
    with pytest.raises(ValueError, match="neighbors must be rows 0 to 19 for each of 20 rows"):
        Batches(setting.bank, neighbors=setting.neighbors + 1, n_neighbors=3, **options)
