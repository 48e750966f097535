"""Scoring by a CutPaste artifact: scores, maps of both kinds, and what scores alone cost."""

from __future__ import annotations

import dataclasses
import re

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from kad_sdk import Annotation, Detector, Rect
from kad_sdk.artifact import Artifact
from kad_sdk.cli import main
from kad_sdk.cutpaste import CutPasteScorer, cam_in_units_of_score
from kad_sdk.dataset import scan_dataset
from kad_sdk.errors import InvalidArgumentError, NotFiniteError
from kad_sdk.evaluation import evaluate
from kad_sdk.facts import describe
from kad_sdk.render import UNSCORED, render_map
from kad_sdk.session import NetworkSession
from kad_sdk.verify import verify_artifact

TILE, STRIDE, TAU = 32, 16, 6.0


@pytest.fixture(scope="module")
def good(make_board):
    return make_board(1, 90, 140, defect=False)


@pytest.fixture(scope="module")
def bad(make_board):
    """A dark square of 12 px at (70, 40)."""
    return make_board(1, 90, 140, defect=True)


@pytest.fixture(scope="module")
def tile_score_artifact(tiny_cutpaste, tmp_path_factory):
    manifest, files = tiny_cutpaste.by_tile_score()
    path = tmp_path_factory.mktemp("flat") / "flat.kad"
    return tiny_cutpaste.write(path, manifest=manifest, files=files)


def crops(image, tiles):
    return np.stack([image[t.y : t.y + TILE, t.x : t.x + TILE] for t in tiles])


def test_tile_scores_are_mahalanobis_distances(tiny_cutpaste, cutpaste_artifact, bad):
    with Detector.open(cutpaste_artifact, threads=2, batch=3) as detector:
        result = detector.score(bad)
    expected = tiny_cutpaste.score(crops(bad, result.tiles))
    np.testing.assert_allclose([t.score for t in result.tiles], expected, rtol=1e-4)
    assert result.score == max(t.score for t in result.tiles)
    assert [t.anomalous for t in result.tiles] == (expected >= TAU).tolist()
    embedding = tiny_cutpaste.run(tiny_cutpaste.network, crops(bad, result.tiles))["embedding"]
    np.testing.assert_allclose(result.embeddings, embedding, rtol=1e-4, atol=1e-5)


def test_verdicts_and_regions(cutpaste_artifact, good, bad):
    with Detector.open(cutpaste_artifact) as detector:
        normal, anomalous = detector.score(good), detector.score(bad)
    assert (normal.verdict, anomalous.verdict) == ("normal", "anomalous")
    assert normal.normalised_score < 0.5 < anomalous.normalised_score
    assert set(anomalous.timings_ms) >= {"prepare", "preprocess", "explain", "density", "map"}
    assert all(region.nearest is None for region in anomalous.regions)
    assert "embeddings" not in anomalous.to_dict()


def enlarged(grid, side):
    return cv2.resize(grid, (side, side), interpolation=cv2.INTER_LINEAR)


def smoothed(tile_map):
    return cv2.GaussianBlur(tile_map, (9, 9), 1.0, borderType=cv2.BORDER_REFLECT_101)


def test_the_map_is_grad_cam_in_units_of_the_score(tiny_cutpaste, cutpaste_artifact, bad):
    """Stitched here by OpenCV, tile by tile, and averaged where tiles overlap."""
    with Detector.open(cutpaste_artifact) as detector:
        result = detector.score(bad)
    cam = tiny_cutpaste.run(tiny_cutpaste.explain, crops(bad, result.tiles))["cam"][:, 0]
    total, count = np.zeros(bad.shape[:2]), np.zeros(bad.shape[:2])
    for tile, one in zip(result.tiles, cam, strict=True):
        share = one / one.max() if one.max() > 0 else one
        place = np.s_[tile.y : tile.y + TILE, tile.x : tile.x + TILE]
        total[place] += smoothed(enlarged((share * tile.score).astype(np.float32), TILE))
        count[place] += 1
    np.testing.assert_array_equal(np.isnan(result.map), count == 0)
    scored = count > 0
    np.testing.assert_allclose(
        result.map[scored], (total[scored] / count[scored]), rtol=1e-4, atol=1e-4
    )


