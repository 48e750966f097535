"""Kitchen-board anomaly detection: open an artifact, score boards, say where and why.

>>> from kad_sdk import Detector  # doctest: +SKIP
>>> result = Detector.open("white.kad").score("board.jpg")  # doctest: +SKIP

Names are imported when they are first used, so ``import kad_sdk`` is quick and brings in neither
NumPy nor OpenCV nor ONNX Runtime.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kad_sdk.errors import KadError

if TYPE_CHECKING:
    from kad_sdk.annotations import Annotation, Rect, find_annotation, read_annotations
    from kad_sdk.artifact import Artifact
    from kad_sdk.dataset import scan_dataset
    from kad_sdk.detector import Detector
    from kad_sdk.evaluation import evaluate
    from kad_sdk.images import read_image
    from kad_sdk.render import render_overlay
    from kad_sdk.result import Region, Result, TileScore
    from kad_sdk.search import SearchIndex
    from kad_sdk.verify import verify_artifact

__version__ = "0.1.0"

_HOME = {
    "Annotation": "annotations",
    "Artifact": "artifact",
    "Detector": "detector",
    "Rect": "annotations",
    "Region": "result",
    "Result": "result",
    "SearchIndex": "search",
    "TileScore": "result",
    "evaluate": "evaluation",
    "find_annotation": "annotations",
    "read_annotations": "annotations",
    "read_image": "images",
    "render_overlay": "render",
    "scan_dataset": "dataset",
    "verify_artifact": "verify",
}

__all__ = [  # noqa: RUF022 - what a reader meets first, first
    "Detector",
    "Result",
    "TileScore",
    "Region",
    "Annotation",
    "Rect",
    "read_annotations",
    "find_annotation",
    "read_image",
    "scan_dataset",
    "SearchIndex",
    "Artifact",
    "evaluate",
    "render_overlay",
    "verify_artifact",
    "KadError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'kad_sdk' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"kad_sdk.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
