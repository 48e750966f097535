"""The network alone: ONNX Runtime as kad runs it against PyTorch, and the roofline of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from kad_export.onnx_export import export_onnx
from kad_export.patchcore import build_network

from kad_bench.answers import WrongAnswerError
from kad_bench.graph_cost import GraphCost, count_cost
from kad_bench.measure import interleave, ratios, summarise
from kad_bench.models import LAYERS, TILE
from kad_bench.peaks import measure_peaks
from kad_bench.tables import suite_table as table
from kad_bench.tile_paths import TOLERANCE
from kad_sdk.session import NetworkSession

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kad_export.patchcore import PatchCoreNetwork
    from numpy.typing import NDArray

    from kad_bench.suites import Settings

__all__ = ["ORT", "TORCH", "check_maps", "run", "table"]

ORT, TORCH = "kad (ONNX Runtime)", "PyTorch"


@dataclass(frozen=True)
class Profile:
    """Backbones (weights are drawn from a seed: time does not depend on them), batches, rounds."""

    backbones: tuple[str, ...]
    batches: tuple[int, ...]
    rounds: int


PROFILES = {
    "smoke": Profile(("resnet18",), (1, 2), 1),
    "regular": Profile(("resnet18", "resnet50"), (1, 4, 16), 9),
    "full": Profile(("resnet18", "wide_resnet50_2", "resnet50"), (1, 2, 4, 8, 16, 32), 25),
}


def run(settings: Settings) -> dict[str, Any]:
    """Measure every backbone with every batch.

    Returns
    -------
    dict
        ``cases``, ``roofline``; see :mod:`kad_bench.suites`.
    """
    torch.set_num_threads(settings.threads)
    profile = PROFILES[settings.profile]
    peaks = measure_peaks(settings.threads) if settings.profile != "smoke" else None
    cases, points = [], {}
    for backbone in profile.backbones:
        settings.say(f"network: {backbone}")
        network = build_network(backbone, LAYERS, "valid-adaptive", "random:0").eval()
        path = settings.cache / f"network-{backbone}.onnx"
        settings.cache.mkdir(parents=True, exist_ok=True)
        export_onnx(network, path, tile=TILE)
        graph = path.read_bytes()
        cost = count_cost(graph)
        for batch in profile.batches:
            case = _measure(
                network, graph, cost, batch=batch, rounds=profile.rounds, settings=settings
            )
            cases.append(case)
            for engine, figures in case["engines"].items():
                points[f"{case['case']}: {engine}"] = _point(cost, batch, figures)
    roofline = {"peaks": peaks, "points": points} if peaks else None
    return {"cases": cases, "growth": [], "roofline": roofline}


def check_maps(expected: Sequence[NDArray[np.float32]], found: Sequence[NDArray]) -> float:
    """Compare base maps, layer by layer.

    Returns
    -------
    float
        The largest difference over the largest value of its layer.

    Raises
    ------
    WrongAnswerError
        It is above 1e-4.
    """
    worst = max(
        float(np.abs(ours - right).max() / np.abs(right).max())
        for right, ours in zip(expected, found, strict=True)
    )
    if not worst <= TOLERANCE:
        raise WrongAnswerError(
            f"{ORT}: base maps differ by {worst:.3g} of the largest value, expected at most "
            f"{TOLERANCE:g}: its time is not taken"
        )
    return worst


def _measure(
    network: PatchCoreNetwork,
    graph: bytes,
    cost: GraphCost,
    *,
    batch: int,
    rounds: int,
    settings: Settings,
) -> dict[str, Any]:
    x = np.random.default_rng(0).standard_normal((batch, 3, TILE, TILE), dtype=np.float32)
    session = NetworkSession(
        graph,
        provider=settings.provider,
        threads=settings.threads,
        build_engine=settings.provider == "tensorrt",
    )
    network = network.to(settings.device)

    @torch.inference_mode()
    def in_torch() -> list[NDArray[np.float32]]:
        return [found.cpu().numpy() for found in network(torch.from_numpy(x).to(settings.device))]

    calls = {ORT: lambda: session.run(x), TORCH: in_torch}
    difference = check_maps(calls[TORCH](), calls[ORT]())
    seconds = interleave(calls, rounds)
    engines = {
        name: {
            "seconds": summarise([s / batch for s in values]),
            "batch": batch,
            "rates": {"GFLOP/s": cost.flop * batch / np.median(values) / 1e9},
        }
        for name, values in seconds.items()
    }
    engines[ORT]["accuracy"] = {"map difference": difference}
    engines[ORT]["counts"] = {"flop": cost.flop, "weight_bytes": cost.weight_bytes}
    return {
        "case": f"{network.backbone}, batch {batch}",
        "what": "layer2+layer3, 224 px tiles, weights drawn from a seed, float32",
        "unit": "tile",
        "engines": engines,
        "ratios": {ORT: {TORCH: ratios(seconds[TORCH], seconds[ORT])}},
        "skipped": {},
    }


def _point(cost: GraphCost, batch: int, figures: dict[str, Any]) -> dict[str, float]:
    """Place an engine in the roofline; arrays are counted where used, weights once a batch."""
    moved = cost.activation_bytes + cost.weight_bytes / batch
    return {"flop": cost.flop, "bytes": moved, "seconds": figures["seconds"]["median"]}
