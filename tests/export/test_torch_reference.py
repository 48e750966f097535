"""The oracle against hand-made numbers, SciPy and plain loops."""

import math

import numpy as np
import pytest
import torch
from kad_export import reference
from kad_export.bank import nearest_rows
from scipy.ndimage import gaussian_filter


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- features -----------------------------------------------------------------------------------


def test_bilinear_features_use_half_pixel_centres():
    fine = torch.zeros(1, 2, 1, 4)
    coarse = torch.tensor([[[[0.0, 1.0]]]])  # (1, 1, 1, 2)
    features = reference.patch_features((fine, coarse), grid=(1, 4), resampling="bilinear")
    assert features.shape == (1, 4, 3)
    assert features[0, :, 2].tolist() == [0.0, 0.25, 0.75, 1.0]


def test_adaptive_features_are_means_over_bins():
    layer = torch.tensor([[[[1.0, 2.0, 4.0]]]])
    features = reference.patch_features((layer,), grid=(1, 2), resampling="adaptive-average")
    assert features[0, :, 0].tolist() == [1.5, 3.0]


def test_patches_are_row_by_row_and_channels_in_the_order_of_the_layers():
    first, second = (
        torch.arange(6.0).reshape(1, 1, 2, 3),
        10 + torch.arange(6.0).reshape(1, 1, 2, 3),
    )
    features = reference.patch_features((first, second), grid=(2, 3), resampling="bilinear")
    assert features[0].tolist() == [[i, 10.0 + i] for i in range(6)]


def test_an_unknown_resampling_is_refused():
    with pytest.raises(ValueError, match="got 'nearest'"):
        reference.patch_features((torch.zeros(1, 1, 2, 2),), grid=(2, 2), resampling="nearest")


# ---- search -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (7, 40, 5, 3), (200, 64, 33, 12)])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_nearest_is_the_direct_difference(monkeypatch, sizes, offset):
    n, m, d, k = sizes
    monkeypatch.setattr(reference, "CHUNK_BYTES", 64 * 1024)  # several chunks
    queries, bank = _random(n, d) + offset, _random(m, d, seed=1) + offset
    every = (queries.double()[:, None] - bank.double()).square().sum(dim=2).sqrt()
    expected, rows = every.sort(dim=1, stable=True)
    dist, index = reference.nearest(queries, bank, k)
    torch.testing.assert_close(dist, expected[:, :k], rtol=1e-14, atol=0)
    assert torch.equal(index, rows[:, :k])


def test_ties_go_to_the_lowest_row():
    bank = torch.tensor([[5.0], [1.0], [-1.0], [1.0]])
    dist, index = reference.nearest(torch.tensor([[0.0], [1.0]]), bank, 3)
    assert index.tolist() == [[1, 2, 3], [1, 3, 2]]
    assert dist.tolist() == [[1.0, 1.0, 1.0], [0.0, 0.0, 2.0]]


# ---- scores -------------------------------------------------------------------------------------

BANK = torch.tensor([[0.0, 0.0], [0.0, 3.0], [4.0, 0.0], [9.0, 9.0]])
TILE = torch.tensor([[[0.0, 0.5], [0.0, -2.0]]])  # (1, 2, 2): distances 0.5 and 2, both to row 0
NEIGHBORS = torch.tensor([[1, 2, 3], [0, 2, 3], [0, 1, 3], [1, 2, 0]])
TO_0, TO_1, TO_2 = 2.0, 5.0, math.sqrt(20.0)  # of the second patch


@pytest.mark.parametrize(
    ("reweighting", "n_neighbors", "weight"),
    [
        ("none", 0, 1.0),
        (
            *("thesis", 2),
            1 - math.exp(TO_0 / 2**0.5) / (math.exp(TO_1 / 2**0.5) + math.exp(TO_2 / 2**0.5)),
        ),
        (
            *("paper", 2),
            1 - math.exp(TO_0) / (math.exp(TO_0) + math.exp(TO_1) + math.exp(TO_2)),
        ),
    ],
)
def test_the_score_is_the_largest_distance_reweighted(reweighting, n_neighbors, weight):
    scores = reference.score_tiles(
        TILE, BANK, reweighting=reweighting, neighbors=NEIGHBORS, n_neighbors=n_neighbors
    )
    assert scores.dist.tolist() == [[0.5, 2.0]]
    assert scores.index.tolist() == [[0, 0]]
    assert scores.score.item() == pytest.approx(2.0 * weight, rel=1e-12)


@pytest.mark.parametrize("reweighting", ["thesis", "paper"])
def test_large_distances_do_not_overflow(reweighting):
    scores = reference.score_tiles(
        TILE * 1e6, BANK, reweighting=reweighting, neighbors=NEIGHBORS, n_neighbors=3
    )
    assert 0 < scores.score.item() <= 2e6


def test_each_tile_is_scored_on_its_own():
    features, bank = _random(3, 10, 4), _random(20, 4, seed=1)
    neighbors = torch.from_numpy(nearest_rows(bank.numpy(), 1))
    options = {"reweighting": "thesis", "neighbors": neighbors, "n_neighbors": 3}
    together = reference.score_tiles(features, bank, **options).score
    alone = [reference.score_tiles(one[None], bank, **options).score.item() for one in features]
    assert together.tolist() == pytest.approx(alone, rel=1e-12)


def test_an_unknown_reweighting_is_refused():
    with pytest.raises(ValueError, match="got 'both'"):
        reference.score_tiles(TILE, BANK, reweighting="both", neighbors=NEIGHBORS, n_neighbors=1)


# ---- maps ---------------------------------------------------------------------------------------


def test_a_tile_map_is_enlarged_bilinearly():
    tile_map = reference.tile_map(
        torch.tensor([[0.0, 1.0]]), grid=(1, 2), tile=4, sigma=1.0, radius=0
    )
    assert tile_map.tolist() == [[[0.0, 0.25, 0.75, 1.0]] * 4]


@pytest.mark.parametrize(("sigma", "radius"), [(4.0, 16), (1.5, 3)])
def test_a_tile_map_is_smoothed_like_scipy_does(sigma, radius):
    dist = _random(2, 12).abs()
    options = {"grid": (3, 4), "tile": 24}
    sharp = reference.tile_map(dist, **options, sigma=sigma, radius=0)
    smooth = reference.tile_map(dist, **options, sigma=sigma, radius=radius)
    for before, after in zip(sharp.numpy(), smooth.numpy(), strict=True):
        expected = gaussian_filter(before, sigma, mode="mirror", radius=radius)
        np.testing.assert_allclose(after, expected, rtol=1e-12)


def test_the_board_map_averages_overlaps_and_masks_the_rest():
    maps = torch.stack([torch.full((2, 2), 1.0), torch.full((2, 2), 3.0)])
    board = reference.board_map(maps, torch.tensor([[0, 0], [1, 0]]), height=3, width=4)
    nan = math.nan
    expected = [[1.0, 2.0, 3.0, nan], [1.0, 2.0, 3.0, nan], [nan] * 4]
    np.testing.assert_array_equal(board.numpy(), expected)