def test_the_map_of_tile_scores_is_their_average(tile_score_artifact, bad):
    with Detector.open(tile_score_artifact) as detector:
        result = detector.score(bad)
    total, count = np.zeros(bad.shape[:2]), np.zeros(bad.shape[:2])
    for tile in result.tiles:
        total[tile.y : tile.y + TILE, tile.x : tile.x + TILE] += tile.score
        count[tile.y : tile.y + TILE, tile.x : tile.x + TILE] += 1
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(result.map, total / count, rtol=1e-5)
    assert set(result.timings_ms) >= {"network", "density", "map"}


def test_a_map_without_activation_is_zero():
    cam = np.zeros((3, 1, 2, 2), np.float32)
    cam[1, 0] = [[1, 2], [0, 4]]
    cam[2, 0, 0, 0] = 1e-42  # a subnormal peak is a peak
    maps = cam_in_units_of_score(cam, np.float32([5, 8, 3]))
    assert maps.dtype == np.float32
    assert maps.tolist() == [[0, 0, 0, 0], [2, 4, 0, 8], [3, 0, 0, 0]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_grad_cam_that_is_not_finite_is_refused(value):
    cam = np.ones((3, 1, 2, 2), np.float32)
    cam[1, 0, 1, 0] = value
    with pytest.raises(NotFiniteError, match="'cam' of tile 1 holds NaN or Inf"):
        cam_in_units_of_score(cam, np.ones(3, np.float32))


# ---- scores alone -------------------------------------------------------------------------------


def test_scores_alone_do_not_run_grad_cam(cutpaste_artifact, bad, monkeypatch):
    opened = []
    original = NetworkSession.__init__

    def spy(self, network, **options):
        original(self, network, **options)
        opened.append(self.output_names)

    monkeypatch.setattr(NetworkSession, "__init__", spy)
    with Detector.open(cutpaste_artifact, maps=False) as alone:
        fast = alone.score(bad)
    with Detector.open(cutpaste_artifact) as mapping:
        full = mapping.score(bad)
    assert opened == [("logits", "embedding"), ("logits", "embedding", "cam")]
    assert (fast.map, fast.regions) == (None, ())
    assert fast.tiles == full.tiles
    assert "explain" not in fast.timings_ms
    assert "map" not in fast.timings_ms
    with pytest.raises(InvalidArgumentError, match="open the detector with maps=True"):
        fast.need_map()


def test_boards_decided_by_their_map_need_maps(tiny_cutpaste, tmp_path):
    thresholds = dataclasses.replace(tiny_cutpaste.manifest.thresholds, board="map-peak")
    manifest = dataclasses.replace(tiny_cutpaste.manifest, thresholds=thresholds)
    path = tiny_cutpaste.write(tmp_path / "x.kad", manifest=manifest)
    with pytest.raises(InvalidArgumentError, match="decides boards by the peak of their map"):
        Detector.open(path, maps=False)


def test_maps_of_grad_cam_need_its_graph(cutpaste_artifact):
    artifact = Artifact.open(cutpaste_artifact)
    with pytest.raises(InvalidArgumentError, match=r"explain\.onnx; got one with the outputs log"):
        CutPasteScorer(
            NetworkSession(artifact.network, threads=1),
            artifact.density,
            preprocessing=artifact.manifest.preprocessing,
            cutpaste=artifact.manifest.cutpaste,
            map_settings=artifact.manifest.map,
            threads=1,
        )


# ---- what is told of it -------------------------------------------------------------------------


def test_golden_tiles_are_checked_in_both_graphs(tiny_cutpaste, cutpaste_artifact, tmp_path):
    found = verify_artifact(cutpaste_artifact, threads=1)
    assert found.passed
    assert [check.name for check in found.checks] == [
        *("logits", "embedding", "tile scores"),
        *("explained logits", "explained embedding", "Grad-CAM", "explained tile scores"),
    ]
    golden = {**tiny_cutpaste.golden, "cam": tiny_cutpaste.golden["cam"] * np.float32(1.001)}
    other = tiny_cutpaste.write(tmp_path / "x.kad", files={"golden.safetensors": golden})
    failed = [check.name for check in verify_artifact(other).checks if not check.passed]
    assert failed == ["Grad-CAM"]


def test_a_flipped_decision_is_found(tiny_cutpaste, tmp_path):
    golden = {**tiny_cutpaste.golden, "anomalous": 1 - tiny_cutpaste.golden["anomalous"]}
    path = tiny_cutpaste.write(tmp_path / "x.kad", files={"golden.safetensors": golden})
    found = verify_artifact(path)
    assert found.flipped == (0, 1, 2)
    assert not found.passed


def test_inspect_says_what_it_is(cutpaste_artifact, tile_score_artifact):
    facts = dict(describe(Artifact.open(cutpaste_artifact).manifest))
    assert facts["tile score"] == "gaussian density of 60 tiles, shrinkage 0.01"
    assert facts["map"] == "grad-cam, grid 16 x 16"
    assert facts["trained"] == "3 epochs of sgd, the best is 2"
    flat = dict(describe(Artifact.open(tile_score_artifact).manifest))
    assert flat["map"] == "tile-score"


def test_evaluation_draws_the_embeddings(cutpaste_artifact, make_board, tmp_path):
    for name, defect in (("a", False), ("b", True)):
        path = tmp_path / "data" / "test" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), make_board(1, 90, 140, defect=defect)[..., ::-1])
        truth = np.zeros((90, 140), np.uint8)
        truth[40:52, 70:82] = 255 * defect
        cv2.imwrite(str(path.with_name(f"{name}_groundtruth.png")), truth)
    dataset = scan_dataset(tmp_path / "data", need_train=False)
    with Detector.open(cutpaste_artifact) as detector:
        figures = evaluate(detector, dataset, tmp_path / "out")
    assert figures["artifact"]["density"] == "gaussian"
    assert figures["tile_roc_auc"] > 0.9
    assert cv2.imread(str(tmp_path / "out" / "tsne.png")) is not None


