"""One smoke run of the end-to-end suites, for the tests that look at its document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from click.testing import CliRunner, Result
from convert_once import convert_once
from kad_bench.cli import main

if TYPE_CHECKING:
    from pathlib import Path

# The others have tests of their own.
END_TO_END = ("network", "tile", "board", "windows", "startup", "memory")


class Smoke(NamedTuple):
    """Which suites ran, what was printed, the file that was written, and that file's content."""

    suites: tuple[str, ...]
    result: Result
    path: Path
    document: dict[str, Any]


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory, graphs: Path) -> Smoke:
    folder = tmp_path_factory.mktemp("smoke-run")
    path = folder / "out.json"
    words = ["run", *END_TO_END, "smoke", "--threads", "2"]
    words += ["--cache", str(folder), "--json", str(path)]
    with pytest.MonkeyPatch.context() as patch:
        convert_once(graphs, patch)
        result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    return Smoke(END_TO_END, result, path, json.loads(path.read_text()))
