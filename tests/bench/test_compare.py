"""``kad-bench compare``: like with like, nothing lost, and what others took meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from kad_bench.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "regular.json"


@pytest.fixture
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULTS.read_text())
    for use in found["run"]["processor_use"].values():
        use |= {"wall_s": 100.0, "other_cpu_s": 0.0, "steal_s": None}
    return found


@pytest.fixture
def compared(tmp_path: Path, document: dict[str, Any]) -> Callable[..., Result]:
    """Compare the committed results with what `document` has become."""
    before = tmp_path / "before.json"
    before.write_text(json.dumps(document))

    def compare(*options: str) -> Result:
        after = tmp_path / "after.json"
        after.write_text(json.dumps(document))
        return CliRunner().invoke(main, ["compare", str(before), str(after), *options])

    return compare


def test_nothing_is_said_of_equal_files(compared: Callable[..., Result]) -> None:
    result = compared()
    assert (result.exit_code, result.stderr) == (0, "")
    assert all(line.startswith("|") for line in result.stdout.splitlines())


def test_what_is_missing_is_named_and_fails(
    document: dict[str, Any], compared: Callable[..., Result]
) -> None:
    suites = document["suites"]
    del suites["memory"]
    lost = suites["startup"]["cases"].pop()
    (engines,) = [case["engines"] for case in suites["board"]["cases"][:1]]
    del engines["kad"]
    suites["network"]["cases"].append(lost)  # more than before is no loss
    result = compared()
    assert result.exit_code == 1
    named = [line for line in result.stdout.splitlines() if line.startswith("- ")]
    board = suites["board"]["cases"][0]["case"]
    expected = [f"board: {board}: kad", f"startup: {lost['case']}", "memory"]
    assert [line.partition("missing: ")[2] for line in named] == expected
    assert "after.json lacks what" in result.stderr


def test_a_lost_figure_is_named(document: dict[str, Any], compared: Callable[..., Result]) -> None:
    (case, *_) = document["suites"]["board"]["cases"]
    del case["engines"]["kad"]["seconds"]
    result = compared()
    assert result.exit_code == 1
    assert f"missing: board: {case['case']}: kad: time\n" in result.stdout


@pytest.mark.parametrize(
    ("block", "key", "value", "words"),
    [
        ("cpu", "model", "Another", "processor: {} before, Another after"),
        ("cpu", "kad_level", "scalar", "level of instructions: {} before, scalar after"),
        ("run", "threads", 77, "threads: {} before, 77 after"),
        ("run", "profile", "full", "profile: {} before, full after"),
        ("run", "provider", "cuda", "provider: {} before, cuda after"),
    ],
)
def test_another_machine_is_refused_unless_asked_for(
    document: dict[str, Any],
    compared: Callable[..., Result],
    *,
    block: str,
    key: str,
    value: Any,
    words: str,
) -> None:
    place = document["run"] if block == "run" else document["environment"]["cpu"]
    words = words.format(place[key])
    place[key] = value
    refused = compared()
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert words in refused.stderr
    assert "--across-machines" in refused.stderr
    asked = compared("--across-machines")
    assert asked.exit_code == 0
    assert f"warning: not measured alike: {words}" in asked.stderr


def test_it_is_said_where_others_took_the_processors(
    document: dict[str, Any], compared: Callable[..., Result]
) -> None:
    use, cores = document["run"]["processor_use"], document["environment"]["cpu"]["logical_cores"]
    use["tile"]["other_cpu_s"] = 9.0 * cores
    use["board"] |= {"other_cpu_s": 7.0 * cores, "steal_s": 5.0 * cores}
    result = compared()
    assert result.exit_code == 0
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("- ")]
    assert line.endswith("after.json: board: others took 12% of the processors meanwhile")