def kad(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def test_commands(cutpaste_artifact, bad, tmp_path):
    cv2.imwrite(str(tmp_path / "bad.png"), bad[..., ::-1])
    words = ("score", cutpaste_artifact, tmp_path / "bad.png", "--out", tmp_path / "out")
    done = kad(*words, "--hot", "--no-overlay")
    assert done.exit_code == 0, done.output
    assert done.stdout.count("anomalous") == 2
    assert re.search(
        r", density on cpu \(\w+, \d+ threads on the host\)$", done.stdout, re.MULTILINE
    )
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *("bad.json", "bad_map.png", "bad_hot.png"),
    }
    alone = kad(*words[:-1], tmp_path / "alone", "--no-maps")
    assert alone.exit_code == 0, alone.output
    assert [p.name for p in (tmp_path / "alone").iterdir()] == ["bad.json"]
    for option in ("--npy", "--hot", "--heat"):
        refused = kad(*words, "--no-maps", option)
        assert refused.exit_code == 2
        assert "leave --no-maps out" in refused.stderr
    assert kad("verify", cutpaste_artifact).exit_code == 0


# ---- the coloured map ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result(cutpaste_artifact, bad):
    with Detector.open(cutpaste_artifact) as detector:
        return detector.score(bad, Annotation(labels=(Rect(0, 60, 10, 10),)))


def test_the_coloured_map_is_opencvs_hot(result):
    picture = render_map(result)
    assert (picture.shape, picture.dtype) == ((90, 140, 3), np.uint8)
    level = np.clip(np.nan_to_num(result.map) / (2 * result.map_threshold), 0, 1)
    colours = cv2.applyColorMap((255 * level).astype(np.uint8), cv2.COLORMAP_HOT)[..., ::-1]
    scored = ~np.isnan(result.map)
    assert not scored.all()
    np.testing.assert_array_equal(picture[scored], colours[scored])
    assert (picture[~scored] == UNSCORED).all()


def test_a_small_coloured_map_keeps_the_peak(result):
    peak = int(np.nanargmax(result.map))
    y, x = divmod(peak, 140)
    small = render_map(result, max_side=28)
    assert small.shape[:2] == (18, 28)
    around = small[max(0, y // 5 - 1) : y // 5 + 2, max(0, x // 5 - 1) : x // 5 + 2]
    assert around.sum(axis=2).max() >= render_map(result)[y, x].astype(int).sum()
    with pytest.raises(InvalidArgumentError, match="max_side: expected at least 1 px"):
        render_map(result, max_side=0)
