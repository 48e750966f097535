"""Decode JSON into nested dataclasses, checking every key, type and range on the way.

A field's annotation is its schema: a dataclass, ``tuple``, ``Mapping``, ``X | None``,
``tuple | X``, ``Literal``, ``int``, ``float``, ``str``, ``Any`` (any JSON with finite numbers), or
``Annotated`` with a :class:`Range` or a :class:`Pattern`.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

__all__ = ["Pattern", "Range", "SchemaError", "decode", "expected"]

_FREE_DEPTH = 8
_hints = cache(get_type_hints)


class SchemaError(ValueError):
    """A value does not fit its schema; the text names the key, what was expected, and the value."""


@dataclass(frozen=True)
class Range:
    """Bounds of a number; `low` is allowed itself unless `above` is set."""

    low: float
    high: float = math.inf
    above: bool = False

    def holds(self, value: float) -> bool:
        """Whether `value` lies within the bounds."""
        return (value > self.low if self.above else value >= self.low) and value <= self.high

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return f"a number {low}" + ("" if math.isinf(self.high) else f" and at most {self.high:g}")


@dataclass(frozen=True)
class Pattern:
    """A regular expression that a whole string must match, and what it means in words."""

    expression: str
    words: str

    def holds(self, value: str) -> bool:
        """Whether `value` matches."""
        return re.fullmatch(self.expression, value) is not None

    def __str__(self) -> str:
        return self.words


def expected(path: str, what: str, value: object) -> SchemaError:
    """Make the error for `value` at the key `path`, where `what` was expected."""
    shown = repr(value)
    return SchemaError(f"{path}: expected {what}, got {shown[:77] + '...' * (len(shown) > 77)}")


def decode(kind: Any, value: Any, path: str = "", *, allow_unknown: bool = False) -> Any:
    """Turn parsed JSON into the type that the annotation `kind` names.

    Parameters
    ----------
    kind
        An annotation; see the module's docstring.
    value
        Parsed JSON.
    path
        What errors call the value, for example ``"network.outputs[0]"``.
    allow_unknown
        Whether keys that a dataclass does not have are skipped instead of being an error.

    Raises
    ------
    SchemaError
        A key is missing or unknown, or a value has the wrong type or range.
    """
    origin = get_origin(kind)
    if origin is Annotated:
        kind, rule = get_args(kind)
        value = decode(kind, value, path, allow_unknown=allow_unknown)
        if not rule.holds(value):
            raise expected(path, str(rule), value)
    elif origin in {types.UnionType, Union}:
        if value is not None:
            value = decode(_option(kind, value), value, path, allow_unknown=allow_unknown)
    elif origin is Literal:
        # Exactly of that type: True is no 1 here, nor is 1.0.
        if not any(type(value) is type(one) and value == one for one in get_args(kind)):
            raise expected(path, " or ".join(map(repr, get_args(kind))), value)
    elif kind is Any:
        _check_free(value, path)
    elif origin is not None or dataclasses.is_dataclass(kind):
        value = _decode_container(kind, value, path, allow_unknown=allow_unknown)
    else:
        value = _decode_scalar(kind, value, path)
    return value


def _option(union: Any, value: Any) -> Any:
    """Choose the part of a union that `value` is meant for: lists go to tuples, the rest not."""
    options = [option for option in get_args(union) if option is not types.NoneType]
    fitting = [o for o in options if (get_origin(o) is tuple) == isinstance(value, list)]
    return (fitting or options)[0]


def _decode_scalar(kind: type, value: Any, path: str) -> Any:
    if kind is float:
        if type(value) not in {int, float} or not _is_finite(value):
            raise expected(path, "a finite number", value)
        return float(value)
    if type(value) is not kind:  # exactly: a bool is no integer here
        raise expected(path, {int: "an integer", str: "a string"}[kind], value)
    return value


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def _decode_container(kind: Any, value: Any, path: str, *, allow_unknown: bool) -> Any:
    if get_origin(kind) is tuple:
        return _decode_list(get_args(kind), value, path, allow_unknown=allow_unknown)
    if not isinstance(value, dict):
        raise expected(path, "an object", value)
    if get_origin(kind) is not Mapping:
        return _decode_object(kind, value, path, allow_unknown=allow_unknown)
    key_kind, item_kind = get_args(kind)
    return {
        decode(key_kind, key, f"{path}: each key"): decode(
            item_kind, item, f"{path}.{key}", allow_unknown=allow_unknown
        )
        for key, item in value.items()
    }


def _decode_object(kind: Any, value: dict[str, Any], path: str, *, allow_unknown: bool) -> Any:
    prefix = f"{path}." if path else ""
    hints = _hints(kind, include_extras=True)
    for key in hints:
        if key not in value:
            raise SchemaError(f"the key {prefix}{key} is missing")
    for key in sorted(value):
        if key not in hints and not allow_unknown:
            raise SchemaError(f"unknown key {prefix}{key}: this format version has no such key")
    items = {
        key: decode(hint, value[key], prefix + key, allow_unknown=allow_unknown)
        for key, hint in hints.items()
    }
    return kind(**items)


def _decode_list(kinds: tuple[Any, ...], value: Any, path: str, *, allow_unknown: bool) -> Any:
    if not isinstance(value, list):
        raise expected(path, "a list", value)
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise expected(path, f"{len(kinds)} items", value)
    return tuple(
        decode(kind, item, f"{path}[{i}]", allow_unknown=allow_unknown)
        for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _check_free(value: Any, path: str, depth: int = 0) -> None:
    if depth > _FREE_DEPTH:
        raise SchemaError(f"{path}: nested too deeply")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_free(item, f"{path}.{key}", depth + 1)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _check_free(item, f"{path}[{i}]", depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise expected(path, "a finite number", value)
