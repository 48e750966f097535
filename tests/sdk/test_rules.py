"""Rules that are set on site: what is judged, what decides, how they are set, kept and told."""

from __future__ import annotations

import dataclasses
import json
import shutil

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from rules_oracle import factors, opened

from kad_sdk import Annotation, Detector, Rect
from kad_sdk.artifact import Artifact
from kad_sdk.cli import main
from kad_sdk.dataset import scan_dataset
from kad_sdk.errors import AnnotationError, ArtifactCorruptError, InvalidArgumentError
from kad_sdk.evaluation import evaluate
from kad_sdk.inspection import Inspection
from kad_sdk.render import render_overlay
from kad_sdk.rules import NO_RULES, Rules, RulesEntry, Zone, read_rules

SEED = 20261127
DEFECT = (60, 30, 32, 32)  # holds the dark square of 12 px at (70, 40), and what the map smears
TAU = 0.3


def set_rules(path, rules: Rules):
    opened_now = Artifact.open(path)
    entry = RulesEntry("2026-11-27T08:00:00Z", rules)
    inspection = opened_now.inspection
    opened_now.set_inspection(dataclasses.replace(inspection, rules=(*inspection.rules, entry)))
    return path


@pytest.fixture
def artifact(tiny_artifact, tmp_path):
    return shutil.copytree(tiny_artifact, tmp_path / "x.kad")


@pytest.fixture(scope="module")
def bad(make_board):
    return make_board(1, 90, 140, defect=True)


@pytest.fixture(scope="module")
def plain(tiny_artifact, bad):
    with Detector.open(tiny_artifact) as detector:
        return detector.score(bad)


def score(path, image, annotation=None, **options):
    with Detector.open(path, **options) as detector:
        return detector.score(image, annotation)


def test_no_rules_change_no_bit(artifact, bad, plain):
    result = score(set_rules(artifact, NO_RULES), bad)
    np.testing.assert_array_equal(result.map.view(np.uint32), plain.map.view(np.uint32))
    same = {"timings_ms": {}, "map": None}
    assert (
        dataclasses.replace(result, **same).to_dict()
        == dataclasses.replace(plain, **same).to_dict()
    )


def test_a_defect_in_an_ignored_place_is_none(artifact, bad, plain):
    """Known answer: the only defect lies there; all that was given raw is still given."""
    result = score(set_rules(artifact, Rules(ignore=(DEFECT,))), bad)
    assert (plain.verdict, result.verdict) == ("anomalous", "normal")
    assert not result.regions
    assert [tile.score for tile in result.tiles] == [tile.score for tile in plain.tiles]
    x, y, width, height = DEFECT
    expected = plain.map.copy()
    expected[y : y + height, x : x + width] = np.nan
    np.testing.assert_array_equal(result.map, expected)
    assert result.score == np.nanmax(expected) < TAU <= plain.score


def test_zones_are_more_or_less_strict(artifact, bad, plain):
    peak = plain.score
    for factor, anomalous in (
        (0.1, True),
        (1.0, True),
        (0.5 * peak / TAU, True),
        (1.01 * peak / TAU, False),
    ):
        result = score(set_rules(artifact, Rules(zones=(Zone(DEFECT, factor),))), bad)
        assert result.anomalous == anomalous, factor
        judged = np.nanmax(result.map)
        assert result.score == judged
        assert result.anomalous == bool(result.regions)
        if factor == 0.1:
            assert result.score == np.float32(peak) / np.float32(0.1)


def test_the_edge_margin_is_that_of_each_active_area(artifact, make_board):
    board = make_board(1, 120, 160, defect=False)
    board[60:66, 64:70] = board[2:8, 2:8] = board[52:58, 148:154] = 0
    areas = Annotation((Rect(0, 0, 60, 120), Rect(60, 0, 100, 120)))
    assert len(score(artifact, board, areas).regions) == 3
    result = score(set_rules(artifact, Rules(edge_margin_px=25)), board, areas)
    assert not result.regions
    kept = np.zeros((120, 160), bool)
    kept[25:95, 25:35] = kept[25:95, 85:135] = True
    np.testing.assert_array_equal(~np.isnan(result.map), kept)
    assert len(score(artifact, board).regions) == 1  # of the whole image, the inner one is left


