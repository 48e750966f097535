"""The models that the end-to-end suites measure, by profile."""

from __future__ import annotations

import dataclasses

from kad_bench.models import Boards, ModelSpec

__all__ = ["LIKE_ANOMALIB", "MODELS", "SWEEP"]

_SMALL_BOARDS = Boards(train=2, test=4, size=(600, 560))
_BOARDS = Boards(train=4, test=4, size=(2360, 2032))
_THESIS_BOARD = (4730, 4074)  # height, width of the line-scan camera's images

_SMOKE = ModelSpec("resnet18", "random:0", 500, _SMALL_BOARDS, (512, 512), 16)
_RESNET18 = ModelSpec("resnet18", "imagenet", 10_000, _BOARDS, _THESIS_BOARD, 64)
_RESNET50 = ModelSpec("resnet50", "random:0", 72_500, _BOARDS, _THESIS_BOARD, 64)

MODELS = {
    "smoke": (_SMOKE,),
    "regular": (_RESNET18, _RESNET50),
    "full": (_RESNET18, _RESNET50),
}
"""Profile to the models that are measured."""

SWEEP = {"smoke": _SMOKE, "regular": _RESNET18, "full": _RESNET50}
"""Profile to the model whose bank, batch and threads are varied."""

LIKE_ANOMALIB = {
    profile: dataclasses.replace(spec, pooling="same-bilinear", reweighting="paper")
    for profile, spec in {"smoke": _SMOKE, "regular": _RESNET18, "full": _RESNET18}.items()
}
"""Profile to a model that pools and re-weights as anomalib does."""
