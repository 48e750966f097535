"""Base maps: resampling against PyTorch, search against plain queries, scores against NumPy."""

import numpy as np
import pytest
from kad_kernels.reference import distances, nearest
from search_oracle import at_level, levels_here

from kad_sdk._native import NativeIndex, patch_features
from kad_sdk.errors import InvalidArgumentError, NotFiniteError
from kad_sdk.search import SearchIndex

torch = pytest.importorskip("torch")

SIZES = [  # of the layers, then the grid
    ([(5, 28, 28), (9, 14, 14)], (28, 28)),
    ([(5, 26, 26), (9, 12, 12)], (28, 28)),
    ([(17, 7, 9), (3, 30, 11), (8, 1, 1)], (10, 13)),
    ([(33, 5, 4)], (1, 1)),
]


def base_maps(seed, sizes, batch=3):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(batch, *size)).astype(np.float32) for size in sizes]


def torch_features(maps, grid, resampling):
    def resample(layer):
        if resampling == "bilinear":
            return torch.nn.functional.interpolate(layer, grid, mode="bilinear")
        return torch.nn.functional.adaptive_avg_pool2d(layer, grid)

    layers = [resample(torch.from_numpy(m)).flatten(2).transpose(1, 2) for m in maps]
    return torch.cat(layers, 2).numpy()


