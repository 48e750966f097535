"""Checks of arguments before they reach C, where a wrong one could not be told from a right one."""

from __future__ import annotations

import operator
import os
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kad_sdk.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

Bytes: TypeAlias = npt.NDArray[np.uint8]
Floats: TypeAlias = npt.NDArray[np.float32]
Ints: TypeAlias = npt.NDArray[np.int32]
Longs: TypeAlias = npt.NDArray[np.int64]


def default_threads() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0))


def choice(name: str, value: str, choices: dict[str, int]) -> int:
    if value not in choices:
        raise InvalidArgumentError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return choices[value]


def int_argument(name: str, value: int, bits: int = 32) -> int:
    """Check that an integer fits the C argument: ctypes would wrap it silently."""
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidArgumentError(f"{name} must be an integer, got {value!r}") from None
    if not -(1 << (bits - 1)) <= number < 1 << (bits - 1):
        raise InvalidArgumentError(f"{name} is {number}: it does not fit {bits} bits")
    return number


def array_argument(
    name: str, value: object, dtype: type[np.generic], shape: tuple[int | None, ...]
) -> npt.NDArray[Any]:
    """Check dtype and shape (None: any length); copy unless C-contiguous."""
    wanted = ", ".join("any" if side is None else str(side) for side in shape)
    expected = f"expected {np.dtype(dtype).name} of shape ({wanted})"
    if not isinstance(value, np.ndarray):
        raise InvalidArgumentError(f"{name} is a {type(value).__name__}, {expected}")
    fits = len(shape) == value.ndim and all(
        side in (None, given) for side, given in zip(shape, value.shape, strict=True)
    )
    if value.dtype != dtype or not fits:
        raise InvalidArgumentError(f"{name} is {value.dtype} of shape {value.shape}, {expected}")
    return np.require(value, requirements=("C", "A"))


def rectangles_argument(name: str, rectangles: Sequence[Sequence[int]]) -> Ints:
    rows = []
    for i, rectangle in enumerate(rectangles):
        if len(rectangle) != 4:
            raise InvalidArgumentError(
                f"{name}[{i}] must be (x, y, width, height), got {tuple(rectangle)}"
            )
        rows.append([int_argument(f"{name}[{i}]", value) for value in rectangle])
    return np.array(rows, dtype=np.int32).reshape(-1, 4)


def sides_argument(name: str, value: object, names: str) -> tuple[int, ...]:
    """Check a sequence of as many integers as there are `names`, separated by commas."""
    wanted = len(names.split(", "))
    sides = tuple(value) if isinstance(value, (tuple, list, np.ndarray)) else ()
    if len(sides) != wanted:
        raise InvalidArgumentError(f"{name} must be ({names}), got {value!r}")
    return tuple(int_argument(name, side) for side in sides)


def triple_argument(name: str, value: npt.ArrayLike) -> Floats:
    array = np.ascontiguousarray(value, dtype=np.float32)
    if array.shape != (3,):
        raise InvalidArgumentError(f"{name} must hold three numbers, got shape {array.shape}")
    return array


def threads_argument(threads: int) -> int:
    return int_argument("threads", threads)
