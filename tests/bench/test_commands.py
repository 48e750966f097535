"""``kad-bench``'s commands with files of other kinds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from kad_bench.cli import main
from kad_bench.suites import read_document

from kad_sdk.errors import InvalidArgumentError

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
COMMANDS = {
    "table": ["table", "{}"],
    "report": ["report", "{}", "--out", "page.html"],
    "compare": ["compare", str(RESULTS / "regular.json"), "{}"],
    "readme": ["readme", "{}", str(RESULTS / "regular.json")],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["quality", "cutpaste", "windows_quality", "smoke_counts"])
def test_results_of_other_tools_are_refused_by_name(command: str, name: str) -> None:
    path = RESULTS / f"{name}.json"
    result = CliRunner().invoke(main, [word.format(path) for word in COMMANDS[command]])
    assert result.exit_code == 1
    assert f"{path}: expected a file that kad-bench run --json wrote" in result.stderr
    assert "run again" not in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_document_without_its_parts_is_refused_by_name(command: str, tmp_path: Path) -> None:
    path = tmp_path / "part.json"
    path.write_text('{"format": 1}')
    result = CliRunner().invoke(main, [word.format(path) for word in COMMANDS[command]])
    assert result.exit_code == 1
    assert f"{path}: expected a file that kad-bench run --json wrote" in result.stderr
    assert "environment.cpu.model" in result.stderr


@pytest.mark.parametrize(
    "suites", [{}, [], {"search": {}}, {"search": {"cases": [{"case": "a"}]}}, {"other": {}}]
)
def test_suites_of_another_shape_are_refused(suites: Any, tmp_path: Path) -> None:
    path = tmp_path / "part.json"
    path.write_text(
        json.dumps(json.loads((RESULTS / "search.json").read_text()) | {"suites": suites})
    )
    with pytest.raises(InvalidArgumentError, match=r"part\.json: expected a file .* suites"):
        read_document(path)


def test_another_format_is_told_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "newer.json"
    path.write_text(json.dumps(json.loads((RESULTS / "search.json").read_text()) | {"format": 2}))
    with pytest.raises(InvalidArgumentError, match=r"newer\.json: expected results of format 1"):
        read_document(path)


@pytest.mark.parametrize(
    "name", ["bank", "coreset", "precision", "regular", "search", "windows", "gpu_board"]
)
def test_committed_documents_are_read(name: str) -> None:
    assert read_document(RESULTS / f"{name}.json")["format"] == 1