def test_the_least_area_decides_regions_and_board(artifact, bad, plain):
    (region,) = plain.regions
    for area in (region.area_px, region.area_px + 1):
        result = score(set_rules(artifact, Rules(min_region_area_px=area)), bad)
        assert result.anomalous == bool(result.regions) == (area <= region.area_px)
        assert result.score == opened(plain.map, area)
        np.testing.assert_array_equal(result.map, plain.map)


def _random_rules(rng, size):
    def rects(most):
        n = int(rng.integers(0, most + 1))
        places = zip(rng.integers(0, size[::-1], (n, 2)), rng.integers(1, 60, (n, 2)), strict=True)
        return tuple((*map(int, corner), *map(int, sides)) for corner, sides in places)

    zones = tuple(Zone(rect, float(rng.choice([0.2, 0.7, 1.0, 1.6]))) for rect in rects(3))
    area = int(rng.integers(1, 200)) if rng.integers(2) else None
    return Rules(rects(2), zones, int(rng.choice([0, 0, 9])), area)


@pytest.mark.parametrize("board_score", ["map-peak", "largest-tile"])
def test_results_are_those_of_numpy(tiny, tmp_path, make_board, board_score):
    """Whatever the rules, against the plain map and scores, judged in NumPy and OpenCV."""
    thresholds = dataclasses.replace(tiny.manifest.thresholds, board=board_score)
    manifest = dataclasses.replace(tiny.manifest, thresholds=thresholds)
    path = tiny.write(tmp_path / "x.kad", manifest=manifest)
    rng, size = np.random.default_rng(SEED), (90, 140)
    board = make_board(1, *size, defect=True)
    board[8:20, 100:112] = board[70:75, 10:15] = 30
    plain = score(path, board)
    raw = np.float32([tile.score for tile in plain.tiles])
    verdicts, taus = set(), {"map_threshold": 8.0, "tile_threshold": 6.0}
    for _ in range(25):
        rules = _random_rules(rng, size)
        of_pixels = factors(
            size,
            ignored=rules.ignore,
            zones=[(zone.rect, zone.factor) for zone in rules.zones],
            edge_margin=(rules.edge_margin_px,) * 2,
        )
        result = score(set_rules(path, rules), board, **taus)
        with np.errstate(divide="ignore"):
            judged = np.where(of_pixels > 0, plain.map / of_pixels, np.float32(np.nan))
        np.testing.assert_array_equal(result.map, judged)
        crops = [of_pixels[t.y : t.y + 32, t.x : t.x + 32] for t in result.tiles]
        expected = np.float32([crop[crop > 0].min() if crop.any() else 0 for crop in crops])
        np.testing.assert_array_equal(np.float32([t.factor for t in result.tiles]), expected)
        assert [t.score for t in result.tiles] == raw.tolist()
        with np.errstate(divide="ignore"):
            tiles = np.where(expected > 0, raw / expected, np.float32(np.nan))
        np.testing.assert_array_equal(result.judged_scores(), tiles)
        assert [t.anomalous for t in result.tiles] == (tiles >= 6).tolist()
        area = rules.min_region_area_px
        wanted = opened(judged, area or 1) if board_score == "map-peak" else np.nanmax(tiles)
        assert result.score == wanted
        assert result.anomalous == (wanted >= result.threshold)
        with np.errstate(invalid="ignore"):
            mask = (judged >= 8).astype(np.uint8)
        areas = cv2.connectedComponentsWithStats(mask, connectivity=8)[2][1:, cv2.CC_STAT_AREA]
        smallest = area or manifest.thresholds.min_region_area_px
        assert len(result.regions) == (areas >= smallest).sum()
        verdicts.add(result.verdict)
    assert verdicts == {"normal", "anomalous"}


