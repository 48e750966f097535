"""The network, run by ONNX Runtime. The only file that imports onnxruntime.

A provider is used or refused, never replaced: ONNX Runtime's own two fallbacks (its Python
wrapper's, and CPU kernels inside a GPU session) are switched off, and what the session reports is
compared with what was asked for.
"""

from __future__ import annotations

import contextlib
import io
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from kad_sdk import tensorrt
from kad_sdk._native import check_graph, default_threads
from kad_sdk.errors import (
    ArtifactCorruptError,
    InvalidArgumentError,
    MissingDependencyError,
    ProviderUnavailableError,
)
from kad_sdk.recording import gpu_lock

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from kad_sdk.manifest import Graph

__all__ = ["PROVIDERS", "Buffer", "NetworkSession", "require_provider"]

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
# ONNX Runtime's log severities. Failures come as exceptions, so nothing is lost.
_FATAL_ONLY, _WARNINGS = 4, 2
_process_lock = threading.Lock()  # held while something of the whole process is changed


class Buffer(NamedTuple):
    """Memory of a GPU: the address of the first value, and the shape."""

    address: int
    shape: tuple[int, ...]


class NetworkSession:
    """A network ready to run; immutable, and safe to share between threads.

    Parameters
    ----------
    network
        The ONNX graph.
    provider
        ``"cpu"``, ``"cuda"`` or ``"tensorrt"``.
    threads
        Threads of one call on the CPU; None: all that the process may use.
    device_id
        Which GPU.
    max_batch
        Largest batch that TensorRT's engine has to take; other providers take any.
    stream
        With provider ``"cuda"``: handle of the CUDA stream that the network runs on. The session is
        then for :meth:`bind` alone; each thread's first run records a CUDA graph.
    cache_folder
        Where TensorRT's engines are kept; None: ``$XDG_CACHE_HOME/kad/tensorrt``.
    precision
        What the graph computes in, by its manifest.
    build_engine
        Whether TensorRT may build an engine where there is none, which takes minutes, or is to
        build one in any case; see :mod:`kad_sdk.tensorrt`.

    Attributes
    ----------
    provider, device, precision
        What is really used, for example ``"cuda"``, ``"cuda:0"``, ``"fp32"``.
    input_name, output_names
        Names in the graph.
    engine
        That of TensorRT.

    Raises
    ------
    MissingDependencyError
        onnxruntime is not installed.
    ProviderUnavailableError
        The provider cannot be used here, or memory or threads ran out; the text says what is
        missing.
    ArtifactCorruptError
        The graph cannot be read, or reads other files.
    """

    def __init__(
        self,
        network: bytes,
        *,
        provider: str = "cpu",
        threads: int | None = None,
        device_id: int = 0,
        max_batch: int = 64,
        stream: int | None = None,
        cache_folder: str | os.PathLike[str] | None = None,
        precision: str = "fp32",
        build_engine: bool | Literal["anew"] = False,
    ) -> None:
        _check_options(provider, device_id, stream, build_engine=bool(build_engine))
        runtime = _import_runtime()
        check_graph(network)
        self.provider = provider
        self.threads = default_threads() if threads is None else threads
        if self.threads < 1:
            raise InvalidArgumentError(f"threads: expected at least 1, got {threads}")
        self.device = "cpu" if provider == "cpu" else f"cuda:{device_id}"
        self._device_id, self.precision = device_id, precision
        if (provider, precision) == ("tensorrt", "fp32"):
            self.precision = "fp32 (TF32 where TensorRT allows)"
        self._preload_text = _require_provider(runtime, provider)
        self.engine: tensorrt.Engine | None = None
        with contextlib.ExitStack() as held:  # the folder of an engine, while it is built
            options: dict[str, str] = {}
            if provider == "cuda":
                options = _cuda_options(device_id, stream)
            elif provider == "tensorrt":
                self.engine = tensorrt.Engine.find(
                    network,
                    _on_cpu(runtime, network, threads=1).get_inputs()[0],
                    machine=tensorrt.find_machine(device_id, runtime.__version__),
                    cache=Path(cache_folder) if cache_folder else None,
                    batch=max_batch,
                    held=held,
                    precision=precision,
                    device_id=device_id,
                    build=build_engine,
                )
                options = self.engine.options()
            self._open(runtime, network, options)
            if self.engine is not None:
                self.engine.settle(lambda shape: self.run(np.zeros(shape, np.float32)))

    def _open(self, runtime: Any, data: bytes, options: dict[str, str]) -> None:
        if self.provider == "cpu":
            self._session = _on_cpu(runtime, data, threads=self.threads)
        else:
            self._session = self._on_gpu(runtime, data, options)
        self._compare_providers()
        self.input_name = self._session.get_inputs()[0].name
        self.output_names = tuple(output.name for output in self._session.get_outputs())

    def _on_gpu(self, runtime: Any, data: bytes, options: dict[str, str]) -> Any:
        try:
            with gpu_lock.shared(), _quiet(runtime):
                return _create(runtime, data, self.provider, options, threads=self.threads)
        except _runtime_errors(runtime) as error:
            _on_cpu(runtime, data, threads=1)  # the graph is at fault when the CPU cannot read it
            raise ProviderUnavailableError(
                f"provider {self.provider!r} cannot run the network here. ONNX Runtime says: "
                f"{error}{self._preload_text}\nCheck the driver with nvidia-smi and the libraries "
                "of kad-sdk[gpu], or score with provider 'cpu'."
            ) from error

    def _compare_providers(self) -> None:
        used = self._session.get_providers()
        if used[0] != PROVIDERS[self.provider]:
            raise ProviderUnavailableError(
                f"provider: asked for {PROVIDERS[self.provider]}, ONNX Runtime gave "
                f"{', '.join(used)}.{self._preload_text}\nInstall the libraries of kad-sdk[gpu], "
                "or score with provider 'cpu'."
            )

    def check(self, graph: Graph) -> None:
        """Compare the graph's input and outputs with what the manifest says of it.

        Raises
        ------
        ArtifactCorruptError
            They differ in name, type or shape.
        """
        given = [
            (node.name, node.type, [_side(side) for side in node.shape[1:]])
            for node in (*self._session.get_inputs(), *self._session.get_outputs())
        ]
        shapes = ((graph.input, graph.input_shape), *graph.outputs.items())
        wanted = [(name, "tensor(float)", list(shape)) for name, shape in shapes]
        if given != wanted:
            raise ArtifactCorruptError(
                f"{graph.file}: expected input and outputs {wanted} by the manifest, got {given}; "
                "export the artifact again"
            )
        for node in (*self._session.get_inputs(), *self._session.get_outputs()):
            if isinstance(node.shape[0], int):
                raise ArtifactCorruptError(
                    f"{graph.file}: {node.name!r}: expected a dynamic batch size, got "
                    f"{node.shape[0]}; export the artifact again"
                )

    def run(self, tiles: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Compute the outputs of a batch of tiles.

        Parameters
        ----------
        tiles
            (B, 3, t, t) float32, normalised.

        Returns
        -------
        list of ndarray
            One (B, ...) float32 for each of `output_names`.

        Raises
        ------
        ProviderUnavailableError
            The device failed or ran out of memory.
        """
        runtime = _import_runtime()
        on_gpu = self.provider != "cpu"
        try:
            with gpu_lock.shared() if on_gpu else contextlib.nullcontext():
                found = self._session.run(list(self.output_names), {self.input_name: tiles})
            return list(found)
        except _runtime_errors(runtime) as error:
            raise ProviderUnavailableError(
                f"the network failed on {self.device} with a batch of {len(tiles)}: {error}\nIf "
                "memory ran out, use a smaller batch."
            ) from error

    def bind(self, tiles: Buffer, outputs: Sequence[Buffer]) -> Callable[[], None]:
        """Tie input and outputs to memory of the GPU, for runs that copy nothing.

        Parameters
        ----------
        tiles
            Address and shape (B, 3, t, t) of the input, float32 in C order.
        outputs
            Those of each output, in the order of `output_names`.

        Returns
        -------
        callable
            Gives one run of the network to the session's stream, and does not wait for it; for one
            thread at a time. The memory must live as long. It takes no lock: the caller holds
            :data:`kad_sdk.recording.gpu_lock`, alone for the first run of a thread on a stream,
            which records a CUDA graph.

        Raises
        ------
        InvalidArgumentError
            The provider is not ``"cuda"``, or there are not as many outputs.
        """
        if self.provider != "cuda" or len(outputs) != len(self.output_names):
            raise InvalidArgumentError(
                f"bind: expected provider 'cuda' and {len(self.output_names)} outputs, got "
                f"{self.provider!r} and {len(outputs)}"
            )
        runtime = _import_runtime()
        options = runtime.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        binding = self._session.io_binding()
        where = ("cuda", self._device_id, np.float32)
        binding.bind_input(self.input_name, *where, list(tiles.shape), tiles.address)
        for name, output in zip(self.output_names, outputs, strict=True):
            binding.bind_output(name, *where, list(output.shape), output.address)

        def run() -> None:
            try:
                self._session.run_with_iobinding(binding, options)
            except _runtime_errors(runtime) as error:
                raise ProviderUnavailableError(
                    f"the network failed on {self.device} with a batch of {tiles.shape[0]}: "
                    f"{error}\nIf memory ran out, use a smaller batch."
                ) from error

        return run


def require_provider(provider: str) -> None:
    """Refuse a provider that the installed ONNX Runtime lacks.

    Raises
    ------
    MissingDependencyError, ProviderUnavailableError
        As :class:`NetworkSession`.
    """
    _require_provider(_import_runtime(), provider)


def _check_options(
    provider: str, device_id: int, stream: int | None, *, build_engine: bool
) -> None:
    """Refuse options that do not go together."""
    if provider not in PROVIDERS:
        raise InvalidArgumentError(
            f"provider: expected one of {', '.join(PROVIDERS)}, got {provider!r}"
        )
    if provider == "cpu" and device_id != 0:
        raise InvalidArgumentError(
            f"device_id: {device_id} names a GPU, and the provider is 'cpu'; use "
            "provider='cuda' or 'tensorrt', or leave it 0"
        )
    if stream is not None and provider != "cuda":
        raise InvalidArgumentError(
            f"stream: expected None with provider {provider!r}, got {stream}; use 'cuda'"
        )
    if build_engine and provider != "tensorrt":
        raise InvalidArgumentError(
            f"build_engine: engines are TensorRT's, and the provider is {provider!r}; use "
            "provider='tensorrt', or leave it False"
        )


def _side(side: int | str | None) -> int | None:
    """Give a side of a tensor's shape, None where it is dynamic, whatever its name."""
    return side if isinstance(side, int) else None


def _import_runtime() -> Any:
    try:
        import onnxruntime  # noqa: PLC0415 - `import kad_sdk` must not bring it in
    except ImportError as error:
        raise MissingDependencyError(
            f"onnxruntime is needed to run the network and cannot be imported ({error}). Install "
            "kad-sdk[cpu], or kad-sdk[gpu] for NVIDIA GPUs; the two exclude each other."
        ) from error
    return onnxruntime


def _runtime_errors(runtime: Any) -> tuple[type[Exception], ...]:
    """ONNX Runtime's exceptions have no common base of their own."""
    state = runtime.capi.onnxruntime_pybind11_state
    names = [
        *("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoModel", "EPFail"),
        *("RuntimeException", "NotImplemented", "EngineError"),
    ]
    own = [getattr(state, name) for name in names if hasattr(state, name)]
    return (*own, RuntimeError, ValueError)


def _graph_errors(runtime: Any) -> tuple[type[Exception], ...]:
    """Those that a graph can cause."""
    state = runtime.capi.onnxruntime_pybind11_state
    names = [
        *("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoModel"),
        "NotImplemented",
    ]
    return tuple(getattr(state, name) for name in names if hasattr(state, name))


@contextlib.contextmanager
def _quiet(runtime: Any) -> Iterator[None]:
    """Keep a provider that fails to load from writing to stderr; the exception says the same."""
    with _process_lock:
        runtime.set_default_logger_severity(_FATAL_ONLY)
        try:
            yield
        finally:
            runtime.set_default_logger_severity(_WARNINGS)


def _create(runtime: Any, data: bytes, provider: str, options: dict[str, str], threads: int) -> Any:
    settings = runtime.SessionOptions()
    settings.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = _FATAL_ONLY
    # Threads that spin after their work would take the cores from the search, which runs next.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A plan of the memory is kept beside what the first pass took: twice the memory, and no faster.
    settings.enable_mem_pattern = provider != "cpu"
    if provider != "cpu":
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = runtime.InferenceSession(
        data,
        sess_options=settings,
        providers=[PROVIDERS[provider]],
        provider_options=[options],
        enable_fallback=0,
    )
    session.disable_fallback()
    return session


def _on_cpu(runtime: Any, data: bytes, threads: int) -> Any:
    try:
        with _quiet(runtime):
            return _create(runtime, data, "cpu", {}, threads=threads)
    except _runtime_errors(runtime) as error:
        # Memory that runs out while a graph is read ends as Fail, like much that is wrong with one.
        if isinstance(error, _graph_errors(runtime)) and "std::bad_alloc" not in str(error):
            raise ArtifactCorruptError(
                f"the network cannot be read by ONNX Runtime: {error}; export the artifact again"
            ) from error
        raise ProviderUnavailableError(
            f"ONNX Runtime cannot make a session of the network with {threads} threads: {error}\n"
            "If memory or threads ran out, free some, or give fewer threads."
        ) from error


def _require_provider(runtime: Any, provider: str) -> str:
    """Refuse a provider that this wheel lacks; load the GPU wheels' CUDA libraries.

    Returns what loading them reported, to be quoted when the session cannot be made.
    """
    available = runtime.get_available_providers()
    if PROVIDERS[provider] not in available:
        raise ProviderUnavailableError(
            f"provider {provider!r}: the installed ONNX Runtime {runtime.__version__} has no "
            f"{PROVIDERS[provider]} (it has {', '.join(available)}). Uninstall onnxruntime and "
            "install kad-sdk[gpu] (the two exclude each other), or score with provider 'cpu'."
        )
    if provider == "cpu" or not hasattr(runtime, "preload_dlls"):
        return ""
    text = io.StringIO()
    with _process_lock, contextlib.redirect_stdout(text):
        runtime.preload_dlls()
    return f"\nLoading its libraries: {text.getvalue().strip()}" if text.getvalue() else ""


def _cuda_options(device_id: int, stream: int | None) -> dict[str, str]:
    """Options of the CUDA provider; on a caller's stream, shapes and memory repeat: a graph."""
    own = {} if stream is None else {"user_compute_stream": str(stream), "enable_cuda_graph": "1"}
    return {
        **own,
        "device_id": str(device_id),
        "use_tf32": "0",  # the bank and the thresholds are fp32
        "arena_extend_strategy": "kSameAsRequested",
        # One fixed algorithm: a measured choice could differ between batches and between runs.
        "cudnn_conv_algo_search": "DEFAULT",
    }
