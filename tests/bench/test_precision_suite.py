"""The precision suite: what it measures, that wrong answers are not timed, and its table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from convert_once import convert_once
from kad_bench import precision_suite
from kad_bench.cli import main
from kad_bench.counts import collect_counts
from kad_bench.precision_report import table
from kad_bench.suites import read_document, replace_table

REAL_JUDGE = precision_suite._judge
ROOT = Path(__file__).parents[2]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "precision.json", ROOT / "docs" / "precision.md"


JUDGED: list[dict[str, float]] = []  # figures of each export, before they are left out


def judge(*args: Any) -> dict[str, Any]:
    found = REAL_JUDGE(*args)
    JUDGED.append(dict(found["accuracy"]))
    return found


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory, graphs: Path) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("precision")
    words = ["run", "precision", "--profile", "smoke", "--threads", "2", "--cache", str(folder)]
    words += ["--json", str(folder / "out.json")]
    with pytest.MonkeyPatch.context() as patch:
        convert_once(graphs, patch)
        patch.setattr(precision_suite, "_judge", judge)
        result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert table(read_document(folder / "out.json")["suites"]["precision"]) in result.stdout
    assert [path.name for path in folder.iterdir() if path.suffix == ".kad"] == []
    return json.loads((folder / "out.json").read_text())


@pytest.fixture(scope="module")
def case(document: dict[str, Any]) -> dict[str, Any]:
    (found,) = document["suites"]["precision"]["cases"]
    return found


def test_every_precision_is_judged_and_timed(case: dict[str, Any]) -> None:
    assert list(case["engines"]) == ["kad fp32", "kad fp16", "kad int8", "kad fp32, seed 1"]
    for name, figures in case["engines"].items():
        assert figures["accuracy"] == {}  # of random weights: it would say nothing
        assert figures["bank_rows"] == 200
        assert ("seconds" in figures) == (name != "kad fp32, seed 1")
        if "seconds" in figures:
            stages = figures["stages_s"]
            assert figures["batch"] == 16
            assert 0 < sum(stages.values()) < 2 * figures["seconds"]["median"]
    assert len(JUDGED) == len(case["engines"])
    for accuracy in JUDGED:
        assert all(0 <= value <= 1 for value in accuracy.values())
        assert set(accuracy) == set(precision_suite.FIGURES)
    off = [case["engines"][f"kad {name}"]["off"] for name in ("fp32", "fp16", "int8")]
    assert off[0]["largest"] < 1e-4 < off[1]["largest"] < off[2]["largest"]
    sizes = [case["engines"][f"kad {name}"]["size_bytes"] for name in ("fp32", "fp16", "int8")]
    for kind in ("network", "artifact"):
        assert sizes[0][kind] > sizes[1][kind] > sizes[2][kind]
    assert set(case["ratios"]) == set(case["network_ratios"]) == {"kad fp16", "kad int8"}


def test_the_table_states_differences_from_float32() -> None:
    case = read_document(RESULTS)["suites"]["precision"]["cases"][0]
    first, int8 = (case["engines"][f"kad {p}"]["accuracy"] for p in ("fp32", "int8"))
    value, plain = int8["pixel_roc_auc"], first["pixel_roc_auc"]
    lines = table({"cases": [case]}).splitlines()
    (row,) = [line for line in lines if "| int8 |" in line and "AUROC" not in line][:1]
    assert f"| {value:.4f} ({value - plain:+.4f}) |" in row
    (row,) = [line for line in lines if "| fp32 |" in line][:1]
    assert f"| {plain:.4f} |" in row


def test_the_table_leaves_out_what_random_weights_score(case: dict[str, Any]) -> None:
    quality = table({"cases": [case]}).split("\n\n")[0]
    assert quality.count("| – | – | – | – |") == len(case["engines"])


def test_the_suite_counts_nothing_that_a_guard_would_hold(document: dict[str, Any]) -> None:
    assert collect_counts(document) == {}


def test_golden_tiles_that_are_not_reproduced_stop_the_run(
    tmp_path: Path, graphs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failed:
        passed = False

    convert_once(graphs, monkeypatch)
    monkeypatch.setattr(precision_suite, "verify_artifact", lambda *_, **__: Failed())
    words = ["run", "precision", "--profile", "smoke", "--cache", str(tmp_path)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert "golden tiles are not reproduced: it is not timed" in result.stderr
    assert result.stdout == ""


def test_real_data_have_to_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KAD_DATA_DIR", raising=False)
    result = CliRunner().invoke(main, ["run", "precision", "--cache", str(tmp_path)])
    assert result.exit_code == 1
    assert "KAD_DATA_DIR is not set" in result.stderr


# ---- what is told of real surfaces ---------------------------------------------------------------


def test_the_page_s_table_is_that_of_the_committed_results(tmp_path: Path) -> None:
    page = tmp_path / "precision.md"
    page.write_text(PAGE.read_text())
    replace_table(page, read_document(RESULTS))
    assert page.read_text() == PAGE.read_text()


def test_the_page_tells_what_the_committed_results_show() -> None:
    cases = read_document(RESULTS)["suites"]["precision"]["cases"]
    assert len(cases) == len(precision_suite.CASES)
    text = " ".join(PAGE.read_text().split())

    def differences(engine: str) -> tuple[float, float, float]:
        found = [
            case["engines"][engine]["accuracy"][name]
            - case["engines"]["kad fp32"]["accuracy"][name]
            for case in cases
            for name in precision_suite.FIGURES
        ]
        return float(np.mean(found)), min(found), max(found)

    int8, seed, fp16 = map(differences, ("kad int8", "kad fp32, seed 1", "kad fp16"))
    form = "{:.4f} in the mean, {:.3f} at worst and {:+.3f} at best"
    assert form.format(*int8) in text
    assert "differs by {:.4f}, {:.3f} and {:+.3f}".format(*seed) in text
    assert "by {:.4f}, {:.3f} and {:+.3f}: what".format(*fp16) in text
    assert int8[1] > seed[1]  # it loses no more than another seed does
    faster = [case["network_ratios"]["kad int8"]["median"] for case in cases]
    assert f"{min(faster):.1f} to {max(faster):.1f} times as fast" in text
