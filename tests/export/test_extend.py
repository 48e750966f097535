"""Boards added to a bank: which rows, what is promised of them, what stays, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil

import cv2
import numpy as np
import parity
import pytest
from click.testing import CliRunner
from conftest import TILE, write_board
from kad_export import extend as module
from kad_export.cli import main as kad_export
from kad_export.coreset import Projection
from kad_export.data import load_training_board
from kad_export.errors import ExportError
from kad_export.extend import ExtendOptions, extend_artifact
from kad_export.features import ExtractorSpec
from kad_kernels.reference import distances

from kad_sdk import Detector
from kad_sdk.artifact import Artifact
from kad_sdk.cli import main as kad
from kad_sdk.dataset import scan_dataset
from kad_sdk.errors import DatasetError, ImageTooSmallError, InvalidArgumentError, OutputError
from kad_sdk.inspection import manifest_digest
from kad_sdk.rules import Rules, RulesEntry
from kad_sdk.verify import verify_artifact

OPTIONS = ExtendOptions(threads=2)
RULES = (RulesEntry("2026-11-27T08:00:00Z", Rules(edge_margin_px=3)),)


@pytest.fixture(scope="module")
def new_boards(tmp_path_factory):
    """Three boards that the artifact takes for good ones."""
    folder = tmp_path_factory.mktemp("new")
    for i, seed in enumerate((100, 101, 103)):
        write_board(folder / f"n{i}.png", seed)
    return folder


@pytest.fixture(scope="module")
def extended(small_artifact, new_boards, tmp_path_factory):
    out = tmp_path_factory.mktemp("extended") / "y.kad"
    return extend_artifact(small_artifact, new_boards, out, OPTIONS)


def features_of(artifact, folder, names):
    """Every training patch (N, D) of some boards, its board and its centre, board by board."""
    manifest = artifact.manifest
    spec = ExtractorSpec(
        artifact.network, manifest.preprocessing, manifest.patchcore.grid, "bilinear", 16, 2
    )
    extract, found, image, centres = spec.build(), [], [], []
    samples = {sample.name: sample for sample in scan_dataset(folder).train}
    for i, name in enumerate(names):
        pixels, xy = load_training_board(samples[name], tile=TILE, stride=32)
        for batch, start in zip(extract(pixels, xy), range(0, len(xy), 16), strict=True):
            tiles, patches = np.divmod(np.arange(len(batch) * extract.patches), extract.patches)
            found.append(batch.reshape(-1, batch.shape[2]))
            image += [i] * len(found[-1])
            centres.append(extract.centre(xy[start + tiles], patches))
    return np.concatenate(found), np.array(image), np.concatenate(centres)


def projected(artifact, features):
    """As the first export projected: a function of the dimensions and the seed alone."""
    coreset = artifact.manifest.bank.coreset
    return Projection(2, features.shape[1], seed=coreset.seed, to=coreset.projected_dims)(features)


def nearest(points, centres):
    """Distance (N,) of each point to its nearest centre, in the defined arithmetic."""
    return distances(centres, points).min(axis=0)


def greedy(points, centres, n):
    """Plain greedy from given centres: rows of the picks, and the distance of each."""
    dist, rows, at = nearest(points, centres), [], []
    for _ in range(n):
        rows.append(int(dist.argmax()))
        at.append(float(dist[rows[-1]]))
        dist = np.minimum(dist, nearest(points, points[rows[-1] :][:1]))
    return rows, at


def test_the_old_rows_stay_and_the_new_ones_are_those_of_plain_greedy(
    small_artifact, extended, new_boards
):
    old, new = Artifact.open(small_artifact), Artifact.open(extended)
    m = old.manifest.bank.rows
    for name in ("bank", "source_image", "source_xy"):
        np.testing.assert_array_equal(getattr(new, name)[:m], getattr(old, name))
    features, image, centres = features_of(old, new_boards, ["n0.png", "n1.png", "n2.png"])
    added = new.manifest.bank.rows - m
    points, start = projected(old, features), projected(old, np.array(old.bank))
    rows, at = greedy(points, start, added + 1)
    assert 1 <= added < 40
    np.testing.assert_array_equal(new.bank[m:], features[rows[:-1]])
    np.testing.assert_array_equal(new.source_image[m:], image[rows[:-1]] + 3)
    np.testing.assert_array_equal(new.source_xy[m:], centres[rows[:-1]])
    radius = old.manifest.bank.coreset.radius
    assert at[added] <= radius < at[added - 1]  # not one row more than is needed
    between = distances(np.array(new.bank), np.array(new.bank))
    np.fill_diagonal(between, np.inf)
    expected = np.take_along_axis(between, new.neighbors, axis=1)
    np.testing.assert_allclose(np.sort(between, axis=1)[:, :8], expected, rtol=1e-6)
    (extension,) = new.manifest.bank.extended
    assert (extension.rows, extension.images) == (added, 3)
    assert extension.candidates == len(features)
    assert extension.radius == at[added]
    assert extension.parent == manifest_digest((small_artifact / "manifest.json").read_bytes())


@pytest.mark.parametrize("max_rows", [None, 4])
def test_the_certificate_holds_by_a_second_computation(
    small_artifact, small_dataset, new_boards, tmp_path, max_rows
):
    """Every patch of all boards against the bank, and the bank's points among themselves."""
    options = dataclasses.replace(OPTIONS, max_rows=max_rows)
    if max_rows is None:
        path = extend_artifact(small_artifact, new_boards, tmp_path / "y.kad", options)
    else:
        with pytest.warns(UserWarning, match="the limit of 4 rows was reached"):
            path = extend_artifact(small_artifact, new_boards, tmp_path / "y.kad", options)
    old, new = Artifact.open(small_artifact), Artifact.open(path)
    bank = new.manifest.bank
    first = features_of(old, small_dataset, old.manifest.bank.images)[0]
    second = features_of(old, new_boards, bank.images[3:])[0]
    points = projected(old, np.concatenate([first, second]))
    centres = projected(old, np.array(new.bank))
    reach = nearest(points, centres)
    assert bank.coreset.candidates == len(points)
    assert bank.coreset.radius >= reach.max() * (1 - 1e-6)
    assert bank.coreset.radius == max(bank.extended[0].radius, old.manifest.bank.coreset.radius)
    assert reach[len(first) :].max() == pytest.approx(bank.extended[0].radius, rel=1e-6)
    farthest = points[len(first) + reach[len(first) :].argmax()]
    picks = np.concatenate([centres, farthest[None]])
    apart = distances(picks, picks)
    np.fill_diagonal(apart, np.inf)
    assert apart.min() >= bank.coreset.separation * (1 - 1e-6)
    assert bank.coreset.ratio == bank.coreset.radius / (bank.coreset.separation / 2)
    assert bank.extended[0].rows == max_rows or max_rows is None


