"""``kad-bench``'s commands with suites that measure nothing, and with files of other kinds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from kad_bench import process_probe
from kad_bench.cli import main
from kad_bench.suites import SUITES, read_document

from kad_sdk.errors import InvalidArgumentError

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def case(*engines: str, counts: dict[str, int] | None = None) -> dict[str, Any]:
    figures = {name: {"counts": counts or {}} for name in engines}
    return {"case": "a", "engines": figures, "ratios": {}, "skipped": {"peer": "missing"}}


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a suite that gives a case, or raises an error, in a real one's place."""

    def put(name: str, given: dict[str, Any] | Exception) -> list[str]:
        profiles = []

        def run(settings: Any) -> dict[str, Any]:
            profiles.append(settings.profile)
            if isinstance(given, Exception):
                raise given
            return {"cases": [given]}

        fake = SimpleNamespace(run=run, table=lambda _: f"table of {name}")
        monkeypatch.setitem(sys.modules, SUITES[name], fake)
        return profiles

    return put


def run(*words: Any) -> Any:
    return CliRunner().invoke(main, ["run", *map(str, words)])


def test_an_error_keeps_what_was_measured_before(suite: Any, tmp_path: Path) -> None:
    suite("search", case("kad"))
    suite("network", InvalidArgumentError("no network"))
    result = run("search", "network", "--json", tmp_path / "out.json")
    assert result.exit_code == 1
    assert "no network" in result.stderr
    assert list(read_document(tmp_path / "out.json")["suites"]) == ["search"]


@pytest.mark.parametrize("option", ["--json", "--write-counts"])
def test_a_missing_folder_is_told_before_measuring(option: str, suite: Any, tmp_path: Path) -> None:
    measured = suite("search", case("kad"))
    result = run("search", option, tmp_path / "nowhere" / "out.json")
    assert result.exit_code == 2
    assert "nowhere/out.json: expected a folder that can be written to" in result.stderr
    assert measured == []


@pytest.mark.parametrize("option", ["--counts", "--write-counts"])
def test_a_file_without_counts_is_told_before_measuring(option: str, suite: Any) -> None:
    measured = suite("search", case("kad"))
    result = run("search", option, RESULTS / "quality.json")
    assert result.exit_code == 1
    assert "quality.json: expected a file that kad-bench run --write-counts wrote" in result.stderr
    assert measured == []


def test_counts_that_are_missing_are_told_before_measuring(suite: Any, tmp_path: Path) -> None:
    measured = suite("search", case("kad"))
    assert run("search", "--counts", tmp_path / "none.json").exit_code == 2
    assert measured == []


def test_suites_that_are_not_held_are_named(suite: Any, tmp_path: Path) -> None:
    suite("search", case("kad", counts={"pairs": 5}))
    suite("network", case("kad", counts={"flop": 5}))
    path = tmp_path / "counts.json"
    assert run("network", "--write-counts", path).exit_code == 0
    result = run("search", "network", "--level", "scalar", "--counts", path)
    assert result.exit_code == 0, result.output
    assert f"not held at level scalar, of which {path} has no counts: search\n" in result.stderr


def test_a_run_that_measured_nothing_fails(suite: Any, tmp_path: Path) -> None:
    suite("search", case())
    result = run("search", "--json", tmp_path / "out.json")
    assert (result.exit_code, (tmp_path / "out.json").is_file()) == (1, True)
    assert "table of search" in result.stdout
    assert "kad-bench: nothing was measured" in result.stderr
    suite("network", case("kad"))  # whose peer is skipped
    assert run("search", "network").exit_code == 0


def test_smoke_takes_no_other_profile(suite: Any) -> None:
    profiles = suite("search", case("kad"))
    result = run("search", "smoke", "--profile", "regular")
    assert result.exit_code == 2
    assert "smoke is a profile: expected no other one beside it, got" in result.stderr
    assert run("search", "smoke", "--profile", "smoke").exit_code == 0
    assert run("search", "smoke").exit_code == 0
    assert run("search").exit_code == 0
    assert profiles == ["smoke", "smoke", "regular"]


# ---- files of other kinds ------------------------------------------------------------------------

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


# ---- the clock of fresh processes ----------------------------------------------------------------


def test_setting_the_time_does_not_move_the_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    job = process_probe.Job("kad", "artifact", "image", "weights", 1)
    steps = [None, None, [1.0]]
    monkeypatch.setattr(process_probe, "_kad_steps", lambda _: iter(steps))
    monkeypatch.setattr(process_probe.time, "time", iter(range(0, 10**9, 10**6)).__next__)

    def answer(*_: Any, **__: Any) -> Any:
        done = process_probe._do(job, process_probe.time.monotonic())
        return SimpleNamespace(stdout=json.dumps(done))

    monkeypatch.setattr(process_probe.subprocess, "run", answer)
    found = process_probe.probe_process(job)
    assert list(found["stages_s"]) == ["interpreter", "import", "open", "score"]
    assert all(0 <= seconds < 60 for seconds in found["stages_s"].values())
