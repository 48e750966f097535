"""An artifact of windows: what is in it, and what its scores do not depend on."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import write_board
from convert_once import convert_once
from kad_export.cli import main as kad_export
from kad_export.data import Blocks, load_training_board
from kad_export.extend import ExtendOptions, extend_artifact
from kad_export.options import PatchCoreOptions
from kad_export.patchcore import build_network
from kad_export.pipeline import export_patchcore
from kad_export.reference import patch_features

from kad_sdk import Annotation, Detector, Rect
from kad_sdk._native import NativeIndex, preprocess_window
from kad_sdk.artifact import Artifact
from kad_sdk.dataset import Sample, scan_dataset
from kad_sdk.errors import InvalidArgumentError, ProviderUnavailableError
from kad_sdk.images import read_image
from kad_sdk.patchcore import PatchCoreScorer
from kad_sdk.session import NetworkSession
from kad_sdk.verify import verify_artifact
from kad_sdk.windows import WindowScorer

SIZE = (448, 384)  # px, height and width
TILE, STRIDE = 96, 48
OPTIONS = {
    "weights": "random:0",
    "tile": TILE,
    "stride": STRIDE,
    "coreset": 0.02,
    "threads": 2,
    "mode": "windows",
    "window": 128,
}


@pytest.fixture(scope="module")
def boards(tmp_path_factory):
    root = tmp_path_factory.mktemp("boards")
    for i in range(3):
        write_board(root / "train" / "good" / f"{i:03}.png", i, size=SIZE)
    write_board(root / "test" / "spot" / "000.png", 20, spot=True, size=SIZE)
    return root


@pytest.fixture(scope="module")
def artifact(boards, tmp_path_factory, graphs):
    out = tmp_path_factory.mktemp("windows") / "w.kad"
    with pytest.MonkeyPatch.context() as patch:
        convert_once(graphs, patch)
        return export_patchcore(boards, out, PatchCoreOptions(**OPTIONS))


@pytest.fixture(scope="module")
def opened(artifact):
    return Artifact.open(artifact)


@pytest.fixture(scope="module")
def image(boards):
    return read_image(boards / "test" / "spot" / "000.png")


def scorer_of(opened: Artifact, window: int) -> WindowScorer:
    """Score as the artifact says, but with windows of another size."""
    settings = opened.manifest.patchcore
    windows = dataclasses.replace(settings.windows, window_px=window)
    return WindowScorer(
        NetworkSession(opened.network, threads=2),
        NativeIndex(opened.bank, threads=2),
        preprocessing=opened.manifest.preprocessing,
        patchcore=dataclasses.replace(settings, windows=windows),
        map_settings=opened.manifest.map,
        neighbors=opened.neighbors,
        threads=2,
    )


def test_the_artifact_says_how_boards_are_scored(opened, artifact):
    manifest = opened.manifest
    settings, windows = manifest.patchcore, manifest.patchcore.windows
    assert (settings.mode, settings.resampling) == ("windows", "aligned-bilinear")
    assert (windows.window_px, windows.halo_px, windows.align_px) == (128, 144, 16)
    assert (windows.patch_px, windows.label_margin_px) == (8, 32)
    assert manifest.preprocessing.train_stride == 64
    assert set(manifest.verification["windows"]) == {"layer2", "layer3"}
    assert verify_artifact(artifact, threads=2).passed


def test_every_patch_of_the_training_boards_is_learnt_from_once(opened):
    # Two boards, one is held out; blocks of 64 px tile them without a rest.
    assert opened.manifest.bank.coreset.candidates == 2 * (SIZE[0] // 8) * (SIZE[1] // 8)
    assert opened.manifest.training.tiles == 2 * (SIZE[0] // 64) * (SIZE[1] // 64)


def test_the_rows_of_the_bank_are_features_of_one_pass_over_their_board(opened, boards):
    network = build_network("resnet18", ("layer2", "layer3"), "same-bilinear", "random:0")
    settings = opened.manifest.preprocessing
    for number, name in enumerate(opened.manifest.bank.images):
        pixels = preprocess_window(
            read_image(boards / name),
            (0, 0, SIZE[1], SIZE[0]),
            mean=settings.mean,
            std=settings.std,
        )
        with torch.inference_mode():
            maps = network(torch.from_numpy(pixels))
        grid = tuple(maps[0].shape[2:])
        features = patch_features(maps, grid=grid, resampling="bilinear")[0].numpy()
        rows = np.flatnonzero(opened.source_image == number)
        assert len(rows)
        column, row = (opened.source_xy[rows] // 8).T
        assert (opened.source_xy[rows] % 8 == 4).all()  # centres
        expected = features[row * grid[1] + column]
        assert np.abs(opened.bank[rows] - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("window", [64, 256, 2048])
def test_nothing_but_rounding_depends_on_the_windows(opened, image, window):
    expected, got = (scorer_of(opened, size).score(image) for size in (128, window))
    scale = expected.map.max()
    assert np.abs(got.map - expected.map).max() < 1e-5 * scale
    assert np.abs(got.scores - expected.scores).max() < 1e-5 * scale
    assert np.abs(got.tiles.patches - expected.tiles.patches).max() < 1e-5 * scale


@pytest.mark.parametrize("crop", [16, 48])
def test_a_crop_by_whole_cells_gives_the_same_map(opened, crop):
    """Where the crop is farther from the active area than a feature reaches."""
    rng = np.random.default_rng(3)
    board = cv2.GaussianBlur(rng.normal(128, 80, (544, 560)), (0, 0), 2).clip(0, 255)
    board = board.astype(np.uint8)
    area = Rect(205, 211, 131, 117)
    moved = Rect(area.x - crop, area.y - crop, area.width, area.height)
    whole = scorer_of(opened, 128).score(board, Annotation((area,), ()))
    part = scorer_of(opened, 128).score(board[crop:-crop, crop:-crop], Annotation((moved,), ()))
    a = whole.map[area.y : area.y + area.height, area.x : area.x + area.width]
    b = part.map[moved.y : moved.y + area.height, moved.x : moved.x + area.width]
    assert np.isfinite(a).all()
    assert np.abs(a - b).max() < 1e-5 * a.max()
    assert np.abs(whole.scores - part.scores).max() < 1e-5 * a.max()


def test_the_detector_finds_the_spot(artifact, image):
    with Detector.open(artifact, threads=2) as detector:
        result = detector.score(image, keep_patches=True)
    assert result.patches.shape == (len(result.tiles), (TILE // 8) ** 2)
    y, x = np.unravel_index(np.nanargmax(result.map), result.map.shape)
    assert np.hypot(x - 40, y - 50) < 30
    assert {"preprocess", "network", "search", "map"} <= set(result.timings_ms)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lower_precisions_score_in_windows_too(boards, image, graphs, tmp_path, precision):
    options = PatchCoreOptions(**OPTIONS, precision=precision)
    with pytest.MonkeyPatch.context() as patch:
        convert_once(graphs, patch)
        path = export_patchcore(boards, tmp_path / "lower.kad", options)
    with Detector.open(path, threads=2) as detector:
        result = detector.score(image)
    assert detector.precision == precision
    assert set(detector.artifact.manifest.verification) >= {"precision", "windows"}
    y, x = np.unravel_index(np.nanargmax(result.map), result.map.shape)
    assert np.hypot(x - 40, y - 50) < 30


def test_an_artifact_is_never_scored_in_the_other_mode(opened, small_artifact):
    with pytest.raises(InvalidArgumentError, match="fitted in windows"):
        PatchCoreScorer.open(opened, maps=True, threads=1, batch=4)
    with pytest.raises(InvalidArgumentError, match="fitted on tiles"):
        WindowScorer.open(Artifact.open(small_artifact), maps=True, threads=1, batch=4)
    with (
        Detector.open(opened.path, threads=1) as detector,
        pytest.raises(InvalidArgumentError, match="not 1 tiles without what surrounds them"),
    ):
        detector._scorer.score_tiles(np.zeros((1, 3, TILE, TILE), np.float32))


def test_engines_of_one_size_are_refused(opened):
    with pytest.raises(ProviderUnavailableError, match="--mode tiles"):
        Detector.open(opened.path, "tensorrt", threads=1)


def test_a_bank_of_windows_is_not_extended(artifact, boards, tmp_path):
    with pytest.raises(InvalidArgumentError, match="export all boards anew"):
        extend_artifact(artifact, boards / "train" / "good", tmp_path / "y.kad", ExtendOptions())


def test_training_leaves_out_labels_with_a_margin_and_dark_places(tmp_path):
    board = np.full((320, 330, 3), 160, np.uint8)
    board[:, 250:] = 0
    cv2.imwrite(str(tmp_path / "b.png"), board)
    annotation = Annotation((Rect(0, 0, 330, 320),), (Rect(70, 70, 30, 30),))
    sample = dataclasses.replace(
        scan_dataset(tmp_path).train[0], name="b.png", annotation=annotation
    )
    assert isinstance(sample, Sample)
    _, xy = load_training_board(sample, tile=96, stride=64, blocks=Blocks(64, 32))
    assert (xy[:, 0] < 250).all()
    apart = (xy[:, 0] >= 132) | (xy[:, 1] >= 132)  # the label ends at 100 px, and its margin is 32
    assert apart.all()
    assert {(128, 192), (0, 256), (192, 0)} <= set(map(tuple, xy.tolist()))


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--window", "100"], "multiple of 16 px"),
        (["--window-memory", "1MB"], "raise --window-memory"),
        (["--pooling", "valid-adaptive"], "--pooling same-bilinear"),
        (["--tile", "64"], "at least 96 px"),
        (["--tile", "100"], "multiple of 16 px of at least 96 px"),
        (["--train-stride", "32"], "--train-stride: expected at least 64 px"),
        (["--window", "256", "--window-memory", "1GB"], "leave one out"),
    ],
)
def test_what_windows_cannot_do_is_said_before_the_work(boards, tmp_path, words, match):
    options = ["--weights", "random:0", "--mode", "windows", "--tile", "96", *words]
    command = ["patchcore", str(boards), "--out", str(tmp_path / "x.kad"), *options, "--quiet"]
    result = CliRunner().invoke(kad_export, command)
    assert result.exit_code == 1
    assert match in result.output
    assert not (tmp_path / "x.kad").exists()
