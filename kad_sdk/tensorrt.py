"""TensorRT through ONNX Runtime: its options, and engines that are built where it is asked for.

TensorRT compiles a graph to an engine, which takes minutes and is good for one GPU, one version of
TensorRT, and batches up to one size. Engines are kept::

    CACHE/GPU-smCAPABILITY-trtVERSION-ortVERSION/
      *.timing                 what the builder measured, shared by all graphs
      GRAPH/                   32 digits of the graph's SHA-256
        *.engine, *.profile    as ONNX Runtime names them
        engine.json            what they are for; written last

A session opens with the engine that ``engine.json`` vouches for. Without one it is refused, unless
building was asked for: a line must not stand still for minutes because a driver was updated. One
process at a time builds in a folder; others who would build there wait, and take what it built.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kad_sdk._native import find_gpu, tensorrt_version
from kad_sdk.errors import OutputError, ProviderUnavailableError
from kad_sdk.storage import locked_folder, strict_json, write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import ExitStack

__all__ = ["Engine", "Machine", "default_cache", "find_machine"]

RECORD, RECORD_VERSION, RECORD_LIMIT = "engine.json", 1, 1 << 20
_BUILT = ("*.engine", "*.profile")


@dataclass(frozen=True)
class Machine:
    """What an engine is bound to.

    Attributes
    ----------
    gpu, capability : str
        Name and compute capability of the GPU.
    tensorrt, onnxruntime : str
        Versions.
    """

    gpu: str
    capability: str
    tensorrt: str
    onnxruntime: str

    @property
    def key(self) -> str:
        """Give the name of the folder of its engines."""
        gpu = re.sub("[^a-z0-9]+", "-", self.gpu.lower()).strip("-") or "gpu"
        capability = self.capability.replace(".", "")
        return f"{gpu}-sm{capability}-trt{self.tensorrt}-ort{self.onnxruntime}"


def find_machine(device_id: int, onnxruntime: str) -> Machine:
    """Say what GPU and what TensorRT are here.

    Raises
    ------
    ProviderUnavailableError
        The driver, the GPU or TensorRT is missing; the text names the library.
    """
    version = tensorrt_version()
    gpu = find_gpu(device_id)
    return Machine(gpu.name, gpu.capability, version, onnxruntime)


def default_cache() -> Path:
    """Give ``$XDG_CACHE_HOME/kad/tensorrt``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "kad" / "tensorrt"