def test_what_stays(small_artifact, extended):
    old, new = Artifact.open(small_artifact), Artifact.open(extended)
    assert new.network == old.network
    for name in ("preprocessing", "patchcore", "map", "thresholds"):
        assert getattr(new.manifest, name) == getattr(old.manifest, name)
    golden, before = new.golden(), old.golden()
    np.testing.assert_array_equal(golden.tiles, before.tiles)
    assert (golden.dist <= before.dist * (1 + 1e-6)).all()
    assert verify_artifact(extended, threads=2).passed
    assert new.manifest.training.images == old.manifest.training.images + 3
    assert new.manifest.training.fingerprint != old.manifest.training.fingerprint


def test_both_doors_give_the_same(extended, tmp_path):
    write_board(tmp_path / "board.png", 7)
    board = np.array(cv2.imread(str(tmp_path / "board.png")))
    board[30:60, 40:70] = np.random.default_rng(0).integers(0, 256, (30, 30, 3))
    parity.check(parity.Case(size=board.shape[:2]), extended, board, tmp_path)


def run(command, *words):
    result = CliRunner().invoke(command, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_thresholds_and_rules_in_force_are_taken_along_and_calibration_is_asked_for(
    small_artifact, small_dataset, new_boards, tmp_path
):
    parent = shutil.copytree(small_artifact, tmp_path / "x.kad")
    good = small_dataset / "train" / "good"
    run(kad, "calibrate", parent, good, "--by", "normal-max=1.5")
    opened = Artifact.open(parent)
    opened.set_inspection(dataclasses.replace(opened.inspection, rules=RULES))
    out = tmp_path / "y.kad"
    made = run(kad_export, "extend", parent, new_boards, "--out", out, "--quiet", "--threads", 2)
    assert made.exit_code == 0, made.output
    new = Artifact.open(out)
    assert new.thresholds == new.manifest.thresholds == opened.thresholds
    assert new.thresholds.method == "normal-max=1.5"
    assert new.inspection.rules == RULES
    assert not new.inspection.calibrations
    refused = run(kad, "calibrate", out, "--rollback").output  # the parent's are in force
    assert "the thresholds are those that this artifact was written with" in refused
    golden = new.golden()
    np.testing.assert_array_equal(golden.anomalous, golden.score >= new.thresholds.tile)
    wanted = "found before the bank was extended: find them anew with kad calibrate"
    score = ("score", out, good, "--out", tmp_path / "scores")
    assert wanted in run(kad, "inspect", out).output
    assert run(kad, *score).output.count(wanted) == 1
    run(kad, "calibrate", out, good, "--by", "normal-max=1.5")
    assert wanted not in run(kad, "inspect", out).output + run(kad, *score).output
    run(kad, "calibrate", out, "--rollback")
    assert wanted in run(kad, "inspect", out).output


def test_a_board_whose_active_area_holds_no_tile_is_not_judged(
    small_artifact, new_boards, tmp_path
):
    mixed = shutil.copytree(new_boards, tmp_path / "mixed")
    entries = {path.name: {} for path in mixed.glob("*.png")}
    entries[min(entries)] = {"borders": [[0, 0, TILE - 1, TILE - 1]], "labels": []}
    (mixed / "annotations.json").write_text(json.dumps(entries))
    done = run(kad_export, "extend", small_artifact, mixed, "--out", tmp_path / "y.kad")
    assert done.exit_code == 0, done.output


def test_boards_that_the_artifact_rejects_are_told_by_its_present_thresholds_and_rules(
    small_artifact, small_dataset, new_boards, tmp_path
):
    parent = shutil.copytree(small_artifact, tmp_path / "x.kad")
    mixed = shutil.copytree(new_boards, tmp_path / "mixed")
    rng = np.random.default_rng(0)
    for i in range(6):
        write_board(mixed / f"bad{i}.png", 200 + i)
        board = np.array(cv2.imread(str(mixed / f"bad{i}.png")))
        board[40:70, 40:70] = rng.integers(0, 256, (30, 30, 3))
        cv2.imwrite(str(mixed / f"bad{i}.png"), board)

    def told():
        out = tmp_path / "y.kad"
        done = run(kad_export, "extend", parent, mixed, "--out", out, "--quiet", "--force")
        assert done.exit_code == 0, done.output
        assert Artifact.open(out).manifest.bank.extended[0].images == 9
        return done.stderr.replace("kad-export: ", "")

    wanted = (
        "warning: 6 of the 9 new boards are anomalous by x.kad: bad0.png, bad1.png, bad2.png, "
        "bad3.png, bad4.png and 1 more. Make sure that they are good: all of their patches become "
        "normal\n"
    )
    assert wanted in told()
    opened = Artifact.open(parent)
    hidden = (RulesEntry("2026-11-27T08:00:00Z", Rules(ignore=((0, 0, 128, 120),))),)
    opened.set_inspection(dataclasses.replace(opened.inspection, rules=hidden))
    assert "anomalous by" not in told()
    run(kad, "rules", parent, "--rollback")
    assert wanted in told()
    good = small_dataset / "train" / "good"
    run(kad, "calibrate", parent, good, "--by", "normal-max=9")
    assert "anomalous by" not in told()


def test_a_bank_can_be_extended_again(extended, tmp_path):
    for i in range(2):
        write_board(tmp_path / "more" / f"m{i}.png", 200 + i)
    again = extend_artifact(extended, tmp_path / "more", tmp_path / "z.kad", OPTIONS)
    first, second = Artifact.open(extended), Artifact.open(again)
    assert second.manifest.bank.extended[:1] == first.manifest.bank.extended
    assert second.manifest.bank.extended[1].parent == first.inspection.manifest
    np.testing.assert_array_equal(second.bank[: len(first.bank)], first.bank)
    shown = run(kad, "inspect", again).output
    assert shown.count("extended by") == 2
    content = json.loads(run(kad, "inspect", again, "--json").stdout)
    assert [entry["rows"] for entry in content["bank"]["extended"]] == [
        entry.rows for entry in second.manifest.bank.extended
    ]


def test_boards_that_are_covered_are_told(extended, new_boards, tmp_path):
    with (
        pytest.raises(ExportError, match=r"nothing to add: of the 2,304 new patches none is"),
        pytest.warns(UserWarning, match=r"3 of 3 boards have names of images .* such as n0\.png"),
    ):
        extend_artifact(extended, new_boards, tmp_path / "z.kad", OPTIONS)
    assert not list(tmp_path.iterdir())


def _out_of_memory(*_given):
    raise MemoryError


def test_what_is_refused(monkeypatch, small_artifact, new_boards, tmp_path):
    out = tmp_path / "y.kad"
    taken = shutil.copytree(small_artifact, tmp_path / "taken.kad")
    with pytest.raises(OutputError, match="replace it with --force"):
        extend_artifact(small_artifact, new_boards, taken, OPTIONS)
    write_board(tmp_path / "small" / "s.png", 1, size=(60, 128))
    with pytest.raises(ImageTooSmallError) as small:
        extend_artifact(small_artifact, tmp_path / "small", out, OPTIONS)
    suit = (
        f"{small_artifact} has tiles of {TILE} x {TILE} px and no resize, which the new boards "
        "have to suit: leave such boards out, or export all boards anew with kad-export patchcore "
        "and another --resize or a smaller --tile"
    )
    assert str(small.value) == (
        f"{tmp_path / 'small' / 's.png'}: the image is 60 x 128 px (height x width), smaller than "
        f"one tile of {TILE} x {TILE} px. {suit}"
    )
    (tmp_path / "dark").mkdir()
    cv2.imwrite(str(tmp_path / "dark" / "d.png"), np.zeros((128, 128), np.uint8))
    with pytest.raises(DatasetError, match=re.escape(f"exposure and annotations.json. {suit}")):
        extend_artifact(small_artifact, tmp_path / "dark", out, OPTIONS)
    with pytest.raises(InvalidArgumentError, match="max_rows: expected at least 1 row, got 0"):
        ExtendOptions(max_rows=0)
    assert run(kad_export, "extend", small_artifact, new_boards).exit_code == 2
    words = (small_artifact, new_boards, "--out", out)
    large = run(kad_export, "extend", *words, "--batch", 10**6)  # 46 GB of pixels
    assert large.exit_code == 1
    assert "cannot hold a batch of 1,000,000 tiles, whose pixels alone need 45.8 GB: lower --" in (
        large.stderr
    )
    monkeypatch.setattr(module, "probe", _out_of_memory)
    assert run(kad_export, "extend", *words).stderr.endswith(
        "memory ran out: lower --memory or --batch or --max-rows, or close other programs\n"
    )
    assert not out.exists()


def test_an_artifact_may_be_replaced_by_its_extension(small_artifact, new_boards, tmp_path):
    path = shutil.copytree(small_artifact, tmp_path / "x.kad")
    options = ExtendOptions(max_rows=2, threads=2, force=True)
    with pytest.warns(UserWarning, match="limit of 2 rows"):
        assert extend_artifact(path, new_boards, path, options) == path
    with Detector.open(path, threads=2) as detector:
        assert len(detector.artifact.bank) == Artifact.open(small_artifact).manifest.bank.rows + 2


def _meanwhile(monkeypatch, change):
    verify = module._verify

    def late(*given):
        change()
        return verify(*given)

    monkeypatch.setattr(module, "_verify", late)


@pytest.mark.parametrize("same", [True, False])
def test_rules_that_are_set_meanwhile_are_taken_along(
    small_artifact, new_boards, tmp_path, monkeypatch, same
):
    path = shutil.copytree(small_artifact, tmp_path / "x.kad")

    def change():
        opened = Artifact.open(path)
        opened.set_inspection(dataclasses.replace(opened.inspection, rules=RULES))

    _meanwhile(monkeypatch, change)
    options = ExtendOptions(threads=2, force=True)
    out = extend_artifact(path, new_boards, path if same else tmp_path / "y.kad", options)
    assert Artifact.open(out).inspection.rules == RULES


def test_an_artifact_that_is_calibrated_meanwhile_is_not_replaced(
    small_artifact, small_dataset, new_boards, tmp_path, monkeypatch
):
    path = shutil.copytree(small_artifact, tmp_path / "x.kad")
    good = small_dataset / "train" / "good"
    _meanwhile(monkeypatch, lambda: run(kad, "calibrate", path, good, "--by", "normal-max=1.5"))
    with pytest.raises(OutputError, match=r"inspection\.json: was changed meanwhile"):
        extend_artifact(path, new_boards, path, ExtendOptions(threads=2, force=True))
    assert Artifact.open(path).thresholds.method == "normal-max=1.5"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.kad"]


def test_an_artifact_that_is_replaced_meanwhile_is_not_extended(
    small_artifact, extended, new_boards, tmp_path, monkeypatch
):
    path = shutil.copytree(small_artifact, tmp_path / "x.kad")

    def change():
        shutil.rmtree(path)
        shutil.copytree(extended, path)

    _meanwhile(monkeypatch, change)
    with pytest.raises(OutputError, match=r"x\.kad: was replaced meanwhile"):
        extend_artifact(path, new_boards, tmp_path / "y.kad", OPTIONS)


def test_cutpaste_has_no_bank(new_boards, tmp_path):
    import tiny_artifacts as tiny

    parent = tiny.write(tmp_path / "c.kad", tiny.cutpaste())
    with pytest.raises(InvalidArgumentError, match="is of method cutpaste, which has no memory"):
        extend_artifact(parent, new_boards, tmp_path / "y.kad", OPTIONS)
