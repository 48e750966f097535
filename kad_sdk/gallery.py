"""Example images for the picture of an evaluation, chosen while the images pass by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kad_sdk import plots

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kad_sdk.dataset import Sample
    from kad_sdk.result import Result

__all__ = ["Gallery"]

_EXAMPLES = 6  # rows of the picture


class Gallery:
    """Small pictures of the lowest and the highest score of each kind."""

    def __init__(self) -> None:
        self._lowest: dict[str, plots.Example] = {}
        self._highest: dict[str, plots.Example] = {}

    def offer(
        self, sample: Sample, image: NDArray[Any], mask: NDArray[np.bool_] | None, result: Result
    ) -> None:
        """Keep an image's small picture while its score is the lowest or highest of its kind."""
        low, high = self._lowest.get(sample.kind), self._highest.get(sample.kind)
        if low is not None and high is not None and low.score <= result.score <= high.score:
            return
        small, truth, heat, scale = plots.thumbnail(image, mask, result.need_map())
        example = plots.Example(
            name=sample.path.name,
            kind=sample.kind,
            score=float(result.score),
            anomalous=bool(result.anomalous),
            image=small,
            mask=truth,
            map=heat,
            boxes=[
                (scale * r.x, scale * r.y, scale * r.width, scale * r.height)
                for r in result.regions
            ],
        )
        if low is None or result.score < low.score:
            self._lowest[sample.kind] = example
        if high is None or result.score > high.score:
            self._highest[sample.kind] = example

    def chosen(self) -> list[plots.Example]:
        """Choose the highest of each kind, then the lowest while there is room; sort by kind."""
        kinds = sorted(self._highest, key=lambda kind: (kind != "good", kind))
        best = [self._highest[kind] for kind in kinds]
        rest = [self._lowest[kind] for kind in kinds]
        rest = [low for low, high in zip(rest, best, strict=True) if low is not high]
        examples = [*best, *rest][:_EXAMPLES]
        return sorted(examples, key=lambda e: (kinds.index(e.kind), -e.score))