@dataclass(frozen=True)
class Engine:
    """The engine of a graph on a machine: where it is kept, and how ONNX Runtime is told.

    Attributes
    ----------
    folder : Path
        Of this graph.
    input_name : str
        Of the graph.
    shape : tuple of int
        Of one tile.
    batch : int
        Largest that it is for; the one that it is tuned for.
    precision : str
        Of the graph, by its manifest.
    machine : Machine
    device_id : int
    build : bool or "anew"
        Whether one may be built where there is none, or is to be built in any case.
    before : dict
        Files of the engine that was found, with their sizes and times; empty where there is none.
    """

    folder: Path
    input_name: str
    shape: tuple[int, ...]
    batch: int
    precision: str
    machine: Machine
    device_id: int
    build: bool | Literal["anew"]
    before: dict[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def find(
        cls,
        network: bytes,
        graph_input: Any,
        *,
        machine: Machine,
        cache: Path | None,
        batch: int,
        held: ExitStack,
        **given: Any,
    ) -> Engine:
        """Find the engine of a graph, or the place where it is to be built.

        Others who would build it too are kept out of that place until `held` is closed, after
        :meth:`settle`; where another one is at it, waits for what it builds.

        Raises
        ------
        ProviderUnavailableError
            TensorRT cannot run graphs of this precision; or there is no engine for such batches,
            and none may be built.
        """
        _refuse_int8(given["precision"])
        folder = (cache or default_cache()) / machine.key
        folder = folder / hashlib.sha256(network).hexdigest()[:32]
        shape = tuple(graph_input.shape[1:])
        engine = cls(folder, graph_input.name, shape, batch, machine=machine, **given)
        if engine.build:
            engine._enter(held)
        recorded = None if engine.build == "anew" else engine.recorded()
        if recorded is not None and recorded >= batch:
            held.close()  # nothing is built
            return replace(engine, batch=recorded, before=engine._stamps())
        if not engine.build:
            raise ProviderUnavailableError(engine._lacking(recorded))
        engine._make_room()
        return engine

    def recorded(self) -> int | None:
        """Give the largest batch of the engine that is there whole, or None."""
        try:
            record = strict_json((self.folder / RECORD).read_bytes(), limit=RECORD_LIMIT)
            sizes = {name: (self.folder / name).stat().st_size for name in record["files"]}
            batch = record["batch"]
            whole = (
                record == self._record(batch, record["files"])
                and sizes == record["files"]
                and any(name.endswith(".engine") for name in sizes)
                and type(batch) is int
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return batch if whole else None

    def options(self) -> dict[str, str]:
        """Give the options of ONNX Runtime's provider."""
        shape = "x".join(map(str, self.shape))
        largest = f"{self.input_name}:{self.batch}x{shape}"
        return {
            "device_id": str(self.device_id),
            "trt_fp16_enable": "1" if self.precision == "fp16" else "0",
            "trt_int8_enable": "0",
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(self.folder),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(self.folder.parent),
            "trt_profile_min_shapes": f"{self.input_name}:1x{shape}",
            "trt_profile_opt_shapes": largest,
            "trt_profile_max_shapes": largest,
        }

    def settle(self, run_once: Callable[[tuple[int, ...]], object]) -> None:
        """After the session is made: vouch for what was built, or see that nothing was.

        Parameters
        ----------
        run_once
            Runs the network on zeros of a shape: builders that wait for the first batch build now.

        Raises
        ------
        ProviderUnavailableError
            TensorRT did not take the engine, and built another one or none.
        """
        if self.before and self._stamps() == self.before:
            return
        if not self.build:
            raise ProviderUnavailableError(
                f"{self.folder}: TensorRT has not taken the engine that is there, and has built "
                "another: build it anew with kad-export tensorrt --force"
            )
        run_once((self.batch, *self.shape))
        files = {name: size for name, (size, _) in self._stamps().items()}
        if not any(name.endswith(".engine") for name in files):
            raise ProviderUnavailableError(
                f"{self.folder}: ONNX Runtime {self.machine.onnxruntime} has left no engine there; "
                "the network runs, and would be compiled at every start: use another version of it"
            )
        record = json.dumps(self._record(self.batch, files), indent=1, sort_keys=True)
        write_atomic(self.folder / RECORD, record.encode() + b"\n")

    def remove(self) -> None:
        """Remove it; what the builder measured stays."""
        (self.folder / RECORD).unlink(missing_ok=True)
        for name in self._stamps():
            (self.folder / name).unlink(missing_ok=True)

    def _stamps(self) -> dict[str, tuple[int, int]]:
        """Give the files that ONNX Runtime has written, with their sizes in bytes and times."""
        found = {path.name: path.stat() for pattern in _BUILT for path in self.folder.glob(pattern)}
        return {name: (file.st_size, file.st_mtime_ns) for name, file in sorted(found.items())}

    def _record(self, batch: int, files: dict[str, int]) -> dict[str, Any]:
        return {
            "format": "kad-tensorrt-engine",
            "version": RECORD_VERSION,
            "machine": asdict(self.machine),
            "graph": self.folder.name,
            "input": [self.input_name, *self.shape],
            "precision": self.precision,
            "batch": batch,
            "files": files,
        }

    def _enter(self, held: ExitStack) -> None:
        """Make the folder, and keep others out who would build; waits for one who does."""
        with _writable(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        held.enter_context(locked_folder(self.folder))

    def _make_room(self) -> None:
        """Remove what an unfinished or a smaller engine left in the folder."""
        with _writable(self.folder):
            self.remove()

    def _lacking(self, recorded: int | None) -> str:
        place = f"{self.machine.gpu}, TensorRT {self.machine.tensorrt}, in {self.folder}"
        found = "there is none"
        if recorded is not None:
            found = f"the one that is there is for batches up to {recorded}"
        return (
            f"provider 'tensorrt': an engine for batches of {self.batch} tiles is needed, for "
            f"{place}, and {found}. Building one takes minutes, so it is not done unasked: run "
            f"kad-export tensorrt ARTIFACT --batch {self.batch} on this machine, or allow it with "
            "build_engine (--build-engine)."
        )


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{folder}: the folder for TensorRT's engines cannot be written to ({error}); name "
            "another one in XDG_CACHE_HOME"
        ) from error


def _refuse_int8(precision: str) -> None:
    if precision == "int8":
        raise ProviderUnavailableError(
            "provider 'tensorrt': the artifact's network is int8 with unsigned activations, as "
            "processors want it, and TensorRT takes signed ones with zero points of 0 alone. "
            "Export with --precision fp16 for TensorRT, or score with provider 'cpu'."
        )
