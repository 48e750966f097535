"""Evaluation of a detector whose scores are known: what is counted, where, and what is written."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import kad_sdk
from kad_sdk.annotations import Annotation, Rect
from kad_sdk.dataset import Dataset, Sample, resize_mask, scan_dataset
from kad_sdk.errors import (
    AnnotationError,
    DatasetError,
    ImageTooSmallError,
    MissingDependencyError,
    OutputError,
)
from kad_sdk.evaluation import evaluate, format_table
from kad_sdk.rules import NO_RULES

TILE = 16
KEYS = {
    *("tile_roc_auc", "image_roc_auc", "pixel_roc_auc", "aupro", "average_precision", "best_f1"),
    *("accuracy", "precision", "recall", "confusion_matrix", "threshold"),
}
FILES = {"metrics.json", "scores.csv", "roc.png", "scores.png", "examples.png"}


@dataclass
class BrightnessDetector:
    """Scores a tile by its brightest pixel; the map is the image. Tiles do not overlap."""

    threshold: float = 150.0
    resize: tuple[int, int] | None = None
    tile_threshold = map_threshold = 150.0
    provider = device = "cpu"
    precision = "fp32"
    threads = batch = 1

    @property
    def artifact(self) -> SimpleNamespace:
        manifest = SimpleNamespace(
            method="patchcore",
            format_version="1.0",
            created_by={"kad-sdk": "0.1.0"},
            network=SimpleNamespace(
                backbone="none",
                layers=("layer2",),
                weights=SimpleNamespace(name="w"),
                precision="fp32",
            ),
            patchcore=SimpleNamespace(pooling="same-bilinear", reweighting="none"),
            preprocessing=SimpleNamespace(tile=TILE, stride=TILE, resize=self.resize),
            bank=SimpleNamespace(rows=1, dims=1),
            training=SimpleNamespace(fingerprint="0" * 64),
        )
        thresholds = SimpleNamespace(board="largest-tile", method="given")
        return SimpleNamespace(
            path=Path("white.kad"), manifest=manifest, thresholds=thresholds, rules=NO_RULES
        )

    def score(
        self, image: np.ndarray, annotation: Annotation | None = None, *, keep_patches: bool = False
    ) -> SimpleNamespace:
        grey = image if image.ndim == 2 else image.max(axis=2)
        height, width = grey.shape
        heat = grey.astype(np.float32)
        frame = grey if self.resize is None else cv2.resize(grey, self.resize[::-1])
        if min(frame.shape) < TILE:
            raise ImageTooSmallError(f"the image is {width} x {height} px")
        area = Rect(0, 0, width, height) if annotation is None else annotation.borders[0]
        outside = np.ones(grey.shape, bool)
        outside[area.y : area.y + area.height, area.x : area.x + area.width] = False
        heat[outside] = np.nan
        tiles = [
            SimpleNamespace(x=x, y=y, score=float(frame[y : y + TILE, x : x + TILE].max()))
            for y in range(0, frame.shape[0] - TILE + 1, TILE)
            for x in range(0, frame.shape[1] - TILE + 1, TILE)
            if self.resize or (x >= area.x and y >= area.y)
        ]
        score = max(tile.score for tile in tiles)
        flagged = (np.nan_to_num(heat) >= self.map_threshold).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(flagged)
        regions = [
            SimpleNamespace(x=x, y=y, width=w, height=h, peak_xy=(x, y))
            for x, y, w, h, _ in stats[1:].tolist()
        ]
        return SimpleNamespace(
            score=score,
            normalised_score=score / 255,
            anomalous=score >= self.threshold,
            tiles=tiles,
            need_map=lambda: heat,
            map_threshold=self.map_threshold,
            regions=regions,
            timings_ms={"network": 1.0, "search": 3.0},
            frame_size=frame.shape,
            embeddings=None,
            rules=NO_RULES,
            judged_scores=lambda: np.array([tile.score for tile in tiles]),
        )


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def board(*spots: tuple[int, int, int], size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """A dark board with single pixels (y, x) of a given brightness."""
    image = np.full(size, 40, np.uint8)
    for y, x, value in spots:
        image[y, x] = value
    return image


def truth(*spots: tuple[int, int], size: tuple[int, int] = (48, 64)) -> np.ndarray:
    return board(*((y, x, 255) for y, x in spots), size=size) // 255 * 255


@pytest.fixture
def boards(tmp_path: Path) -> Path:
    """12 tiles a board. a: found; b: missed; c: good; d: good, a false alarm; e: no label."""
    root = tmp_path / "white"
    write(root / "train" / "t.png", board())
    for name, image, mask in [
        ("a", board((3, 5, 200), (40, 60, 180)), truth((3, 5), (40, 60))),
        ("b", board((20, 20, 120)), truth((20, 20))),
        ("c", board((1, 1, 100)), truth()),
        ("d", board((1, 1, 160)), truth()),
        ("e", board((1, 1, 250)), None),
    ]:
        write(root / "test" / f"{name}.png", image)
        if mask is not None:
            write(root / "test" / f"{name}_groundtruth.png", mask)
    return root


@pytest.fixture
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take most of the time, and are looked at in one test and in test_plots.py."""
    for name in ("curves_png", "scores_png", "examples_png"):
        monkeypatch.setattr(f"kad_sdk.plots.{name}", lambda *_: b"")