def test_scores_alone_know_the_rules(tiny, tmp_path, bad):
    thresholds = dataclasses.replace(tiny.manifest.thresholds, board="largest-tile")
    manifest = dataclasses.replace(tiny.manifest, thresholds=thresholds)
    path = tiny.write(tmp_path / "x.kad", manifest=manifest)
    assert score(path, bad, maps=False).anomalous
    set_rules(path, Rules(ignore=((40, 10, 80, 80),)))
    result = score(path, bad, maps=False)
    hidden = [tile for tile in result.tiles if tile.factor == 0]
    assert hidden
    assert all((tile.anomalous, tile.normalised_score) == (False, 0) for tile in hidden)
    assert result.score == max(tile.score for tile in result.tiles if tile.factor)
    assert result.to_dict()["rules"]["ignore"] == [[40, 10, 80, 80]]


def test_rules_are_in_px_of_the_image_also_where_it_is_resized(tiny, tmp_path, make_board):
    """The frame is 3 x narrower and 2 x lower: what of a px of it is ignored, is."""
    preprocessing = dataclasses.replace(tiny.manifest.preprocessing, resize=(90, 140))
    manifest = dataclasses.replace(tiny.manifest, preprocessing=preprocessing)
    path = tiny.write(tmp_path / "x.kad", manifest=manifest)
    big = cv2.resize(make_board(1, 90, 140, defect=True), (420, 180))
    plain = score(path, big)
    (region,) = plain.regions
    result = score(set_rules(path, Rules(ignore=((190, 61, 82, 60), (400, 170, 100, 100)))), big)
    assert result.verdict == "normal"
    hidden = np.zeros((180, 420), bool)
    hidden[60:122, 189:273] = hidden[170:, 399:] = True  # whole px of the frame
    assert not np.isnan(result.map[~hidden]).any()
    inner = cv2.erode(hidden.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0  # corners are mixed
    assert np.isnan(result.map[inner]).all()
    frame_area = round(region.area_px / 6)
    for area, anomalous in ((6 * frame_area - 5, True), (6 * frame_area + 1, False)):
        rules = Rules(min_region_area_px=area)
        assert score(set_rules(path, rules), big).anomalous == anomalous
    margin = score(set_rules(path, Rules(edge_margin_px=7)), big)
    kept = ~np.isnan(margin.map)
    assert np.flatnonzero(kept[90]).tolist() == list(range(9, 411))
    assert np.flatnonzero(kept[:, 200]).tolist() == list(range(8, 172))


@pytest.mark.parametrize("maps", [True, False])
def test_nothing_left_to_judge_is_an_error(tiny, tmp_path, bad, maps):
    thresholds = dataclasses.replace(tiny.manifest.thresholds, board="largest-tile")
    manifest = dataclasses.replace(tiny.manifest, thresholds=thresholds)
    path = tiny.write(tmp_path / "x.kad", manifest=manifest)
    for rules in (Rules(edge_margin_px=45), Rules(ignore=((0, 0, 2**31 - 1, 2**31 - 1),))):
        with pytest.raises(AnnotationError, match="leave nothing to judge of this board of 140 x"):
            score(set_rules(path, rules), bad, maps=maps)


def test_version_1_is_read_as_it_was(artifact):
    digest = Artifact.open(artifact).inspection.manifest
    old = {"format": "kad-inspection", "version": 1, "manifest": digest, "calibrations": []}
    (artifact / "inspection.json").write_text(json.dumps(old))
    assert Artifact.open(artifact).inspection == Inspection(digest)
    (artifact / "inspection.json").write_text(json.dumps({**old, "rules": []}))
    with pytest.raises(ArtifactCorruptError, match="unknown key rules"):
        Artifact.open(artifact)


def kad(*command):
    result = CliRunner().invoke(main, [str(part) for part in command])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_set_show_and_take_back(artifact, tmp_path):
    assert kad("rules", artifact).output == "x.kad: rules\n  none\n"
    done = kad("rules", artifact, "--ignore", "1,2,3,4", "--edge-margin", "20", "--min-area", "30")
    assert done.exit_code == 0
    assert "take it back with" in done.output
    kad("rules", artifact, "--zone", "5, 6, 7, 8=1.5", "--ignore", "9,9,9,9", "--min-area", "40")
    second = Rules(((1, 2, 3, 4), (9, 9, 9, 9)), (Zone((5, 6, 7, 8), 1.5),), 20, 40)
    assert Artifact.open(artifact).rules == second
    shown = kad("inspect", artifact).output
    for line in ("ignore 1,2,3,4", "zone 5,6,7,8=1.5", "edge margin 20 px", "40 px or more"):
        assert line in shown
    assert "found under no rules: find them anew with kad calibrate" in shown
    inspected = json.loads(kad("inspect", artifact, "--json").stdout)
    assert len(inspected["inspection"]["rules"]) == 2
    text = kad("rules", artifact, "--json").stdout
    assert read_rules(text.encode(), "x") == second
    kad("rules", artifact, "--clear", "--edge-margin", "3")
    assert Artifact.open(artifact).rules == Rules(edge_margin_px=3)
    kad("rules", artifact, "--clear")
    assert Artifact.open(artifact).rules == NO_RULES
    (tmp_path / "rules.json").write_text(text)
    kad("rules", artifact, "--set", tmp_path / "rules.json")
    assert Artifact.open(artifact).rules == second
    for expected in (NO_RULES, Rules(edge_margin_px=3), second):
        assert kad("rules", artifact, "--rollback").exit_code == 0
        assert Artifact.open(artifact).rules == expected
    kad("rules", artifact, "--rollback")
    kad("rules", artifact, "--rollback")
    refused = kad("rules", artifact, "--rollback")
    assert refused.exit_code == 1
    assert "there are none to take back" in refused.output
    assert kad("verify", artifact).exit_code == 0


def test_json_is_printed_after_a_change_too(artifact, tmp_path):
    one, two = Rules(edge_margin_px=3), Rules(edge_margin_px=3, min_region_area_px=9)
    (tmp_path / "rules.json").write_text(two.to_json())
    for words, expected in (
        (("--edge-margin", "3"), one),
        (("--set", tmp_path / "rules.json"), two),
        (("--rollback",), one),
    ):
        done = kad("rules", artifact, *words, "--json")
        assert read_rules(done.stdout.encode(), "x") == Artifact.open(artifact).rules == expected
        assert ("take it back with" in done.stderr) == ("--rollback" not in words)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("--ignore", "1,2,3"), 2, "expected x,y,width,height, in px of the image, got '1,2,3'"),
        (("--ignore", "-1,2,3,4"), 2, "expected x,y,width,height"),
        (("--zone", "1,2,3,4"), 2, "expected x,y,width,height=factor"),
        (("--ignore", "1,2,0,4"), 1, "ignore[0][2]: expected a number at least 1"),
        (("--zone", "1,2,3,4=1000"), 1, "zones[0].factor: expected a number at least 0.01"),
        (("--edge-margin", "-1"), 1, "edge_margin_px: expected a number at least 0"),
        (("--min-area", "0"), 1, "min_region_area_px: expected a number at least 1"),
        (("--clear", "--rollback"), 2, "or --rollback"),
        (("--set", "x.json", "--clear"), 2, "or --set FILE"),
        (("--set", "none.json"), 1, "none.json: cannot be read"),
    ],
)
def test_wrong_words(artifact, words, code, text):
    result = kad("rules", artifact, *words)
    assert (result.exit_code, text in result.output) == (code, True), result.output
    assert not (artifact / "inspection.json").exists()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"[]", "expected an object with ignore"),
        (b'{"ignored": []}', "unknown key ignored"),
        (b'{"zones": [{"rect": [1, 2, 3, 4]}]}', r"the key zones\[0\].factor is missing"),
        (b'{"ignore": [[1, 2, 3, 4, 5]]}', r"ignore\[0\]: expected 4 items"),
        (b'{"edge_margin_px": 1.0}', "expected an integer"),
        (b"{", "rules.json: "),
    ],
)
def test_wrong_files(text, match):
    with pytest.raises(InvalidArgumentError, match=match):
        read_rules(text, "rules.json")


