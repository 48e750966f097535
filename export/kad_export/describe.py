"""What an export says about itself: the manifest's entries, and the summary that is printed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import kad_sdk
from kad_export.onnx_export import INPUT, OPSET
from kad_export.report import format_bytes, format_seconds, peak_memory_bytes
from kad_sdk import facts
from kad_sdk import manifest as schema
from kad_sdk.thresholds import MIN_REGION_AREA_PX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kad_export.bank import Bank
    from kad_export.budget import BankSettings
    from kad_export.features import BoardTiles, ExtractorSpec
    from kad_export.onnx_export import OnnxOutput
    from kad_export.patchcore import PatchCoreNetwork
    from kad_export.report import Silent
    from kad_sdk.dataset import Dataset
    from kad_sdk.thresholds import Calibration

__all__ = [
    "BANK_FILE",
    "GOLDEN_FILE",
    "INDEX_FILE",
    "NETWORK_FILE",
    "describe_bank",
    "describe_network",
    "describe_thresholds",
    "describe_training",
    "subject",
    "summary",
    "versions",
]

NETWORK_FILE, BANK_FILE, GOLDEN_FILE = "network.onnx", "bank.safetensors", "golden.safetensors"
INDEX_FILE = "index.safetensors"
PACKAGES = (
    *("numpy", "onnx", "onnxruntime", "opencv-python", "scikit-learn", "torch", "torchvision"),
)


def describe_network(
    network: PatchCoreNetwork, outputs: Sequence[OnnxOutput], precision: schema.Precision
) -> schema.BaseMapNetwork:
    """Give the manifest's entry of the network."""
    weights = network.weights
    return schema.BaseMapNetwork(
        file=NETWORK_FILE,
        backbone=network.backbone,
        layers=network.layers,
        weights=schema.Weights(weights.source, weights.name, weights.sha256),
        opset=OPSET,
        precision=precision,
        input=INPUT,
        outputs=tuple(schema.NetworkOutput(*output) for output in outputs),
    )


def describe_bank(
    bank: Bank, boards: Sequence[BoardTiles], settings: BankSettings, *, has_index: bool
) -> schema.Bank:
    """Give the manifest's entry of the bank."""
    rows, dims = bank.bank.shape
    projected = bank.projected_dims if bank.projected_dims < dims else None
    return schema.Bank(
        file=BANK_FILE,
        rows=rows,
        dims=dims,
        images=tuple(board.sample.name for board in boards),
        coreset=schema.Coreset(
            method="greedy-k-center",
            fraction=settings.fraction,
            max_rows=settings.max_rows,
            eps=settings.eps if projected else None,
            projected_dims=projected,
            points=settings.points,
            candidates=bank.candidates,
            trimmed=bank.coreset.skipped,
            seed=settings.seed,
            radius=bank.coreset.radius,
            separation=bank.coreset.separation,
            ratio=bank.coreset.ratio,
        ),
        index_file=INDEX_FILE if has_index else None,
    )


def describe_thresholds(calibration: Calibration, board_score: str) -> schema.Thresholds:
    """Give the manifest's entry of the thresholds."""
    return schema.Thresholds(
        board=board_score,
        tile=calibration.tile,
        tile_scale=calibration.tile_scale,
        map=calibration.map,
        map_scale=calibration.map_scale,
        method=calibration.method,
        samples=calibration.samples,
        min_region_area_px=MIN_REGION_AREA_PX,
    )


def describe_training(dataset: Dataset, boards: Sequence[BoardTiles]) -> schema.Training:
    """Give the manifest's entry of the training images, with a digest of names and contents."""
    digest = hashlib.sha256()
    for board in boards:
        with board.sample.path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{board.sample.name}\0{content}\n".encode())
    return schema.Training(
        layout=dataset.layout,
        images=len(boards),
        tiles=sum(len(board.xy) for board in boards),
        fingerprint=digest.hexdigest(),
    )


def subject(
    spec: ExtractorSpec, boards: Sequence[BoardTiles], settings: BankSettings
) -> dict[str, Any]:
    """Give all that a bank depends on, to recognise an unfinished build of it."""
    files = [(b.sample.name, b.sample.path.stat()) for b in boards]
    images = [(name, file.st_size, file.st_mtime_ns) for name, file in files]
    tiles = hashlib.sha256(b"".join(board.xy.tobytes() for board in boards))
    named = ("fraction", "max_rows", "eps", "seed", "trim_outliers", "points")
    return {
        "network": hashlib.sha256(spec.graph).hexdigest(),
        "preprocessing": asdict(spec.preprocessing),
        "windows": None if spec.windows is None else asdict(spec.windows),
        "images": hashlib.sha256(json.dumps(images).encode()).hexdigest(),
        "tiles": tiles.hexdigest(),
        "versions": versions(),
        **{name: getattr(settings, name) for name in named},
    }


def versions() -> dict[str, str]:
    """Give the versions of everything that took part in an export."""
    found = {"kad-sdk": kad_sdk.__version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # another wheel of it, such as headless
            continue
    return found


def summary(manifest: schema.Manifest, console: Silent) -> list[tuple[str, str]]:
    """Give the rows of the final table: what `kad inspect` shows, and how the export went."""
    gate = manifest.verification
    outputs = gate.get("precision", gate)["outputs"]
    worst = max(outputs.values(), key=lambda figures: figures["max_rel"])
    rms = f", rms {worst['rms_rel']:.2e}" if "rms_rel" in worst else ""
    return [
        *facts.describe(manifest),
        (
            "parity, network",
            f"max abs {worst['max_abs']:.2e}, max rel {worst['max_rel']:.2e}{rms}",
        ),
        ("parity, scores", f"max abs {gate['score']['max_abs']:.2e}, no decision flips"),
        *((f"time, {name}", format_seconds(seconds)) for name, seconds in console.seconds.items()),
        ("time, total", format_seconds(sum(console.seconds.values()))),
        ("peak memory", format_bytes(peak_memory_bytes())),
    ]
