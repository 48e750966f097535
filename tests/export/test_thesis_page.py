"""docs/thesis.md names what there is, and leaves out nothing of the thesis' chapters 3 to 6."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from kad_bench.cli import main as kad_bench
from kad_export.cli import main as kad_export

from kad_sdk.cli import main as kad

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "thesis.md"
ROWS = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
COMMANDS = {"kad": kad, "kad-export": kad_export, "kad-bench": kad_bench}
SECTIONS = {
    *("3.1", "3.2.1", "3.2.2", "3.2.3", "3.2.4"),
    *("4.1", "4.1.1", "4.1.2", "4.1.3", "4.2", "4.2.1", "4.2.2", "4.2.3"),
    *("5.1", "5.2", "5.3", "5.3.1", "5.3.2", "5.3.3", "5.3.4"),
    *("5.4", "5.4.1", "5.4.2", "5.4.3", "5.4.4", "5.4.5"),
    *("6.1", "6.1.1", "6.1.2", "6.1.3", "6.1.4", "6.1.5", "6.1.6"),
    *("6.2.1", "6.2.2", "6.2.3", "6.3.1", "6.3.2", "6.3.3", "6.4.1", "6.4.2"),
}
NUMBERED = {  # what there is of each chapter: how many
    "equation": {4: 13, 6: 3},
    "figure": {3: 3, 4: 2, 5: 3, 6: 13, "A": 4},
    "table": {5: 2, 6: 4},
}


def names(row: str) -> list[str]:
    """Give what stands between backticks."""
    return re.findall(r"`([^`]+)`", row)


def first_cells() -> str:
    return "\n".join(row.split("|")[1].strip() for row in ROWS).lower()


def numbers(kind: str) -> set[str]:
    """Give the numbers that follow a word, ranges and lists taken apart: "figures 3.1 to 3.3"."""
    found = set()
    number = r"[\dA]\.\d+"
    listed = rf"{number}(?:(?:, | and | to ){number})*"
    for text in re.findall(rf"\b{kind}s? ({listed})", first_cells(), re.IGNORECASE):
        for first, last in re.findall(rf"({number})(?: to ({number}))?", text, re.IGNORECASE):
            chapter, low = first.upper().split(".")
            high = last.split(".")[1] if last else low
            found |= {f"{chapter}.{n}" for n in range(int(low), int(high) + 1)}
    return found


def find_command(words: list[str]) -> click.Command:
    command: click.Command = COMMANDS[words[0]]
    for word in words[1:]:
        if isinstance(command, click.Group) and not word.startswith("-"):
            assert word in command.commands, f"no command {' '.join(words)}"
            command = command.commands[word]
    return command


def options_of(command: click.Command) -> set[str]:
    return {name for param in command.params for name in (*param.opts, *param.secondary_opts)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_what_a_row_names_exists(row):
    commands = [name.split() for name in names(row) if name.split()[0] in COMMANDS]
    files = [name for name in names(row) if "/" in name and name.split()[0] not in COMMANDS]
    known = {option for words in commands for option in options_of(find_command(words))}
    texts = "\n".join(
        (ROOT / name).read_text(encoding="utf-8") for name in files if (ROOT / name).is_file()
    )
    for words in commands:
        missing = {word for word in words if word.startswith("--")} - options_of(
            find_command(words)
        )
        assert not missing, f"{' '.join(words)}: no option {missing}"
    for name in files:
        assert (ROOT / name).exists(), f"no file {name}"
    for name in names(row):
        if name.startswith("--"):
            assert name in known, f"{name} is no option of the row's commands"
        elif name.split()[0] not in COMMANDS and "/" not in name:
            assert re.search(rf"^(class|def) {name}\b|^{name}\b", texts, re.MULTILINE), (
                f"{name} is not in the row's files"
            )


def test_the_page_has_each_section():
    starts = {row.split("|")[1].split()[0] for row in ROWS}
    assert not SECTIONS - starts


@pytest.mark.parametrize("kind", NUMBERED)
def test_the_page_has_each(kind):
    there = {f"{c}.{n}" for c, count in NUMBERED[kind].items() for n in range(1, count + 1)}
    assert numbers(kind) == there


def test_the_readme_links_the_page():
    assert "(docs/thesis.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
