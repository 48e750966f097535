"""Synthetic boards: deterministic, complete, and true to the ground truth they come with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from kad_export.data import NORMALISATIONS, tile_statistics
from kad_export.synth import MIN_SIDE, SynthSummary, generate_dataset
from kad_export.synth_board import make_board
from kad_export.synth_defects import DEFECTS, dot

from kad_sdk.dataset import Dataset, read_mask, scan_dataset
from kad_sdk.errors import InvalidArgumentError, OutputError
from kad_sdk.images import read_image

if TYPE_CHECKING:
    from pathlib import Path

    from kad_sdk.annotations import Rect

SIZE = (720, 640)
LIGHT = (-0.34, -0.94)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SynthSummary:
    steps: list[int] = []
    folder = tmp_path_factory.mktemp("synth") / "boards"
    summary = generate_dataset(folder, boards=3, test_boards=9, size=SIZE, progress=steps.append)
    assert steps == [1] * 12
    return summary


@pytest.fixture(scope="module")
def data(made: SynthSummary) -> Dataset:
    return scan_dataset(made.folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_seed_decides_every_byte(tmp_path: Path) -> None:
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        size = (MIN_SIDE, MIN_SIDE + 8)
        generate_dataset(tmp_path / name, boards=1, test_boards=2, size=size, seed=seed)
    first, again, other = (contents(tmp_path / name) for name in "abc")
    assert first == again
    pictures = [name for name in first if name.endswith(".jpg")]
    assert len(pictures) == 3
    assert all(first[name] != other[name] for name in pictures)


def test_more_boards_do_not_change_the_first_ones(tmp_path: Path, made: SynthSummary) -> None:
    generate_dataset(tmp_path / "few", boards=1, test_boards=2, size=SIZE)
    many = contents(made.folder)
    few = contents(tmp_path / "few")
    for name in ("train/train_0000.jpg", "test/test_0001.jpg", "test/test_0001_groundtruth.png"):
        assert few[name] == many[name]


def test_the_folder_is_a_data_set_of_boards(made: SynthSummary, data: Dataset) -> None:
    assert data.layout == "boards"
    assert [sample.path.name for sample in data.train] == list(made.train)
    assert [sample.path.name for sample in data.test] == list(made.test)
    assert [sample.label for sample in data.test] == [0, 1, 1, 1, 1, 1, 1, 1, 0]
    for sample in data.train + data.test:
        assert read_image(sample.path).shape == (*SIZE, 3)
        assert sample.annotation is not None
        assert len(sample.annotation.borders) == 1
        sample.annotation.check(*SIZE, sample.name)


def test_every_kind_of_defect_occurs_where_the_record_says(
    made: SynthSummary, data: Dataset
) -> None:
    assert {defect.kind for defect in made.defects} == set(DEFECTS)
    masks = {sample.path.name: read_mask(sample, *SIZE) for sample in data.test}
    for defect in made.defects:
        x, y, width, height = defect.box
        inside = masks[defect.board][y : y + height, x : x + width]
        assert inside.sum() == defect.area_px > 0
        edges = (inside[0], inside[-1], inside[:, 0], inside[:, -1])
        assert all(edge.any() for edge in edges), "the box is tight"
    for name, mask in masks.items():
        assert mask.sum() == sum(d.area_px for d in made.defects if d.board == name)


def test_the_data_set_tells_the_kinds_of_defects_apart(made: SynthSummary, data: Dataset) -> None:
    listed = [(s.path.name, d.kind, d.box) for s in data.test for d in s.defects]
    assert listed == [(d.board, d.kind, tuple(d.box)) for d in made.defects]


def test_each_defective_board_is_dominated_by_a_kind_of_its_own(made: SynthSummary) -> None:
    first = {defect.board: defect.kind for defect in reversed(made.defects)}
    assert sorted(first.values()) == sorted(DEFECTS)


def covers(rect: Rect, mask: np.ndarray) -> int:
    return int(mask[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width].sum())


def test_defects_lie_inside_the_borders_and_not_under_labels(data: Dataset) -> None:
    for sample in data.test:
        mask = read_mask(sample, *SIZE)
        assert sample.annotation is not None
        assert covers(sample.annotation.borders[0], mask) == mask.sum()
        assert not any(covers(label, mask) for label in sample.annotation.labels)


def test_labels_are_printed_paper_brighter_than_the_board(data: Dataset) -> None:
    n_labels = 0
    for sample in data.train + data.test:
        image = read_image(sample.path)
        for x, y, width, height in sample.annotation.labels:
            label, beside = image[y : y + height, x : x + width], image[y : y + height, x - 9 : x]
            assert np.percentile(label, 90) > 1.12 * np.median(beside)
            assert np.percentile(label, 2) < 0.7 * np.median(beside)
            n_labels += 1
    assert n_labels > 3


def test_the_active_area_is_bright_and_what_surrounds_the_board_is_black(data: Dataset) -> None:
    for sample in data.train:
        image = read_image(sample.path)
        x, y, width, height = sample.annotation.borders[0]
        assert np.percentile(image[y : y + height, x : x + width].mean(axis=2), 1) > 60
        assert image[:12].mean() < 31


def test_the_truth_of_a_defect_is_where_it_is_seen() -> None:
    for kind, paint in DEFECTS.items():
        for seed in range(12):
            stamp = paint(np.random.default_rng(seed), LIGHT)
            change = np.abs(0.65 * stamp.gain + stamp.add - 0.65).max(axis=2)
            seen, unseen = change[stamp.truth], change[~stamp.truth]
            assert stamp.truth.shape == stamp.shape, kind
            assert seen.mean() > 8 * unseen.mean(), (kind, seed)
            assert unseen.max() < 0.12, (kind, seed)
            border = np.concatenate([change[0], change[-1], change[:, 0], change[:, -1]])
            assert border.max() < 0.02, (kind, seed)


def test_small_dots_are_no_defects() -> None:
    stamp = dot(np.random.default_rng(1))
    assert stamp.truth is None
    assert 0.3 < (1 - stamp.gain).max() < 0.9


def test_camera_lines_are_the_same_along_the_whole_travel(data: Dataset) -> None:
    image = read_image(data.train[0].path)
    x, y, width, height = data.train[0].annotation.borders[0]
    halves = [
        np.median(image[rows, x : x + width], axis=0)  # not swayed by labels
        for rows in (slice(y, y + height // 2), slice(y + height // 2, y + height))
    ]
    fine = [np.diff(half, n=2, axis=0) for half in halves]  # (W - 2, 3) without the slow light
    for channel in range(3):
        assert np.corrcoef(fine[0][:, channel], fine[1][:, channel])[0, 1] > 0.6


@pytest.mark.parametrize("category", ["white", "white-with-edges"])
def test_colours_are_near_the_published_statistics(tmp_path: Path, category: str) -> None:
    folder = tmp_path / "set"
    generate_dataset(folder, boards=5, test_boards=0, size=(1200, 1000), category=category)
    mean, std, n_tiles = tile_statistics(scan_dataset(folder).train, tile=224, stride=112)
    published_mean, published_std = NORMALISATIONS[category]
    assert n_tiles > 50
    np.testing.assert_allclose(mean, published_mean, atol=0.08)
    np.testing.assert_allclose(std, published_std, atol=0.09)


def test_only_boards_with_edges_have_frames_and_their_inner_corners_are_dark() -> None:
    plain, edged = (
        make_board(np.random.default_rng(2), (1200, 1000), category, LIGHT)
        for category in ("white", "white-with-edges")
    )
    assert plain.frames == ()
    frame = edged.frames[0]
    scene = edged.render(0, edged.height)[1]
    x, y = int(frame.left) + 44, int(frame.top) + 44
    corner = scene[y : y + 8, x : x + 8].mean()
    assert corner < 0.92 * scene[y + 120 : y + 180, x + 120 : x + 180].mean()


def test_a_scene_does_not_hang_on_the_bands_it_is_rendered_in() -> None:
    board = make_board(np.random.default_rng(3), (900, 700), "white-with-edges", LIGHT)
    whole = board.render(0, 900)
    parts = [board.render(start, min(start + 77, 900)) for start in range(0, 900, 77)]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=2e-3)


def test_the_record_names_parameters_but_no_place(made: SynthSummary) -> None:
    text = (made.folder / "synth.json").read_text(encoding="utf-8")
    record = json.loads(text)
    assert (record["category"], record["size"], record["seed"]) == ("white", list(SIZE), 0)
    assert record["test"] == list(made.test)
    assert str(made.folder) not in text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"boards": 0}, "at least 1 normal board"),
        ({"test_boards": -1}, "0 test boards"),
        ({"seed": -1}, "a seed of at least 0"),
        ({"size": (MIN_SIDE - 1, 900)}, "511 x 900 px .* is too small"),
        ({"category": "oak"}, "unknown category 'oak'; expected white or white-with-edges"),
    ],
)
def test_wrong_parameters_are_named(tmp_path: Path, wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        generate_dataset(tmp_path / "out", **({"boards": 1} | wrong))
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match="exists and is not an empty folder"):
        generate_dataset(tmp_path, boards=1, size=SIZE)
    assert list(contents(tmp_path)) == ["mine.txt"]


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_dataset(tmp_path / "out", boards=1, size=SIZE, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match=r"cannot write .*out"):
        generate_dataset(tmp_path / "file" / "out", boards=1, size=SIZE)