def test_figures_of_boards_worked_out_by_hand(boards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    steps: list[int] = []
    figures = evaluate(BrightnessDetector(), scan_dataset(boards), out, progress=steps.append)
    assert steps == [1] * 5
    assert {path.name for path in out.iterdir()} == FILES
    for path in out.glob("*.png"):
        assert cv2.imread(str(path)) is not None
    assert json.loads((out / "metrics.json").read_text()) == figures
    assert set(figures) >= KEYS
    assert figures["reasons"] == {}
    # Tiles: 48 with a label, of which 3 are defective (200, 180, 120) and 45 normal (160, 100, 40).
    assert figures["confusion_matrix"] == [[44, 1], [1, 2]]
    assert figures["accuracy"] == pytest.approx(46 / 48)
    assert figures["precision"] == pytest.approx(2 / 3)
    assert figures["recall"] == pytest.approx(2 / 3)
    assert figures["tile_roc_auc"] == pytest.approx((45 + 45 + 44) / (3 * 45))
    assert figures["average_precision"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert figures["best_f1"] == pytest.approx(6 / 7)
    assert figures["best_f1_threshold"] == 120
    assert figures["threshold"] == 150
    # Images: scores 200, 120 | 100, 160.
    assert figures["image"]["confusion_matrix"] == [[1, 1], [1, 1]]
    assert figures["image_roc_auc"] == figures["image"]["roc_auc"] == pytest.approx(3 / 4)
    # Pixels: 3 defects, 1 px each; one normal pixel in 4 boards lies above one of them.
    normal = 4 * 48 * 64 - 3
    assert figures["pixel_roc_auc"] == pytest.approx(1 - 1 / (3 * normal), abs=1e-9)
    assert figures["pixel"]["regions"] == 3
    assert figures["pixel"]["normal_px"] == normal
    assert figures["aupro"] == pytest.approx(1 - 1 / (3 * normal * 0.3), abs=1e-9)
    assert figures["counts"] == {
        "images": 5,
        "normal_images": 2,
        "anomalous_images": 2,
        "unlabelled_images": 1,
        "anomalous_images_without_mask": 0,
        "tiles": 48,
        "normal_tiles": 45,
        "anomalous_tiles": 3,
    }
    # Regions: the two of board a are right, that of board d is false; of e nothing is known.
    assert figures["regions"] == {
        "defects": 3,
        "found_defects": 2,
        "defect_recall": pytest.approx(2 / 3),
        "unscored_defects": 0,
        "images": 4,
        "false_regions": 1,
        "false_regions_per_image": 0.25,
        "false_regions_on_normal_images": 1,
        "false_regions_per_normal_image": 0.5,
    }
    table = format_table(figures)
    assert "regions: 2 of 3 defects found, 0.25 false regions an image\n" in table
    assert figures["kinds"] == {
        "defect": {
            "images": 2,
            "flagged": 1,
            "image_recall": 0.5,
            "image_roc_auc": 0.75,
            "defect_tiles": 3,
            "tile_recall": pytest.approx(2 / 3),
            "tile_roc_auc": pytest.approx((45 + 45 + 44) / (3 * 45)),
            "defects": 3,
            "found_defects": 2,
            "defect_recall": pytest.approx(2 / 3),
        },
        "good": {"images": 2, "flagged": 1, "false_alarm_rate": 0.5},
    }
    assert figures["timings_ms"]["search"] == {"mean": 3.0, "total": 15.0}
    assert figures["artifact"]["name"] == "white.kad"
    assert figures["data"]["name"] == "white"


@pytest.mark.usefixtures("_no_pictures")
def test_tiles_and_images_have_thresholds_of_their_own(boards: Path, tmp_path: Path) -> None:
    detector = BrightnessDetector(threshold=110.0)
    figures = evaluate(detector, scan_dataset(boards), tmp_path / "out")
    assert (figures["threshold"], figures["image"]["threshold"]) == (150, 110)
    assert figures["confusion_matrix"] == [[44, 1], [1, 2]]
    assert figures["image"]["confusion_matrix"] == [[1, 1], [0, 2]]
    assert "tiles flagged at 150, images at 110" in format_table(figures)


@pytest.mark.usefixtures("_no_pictures")
def test_every_figure_says_its_level_and_every_null_its_reason(
    boards: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):  # only normal and unlabelled boards are left
        (boards / "test" / f"{name}.png").unlink()
        (boards / "test" / f"{name}_groundtruth.png").unlink()
    figures = evaluate(BrightnessDetector(), scan_dataset(boards), tmp_path / "out")
    assert set(figures["levels"]) >= KEYS
    missing = {key for key in figures["levels"] if figures[key] is None}
    assert missing == set(figures["reasons"])
    assert missing >= {"tile_roc_auc", "image_roc_auc", "pixel_roc_auc", "aupro", "recall"}
    assert figures["confusion_matrix"] == [[23, 1], [0, 0]]
    table = format_table(figures)
    assert "no recall: all 24 tiles are normal" in table
    assert "left out: 1 images without a known label" in table


@pytest.mark.usefixtures("_no_pictures")
def test_scores_csv_has_a_row_for_each_image(boards: Path, tmp_path: Path) -> None:
    evaluate(BrightnessDetector(), scan_dataset(boards), tmp_path / "out")
    with (tmp_path / "out" / "scores.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert list(rows) == [f"test/{name}.png" for name in "abcde"]
    assert (rows["test/a.png"]["label"], rows["test/e.png"]["label"]) == ("1", "")
    assert (rows["test/a.png"]["defect_tiles"], rows["test/e.png"]["defect_tiles"]) == ("2", "")
    assert rows["test/d.png"]["anomalous"] == "1"
    assert float(rows["test/b.png"]["score"]) == 120
    counts = ("defects", "found_defects", "false_regions")
    assert [[rows[f"test/{name}.png"][key] for key in counts] for name in "abde"] == [
        *(["2", "2", "0"], ["1", "0", "0"], ["0", "0", "1"], ["", "", ""]),
    ]


@pytest.mark.usefixtures("_no_pictures")
def test_masked_pixels_and_tiles_do_not_count(boards: Path, tmp_path: Path) -> None:
    # Only the right half is active: the defect at (3, 5) and the spots at (1, 1) lie outside.
    entry = {"borders": [[32, 0, 32, 48]], "labels": []}
    names = [f"{name}.png" for name in "abcde"]
    (boards / "test" / "annotations.json").write_text(json.dumps(dict.fromkeys(names, entry)))
    figures = evaluate(BrightnessDetector(), scan_dataset(boards), tmp_path / "out")
    assert figures["counts"]["tiles"] == 4 * 6
    assert figures["counts"]["anomalous_tiles"] == 1
    assert figures["pixel"]["masked_px"] == 4 * 48 * 32
    assert figures["pixel"]["regions"] == 1
    assert figures["pixel"]["masked_regions"] == 2
    assert (figures["regions"]["defects"], figures["regions"]["unscored_defects"]) == (1, 2)
    assert "2 defects lie where nothing is scored" in format_table(figures)
    assert figures["pixel_roc_auc"] == 1


@pytest.mark.usefixtures("_no_pictures")
def test_mvtec_layout_mixed_sizes_and_kinds(tmp_path: Path) -> None:
    root = tmp_path / "magnetic"
    write(root / "train" / "good" / "0.png", board())
    write(root / "test" / "good" / "0.png", board((1, 1, 100)))
    write(root / "test" / "good" / "1.png", board(size=(20, 33)))
    for kind, value, size in [
        ("crack", 200, (30, 90)),
        ("fray", 90, (64, 16)),
        ("dent", 255, (32, 32)),
    ]:
        write(root / "test" / kind / "0.png", board((9, 9, value), size=size))
        if kind != "dent":
            write(root / "ground_truth" / kind / "0_mask.png", truth((9, 9), size=size))
    figures = evaluate(BrightnessDetector(), scan_dataset(root), tmp_path / "out")
    assert figures["kinds"]["crack"]["image_roc_auc"] == 1
    assert figures["kinds"]["fray"]["image_roc_auc"] == 0.5
    assert figures["kinds"]["fray"]["tile_recall"] == 0
    # A defective image without a mask counts at image level alone.
    assert figures["kinds"]["dent"] == {
        "images": 1,
        "flagged": 1,
        "image_recall": 1.0,
        "image_roc_auc": 1.0,
        "defect_tiles": 0,
        "tile_recall": None,
        "tile_roc_auc": None,
        "defects": 0,
        "found_defects": 0,
        "defect_recall": None,
    }
    assert figures["counts"]["anomalous_images_without_mask"] == 1
    assert figures["counts"]["anomalous_tiles"] == 2
    assert "dent" in format_table(figures)


@pytest.mark.usefixtures("_no_pictures")
def test_kinds_of_boards_are_told_apart_by_their_boxes(boards: Path, tmp_path: Path) -> None:
    """Board a has a dent at (3, 5) and a scar at (40, 60), b a scar at (20, 20)."""
    entries = {
        "a.png": [
            {"kind": "dent", "box": [0, 0, 10, 10]},
            {"kind": "scar", "box": [50, 30, 14, 18]},
        ],
        "b.png": [{"kind": "scar", "box": [20, 20, 1, 1]}],
    }
    (boards / "defects.json").write_text(json.dumps(entries))
    dataset = scan_dataset(boards)
    assert [sample.kind for sample in dataset.test] == [
        *("dent, scar", "scar", "good", "good", "unlabelled"),
    ]
    kinds = evaluate(BrightnessDetector(), dataset, tmp_path / "out")["kinds"]
    assert list(kinds) == ["dent", "good", "scar"]
    # The dent's tile is the brightest (200); the scars' have 180 and 120, below one good tile.
    assert kinds["dent"] == {
        "images": 1,
        "flagged": 1,
        "image_recall": 1.0,
        "image_roc_auc": 1.0,
        "defect_tiles": 1,
        "tile_recall": 1.0,
        "tile_roc_auc": 1.0,
        "defects": 1,
        "found_defects": 1,
        "defect_recall": 1.0,
    }
    assert (kinds["scar"]["defects"], kinds["scar"]["found_defects"]) == (2, 1)
    assert (kinds["scar"]["images"], kinds["scar"]["flagged"]) == (2, 1)
    assert (kinds["scar"]["defect_tiles"], kinds["scar"]["tile_recall"]) == (2, 0.5)
    assert kinds["scar"]["tile_roc_auc"] == pytest.approx((45 + 44) / (2 * 45))


@pytest.mark.usefixtures("_no_pictures")
def test_ground_truth_outside_of_every_box_is_of_another_kind(boards: Path, tmp_path: Path) -> None:
    entries = {
        "a.png": [{"kind": "dent", "box": [0, 0, 10, 10]}],  # says nothing of (40, 60)
        "b.png": [{"kind": "scar", "box": [30, 0, 9, 9]}],  # beside the mark at (20, 20)
    }
    (boards / "defects.json").write_text(json.dumps(entries))
    kinds = evaluate(BrightnessDetector(), scan_dataset(boards), tmp_path / "out")["kinds"]
    assert {kind: facts.get("defect_tiles") for kind, facts in kinds.items()} == {
        "dent": 1,
        "good": None,
        "other": 2,
    }


def test_a_box_outside_of_its_board_is_named(boards: Path, tmp_path: Path) -> None:
    entries = {name: [{"kind": "dent", "box": [60, 40, 4, 9]}] for name in ("a.png", "b.png")}
    (boards / "defects.json").write_text(json.dumps(entries))
    with pytest.raises(AnnotationError, match=r"test/a\.png: the box \[60, 40, 4, 9\] of a dent"):
        evaluate(BrightnessDetector(), scan_dataset(boards), tmp_path / "out")


@pytest.mark.usefixtures("_no_pictures")
def test_tiles_of_a_resized_image_are_labelled_in_the_resized_frame(
    boards: Path, tmp_path: Path
) -> None:
    # 48 x 64 -> 16 x 16: one tile a board; a defect of one pixel survives the reduction.
    detector = BrightnessDetector(resize=(16, 16), threshold=60)
    figures = evaluate(detector, scan_dataset(boards), tmp_path / "out")
    assert figures["counts"]["tiles"] == 4
    assert figures["counts"]["anomalous_tiles"] == 2
    assert figures["pixel"]["normal_px"] == 4 * 48 * 64 - 3  # pixels in the image's own frame


@pytest.mark.usefixtures("_no_pictures")
def test_a_mask_is_brought_to_the_frame_once(
    boards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        "kad_sdk.tally.resize_mask",
        lambda mask, size: (asked.append(size), resize_mask(mask, size))[1],
    )
    detector = BrightnessDetector(resize=(16, 16), threshold=60)
    evaluate(detector, scan_dataset(boards), tmp_path / "out")
    assert asked == [(16, 16)] * 4  # the fifth board has no mask


@pytest.mark.usefixtures("_no_pictures")
def test_fingerprint_tells_contents_apart(boards: Path, tmp_path: Path) -> None:
    def fingerprint() -> str:
        figures = evaluate(BrightnessDetector(), scan_dataset(boards), tmp_path / "out")
        return str(figures["data"]["fingerprint"])

    before = fingerprint()
    assert fingerprint() == before
    write(boards / "test" / "a_groundtruth.png", truth((3, 5)))
    assert fingerprint() != before


def test_no_test_images_is_a_named_error(boards: Path, tmp_path: Path) -> None:
    dataset = scan_dataset(boards)
    with pytest.raises(DatasetError, match="no test images"):
        evaluate(BrightnessDetector(), Dataset(boards, "boards", dataset.train, ()), tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_an_error_of_scoring_names_the_image(boards: Path, tmp_path: Path) -> None:
    write(boards / "test" / "small.png", board(size=(9, 9)))
    with pytest.raises(ImageTooSmallError, match=r"test/small\.png: the image is 9 x 9 px"):
        evaluate(BrightnessDetector(), scan_dataset(boards), tmp_path / "out")
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_the_function_is_what_the_package_gives() -> None:
    # A module of the function's name would hide it once imported.
    assert kad_sdk.evaluate is evaluate


@pytest.mark.parametrize("module", ["sklearn.metrics", "matplotlib.figure"])
def test_missing_packages_are_found_before_scoring(
    boards: Path, tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"kad-sdk\[evaluate\]"):
        evaluate(SimpleNamespace(), scan_dataset(boards), tmp_path / "out")


def test_output_that_cannot_be_a_folder_is_a_named_error(boards: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="out"):
        evaluate(BrightnessDetector(), scan_dataset(boards), tmp_path / "out")


def test_gallery_shows_extremes_of_every_kind(tmp_path: Path) -> None:
    from kad_sdk.gallery import Gallery

    gallery = Gallery()
    detector = BrightnessDetector()
    for kind, values in {"scar": (200, 90, 120), "good": (50, 41, 60), "dirt": (99,)}.items():
        for value in values:
            sample = Sample(Path(f"{value}.png"), f"{value}.png", "test", kind, 0, None, None)
            image = board((2, 2, value))
            gallery.offer(sample, image, None, detector.score(image))
    names = [(example.kind, example.name) for example in gallery.chosen()]
    assert names == [
        ("good", "60.png"),
        ("good", "41.png"),
        ("dirt", "99.png"),
        ("scar", "200.png"),
        ("scar", "90.png"),
    ]
