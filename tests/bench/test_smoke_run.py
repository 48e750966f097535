"""The smoke run of all suites: right answers, exact counts; tables and pages from its document."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from kad_bench import tile_suite, windows_suite
from kad_bench.anomalib_path import ANOMALIB, anomalib_missing
from kad_bench.answers import WrongAnswerError
from kad_bench.board_runs import BoardFile, ThesisBoard
from kad_bench.cli import main
from kad_bench.counts import check_counts, collect_counts, name_unheld
from kad_bench.cutpaste_model import MAP_BOUNDS
from kad_bench.end_to_end import Engine
from kad_bench.model_cases import MODELS
from kad_bench.models import save_weights, write_with_rows
from kad_bench.process_probe import Job, _do
from kad_bench.report import report_html
from kad_bench.startup_suite import KAD_FROM_DISK
from kad_bench.suites import Settings
from kad_bench.thesis_path import THESIS
from kad_bench.tile_paths import KAD, TOLERANCE, Found, kad_tiles, thesis_tiles
from kad_bench.tile_suite import KAD_ONE
from kad_bench.windows_suite import INT8, TILES, WINDOWS, check_windows, model_specs

from kad_sdk.scoring import Stopwatch

COUNTS = Path(__file__).parents[2] / "benchmarks" / "results" / "smoke_counts.json"


def cases(smoke_run: Any, suite: str) -> dict[str, Any]:
    return {case["case"]: case for case in smoke_run.document["suites"][suite]["cases"]}


def test_every_suite_ran(smoke_run: Any) -> None:
    assert list(smoke_run.document["suites"]) == list(smoke_run.suites)
    assert smoke_run.document["run"]["profile"] == "smoke"


def test_no_more_work_than_the_committed_counts(smoke_run: Any) -> None:
    """The guard against regressions: exact operations, bytes and candidates, no clock."""
    check_counts(smoke_run.document, COUNTS)
    level = smoke_run.document["environment"]["cpu"]["kad_level"]
    assert (name_unheld(smoke_run.document, COUNTS) == "") == (level != "scalar")
    title = f"tile ({level})"
    counts = collect_counts(smoke_run.document)[f"{title}: resnet18, 500 rows: kad"]
    assert counts["queries"] == 4 * 784
    assert counts["network_flop"] == pytest.approx(4 * 2.81e9, rel=0.02)  # 2.81 GFLOP a tile


def test_scores_and_maps_agree_before_a_time_is_given(smoke_run: Any) -> None:
    case = cases(smoke_run, "tile")["resnet18, 500 rows"]
    assert case["skipped"] == {}
    assert len(case["engines"]) == 6
    for name, figures in case["engines"].items():
        assert "tile AUROC" not in figures["accuracy"]  # of random weights: it would say nothing
        if name != THESIS:
            assert 0 <= figures["accuracy"]["score difference"] <= TOLERANCE
            assert 0 <= figures["accuracy"]["map difference"] <= TOLERANCE
        batch = 1 if name in (THESIS, KAD_ONE) else 2
        assert figures["batch"] == batch  # all others are given as many as kad
    board = cases(smoke_run, "board")["resnet18, 500 rows"]
    assert board["tiles"] == board["thesis_tiles"]
    assert board["engines"][KAD]["accuracy"]["score difference"] <= TOLERANCE
    assert board["engines"][KAD]["accuracy"]["map difference"] <= TOLERANCE


def test_a_network_that_has_learnt_is_judged(smoke_run: Any) -> None:
    model = smoke_model(smoke_run)
    weights = dataclasses.replace(model.network.weights, source="file")
    learnt = dataclasses.replace(model, network=SimpleNamespace(weights=weights))
    assert (model.learnt, learnt.learnt) == (False, True)
    tiles = model.labelled.first(4)
    engines = {KAD: Engine(kad_tiles(model.artifact, batch=2, threads=2), 2, 2)}
    for judged in (False, True):
        figures, _ = tile_suite._measure(engines, engines[KAD], tiles, 1, judged=judged)
        assert ("tile AUROC" in figures[KAD]["accuracy"]) == judged


def test_cutpaste_agrees_with_autograd(smoke_run: Any) -> None:
    for figures in cases(smoke_run, "tile")["CutPaste with Grad-CAM"]["engines"].values():
        assert figures["accuracy"]["score difference"] <= TOLERANCE
        assert figures["accuracy"]["map difference"] <= MAP_BOUNDS[0]


def test_anomalib_is_measured_or_skipped_by_name(smoke_run: Any) -> None:
    case = cases(smoke_run, "tile")["resnet18, 500 rows, as anomalib"]
    if anomalib_missing():
        assert case["engines"] == {}
        assert "not installed" in case["skipped"][ANOMALIB]
        assert f"as anomalib: {ANOMALIB} not run: not installed" in smoke_run.result.stdout
    else:
        assert case["engines"][ANOMALIB]["accuracy"]["score difference"] <= TOLERANCE


def test_stages_add_up_to_the_time(smoke_run: Any) -> None:
    for suite in ("tile", "board", "startup"):
        for case in cases(smoke_run, suite).values():
            for name, figures in case["engines"].items():
                total = sum(figures["stages_s"].values())
                mean = figures["seconds"]["median"]
                # The median of few calls is not their mean, which the stages are of.
                assert 0.5 * mean < total < 2 * mean, (suite, name)
    stages = cases(smoke_run, "board")["resnet18, 500 rows"]["engines"][KAD]["stages_s"]
    assert {"read", "network", "search", "map", "encode", "write"} <= set(stages)


def test_a_line_s_figures_follow_from_the_time(smoke_run: Any) -> None:
    board = cases(smoke_run, "board")["resnet18, 500 rows"]
    figures = board["engines"][KAD]
    seconds, rates = figures["seconds"]["median"], figures["rates"]
    assert rates["boards a minute"] == pytest.approx(60 / seconds)
    assert rates["of a takt of 60 s"] == pytest.approx(seconds / 60)
    assert rates["tiles/s"] == pytest.approx(board["tiles"] / seconds)
    assert rates["MP/s"] == pytest.approx(0.512**2 / seconds)


def test_fresh_processes_start_and_take_memory(smoke_run: Any) -> None:
    start = cases(smoke_run, "startup")["resnet18, 500 rows"]
    assert set(start["engines"]) == {KAD, KAD_FROM_DISK, THESIS}
    assert list(start["engines"][KAD]["stages_s"]) == ["interpreter", "import", "open", "score"]
    memory = cases(smoke_run, "memory")["resnet18, 500 rows"]["engines"]
    for name in (KAD, THESIS):
        found = memory[name]["memory_bytes"]
        assert 20e6 < found["opened"] <= found["peak"] < 4e9
        assert memory[name]["accuracy"]["score difference"] <= TOLERANCE
        assert "seconds" not in memory[name]  # they do not score the same number of tiles
    assert memory[KAD]["memory_bytes"]["peak"] < memory[THESIS]["memory_bytes"]["peak"]


def test_windows_are_measured_beside_both(smoke_run: Any) -> None:
    case = cases(smoke_run, "windows")["resnet18, 500 rows"]
    assert set(case["engines"]) == {WINDOWS, INT8, TILES, THESIS}
    assert set(case["ratios"][WINDOWS]) == {TILES, THESIS}
    for name in (WINDOWS, INT8):
        assert case["engines"][name]["accuracy"]["patch difference"] <= TOLERANCE
    assert case["engines"][TILES]["accuracy"]["score difference"] <= TOLERANCE
    for name in (WINDOWS, INT8, TILES):
        assert 20e6 < case["engines"][name]["memory_bytes"]["peak"] < 4e9
        assert {"network", "search", "map"} <= set(case["engines"][name]["stages_s"])


def test_windows_with_wrong_answers_are_not_timed(smoke_run: Any) -> None:
    settings = Settings("smoke", 2, smoke_run.path.parent, lambda _: None)
    model = model_specs("smoke")[WINDOWS].prepare(settings)
    assert check_windows(model, 448, settings)["patch difference"] <= TOLERANCE
    bank = np.array(model.artifact.bank)
    spoiled = dataclasses.replace(model.artifact, bank=bank * np.float32(1.001))
    other = dataclasses.replace(model, artifact=spoiled)
    right = windows_suite._whole_image
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows_suite, "_whole_image", lambda _, image: right(other, image))
        with pytest.raises(WrongAnswerError, match="of one pass over the whole image"):
            check_windows(model, 448, settings)


def test_an_artifact_with_the_first_rows_of_a_bank(smoke_run: Any, tmp_path: Path) -> None:
    model = smoke_model(smoke_run)
    artifact = write_with_rows(model, 125, tmp_path / "few.kad", threads=2)
    image = tmp_path / "tile.png"
    tile = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    cv2.imwrite(str(image), tile[:, :, ::-1])
    weights = save_weights(model, tmp_path / "weights.pth")
    right = thesis_tiles(model, rows=125, exact=True)(tile[None], Stopwatch()).scores[0]
    for engine in ("kad", "thesis"):
        job = Job(engine, str(artifact), str(image), str(weights), 2)
        (score,) = _do(job, time.monotonic())["scores"]
        assert score == pytest.approx(right, rel=TOLERANCE)
    assert right != pytest.approx(
        thesis_tiles(model, exact=True)(tile[None], Stopwatch()).scores[0], rel=TOLERANCE
    )


def smoke_model(smoke_run: Any) -> Any:
    """The model that the run measured, from its cache."""
    settings = Settings("smoke", 2, smoke_run.path.parent, lambda _: None)
    return MODELS["smoke"][0].prepare(settings)


def test_board_s_time_is_that_of_all_its_tiles(smoke_run: Any) -> None:
    """Of a part of the tiles, what is done once for a board is not scaled."""
    model = smoke_model(smoke_run)
    thesis, settings = thesis_tiles(model), model.artifact.manifest.preprocessing
    whole, part = (
        ThesisBoard(thesis, BoardFile.plan(model.board, model.annotation, settings, n))
        for n in (None, 2)
    )
    watch = Stopwatch()
    watch.ms |= {"read": 1000.0, "search": 2000.0}
    answer = Found(np.zeros(2, np.float32), None)
    taken = part._scaled(watch, {"processor 0": 6.0}, answer)
    tiles = len(part._board.xy)
    assert (len(part._board.chosen), part._board.whole) == (2, False)
    assert taken.stages_s == {"read": 1.0, "search": pytest.approx(2.0 * tiles / 2)}
    assert taken.energy_j["processor 0"] == pytest.approx(6.0 * taken.seconds / 3.0)
    assert whole._scaled(watch, {}, answer).stages_s == {"read": 1.0, "search": 2.0}
    found = part().found
    assert found.maps is None
    np.testing.assert_array_equal(found.scores, whole().found.scores[part._board.chosen])


def test_growth_has_a_law_for_every_engine(smoke_run: Any) -> None:
    found = {
        (suite, growth["x"]): growth
        for suite, results in smoke_run.document["suites"].items()
        for growth in results.get("growth", [])
    }
    for place in (("tile", "rows of the bank"), ("board", "megapixels"), ("board", "tiles")):
        assert list(found[place]["law"]) == [KAD, THESIS]
    assert list(found["memory", "megapixels of the board"]["points"]) == [KAD, THESIS]


def test_page_needs_no_other_file_and_shows_every_plot(smoke_run: Any, tmp_path: Path) -> None:
    words = ["report", str(smoke_run.path), "--out", str(tmp_path / "page.html")]
    result = CliRunner().invoke(main, [*words, "--plots", str(tmp_path / "plots")])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "page.html").read_text()
    for kind in ("src", "srcset", "href"):
        assert all(
            link.startswith(("data:image/png;base64,", "#"))
            for link in re.findall(rf'{kind}=["\']([^"\']*)', page)
        )
    plots = sorted((tmp_path / "plots").iterdir())
    assert page.count("<figure>") == len(plots) >= 8
    assert page.count("<source") == len(plots)  # narrow; the img is wide
    for path in plots:
        picture = cv2.imread(str(path))
        assert picture.shape[1] == 1344  # 9.6 inches
        assert picture.std() > 5


def test_a_page_escapes_what_it_is_given(smoke_run: Any) -> None:
    document = json.loads(json.dumps(smoke_run.document))
    document["suites"] = {"network": document["suites"]["network"]}
    document["suites"]["network"]["cases"][0]["what"] = "<script>alert(1)</script>"
    document["environment"]["cpu"]["model"] = "<b>cpu</b>"
    page = report_html(document, [])
    assert "<script>" not in page
    assert "<b>cpu" not in page


def test_readme_s_table_comes_from_the_document(smoke_run: Any, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    mark = "<!-- performance: made by `kad-bench readme` -->"
    readme.write_text(f"before\n{mark}\nold\n<!-- end of performance -->\nafter\n")
    result = CliRunner().invoke(main, ["readme", str(smoke_run.path), str(readme)])
    assert result.exit_code == 0, result.output
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("<!-- end of performance -->\nafter\n")
    assert "old" not in text
    assert "| a whole board | resnet18, 500 rows | kad | " in text
    assert "| a tile | resnet18, 500 rows | kad, one tile at a time | " in text
    if anomalib_missing():
        assert "- a tile, resnet18, 500 rows, as anomalib: anomalib PatchCore not run: " in text
    again = text
    CliRunner().invoke(main, ["readme", str(smoke_run.path), str(readme)])
    assert readme.read_text() == again
    readme.write_text("no marks")
    result = CliRunner().invoke(main, ["readme", str(smoke_run.path), str(readme)])
    assert result.exit_code == 1
    assert "expected the marks" in result.stderr


def test_compare_finds_no_change_in_itself_and_a_regression(smoke_run: Any, tmp_path: Path) -> None:
    same = CliRunner().invoke(main, ["compare", str(smoke_run.path), str(smoke_run.path)])
    assert same.exit_code == 0, same.output
    assert "WORSE" not in same.output
    slower = json.loads(json.dumps(smoke_run.document))
    seconds = slower["suites"]["network"]["cases"][0]["engines"]["kad (ONNX Runtime)"]["seconds"]
    for key in seconds.keys() - {"n"}:
        seconds[key] *= 10
    path = tmp_path / "slower.json"
    path.write_text(json.dumps(slower))
    words = ["compare", str(smoke_run.path), str(path)]
    found = CliRunner().invoke(main, words)
    assert found.exit_code == 1
    place = "| time: network: resnet18, batch 1: kad (ONNX Runtime) |"
    assert place in found.output.splitlines()[2]
    assert found.output.count("WORSE") == 1
    assert "1 of " in found.stderr
    assert CliRunner().invoke(main, [*words, "--limit", "20"]).exit_code == 0


def test_a_wrong_score_of_kad_stops_the_run(
    smoke_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = tile_suite.kad_tiles

    def spoilt(*args: Any, **options: Any) -> Any:
        path = right(*args, **options)
        return lambda tiles, watch: path(tiles, watch)._replace(
            scores=path(tiles, watch).scores * np.float32(1.001)
        )

    monkeypatch.setattr(tile_suite, "kad_tiles", spoilt)
    words = ["run", "tile", "--profile", "smoke", "--cache", str(smoke_run.path.parent)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert "kad: the score of tile" in result.stderr
    assert result.stdout == ""


def test_tables_have_no_ragged_rows(smoke_run: Any) -> None:
    lines = smoke_run.result.stdout.splitlines()
    for is_table, group in itertools.groupby(lines, key=lambda line: line.startswith("|")):
        if is_table:
            assert len({line.count("|") for line in group}) == 1