def _write_boards(folder, make_board, seeds, *, defect=False):
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        cv2.imwrite(str(folder / f"{seed}.png"), make_board(seed, 90, 140, defect=defect))


def test_thresholds_are_found_under_the_rules(artifact, make_board, tmp_path):
    """Good boards with a spot that is no defect: ignoring it gives the threshold without it."""
    _write_boards(tmp_path / "good", make_board, range(30))
    _write_boards(tmp_path / "spotted", make_board, range(30), defect=True)
    by = ("--by", "false-alarms-per-board=0.1")
    kad("calibrate", artifact, tmp_path / "good", *by)
    clean = Artifact.open(artifact).thresholds
    kad("calibrate", artifact, tmp_path / "spotted", *by)
    assert Artifact.open(artifact).thresholds.map > 1.5 * clean.map
    warned = kad("rules", artifact, "--ignore", ",".join(map(str, DEFECT)))
    assert "found under no rules: find them anew with kad calibrate" in warned.output
    kad("calibrate", artifact, tmp_path / "spotted", *by)
    opened_now = Artifact.open(artifact)
    assert opened_now.thresholds.map == pytest.approx(clean.map, rel=0.2)
    assert opened_now.inspection.calibrations[-1].rules == Rules(ignore=(DEFECT,))
    assert "find them anew" not in kad("inspect", artifact).output
    assert "found under other rules" in kad("rules", artifact, "--rollback").output


