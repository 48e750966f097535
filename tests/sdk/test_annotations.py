"""Annotation files: the format of the thesis, and every way to get it wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kad_sdk.annotations import Annotation, Rect, find_annotation, read_annotations
from kad_sdk.errors import AnnotationError

if TYPE_CHECKING:
    from pathlib import Path

THESIS_EXAMPLE = """{
    "231117_0302_1.jpg":
    {
        "labels": [[659, 2231, 600, 1239], [2064, 1792, 404, 294]],
        "borders": [[617, 161, 3279, 3424]]
    }
}"""


def stored(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "annotations.json"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_example_of_the_thesis_is_read(tmp_path: Path) -> None:
    annotations = read_annotations(stored(tmp_path, THESIS_EXAMPLE))
    assert annotations == {
        "231117_0302_1.jpg": Annotation(
            borders=(Rect(617, 161, 3279, 3424),),
            labels=(Rect(659, 2231, 600, 1239), Rect(2064, 1792, 404, 294)),
        )
    }


@pytest.mark.parametrize(
    "text", ['{"a.jpg": {}}', '\ufeff{"a.jpg": {"labels": [], "borders": []}}']
)
def test_both_keys_may_be_left_out(tmp_path: Path, text: str) -> None:
    assert read_annotations(stored(tmp_path, text)) == {"a.jpg": Annotation()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not an annotation file in JSON"),
        ("[" * 100_000, "not an annotation file in JSON"),
        ("[]", r"expected an object of image names, got \[\]"),
        ('{"a.jpg": []}', "a.jpg: expected an object with borders and labels"),
        ('{"a.jpg": {"border": []}}', "a.jpg: unknown key 'border'; known are borders and labels"),
        (
            '{"a.jpg": {"borders": 3}}',
            r"a.jpg: borders: expected a list of \[x, y, width, height\]",
        ),
        ('{"a.jpg": {"borders": [[1, 2, 3]]}}', r"a.jpg: borders\[0\]: expected \[x, y, width"),
        ('{"a.jpg": {"borders": [1, 2, 3, 4]}}', r"a.jpg: borders\[0\]: expected .*, got 1"),
        (
            '{"a.jpg": {"labels": [[0,0,9,9],[0,0,1.5,9]]}}',
            r"a.jpg: labels\[1\]\[2\]: width must be an",
        ),
        (
            '{"a.jpg": {"labels": [[true, 0, 9, 9]]}}',
            r"labels\[0\]\[0\]: x must be an integer, got true",
        ),
        (
            '{"a.jpg": {"labels": [[0, "0", 9, 9]]}}',
            r'labels\[0\]\[1\]: y must be an integer, got "0"',
        ),
        (
            '{"a.jpg": {"labels": [[0, -1, 9, 9]]}}',
            r"labels\[0\]\[1\]: y must be at least 0 px, got -1",
        ),
        ('{"a.jpg": {"labels": [[0, 0, 0, 9]]}}', r"labels\[0\]\[2\]: width must be at least 1 px"),
        ('{"a.jpg": {"labels": [[0, 0, 9, 99999999999]]}}', r"labels\[0\]\[3\]: height must be"),
        ('{"a.jpg": {}, "a.jpg": {}}', "the key 'a.jpg' is given twice"),
        ('{"a.jpg": {"labels": [], "labels": []}}', "'labels' is given twice"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = stored(tmp_path, text)
    with pytest.raises(AnnotationError, match=message) as caught:
        read_annotations(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_missing_or_binary_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="no such annotation file"):
        read_annotations(tmp_path / "annotations.json")
    with pytest.raises(AnnotationError, match="cannot be read"):
        read_annotations(tmp_path)
    (tmp_path / "binary.json").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(AnnotationError, match="not an annotation file in JSON"):
        read_annotations(tmp_path / "binary.json")


def test_a_rectangle_may_touch_the_images_edge_but_not_leave_it() -> None:
    Annotation(borders=(Rect(10, 20, 90, 30),)).check(50, 100, "a.jpg")
    with pytest.raises(
        AnnotationError, match=r"a\.jpg: borders\[0\] = \[11, 20, 90, 30\].*100 x 50"
    ):
        Annotation(borders=(Rect(11, 20, 90, 30),)).check(50, 100, "a.jpg")
    with pytest.raises(AnnotationError, match=r"a\.jpg: labels\[1\] = \[0, 21, 1, 30\]"):
        Annotation(labels=(Rect(0, 0, 1, 1), Rect(0, 21, 1, 30))).check(50, 100, "a.jpg")


def test_an_image_is_found_by_its_file_name(tmp_path: Path) -> None:
    annotations = read_annotations(stored(tmp_path, THESIS_EXAMPLE))
    found = find_annotation(annotations, tmp_path / "test" / "231117_0302_1.jpg")
    assert found is annotations["231117_0302_1.jpg"]
    with pytest.raises(AnnotationError, match=r"^231117_0302_2.jpg: .*mean 231117_0302_1.jpg\?"):
        find_annotation(annotations, "231117_0302_2.jpg")
    with pytest.raises(AnnotationError, match=r"zebra.png: not among the 1 images .* add an entry"):
        find_annotation(annotations, "zebra.png")


def test_names_need_not_be_ascii(tmp_path: Path) -> None:
    text = json.dumps({"Küche ü.jpg": {"borders": [[0, 0, 5, 5]]}}, ensure_ascii=False)
    annotations = read_annotations(stored(tmp_path, text))
    assert find_annotation(annotations, "Küche ü.jpg").borders == (Rect(0, 0, 5, 5),)


def test_resizing_shrinks_borders_and_grows_labels() -> None:
    annotation = Annotation(borders=(Rect(1, 3, 7, 9),), labels=(Rect(1, 3, 7, 9),))
    half = annotation.resized((20, 10), (10, 5))
    assert half.borders == (Rect(1, 2, 3, 4),)  # x 0.5 .. 4.0, y 1.5 .. 6.0
    assert half.labels == (Rect(0, 1, 4, 5),)
    assert annotation.resized((20, 10), (20, 10)) == annotation
    assert annotation.resized((20, 10), (60, 40)).borders == (Rect(4, 9, 28, 27),)


def test_a_border_that_vanishes_is_an_error() -> None:
    with pytest.raises(
        AnnotationError, match=r"borders\[0\] = \[1, 1, 1, 8\] vanishes .* 5 x 10 px"
    ):
        Annotation(borders=(Rect(1, 1, 1, 8),)).resized((20, 10), (10, 5))