@pytest.mark.parametrize("resampling", ["bilinear", "adaptive-average"])
@pytest.mark.parametrize(("sizes", "grid"), SIZES)
def test_patch_features_are_those_of_pytorch(sizes, grid, resampling):
    maps = base_maps(0, sizes)
    features = patch_features(maps, grid=grid, resampling=resampling)
    np.testing.assert_allclose(
        features, torch_features(maps, grid, resampling), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("resampling", ["bilinear", "adaptive-average"])
@pytest.mark.parametrize(("sizes", "grid"), SIZES)
def test_patch_features_are_the_same_at_every_level(sizes, grid, resampling):
    maps = base_maps(1, sizes)
    expected = patch_features(maps, grid=grid, resampling=resampling)
    for level in levels_here():
        with at_level(level):
            for threads in (1, 2):
                got = patch_features(maps, grid=grid, resampling=resampling, threads=threads)
                np.testing.assert_array_equal(got, expected)


def test_a_layer_on_the_grid_is_copied():
    maps = base_maps(2, [(6, 4, 5)])
    features = patch_features(maps, grid=(4, 5), resampling="bilinear")
    assert np.array_equal(features, maps[0].reshape(3, 6, 20).transpose(0, 2, 1))


@pytest.mark.parametrize("resampling", ["bilinear", "adaptive-average"])
@pytest.mark.parametrize("k", [1, 3])
def test_query_maps_is_query_of_patch_features(resampling, k):
    sizes, grid = SIZES[1]
    maps = base_maps(3, sizes, batch=5)
    bank = np.random.default_rng(4).normal(size=(150, 14)).astype(np.float32)
    features = patch_features(maps, grid=grid, resampling=resampling)
    expected = nearest(features.reshape(-1, 14), bank, k)
    with SearchIndex(bank) as index:
        for threads in (1, 2, 7):
            dist, row = index.query_maps(maps, k, grid=grid, resampling=resampling, threads=threads)
            assert dist.shape == row.shape == (5, 784, k)
            np.testing.assert_array_equal(dist.reshape(-1, k), expected[0])
            np.testing.assert_array_equal(row.reshape(-1, k), expected[1])


def test_many_tiles_pass_in_groups():
    # 40 tiles of 784 x 384 values exceed what is held at once.
    maps = base_maps(5, [(128, 28, 28), (256, 14, 14)], batch=40)
    bank = np.random.default_rng(6).normal(size=(3, 384)).astype(np.float32)
    with SearchIndex(bank, threads=2) as index:
        dist, row = index.query_maps(maps, grid=(28, 28), resampling="bilinear")
        for tile in (0, 26, 27, 39):
            part = [m[tile : tile + 1] for m in maps]
            one = index.query_maps(part, grid=(28, 28), resampling="bilinear")
            assert np.array_equal(dist[tile], one[0][0])
            assert np.array_equal(row[tile], one[1][0])


def test_not_finite_maps_are_named():
    maps = base_maps(7, [(4, 6, 6), (4, 3, 3)])
    maps[0][2, 1, 4, 3] = np.nan
    with SearchIndex(np.zeros((5, 8))) as index, pytest.raises(NotFiniteError) as error:
        index.query_maps(maps, grid=(6, 6), resampling="bilinear")
    assert "tile 2" in str(error.value)
    assert f"patch {4 * 6 + 3}" in str(error.value)


# ---- scores -------------------------------------------------------------------------------------


def tile_scores(features, bank, neighbors, n_neighbors, reweighting):
    """Equations 4.7 to 4.9 of the thesis, and equation 7 of arXiv 2106.08265."""
    scores = []
    for tile in features:
        dist, row = nearest(tile, bank)
        patch = int(dist[:, 0].argmax())
        score, nearest_row = float(dist[patch, 0]), int(row[patch, 0])
        if reweighting != "none":
            others = list(neighbors[nearest_row, :n_neighbors])
            others += [nearest_row] if reweighting == "paper" else []
            scale = 1.0 if reweighting == "paper" else np.sqrt(features.shape[-1])
            to_others = distances(tile[patch : patch + 1], bank[others])[0].astype(float)
            score *= 1 - np.exp(score / scale) / np.exp(to_others / scale).sum()
        scores.append(score)
    return np.array(scores)


def scored(reweighting, n_neighbors, *, columns=4, **overrides):
    maps = base_maps(8, [(6, 8, 8), (10, 4, 4)])
    bank = np.random.default_rng(9).normal(size=(40, 16)).astype(np.float32)
    neighbors = nearest(bank, bank, columns + 1)[1][:, 1:].copy()
    options = {"grid": (8, 8), "resampling": "bilinear"}
    features = patch_features(maps, **options)
    arguments = {"reweighting": reweighting, "neighbors": neighbors, "n_neighbors": n_neighbors}
    got = NativeIndex(bank).score_tiles(maps, **options, **{**arguments, **overrides}, threads=2)
    return got, features, bank, neighbors


@pytest.mark.parametrize(
    ("reweighting", "n_neighbors"),
    [("none", 0), ("thesis", 3), ("thesis", 1), ("paper", 4), ("paper", 1)],
)
def test_scores(reweighting, n_neighbors):
    (dist, row, score), features, bank, neighbors = scored(reweighting, n_neighbors)
    expected = nearest(features.reshape(-1, 16), bank)
    assert np.array_equal(dist.reshape(-1, 1), expected[0])
    assert np.array_equal(row.reshape(-1, 1), expected[1])
    wanted = tile_scores(features, bank, neighbors, n_neighbors, reweighting)
    np.testing.assert_allclose(score, wanted, rtol=1e-6, atol=1e-7)


def test_the_forms_of_reweighting_differ():
    scores = [scored(form, 3)[0][2] for form in ("none", "thesis", "paper")]
    assert (scores[0] > scores[1]).all()
    assert (scores[1] != scores[2]).all()


def test_reweighting_does_not_overflow():
    # exp of these distances is infinite in float64.
    bank = np.array([[0.0], [1e4], [2e4]], np.float32)
    maps = [np.full((1, 1, 1, 1), -1000.0, np.float32)]
    score = NativeIndex(bank).score_tiles(
        maps,
        grid=(1, 1),
        resampling="bilinear",
        reweighting="paper",
        neighbors=np.array([[1], [0], [1]]),
        n_neighbors=1,
    )[2]
    assert score.tolist() == [1000.0]  # the other row is so much farther that the weight is 1


@pytest.mark.parametrize(
    ("reweighting", "n_neighbors", "overrides"),
    [
        ("thesis", 5, {}),
        ("paper", 5, {}),
        ("thesis", 0, {}),
        ("thesis", 3, {"neighbors": None}),
        ("thesis", 3, {"neighbors": np.full((40, 4), 40)}),
        ("thesis", 3, {"neighbors": np.full((40, 4), -1)}),
    ],
)
def test_wrong_neighbours(reweighting, n_neighbors, overrides):
    with pytest.raises(InvalidArgumentError, match="neighbors"):
        scored(reweighting, n_neighbors, **overrides)
