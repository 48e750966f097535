"""How a measured quantity grows: a straight line and a power, fitted to points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["fit_law", "growth", "law_text"]

_FEWEST = 3  # points that a law is fitted to


def growth(x: str, y: str, points: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Any]:
    """Say how y grows with x, for each engine, with a law where there are three points.

    Parameters
    ----------
    x, y
        In words, with their unit.
    points
        Engine to its (x, y).

    Returns
    -------
    dict
        ``x``, ``y``, ``points``, ``law``; see :mod:`kad_bench.suites`.
    """
    law = {name: fit_law(found) for name, found in points.items() if len(found) >= _FEWEST}
    return {"x": x, "y": y, "points": dict(points), "law": law}


def fit_law(points: Sequence[Sequence[float]]) -> dict[str, float]:
    """Fit ``y = a + b x`` and ``y ~ x^p`` to points (x, y), all above 0, at least three.

    Both weigh relative errors: a point counts the same at every size.

    Returns
    -------
    dict
        ``a``, ``b``; ``exponent``, p; ``worst``, the largest relative error of the line at a point.
        a is at least 0: a negative fixed cost would be the noise of the largest points.
    """
    x, y = np.asarray(points, np.float64).T
    columns = np.stack([1 / y, x / y], axis=1)  # relative: each equation divided by its y
    (a, b), *_ = np.linalg.lstsq(columns, np.ones_like(y), rcond=None)
    if a < 0:
        a, b = 0.0, float(np.sum(x / y) / np.sum((x / y) ** 2))
    exponent = np.polyfit(np.log(x), np.log(y), 1)[0]
    worst = np.abs((a + b * x) / y - 1).max()
    return {"a": float(a), "b": float(b), "exponent": float(exponent), "worst": float(worst)}


def law_text(law: dict[str, float], unit: str) -> str:
    """Write a law out, for example ``0.012 + 3.1e-06 x s (within 4 %), about x^0.97``."""
    a, b = law["a"], law["b"]
    start = f"{a:.3g} + " if a else ""
    return (
        f"{start}{b:.3g} x {unit} (within {100 * law['worst']:.0f} %), "
        f"about x^{law['exponent']:.2f}"
    )
