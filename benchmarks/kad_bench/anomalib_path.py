"""anomalib's PatchCore on the CPU, with our weights and bank, as its users run it: optional.

It pools with padding, resizes bilinearly and re-weights as the paper does, so it is compared with
an artifact of that kind. Its maps are enlarged by repeating pixels, so only scores are compared.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch

from kad_bench.thesis_path import normalised
from kad_bench.tile_paths import CPU_ALONE, Found, TilePath

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kad_bench.models import Model
    from kad_sdk.scoring import Stopwatch

__all__ = ["ANOMALIB", "AnomalibTiles", "anomalib_missing"]

ANOMALIB = "anomalib PatchCore"
NEIGHBOURS = 9


def anomalib_missing(device: str = "cpu") -> str | None:
    """Say why anomalib cannot run here, beside a kad on that device; None: it can."""
    if device != "cpu":
        return CPU_ALONE
    try:
        _import_model()
    except ImportError as error:
        return f"not installed ({error}); pip install 'kad-sdk[peers]'"
    return None


class AnomalibTiles(TilePath):
    """Scores batches of tiles with anomalib's model.

    Parameters
    ----------
    model : Model
        Of an artifact with same-bilinear pooling and the paper's re-weighting.
    """

    def __init__(self, model: Model) -> None:
        manifest = model.artifact.manifest
        self._model = _import_model()(
            layers=model.network.layers,
            backbone=model.network.backbone,
            pre_trained=False,
            num_neighbors=NEIGHBOURS,
        ).eval()
        extractor = self._model.feature_extractor.feature_extractor
        weights = model.network.trunk.network.state_dict()
        extractor.load_state_dict(weights)  # timm's ResNets have torchvision's names
        self._model.memory_bank = torch.from_numpy(np.array(model.artifact.bank))
        settings = manifest.preprocessing
        self._mean, self._std = (
            torch.tensor(values).view(3, 1, 1) for values in (settings.mean, settings.std)
        )

    @torch.inference_mode()
    def __call__(self, tiles: NDArray[np.uint8], watch: Stopwatch) -> Found:
        """Score tiles."""
        with watch.stage("preprocess"):
            x = normalised(tiles, self._mean, self._std)
        with watch.stage("model"):
            found = self._model(x)
        return Found(found.pred_score.numpy(), None)


def _import_model() -> type[torch.nn.Module]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of anomalib's and timm's own imports
        module = importlib.import_module("anomalib.models.image.patchcore.torch_model")
    return module.PatchcoreModel