def test_figures_are_of_what_is_judged(artifact, make_board, tmp_path):
    """Known answer: the only defect is hidden, and so is in none of the figures of tiles."""
    root = tmp_path / "data"
    _write_boards(root / "train" / "good", make_board, range(2))
    _write_boards(root / "test" / "good", make_board, range(4, 6))
    _write_boards(root / "test" / "spot", make_board, range(2, 4), defect=True)
    (root / "ground_truth" / "spot").mkdir(parents=True)
    mask = np.zeros((90, 140), np.uint8)
    mask[40:52, 70:82] = 255
    for seed in (2, 3):
        cv2.imwrite(str(root / "ground_truth" / "spot" / f"{seed}_mask.png"), mask)
    found = {}
    for name in ("plain", "ruled"):
        if name == "ruled":
            set_rules(artifact, Rules(ignore=(DEFECT,)))
        with Detector.open(artifact) as detector:
            found[name] = evaluate(detector, scan_dataset(root), tmp_path / name)
    plain, ruled = found["plain"], found["ruled"]
    assert (plain["regions"]["found_defects"], plain["regions"]["unscored_defects"]) == (2, 0)
    assert (ruled["regions"]["found_defects"], ruled["regions"]["unscored_defects"]) == (0, 2)
    counts = plain["counts"]
    assert ruled["counts"]["anomalous_tiles"] == 0 < counts["anomalous_tiles"]
    hidden = counts["anomalous_tiles"]
    assert ruled["counts"]["tiles"] == counts["tiles"] - hidden
    assert ruled["pixel"]["masked_px"] == 4 * 32 * 32
    assert ruled["image"]["confusion_matrix"] == [[2, 0], [2, 0]]  # what the rule costs
    told = json.loads((tmp_path / "ruled" / "metrics.json").read_text())["artifact"]["rules"]
    assert told["ignore"] == [list(DEFECT)]


def test_the_overlay_hatches_what_is_not_judged(artifact, bad):
    result = score(set_rules(artifact, Rules(ignore=(DEFECT,))), bad)
    changed = (render_overlay(bad, result) != bad).any(axis=2)
    x, y, width, height = DEFECT
    inside = changed[y : y + height, x : x + width]
    assert 0.05 < inside.mean() < 0.2
    assert changed.sum() == inside.sum()


def test_the_overlay_hatches_what_lies_in_no_tile(artifact, bad):
    with Detector.open(artifact) as detector:
        result = detector.score(bad, Annotation(labels=(Rect(40, 20, 9, 9),)))
    changed = (render_overlay(bad, dataclasses.replace(result, regions=())) != bad).any(axis=2)
    unscored = np.isnan(result.map)
    assert 0.05 < changed[unscored].mean() < 0.2
    assert not changed[~unscored].any()
    lines = render_overlay(bad, dataclasses.replace(result, regions=()))[changed].astype(int)
    assert (np.abs(lines - bad[changed]).max(axis=1) > 40).all()
