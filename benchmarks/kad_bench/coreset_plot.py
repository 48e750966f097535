"""Draw how the selection's time grows with points and picks.

python -m kad_bench.coreset_plot RESULTS.json PICTURE.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib.figure import Figure

__all__ = ["draw"]


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw ``growth`` of :func:`kad_bench.coreset_suite.run`, one panel each, both axes log."""
    growth = results["growth"]
    figure = Figure(figsize=(4 * len(growth), 3.2), layout="constrained")
    panels = figure.subplots(1, len(growth), squeeze=False)[0]
    for panel, one in zip(panels, growth, strict=True):
        for engine, points in one["points"].items():
            x, y = zip(*points, strict=True)
            panel.loglog(
                x, y, "o-", label=f"{engine}, about x^{one['law'][engine]['exponent']:.2f}"
            )
            first = [y[0] * value / x[0] for value in x]
            panel.loglog(x, first, "--", color="grey", label=f"in proportion to the {one['x']}")
        panel.set(xlabel=one["x"], ylabel="processor seconds", title=one["y"].split(", ", 1)[1])
        panel.legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    document = json.loads(Path(sys.argv[1]).read_text())
    draw(document["suites"]["coreset"], Path(sys.argv[2]))
