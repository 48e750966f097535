"""What a grid is, and reading one: a YAML file, or the thesis' own.

Every scalar of a grid is the text that stands in the file, and an option's text means what it means
on the command line: YAML's own types (``no`` a truth value, ``1e-4`` a text) play no part.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from kad_export.errors import GridError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

__all__ = ["THESIS", "Block", "Grid", "Setting", "parse_setting", "read_grid"]

THESIS = "thesis"
_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True)
class Setting:
    """An option's value for all runs that its scopes name.

    Attributes
    ----------
    name : str
        The option, as ``max-bank``.
    value : str
        As on the command line; ``none``, where the option has no default: not given.
    scopes : tuple of str
        Methods, categories and backbones; the setting holds for runs that have all of them.
    """

    name: str
    value: str
    scopes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ":".join((*self.scopes, f"{self.name}={self.value}"))


@dataclass(frozen=True)
class Block:
    """Runs of one method: every combination of its axes' values (option to values)."""

    method: str
    axes: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Grid:
    """Blocks of runs for each category, and settings that all of them share.

    Attributes
    ----------
    name : str
        ``"thesis"``, or the file's name.
    categories : tuple of str
        Folders below the data folder; ``"."`` is the data folder itself.
    blocks : tuple of Block
    settings : tuple of Setting
    """

    name: str
    categories: tuple[str, ...]
    blocks: tuple[Block, ...]
    settings: tuple[Setting, ...] = ()


def read_grid(source: str | os.PathLike[str]) -> Grid:
    """Read a grid.

    Parameters
    ----------
    source
        ``"thesis"``, or a YAML file; docs/experiments.md says what it may hold.

    Raises
    ------
    GridError
        The file cannot be read, is no YAML, has unknown keys, or lacks what is needed.
    """
    path = Path(__file__).with_name("thesis.yaml") if source == THESIS else Path(source)
    try:
        return _grid(Path(source).name, _load(path))
    except GridError as error:
        raise GridError(f"{path}: {error}") from error


def parse_setting(text: str) -> Setting:
    """Read ``[SCOPE:]...NAME=VALUE``.

    Raises
    ------
    GridError
        It has another form.
    """
    left, sign, value = text.partition("=")
    *scopes, name = (part.strip() for part in left.split(":"))
    if not (sign and name and value.strip() and all(scopes)):
        raise GridError(
            f"NAME=VALUE or SCOPE:NAME=VALUE is expected, such as max-bank=5000 or "
            f"cutpaste:epochs=3, got {text!r}"
        )
    return Setting(_option_name(name), value.strip(), tuple(scopes))


class _Texts(yaml.BaseLoader):
    """Texts, lists and mappings; a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _load(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT_BYTES + 1)
    except OSError as error:
        raise GridError(
            f"the grid cannot be read: {error.strerror}; name a YAML file, or {THESIS!r}"
        ) from error
    if len(data) > _LIMIT_BYTES:
        raise GridError(f"a grid of at most {_LIMIT_BYTES} bytes is expected")
    try:
        return yaml.load(data, Loader=_Texts)  # noqa: S506 - it makes nothing but texts
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise GridError(f"not YAML that can be read: {error}") from error


def _grid(name: str, document: Any) -> Grid:
    keys = ("categories", "runs", "options")
    content = _mapping(document, "the grid", keys)
    if "runs" not in content:
        raise GridError("the key runs is missing: a list of blocks with a method and options")
    blocks = content["runs"]
    if not isinstance(blocks, list) or not blocks:
        raise GridError(f"runs: a list of blocks is expected, got {_shown(blocks)}")
    return Grid(
        name,
        _values(content.get("categories", "."), "categories"),
        tuple(_block(block, f"runs[{i}]") for i, block in enumerate(blocks)),
        tuple(_settings(content.get("options", {}), "options", ())),
    )


def _block(value: Any, where: str) -> Block:
    content = dict(_mapping(value, where))
    if "method" not in content:
        raise GridError(f"{where}: the key method is missing")
    method = _text(content.pop("method"), f"{where}.method")
    axes = {_option_name(key): _values(v, f"{where}.{key}") for key, v in content.items()}
    return Block(method, axes)


def _settings(value: Any, where: str, scopes: tuple[str, ...]) -> Iterator[Setting]:
    """Options with their values; a key whose value is a mapping is a scope of what is in there."""
    for key, entry in _mapping(value, where).items():
        if isinstance(entry, dict):
            yield from _settings(entry, f"{where}.{key}", (*scopes, key))
        else:
            yield Setting(_option_name(key), _text(entry, f"{where}.{key}"), scopes)


def _mapping(value: Any, where: str, known: tuple[str, ...] = ()) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise GridError(f"{where}: keys with values are expected, got {_shown(value)}")
    for key in value:
        if not isinstance(key, str) or not key:
            raise GridError(f"{where}: a key is a name, got {_shown(key)}")
        if known and key not in known:
            raise GridError(f"{where}: unknown key {key!r}: expected {', '.join(known)}")
    return value


def _values(value: Any, where: str) -> tuple[str, ...]:
    """One text or several."""
    several = value if isinstance(value, list) else [value]
    if not several:
        raise GridError(f"{where}: at least one value is expected, got an empty list")
    return tuple(_text(one, where) for one in several)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise GridError(f"{where}: a value is expected, got {_shown(value)}")
    return value.strip()


def _option_name(text: str) -> str:
    return text.strip().removeprefix("--").replace("_", "-")


def _shown(value: Any) -> str:
    text = "nothing" if value in ("", None) else repr(value)
    return text[:77] + "..." * (len(text) > 77)
