"""The front door: verdicts, results, threads, resizing, folders, errors."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import tiny_artifacts

from kad_sdk import Annotation, Detector, Rect
from kad_sdk.errors import (
    AnnotationError,
    ImageReadError,
    InvalidArgumentError,
    ProviderUnavailableError,
)
from kad_sdk.patchcore import PatchCoreScorer
from kad_sdk.scoring import TileFindings
from kad_sdk.verify import verify_artifact


@pytest.fixture(scope="module")
def detector(tiny_artifact):
    with Detector.open(tiny_artifact, threads=2) as detector:
        yield detector


@pytest.fixture(scope="module")
def good(make_board):
    return make_board(1, 90, 140, defect=False)


@pytest.fixture(scope="module")
def bad(make_board):
    return make_board(1, 90, 140, defect=True)


def assert_same(a, b):
    assert a.tiles == b.tiles
    assert a.regions == b.regions
    np.testing.assert_array_equal(a.map, b.map)


def test_verdicts(detector, good, bad):
    normal, anomalous = detector.score(good), detector.score(bad)
    assert (normal.verdict, anomalous.verdict) == ("normal", "anomalous")
    assert normal.regions == ()
    assert normal.normalised_score < 0.5 < anomalous.normalised_score
    for result in (normal, anomalous):
        assert result.score == np.nanmax(result.map)
        assert result.threshold == result.map_threshold == 0.3
        expected = 1 / (1 + math.exp(-(result.score - 0.3) / 0.1))
        assert result.normalised_score == pytest.approx(expected, abs=1e-12)
        for tile in result.tiles:
            assert tile.anomalous == (tile.score >= 0.3)
            expected = 1 / (1 + math.exp(-(tile.score - 0.3) / 0.1))
            assert tile.normalised_score == pytest.approx(expected, abs=1e-12)


def test_the_largest_tile_can_decide_a_board(tiny, tmp_path, bad):
    thresholds = dataclasses.replace(
        tiny.manifest.thresholds, board="largest-tile", tile_scale=0.05
    )
    manifest = dataclasses.replace(tiny.manifest, thresholds=thresholds)
    with Detector.open(tiny.write(tmp_path / "x.kad", manifest=manifest)) as detector:
        result = detector.score(bad)
    assert result.score == max(tile.score for tile in result.tiles)
    assert result.normalised_score == max(tile.normalised_score for tile in result.tiles)
    assert result.threshold == result.tile_threshold
    assert result.anomalous == any(tile.anomalous for tile in result.tiles)


def test_the_region_and_its_nearest_training_patch(detector, tiny, bad):
    result = detector.score(bad)
    (region,) = result.regions
    assert region.x <= 70
    assert region.y <= 40
    assert region.x + region.width >= 82
    assert region.y + region.height >= 52
    assert region.peak == result.map[region.peak_xy[1], region.peak_xy[0]] == np.nanmax(result.map)
    assert region.area_px == (result.map >= 0.3).sum()
    assert region.distance >= region.peak
    sources = {
        (tiny.manifest.bank.images[i], int(x), int(y))
        for i, (x, y) in zip(tiny.bank["source_image"], tiny.bank["source_xy"], strict=True)
    }
    assert (region.nearest.image, region.nearest.x, region.nearest.y) in sources


def test_shared_between_threads(detector, make_board):
    boards = [make_board(i, 80 + i, 120, defect=i % 2 == 1) for i in range(8)]
    alone = [detector.score(board) for board in boards]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(detector.score, boards * 3))
    for got, expected in zip(together, alone * 3, strict=True):
        assert_same(got, expected)


@pytest.mark.parametrize(("threads", "batch"), [(1, 1), (2, 32)])
def test_threads_and_batch_do_not_matter(tiny_artifact, detector, bad, threads, batch):
    with Detector.open(tiny_artifact, threads=threads, batch=batch) as other:
        assert (other.threads, other.batch) == (threads, batch)
        assert_same(other.score(bad), detector.score(bad))


def test_files_arrays_and_folders_agree(detector, good, bad, tmp_path):
    (tmp_path / "sub").mkdir()
    cv2.imwrite(str(tmp_path / "a.png"), good[..., ::-1])
    cv2.imwrite(str(tmp_path / "sub" / "b.tiff"), bad[..., ::-1])
    cv2.imwrite(str(tmp_path / "sub" / "b_groundtruth.png"), bad)
    (tmp_path / "notes.txt").write_text("not an image")
    found = dict(detector.score_folder(tmp_path))
    assert [p.relative_to(tmp_path).as_posix() for p in found] == ["a.png", "sub/b.tiff"]
    arrays = detector.score_batch([good, bad])
    files = detector.score_batch(list(found), [None, None])
    for folder, array, file in zip(found.values(), arrays, files, strict=True):
        assert_same(folder, array)
        assert_same(file, array)
    assert found[tmp_path / "a.png"].image_name == "a.png"
    assert next(iter(found[tmp_path / "a.png"].timings_ms)) == "read"
    assert arrays[0].image_name is None


def test_folder_errors(detector, tmp_path):
    with pytest.raises(ImageReadError, match="no such folder"):
        list(detector.score_folder(tmp_path / "none"))
    with pytest.raises(ImageReadError, match="no images in this folder"):
        list(detector.score_folder(tmp_path))


def test_folder_with_annotations(detector, bad, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), bad[..., ::-1])
    label = Annotation(labels=(Rect(70, 40, 12, 12),))
    ((_, result),) = detector.score_folder(tmp_path, {"a.png": label})
    assert result.verdict == "normal"
    assert np.isnan(result.map[46, 76])
    with pytest.raises(AnnotationError, match=r"a\.png: not among"):
        list(detector.score_folder(tmp_path, {"b.png": label}))


def test_own_thresholds(tiny_artifact, bad):
    with Detector.open(tiny_artifact, tile_threshold=100.0, map_threshold=50.0) as strict:
        result = strict.score(bad)
    assert (result.tile_threshold, result.map_threshold) == (100.0, 50.0)
    assert not result.anomalous
    assert result.regions == ()
    for value in (0.0, -1.0, 1e39, 1e-46, math.nan, math.inf):
        for name in ("tile_threshold", "map_threshold"):
            wanted = f"{name}: expected a float32 number above 0, got"
            with pytest.raises(InvalidArgumentError, match=wanted):
                Detector.open(tiny_artifact, **{name: value})


def test_a_threshold_between_float32_numbers(tiny, tmp_path, detector, bad):
    """Verdict and regions agree on a peak that such a threshold would be rounded to."""
    thresholds = dataclasses.replace(tiny.manifest.thresholds, min_region_area_px=1)
    manifest = dataclasses.replace(tiny.manifest, thresholds=thresholds)
    path = tiny.write(tmp_path / "x.kad", manifest=manifest)
    peak = detector.score(bad).score
    for threshold, anomalous in ((peak, True), (peak * (1 + 1e-9), False)):
        assert np.float32(threshold) == peak
        with Detector.open(path, map_threshold=threshold) as own:
            result = own.score(bad)
        assert result.anomalous == anomalous
        assert bool(result.regions) == anomalous


def test_resizing_by_a_factor(tiny, tmp_path, bad):
    preprocessing = dataclasses.replace(tiny.manifest.preprocessing, resize=0.5)
    manifest = dataclasses.replace(tiny.manifest, preprocessing=preprocessing)
    with Detector.open(tiny.write(tmp_path / "x.kad", manifest=manifest)) as detector:
        for board, frame in ((bad, (45, 70)), (bad[:81, :99], (40, 50))):
            result = detector.score(board)
            assert result.frame_size == frame
            assert result.map.shape == board.shape[:2]


def test_a_factor_cannot_ask_for_more_memory_than_there_is(tiny, tmp_path):
    preprocessing = dataclasses.replace(tiny.manifest.preprocessing, resize=8)
    manifest = dataclasses.replace(tiny.manifest, preprocessing=preprocessing)
    board = np.broadcast_to(np.uint8(200), (2048, 2049))
    with (
        Detector.open(tiny.write(tmp_path / "x.kad", manifest=manifest)) as detector,
        pytest.raises(InvalidArgumentError, match=r"becomes 16384 x 16392 px .* at most 268435456"),
    ):
        detector.score(board)


def test_resized_boards_are_reported_in_their_own_pixels(tiny, tmp_path, make_board):
    preprocessing = dataclasses.replace(tiny.manifest.preprocessing, resize=(90, 140))
    manifest = dataclasses.replace(tiny.manifest, preprocessing=preprocessing)
    big = cv2.resize(make_board(1, 90, 140, defect=True), (420, 180))  # 3 x wider, 2 x higher
    with Detector.open(tiny.write(tmp_path / "x.kad", manifest=manifest)) as detector:
        result = detector.score(big, Annotation(labels=(Rect(0, 0, 3, 2),)))
    assert result.map.shape == result.image_size == (180, 420)
    assert result.frame_size == (90, 140)
    (region,) = result.regions
    assert region.x <= 210
    assert 246 <= region.x + region.width <= 420
    assert region.y <= 80
    assert 104 <= region.y + region.height <= 180
    assert 210 <= region.peak_xy[0] < 246
    assert 80 <= region.peak_xy[1] < 104
    assert region.peak == pytest.approx(np.nanmax(result.map), rel=0.05)
    assert np.isnan(result.map[0, 0])
    finite = np.isfinite(result.map)
    assert result.map[finite].min() >= 0
    assert max(tile.x for tile in result.tiles) <= 140 - 32


def test_the_share_of_a_board_that_is_scored_is_told(detector, good):
    assert detector.score(good).scored_share == 1
    active, label = Rect(10, 5, 100, 80), Rect(40, 20, 9, 9)
    result = detector.score(good, Annotation(borders=(active,), labels=(label,)))
    wanted = np.zeros(good.shape[:2], bool)
    wanted[5:85, 10:110] = True
    wanted[20:29, 40:49] = False
    scored = np.isfinite(result.map)
    assert not (scored & ~wanted).any()
    assert result.scored_share == (scored & wanted).sum() / wanted.sum() < 0.9
    assert result.to_dict()["scored_share"] == result.scored_share


def test_what_is_no_annotation_or_image_is_named(detector, good):
    with pytest.raises(InvalidArgumentError, match=r"kad_sdk.Annotation or None, got dict; read"):
        detector.score(good, {"borders": [[0, 0, 40, 40]]})
    with pytest.raises(InvalidArgumentError, match=r"an array or a file's path, got NoneType"):
        detector.score(None)


def test_json(detector, bad):
    result = detector.score(bad)
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["verdict"] == "anomalous"
    assert content["score"] == result.score
    assert len(content["tiles"]) == len(result.tiles)
    assert content["tiles"][0] == dataclasses.asdict(result.tiles[0])
    assert content["regions"][0]["nearest"] == dataclasses.asdict(result.regions[0].nearest)
    assert content["image_size"] == [90, 140]
    assert set(content["timings_ms"]) == {
        *("prepare", "preprocess", "network", "search", "map", "regions")
    }


def test_closed(tiny_artifact, good):
    detector = Detector.open(tiny_artifact)
    detector.close()
    detector.close()
    with pytest.raises(InvalidArgumentError, match="this detector is closed"):
        detector.score(good)


def test_what_it_runs_on(detector, tiny_artifact):
    assert (detector.provider, detector.device, detector.precision) == ("cpu", "cpu", "fp32")
    assert repr(detector) == f"Detector({str(tiny_artifact)!r}, provider='cpu')"


def test_wrong_options(tiny_artifact, detector, tmp_path):
    with pytest.raises(InvalidArgumentError, match="threads and batch"):
        Detector.open(tiny_artifact, threads=0)
    with pytest.raises(InvalidArgumentError, match="threads and batch"):
        Detector.open(tiny_artifact, batch=0)
    with pytest.raises(InvalidArgumentError, match="pixel_format is for arrays"):
        detector.score(tmp_path / "a.png", pixel_format="bgr8")
    with pytest.raises(ImageReadError, match="no such image file"):
        detector.score(tmp_path / "none.png")


def test_the_network_of_another_artifact_is_noticed(tiny, tmp_path):
    outputs = tiny.manifest.network.outputs[::-1]
    network = dataclasses.replace(tiny.manifest.network, outputs=outputs)
    golden = {**tiny.golden}
    golden["base_map_0"], golden["base_map_1"] = golden["base_map_1"], golden["base_map_0"]
    manifest = dataclasses.replace(tiny.manifest, network=network)
    path = tiny.write(tmp_path / "x.kad", manifest=manifest, golden=golden)
    with pytest.raises(Exception, match=r"network\.onnx: expected input and outputs"):
        Detector.open(path)


def test_verify(tiny, tiny_artifact, tmp_path):
    found = verify_artifact(tiny_artifact)
    assert found.passed
    assert [check.name for check in found.checks] == [
        *("base map base_map_0", "base map base_map_1", "patch distances", "tile scores")
    ]
    wrong = {**tiny.golden, "score": tiny.golden["score"] * np.float32(1.01)}
    wrong["anomalous"] = 1 - wrong["anomalous"]
    failed = verify_artifact(tiny.write(tmp_path / "x.kad", golden=wrong))
    assert not failed.passed
    assert failed.flipped == (0, 1, 2)
    assert [check.passed for check in failed.checks] == [True, True, True, False]
    assert failed.checks[-1].max_rel == pytest.approx(0.01 / 1.01, rel=1e-3)
    assert json.loads(json.dumps(failed.to_dict()))["flipped"] == [0, 1, 2]


def test_verify_compares_what_scores(tiny_artifact, monkeypatch):
    real = PatchCoreScorer.score_tiles

    def larger(self, tiles, watch=None):
        found = real(self, tiles, watch)
        return TileFindings(found.scores * np.float32(1.01), found.patches, found.rows)

    monkeypatch.setattr(PatchCoreScorer, "score_tiles", larger)
    failed = [check.name for check in verify_artifact(tiny_artifact).checks if not check.passed]
    assert failed == ["tile scores"]


def test_verify_refuses_windows_on_tensorrt_as_scoring_does(tmp_path):
    path = tiny_artifacts.write(tmp_path / "w.kad", tiny_artifacts.windows())
    for open_ in (Detector.open, verify_artifact):
        with pytest.raises(ProviderUnavailableError, match="or export with --mode tiles"):
            open_(path, provider="tensorrt")


def test_provider_not_available(tiny_artifact):
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine's ONNX Runtime has the CUDA provider")
    for open_ in (Detector.open, verify_artifact):
        with pytest.raises(ProviderUnavailableError, match="has no CUDAExecutionProvider"):
            open_(tiny_artifact, provider="cuda")


def test_scoring_brings_in_no_training_stack(tiny_artifact, tmp_path, good):
    cv2.imwrite(str(tmp_path / "a.png"), good)
    shutil.copytree(tiny_artifact, tmp_path / "x.kad")
    program = (
        "import sys, kad_sdk\n"
        "kad_sdk.Detector.open('x.kad').score('a.png')\n"
        "heavy = {'torch', 'onnx', 'numba', 'sklearn', 'matplotlib', 'click'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
