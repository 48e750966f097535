"""The core against NumPy's oracle of the GPU's stages: both doors of the scores give one answer."""

import numpy as np
import pytest
from kad_kernels import reference_tiles

from kad_sdk._native import NativeIndex, patch_features, preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_tiles_are_cut_alike():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    xy = np.array([[0, 0], [18, 8], [3, 5]], np.int32)
    table = reference_tiles.value_table(MEAN, STD)
    np.testing.assert_array_equal(
        reference_tiles.cut(image, xy, 32, table),
        preprocess(image, xy, tile=32, mean=MEAN, std=STD),
    )


@pytest.mark.parametrize("resampling", reference_tiles.RESAMPLINGS)
@pytest.mark.parametrize(
    ("grid", "sides"), [((28, 28), ((28, 28), (14, 14))), ((9, 7), ((8, 7), (5, 3), (1, 1)))]
)
@pytest.mark.parametrize("form", reference_tiles.REWEIGHTINGS)
def test_features_and_scores_are_alike(level, resampling, grid, sides, form):
    del level
    generator = np.random.default_rng(len(sides))
    maps = [
        generator.standard_normal((2, 17 + 3 * i, *side)).astype(np.float32)
        for i, side in enumerate(sides)
    ]
    features = reference_tiles.patch_features(maps, grid=grid, resampling=resampling)
    settings = {"grid": grid, "resampling": resampling}
    np.testing.assert_array_equal(features, patch_features(maps, **settings))
    bank = generator.standard_normal((30, features.shape[2])).astype(np.float32)
    neighbors = generator.integers(0, 30, (30, 5))
    reweighting = {"reweighting": form, "n_neighbors": 3}
    index = NativeIndex(bank)
    _, _, scores = index.score_tiles(maps, **settings, **reweighting, neighbors=neighbors)
    index.close()
    expected = [reference_tiles.tile_score(f, bank, neighbors, **reweighting) for f in features]
    np.testing.assert_array_equal(scores, np.array(expected, np.float32))


def test_weights_of_distances_that_overflow():
    score = np.array([1, np.inf, 2], np.float32)
    away = np.array([[1, np.inf], [1, 2], [1, 2]], np.float32)
    found = reference_tiles.weighted(score, away, 1.0)
    assert found[:2].tolist() == [1, np.inf]
    assert 0 < found[2] < 2


def test_unknown_resampling():
    with pytest.raises(ValueError, match="one of bilinear, adaptive-average, got 'nearest'"):
        reference_tiles.axis_taps("nearest", 3, 4)
