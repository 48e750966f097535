"""TensorRT's engines as kad_sdk leaves them on a machine that is not here, for both doors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import onnxruntime
import programs

from kad_sdk.artifact import Artifact
from kad_sdk.tensorrt import Engine, Machine

if TYPE_CHECKING:
    from pathlib import Path

HERE = Machine("NVIDIA L4", "8.9", "10.9.0", onnxruntime.__version__)
"""What the libraries of `nvidia` say, of the first GPU."""


def nvidia(preset: str) -> str:
    """Give a folder with stand-ins for the driver's and TensorRT's libraries."""
    return str(programs.program(preset, "find_engine").parent / "nvidia")


def folder_of(cache: Path, artifact: Path, machine: Machine = HERE) -> Path:
    """Say where the engine of an artifact's network is looked for."""
    return cache / machine.key / digest_of(artifact)[:32]


def digest_of(artifact: Path) -> str:
    return json.loads((artifact / "manifest.json").read_text())["files"]["network.onnx"]["sha256"]


def an_engine(cache: Path, artifact: Path, *, batch: int, machine: Machine = HERE) -> Path:
    """Leave an engine as after a build; give the folder of all engines."""
    folder = folder_of(cache, artifact, machine)
    folder.mkdir(parents=True)
    manifest = Artifact.open(artifact).manifest
    engine = Engine(
        *(folder, "tiles", (3, 32, 32), batch, manifest.network.precision),
        machine=machine,
        device_id=0,
        build=True,
    )

    def build(shape: tuple[int, ...]) -> None:
        assert shape == (batch, 3, 32, 32)
        for ending in ("engine", "profile"):
            (folder / f"graph_0.{ending}").write_bytes(b"built")

    engine.settle(build)
    return cache
