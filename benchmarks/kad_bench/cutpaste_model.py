"""A CutPaste network to measure: Grad-CAM in the exported graph against Grad-CAM by autograd.

What is compared is time and equality, not detection: the encoder has the given weights, head and
classifier are drawn from a seed, and batch norm's statistics and the density are those of the
tiles, so that activations and scores have a spread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from kad_export.cutpaste.density import fit_density
from kad_export.cutpaste.gradcam import ANOMALOUS_CLASS, ExplainedCutPasteNet
from kad_export.cutpaste.network import EMBEDDING_DIMS, NetworkConfig, initialise
from kad_export.data import NORMALISATIONS
from kad_export.onnx_export import encode_graph

from kad_bench.thesis_cutpaste import ThesisCutPaste
from kad_bench.thesis_path import BLUR_RADIUS, BLUR_SIGMA, normalised
from kad_bench.tile_paths import KadTiles, ThesisTiles
from kad_sdk.cutpaste import CutPasteScorer
from kad_sdk.density import NormalDensity
from kad_sdk.manifest import CutPaste, MapSettings, Preprocessing
from kad_sdk.session import NetworkSession

if TYPE_CHECKING:
    import numpy as np
    from kad_export.cutpaste.density import Density
    from kad_export.cutpaste.network import CutPasteNet
    from numpy.typing import NDArray

__all__ = ["MAP_BOUNDS", "CutPasteModel"]

MEAN, STD = NORMALISATIONS["imagenet"]
MAP_BOUNDS = (0.2, 2e-3)
"""Largest difference of maps over their largest value: of the worst tile, of half of the tiles.

Grad-CAM jumps where a ReLU's input is so close to 0 that rounding decides its side: with ReLUs on
the same sides float32 and float64 agree to 1e-6, one input of the head on the other side moves a
tile's map by several per cent (the tests hold both). That happens to single tiles: of 16 with
ImageNet weights PyTorch's own float32 maps are off its float64 maps by 4e-6 in the middle and 5e-3
at worst, kad's by 3e-4 and 9e-3. A mistake would move them all, so half of them is what is held
tightly; the other bound notices nonsense. In float64 both ways to compute agree to rounding.
"""


class CutPasteModel:
    """A network with a spread of embeddings, and its density.

    Parameters
    ----------
    weights : str
        Of the ResNet-18 encoder: ``"imagenet"`` or ``"random:SEED"``.
    tiles : (n, t, t, 3) uint8
        What statistics and density are taken from.
    """

    def __init__(self, weights: str, tiles: NDArray[np.uint8]) -> None:
        self.tile = tiles.shape[1]
        self.network, _ = initialise(NetworkConfig(), weights, seed=0)
        self.what = (
            f"CutPaste, ResNet-18 encoder ({weights} weights), untrained head, Gaussian density; "
            "kad: Grad-CAM in the graph, thesis path: by autograd"
        )
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        embeddings = _settle(self.network, normalised(tiles, mean, std))
        self.density: Density = fit_density("gaussian", embeddings)

    def thesis(self, device: str = "cpu", *, exact: bool = False) -> ThesisTiles:
        """Open the thesis' path; with `exact` in float64."""
        path = ThesisCutPaste(
            self.network, self.density, mean=MEAN, std=STD, device=device, exact=exact
        )
        return ThesisTiles(path)

    def kad(self, *, threads: int, batch: int, provider: str = "cpu") -> KadTiles:
        """Open kad on the exported graph."""
        explained = ExplainedCutPasteNet(self.network)
        side = self.tile // 2  # of conv1's output
        outputs = {"logits": (2,), "embedding": (EMBEDDING_DIMS,), "cam": (1, side, side)}
        graph = encode_graph(explained, tile=self.tile, outputs=outputs)
        session = NetworkSession(
            graph,
            provider=provider,
            threads=threads,
            max_batch=batch,
            build_engine=provider == "tensorrt",
        )
        scorer = CutPasteScorer(
            session,
            NormalDensity("gaussian", **self.density.tensors),
            preprocessing=Preprocessing(
                self.tile, self.tile, self.tile, None, MEAN, STD, "imagenet", None
            ),
            cutpaste=CutPaste(
                2, EMBEDDING_DIMS, ANOMALOUS_CLASS, "grad-cam", "explain.onnx", (side, side)
            ),
            map_settings=MapSettings(BLUR_SIGMA, BLUR_RADIUS),
            threads=threads,
            batch=batch,
        )
        return KadTiles(scorer)


@torch.no_grad()
def _settle(network: CutPasteNet, x: torch.Tensor) -> NDArray[np.float32]:
    """Set batch norm's statistics by tiles (n, 3, t, t); returns their embeddings (n, E)."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean over batches
    network.train()
    network(x)
    network.eval()
    return network(x)[1].numpy()
