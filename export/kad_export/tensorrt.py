"""TensorRT engines of an artifact, built ahead of time: ``kad-export tensorrt``."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kad_export.options import check_options
from kad_export.report import Silent, format_bytes, format_seconds
from kad_sdk.artifact import Artifact, CutPasteArtifact, PatchCoreArtifact
from kad_sdk.errors import ProviderUnavailableError
from kad_sdk.session import NetworkSession

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from pathlib import Path

    from kad_sdk.tensorrt import Engine

__all__ = ["EngineOptions", "build_engines"]

TELL_EVERY_S = 5.0


@dataclass(frozen=True)
class EngineOptions:
    """How engines are built; the command line has the same names and defaults.

    Attributes
    ----------
    batch : int
        Largest batch; that of scoring has to be no larger.
    device_id : int
        Which GPU: the engine is for GPUs of its name alone.
    force : bool
        Build anew what is there.
    """

    batch: int = 16
    device_id: int = 0
    force: bool = False

    def __post_init__(self) -> None:
        checks = {
            "batch": (1 <= self.batch <= 4096, "1 to 4096 tiles"),
            "device_id": (self.device_id >= 0, "at least 0"),
        }
        check_options(self, checks)


def build_engines(
    path: str | os.PathLike[str],
    options: EngineOptions | None = None,
    *,
    console: Silent | None = None,
) -> list[Path]:
    """Build the engines of all of an artifact's graphs, where scoring will look for them.

    Parameters
    ----------
    path : path
        The artifact; it stays as it is.
    options : EngineOptions, optional
    console : Silent, optional
        Told the progress; silent by default.

    Returns
    -------
    list of Path
        Folder of each graph's engine.

    Raises
    ------
    ProviderUnavailableError
        ONNX Runtime's provider, the driver or TensorRT is missing, or cannot run the network; the
        text names the library.
    KadError
        Each other way to fail has its own class, see :mod:`kad_sdk.errors`.
    """
    options, console = options or EngineOptions(), console or Silent()
    artifact = Artifact.open(path)
    if isinstance(artifact, PatchCoreArtifact) and artifact.manifest.patchcore.mode == "windows":
        raise ProviderUnavailableError(
            f"{path}: TensorRT builds an engine for one size, and this artifact's windows have "
            "several; export it with --mode tiles, or score it with provider 'cpu' or 'cuda'"
        )
    graphs = {artifact.manifest.network.file: artifact.network}
    if isinstance(artifact, CutPasteArtifact) and artifact.explain is not None:
        graphs[str(artifact.manifest.cutpaste.explain_file)] = artifact.explain
    precision = artifact.manifest.network.precision
    engines = {
        name: _build(name, graph, precision, options, console) for name, graph in graphs.items()
    }
    console.table(f"engines of {artifact.path.name}", _summary(engines, console))
    return [engine.folder for engine in engines.values()]


def _build(
    name: str, graph: bytes, precision: str, options: EngineOptions, console: Silent
) -> Engine:
    console.line(f"{name}: an engine for batches up to {options.batch}; it can take minutes")
    with console.step(name), _telling(console, name):
        session = NetworkSession(
            graph,
            provider="tensorrt",
            device_id=options.device_id,
            max_batch=options.batch,
            precision=precision,
            build_engine="anew" if options.force else True,
        )
    assert session.engine is not None  # noqa: S101 - a session of TensorRT has one
    return session.engine


@contextmanager
def _telling(console: Silent, name: str) -> Iterator[None]:
    """Say every few seconds that the builder, which tells nothing itself, is still at work."""
    done, start = threading.Event(), time.monotonic()

    def tell() -> None:
        while not done.wait(TELL_EVERY_S):
            console.line(f"{name}: building for {format_seconds(time.monotonic() - start)}")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


def _summary(engines: dict[str, Engine], console: Silent) -> list[tuple[str, str]]:
    machine = next(iter(engines.values())).machine
    rows = [
        ("GPU", f"{machine.gpu}, compute capability {machine.capability}"),
        ("made with", f"TensorRT {machine.tensorrt}, ONNX Runtime {machine.onnxruntime}"),
    ]
    for name, engine in engines.items():
        size = format_bytes(sum(file.stat().st_size for file in engine.folder.glob("*.engine")))
        how = "was there already" if engine.before else "built"
        seconds = format_seconds(console.seconds[name])
        rows.append((name, f"{size}, batches up to {engine.batch}; {how}, {seconds}"))
        rows.append(("", str(engine.folder)))
    return rows
