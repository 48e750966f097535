"""Data folders: three layouts, masks, tile labels, and folders that are none of the three."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from kad_sdk.annotations import Rect
from kad_sdk.dataset import Dataset, Sample, read_mask, resize_mask, scan_dataset, tile_labels
from kad_sdk.defects import Defect
from kad_sdk.errors import AnnotationError, DatasetError, InvalidArgumentError

if TYPE_CHECKING:
    from pathlib import Path


def image(path: Path, value: int = 200, size: tuple[int, int] = (30, 40)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full(size, value, np.uint8))


def mask(
    path: Path, *white: tuple[int, int], value: int = 255, size: tuple[int, int] = (30, 40)
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(size, np.uint8)
    for y, x in white:
        pixels[y, x] = value
    cv2.imwrite(str(path), pixels)


def annotate(path: Path, *names: str) -> None:
    path.write_text(json.dumps({name: {"borders": [[1, 2, 30, 20]]} for name in names}))


@pytest.fixture
def boards(tmp_path: Path) -> Path:
    for name in ("n2.jpg", "n1.jpg", "n10.PNG"):
        image(tmp_path / "train" / name)
    for name in ("t1.jpg", "t2.jpg", "t3.jpg"):
        image(tmp_path / "test" / name)
    mask(tmp_path / "test" / "t1_groundtruth.png")
    mask(tmp_path / "test" / "t2_groundtruth.png", (3, 4), value=1)
    annotate(tmp_path / "annotations.json", "t1.jpg", "t2.jpg", "t3.jpg", "n2.jpg", "elsewhere.jpg")
    return tmp_path


def facts(samples: tuple[Sample, ...]) -> list[tuple[str, str, int | None]]:
    return [(sample.name, sample.kind, sample.label) for sample in samples]


def test_boards_are_labelled_by_their_masks(boards: Path) -> None:
    data = scan_dataset(boards)
    assert data.layout == "boards"
    assert facts(data.train) == [
        ("train/n1.jpg", "good", 0), ("train/n10.PNG", "good", 0), ("train/n2.jpg", "good", 0),
    ]  # fmt: skip
    assert facts(data.test) == [
        ("test/t1.jpg", "good", 0), ("test/t2.jpg", "defect", 1),
        ("test/t3.jpg", "unlabelled", None),
    ]  # fmt: skip


def test_annotations_go_with_the_boards_they_name(boards: Path) -> None:
    data = scan_dataset(boards)
    assert [sample.annotation is not None for sample in data.train] == [False, False, True]
    assert all(sample.annotation.borders == (Rect(1, 2, 30, 20),) for sample in data.test)


@pytest.mark.parametrize("folder", ["train", "test"])
def test_annotations_may_lie_beside_the_boards(boards: Path, folder: str) -> None:
    (boards / "annotations.json").rename(boards / folder / "annotations.json")
    data = scan_dataset(boards)
    assert (data.train[2].annotation is not None) == (folder == "train")
    assert (data.test[0].annotation is not None) == (folder == "test")


def test_a_test_board_that_the_annotations_leave_out_is_an_error(boards: Path) -> None:
    annotate(boards / "annotations.json", "t1.jpg", "t2.jpg")
    with pytest.raises(AnnotationError, match=r"t3\.jpg: not among the 2 images"):
        scan_dataset(boards)


def test_annotations_that_fit_nothing_or_two_images_are_an_error(boards: Path) -> None:
    annotate(boards / "annotations.json", "x.jpg", "y.jpg")
    with pytest.raises(AnnotationError, match=r"names none of the 6 images .* entry is 'x\.jpg'"):
        scan_dataset(boards)
    image(boards / "train" / "t1.jpg")
    annotate(boards / "annotations.json", "t1.jpg", "t2.jpg", "t3.jpg")
    with pytest.raises(AnnotationError, match=r"both train/t1\.jpg and test/t1\.jpg"):
        scan_dataset(boards)


def test_an_image_annotated_in_two_files_is_an_error(boards: Path) -> None:
    annotate(boards / "test" / "annotations.json", "t1.jpg")
    with pytest.raises(AnnotationError, match=r"t1\.jpg is annotated in .*annotations\.json too"):
        scan_dataset(boards)


def _defects(*boxes: object) -> list[dict[str, object]]:
    return [{"kind": "bump", "box": box} for box in boxes]


def test_defects_go_with_the_boards_they_name(boards: Path) -> None:
    (boards / "defects.json").write_text(
        json.dumps({"t2.jpg": [{"kind": "dirt", "box": [1, 2, 3, 4]}, *_defects([0, 0, 9, 9])]})
    )
    first, second, third = scan_dataset(boards).test
    assert second.defects == (Defect("dirt", (1, 2, 3, 4)), Defect("bump", (0, 0, 9, 9)))
    assert [first.kind, second.kind, third.kind] == ["good", "bump, dirt", "unlabelled"]
    assert (first.defects, third.defects) == ((), ())


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "has no defect of t2.jpg, whose ground truth marks a defect"),
        ({"t2.jpg": []}, "has no defect of t2.jpg, whose ground truth marks a defect"),
        (
            {"t1.jpg": _defects([0, 0, 9, 9]), "t2.jpg": _defects([0, 0, 9, 9])},
            "has defects of t1.jpg, whose ground truth marks none",
        ),
        ({"t9.jpg": _defects([0, 0, 9, 9])}, "names t9.jpg, and test/ has no such board"),
        ({"t2.jpg": _defects([0, 0, 9])}, r"defects.t2.jpg\[0\].box: expected 4 items"),
        ({"t2.jpg": _defects([0, 0, 9, 0])}, r"box\[3\]: expected a number at least 1"),
        ({"t2.jpg": _defects([0, 0.5, 9, 1])}, r"box\[1\]: expected an integer"),
        ({"t2.jpg": [{"kind": "good", "box": [0, 0, 9, 9]}]}, "kind: expected a name of 1 to 64"),
        ({"t2.jpg": [{"kind": "bump"}]}, r"the key defects.t2.jpg\[0\].box is missing"),
        ({"t2.jpg": [{"kind": "a", "box": [0, 0, 9, 9], "x": 1}]}, "unknown key"),
        ([], "expected an object"),
    ],
)
def test_files_of_defects_that_do_not_fit(boards: Path, document: object, message: str) -> None:
    (boards / "defects.json").write_text(json.dumps(document))
    with pytest.raises(AnnotationError, match=message):
        scan_dataset(boards)


def test_a_file_of_defects_that_is_not_json(boards: Path) -> None:
    (boards / "defects.json").write_text("{")
    with pytest.raises(AnnotationError, match=r"defects\.json: not a file of defects in JSON"):
        scan_dataset(boards)


def test_a_mask_has_one_owner(boards: Path) -> None:
    image(boards / "test" / "t1.png")
    (boards / "annotations.json").unlink()
    with pytest.raises(DatasetError, match=r"belongs to test/t1\.jpg and test/t1\.png alike"):
        scan_dataset(boards)


def test_hidden_and_foreign_files_are_left_out(boards: Path) -> None:
    image(boards / "train" / "._n1.jpg")
    (boards / "train" / "notes.txt").write_text("three normal boards")
    (boards / "train" / "folder.jpg").mkdir()
    assert len(scan_dataset(boards).train) == 3


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    for name in ("train/good/001.png", "train/good/000.png", "test/good/000.png",
                 "test/hole/000.png", "test/crack/001.png", "test/crack/000.png"):  # fmt: skip
        image(tmp_path / name)
    mask(tmp_path / "ground_truth/crack/000_mask.png", (0, 0))
    return tmp_path


def test_the_mvtec_layout_is_read(mvtec: Path) -> None:
    data = scan_dataset(mvtec)
    assert data.layout == "mvtec"
    assert facts(data.train) == [
        ("train/good/000.png", "good", 0),
        ("train/good/001.png", "good", 0),
    ]
    assert facts(data.test) == [
        ("test/crack/000.png", "crack", 1), ("test/crack/001.png", "crack", 1),
        ("test/good/000.png", "good", 0), ("test/hole/000.png", "hole", 1),
    ]  # fmt: skip
    assert [sample.mask_path is not None for sample in data.test] == [True, False, False, False]


@pytest.mark.parametrize(
    "name", ["annotations.json", "train/annotations.json", "test/annotations.json", "defects.json"]
)
def test_files_that_go_by_names_are_refused_in_the_mvtec_layout(mvtec: Path, name: str) -> None:
    annotate(mvtec / name, "000.png")
    with pytest.raises(DatasetError, match=rf"{name}: goes by the names .* the layout of boards"):
        scan_dataset(mvtec)


def test_training_on_defects_is_refused(mvtec: Path) -> None:
    image(mvtec / "train/crack/000.png")
    with pytest.raises(DatasetError, match="train/ holds crack, good; training uses normal images"):
        scan_dataset(mvtec)


def test_a_plain_folder_is_for_training(tmp_path: Path) -> None:
    image(tmp_path / "b.jpg")
    image(tmp_path / "a.jpg")
    annotate(tmp_path / "annotations.json", "a.jpg")
    data = scan_dataset(tmp_path)
    assert data == Dataset(tmp_path, "folder", data.train, ())
    assert facts(data.train) == [("a.jpg", "good", 0), ("b.jpg", "good", 0)]
    assert data.train[0].annotation is not None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no images; expected train/"),
        (["notes.txt"], "no images; expected train/"),
        (["test/a.jpg"], "no images; expected train/"),
        (["train/notes.txt", "test/a.jpg"], "no training images; .* into train/"),
        (["train/good/notes.txt", "test/good/a.jpg"], "no training images; .* into train/good/"),
        (
            ["a.jpg", "train/a.jpg"],
            "two layouts at once: images directly in the folder and images in",
        ),
        (
            ["train/a.jpg", "train/good/a.jpg"],
            "two layouts at once: images in train/ and .*train/good/",
        ),
        (["train/a.jpg", "test/hole/a.jpg"], r"test/ holds folders of images \(hole\) but train/"),
        (["train/good/a.jpg", "test/a.jpg"], "images directly in test/ beside train/good/"),
    ],
)
def test_folders_that_are_no_data_set(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        image(tmp_path / name) if name.endswith("jpg") else (tmp_path / name).parent.mkdir(
            parents=True, exist_ok=True
        )
    with pytest.raises(DatasetError, match=message):
        scan_dataset(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere: no such folder"):
        scan_dataset(tmp_path / "nowhere")


def test_masks_are_true_above_zero(boards: Path) -> None:
    good, defect, unlabelled = scan_dataset(boards).test
    assert not read_mask(good, 30, 40).any()
    assert np.argwhere(read_mask(defect, 30, 40)).tolist() == [[3, 4]]
    with pytest.raises(DatasetError, match=r"test/t3\.jpg: has no .*expected t3_groundtruth\.png"):
        read_mask(unlabelled, 30, 40)
    with pytest.raises(DatasetError, match=r"the mask is 40 x 30 px, expected .* 41 x 30 px"):
        read_mask(defect, 30, 41)


def test_a_coloured_mask_counts_in_any_channel(boards: Path) -> None:
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[5, 6] = (0, 0, 1)
    cv2.imwrite(str(boards / "test" / "t1_groundtruth.png"), pixels)
    assert np.argwhere(read_mask(scan_dataset(boards).test[0], 30, 40)).tolist() == [[5, 6]]


def test_an_mvtec_defect_without_mask_cannot_give_one(mvtec: Path) -> None:
    data = scan_dataset(mvtec)
    assert not read_mask(data.test[2], 30, 40).any()
    with pytest.raises(DatasetError, match=r"expected ground_truth/hole/000_mask\.png"):
        read_mask(data.test[3], 30, 40)


@pytest.mark.parametrize("size", [(256, 256), (20, 1000), (200, 100), (7, 3000), (400, 31)])
def test_no_line_is_lost_when_a_mask_is_resized(size: tuple[int, int]) -> None:
    for at in range(0, 200, 7):
        across, along = np.zeros((200, 1000), np.bool_), np.zeros((200, 1000), np.bool_)
        across[at], along[:, 5 * at] = True, True
        for line in (resize_mask(across, size), resize_mask(along, size)):
            assert line.shape == size
            assert line.any()
        rows = np.flatnonzero(resize_mask(across, size).any(axis=1))
        assert rows[0] <= (at + 0.5) * size[0] / 200 <= rows[-1] + 1
    assert not resize_mask(np.zeros((200, 1000), np.bool_), size).any()


@pytest.mark.parametrize("layout", ["boards", "mvtec"])
def test_evaluation_needs_no_training_images(request, layout: str) -> None:
    root = request.getfixturevalue(layout)
    whole = scan_dataset(root)
    for image in whole.train:
        image.path.unlink()
    assert scan_dataset(root, need_train=False).test == whole.test
    with pytest.raises(DatasetError):
        scan_dataset(root)


def test_a_tile_is_anomalous_when_one_of_its_pixels_is() -> None:
    truth = np.zeros((12, 20), np.bool_)
    truth[4, 8] = True
    xy = np.array([[4, 0], [5, 1], [8, 4], [9, 4], [8, 5], [3, 4], [0, 0], [15, 7]], np.int32)
    labels = tile_labels(truth, xy, 5)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert tile_labels(truth, xy[:0], 5).shape == (0,)


@pytest.mark.parametrize("corner", [(-1, 0), (16, 0), (0, 8)])
def test_tiles_outside_the_mask_are_refused(corner: tuple[int, int]) -> None:
    with pytest.raises(InvalidArgumentError, match="outside the mask of 20 x 12 px"):
        tile_labels(np.zeros((12, 20), np.bool_), np.array([corner]), 5)


def test_the_real_data_sets_have_masks_that_fit(data_dir: Path) -> None:
    data = scan_dataset(data_dir / "kolektor_sdd")
    assert (len(data.train), len(data.test)) == (80, 100)
    crack = next(sample for sample in data.test if sample.kind == "crack")
    pixels = cv2.imread(str(crack.path))
    assert read_mask(crack, *pixels.shape[:2]).any()
