"""The stages, against a NumPy implementation; independence of threads, batches and strides."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from search_oracle import at_level, levels_here

from kad_sdk._native import NativeIndex
from kad_sdk.annotations import Annotation, Rect
from kad_sdk.artifact import Artifact
from kad_sdk.errors import (
    AnnotationError,
    ImageTooSmallError,
    InvalidArgumentError,
    NotFiniteError,
    UnsupportedImageError,
)
from kad_sdk.manifest import Denoise
from kad_sdk.patchcore import PatchCoreScorer
from kad_sdk.prepare import prepare_image
from kad_sdk.session import NetworkSession

TILE, STRIDE = 32, 16


def make_scorer(path, *, threads=1, batch=16, **preprocessing):
    artifact = Artifact.open(path)
    return PatchCoreScorer(
        NetworkSession(artifact.network, threads=threads),
        NativeIndex(artifact.bank, threads=threads),
        preprocessing=dataclasses.replace(artifact.manifest.preprocessing, **preprocessing),
        patchcore=artifact.manifest.patchcore,
        map_settings=artifact.manifest.map,
        neighbors=artifact.neighbors,
        threads=threads,
        batch=batch,
    )


@pytest.fixture(scope="module")
def scorer(tiny_artifact):
    return make_scorer(tiny_artifact)


@pytest.fixture(scope="module")
def board(make_board):
    return make_board(1, 90, 140, defect=True)


def assert_same(a, b):
    for name in ("xy", "map"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    for name in ("scores", "patches", "rows", "embeddings"):
        np.testing.assert_array_equal(getattr(a.tiles, name), getattr(b.tiles, name), err_msg=name)


def test_distances_and_scores_are_those_of_numpy(scorer, board, tiny):
    found = scorer.score(board)
    crops = np.stack([board[y : y + TILE, x : x + TILE] for x, y in found.xy])
    dist, score = tiny.score(crops)
    np.testing.assert_allclose(found.tiles.patches, dist, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.scores, score, rtol=1e-4)
    near = np.take_along_axis(found.tiles.rows, found.tiles.patches.argmax(1)[:, None], 1)
    assert near.min() >= 0
    assert near.max() < 40


def test_the_map_shows_the_defect_and_covers_the_board(scorer, board):
    found = scorer.score(board)
    assert found.map.shape == board.shape[:2]
    assert np.isfinite(found.map).all()
    y, x = np.unravel_index(found.map.argmax(), found.map.shape)
    assert 36 <= y < 56
    assert 66 <= x < 86
    assert set(found.timings) == {"prepare", "preprocess", "network", "search", "map"}
    assert all(ms >= 0 for ms in found.timings.values())


@pytest.mark.parametrize(("threads", "batch"), [(1, 1), (2, 1), (2, 7), (1, 32), (2, 32)])
def test_threads_and_batch_do_not_matter(tiny_artifact, scorer, board, threads, batch):
    other = make_scorer(tiny_artifact, threads=threads, batch=batch)
    assert_same(other.score(board), scorer.score(board))


def test_the_level_does_not_matter(tiny_artifact, scorer, board):
    expected = scorer.score(board)
    for level in levels_here():
        with at_level(level):
            assert_same(make_scorer(tiny_artifact).score(board), expected)


def test_row_strides_and_pixel_formats_do_not_matter(scorer, board):
    expected = scorer.score(board)
    wide = np.zeros((90, 200, 3), np.uint8)
    wide[:, 13:153] = board
    assert_same(scorer.score(wide[:, 13:153]), expected)
    assert_same(scorer.score(wide[::-1, 13:153][::-1]), expected)
    assert_same(scorer.score(board[..., ::-1].copy(), pixel_format="bgr8"), expected)
    alpha = np.full((90, 140, 1), 77, np.uint8)
    assert_same(scorer.score(np.concatenate([board, alpha], axis=2)), expected)
    deep = board.astype(np.uint16) * 257
    np.testing.assert_allclose(scorer.score(deep).scores, expected.scores, rtol=1e-5)


def test_grey_is_grey_rgb(scorer, board):
    grey = board[..., 0].copy()
    assert_same(scorer.score(grey), scorer.score(np.repeat(grey[..., None], 3, axis=2)))


def test_borders_and_labels(scorer, board):
    annotation = Annotation(borders=(Rect(10, 5, 100, 80),), labels=(Rect(20, 10, 12, 9),))
    found = scorer.score(board, annotation)
    x, y = found.xy.T
    assert x.min() >= 10
    assert y.min() >= 5
    assert (x + TILE).max() == 110
    assert (y + TILE).max() == 85
    touches = (x < 32) & (x + TILE > 20) & (y < 19) & (y + TILE > 10)
    assert not touches.any()
    assert np.isnan(found.map[:5]).all()
    assert np.isnan(found.map[:, 110:]).all()
    assert np.isnan(found.map[10:19, 20:32]).all()
    whole = scorer.score(board)
    place = {tuple(p): s for p, s in zip(whole.xy.tolist(), whole.scores, strict=True)}
    for corner, score in zip(found.xy.tolist(), found.scores, strict=True):
        assert place.get(tuple(corner), score) == score


@pytest.mark.parametrize(("tile", "words"), [(5, "begins with tile 4: the base"), (1, "^the base")])
def test_a_network_that_gives_nan_names_the_tile(tiny_artifact, board, monkeypatch, tile, words):
    scorer, seen = make_scorer(tiny_artifact, batch=4), []
    original = scorer.session.run

    def spoiled(tiles):
        maps = original(tiles)
        if sum(seen) <= tile < sum(seen) + len(tiles):
            maps[0][tile - sum(seen), 0, 0, 0] = np.nan
        seen.append(len(tiles))
        return maps

    monkeypatch.setattr(scorer.session, "run", spoiled)
    with pytest.raises(NotFiniteError, match=f"{words} maps of tile 1 hold NaN"):
        scorer.score(board)


def test_annotations_that_do_not_fit(scorer, board):
    with pytest.raises(AnnotationError, match="outside the image of 140 x 90 px"):
        scorer.score(board, Annotation(borders=(Rect(100, 0, 41, 90),)))
    with pytest.raises(AnnotationError, match="touch every tile"):
        scorer.score(board, Annotation(labels=(Rect(0, 0, 140, 90),)))
    with pytest.raises(ImageTooSmallError):
        scorer.score(board, Annotation(borders=(Rect(0, 0, 31, 90),)))


@pytest.mark.parametrize("shape", [(31, 200, 3), (200, 31)])
def test_smaller_than_a_tile(scorer, shape):
    with pytest.raises(ImageTooSmallError, match="31"):
        scorer.score(np.zeros(shape, np.uint8))


def test_smaller_than_a_tile_only_once_it_is_resized(tiny_artifact, board):
    scorer = make_scorer(tiny_artifact, resize=0.5)
    with pytest.raises(
        ImageTooSmallError,
        match=r"^the image is 62 x 300 px, brought to 31 x 150 px \(height x width\) by resize "
        r"0\.5, smaller than one tile of 32 x 32 px; .* a smaller tile or a larger size that ",
    ):
        scorer.score(np.zeros((62, 300, 3), np.uint8))
    with pytest.raises(
        ImageTooSmallError,
        match=r"^borders\[0\] is 45 x 30 px .*, where the image of 90 x 140 px is brought to "
        r"45 x 70 px by resize 0\.5; ",
    ):
        scorer.score(board, Annotation(borders=(Rect(0, 0, 60, 90),)))


def test_no_image(scorer):
    with pytest.raises(UnsupportedImageError, match="got float32"):
        scorer.score(np.zeros((64, 64, 3), np.float32))
    with pytest.raises(InvalidArgumentError, match=r"got \(64,\)"):
        scorer.score(np.zeros(64, np.uint8))
    with pytest.raises(InvalidArgumentError, match="got list"):
        scorer.score([[1, 2], [3, 4]])
    with pytest.raises(InvalidArgumentError):
        scorer.score(np.zeros((64, 64, 2), np.uint8))


def test_resize_moves_the_annotation_along(tiny_artifact, board):
    scorer = make_scorer(tiny_artifact, resize=(45, 70))
    found = scorer.score(board, Annotation(labels=(Rect(0, 0, 3, 3),)))
    assert found.map.shape == (45, 70)
    assert np.isnan(found.map[:2, :2]).all()
    assert (found.xy != [0, 0]).any(axis=1).all()


def test_prepare_image(make_board):
    board = make_board(2, 40, 50, defect=False)
    assert prepare_image(board, resize=None, denoise=None) is board
    small = prepare_image(board[..., 0], resize=(20, 25), denoise=None)
    assert small.shape == (20, 25, 3)
    denoise = Denoise(h=6.0, h_color=6.0, template_window=3, search_window=7)
    smooth = prepare_image(board, resize=None, denoise=denoise)
    bgr = cv2.fastNlMeansDenoisingColored(board[..., ::-1].copy(), None, 6, 6, 3, 7)
    np.testing.assert_array_equal(smooth, bgr[..., ::-1])
    assert smooth.std() < board.std()
    as_bgr = prepare_image(
        board[..., ::-1].copy(), resize=None, denoise=denoise, pixel_format="bgr8"
    )
    np.testing.assert_array_equal(as_bgr, smooth)
    with pytest.raises(UnsupportedImageError, match="8-bit images, got uint16"):
        prepare_image(board.astype(np.uint16), resize=None, denoise=denoise)
