"""PatchCore's boards on a GPU. The only file that knows kad_kernels.

The board goes to the GPU once, as uint8. Tiles are cut and normalised there, the network reads them
where they lie, its base maps become patch features, and these are searched, all in the order of one
stream; distances, rows and scores come back. What follows, the board's map and regions, is the
core's. Scores are those of the CPU wherever the network gives the same base maps.

The host is some batches ahead of the GPU, and adds one batch to the board's map while the GPU works
on the next ones.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from kad_sdk._native import default_threads
from kad_sdk._native.images import sample_order
from kad_sdk.errors import (
    ArtifactCorruptError,
    MissingDependencyError,
    NotFiniteError,
    ProviderUnavailableError,
)
from kad_sdk.recording import gpu_lock
from kad_sdk.scoring import BoardScorer, Stopwatch, TileFindings, in_batch
from kad_sdk.session import Buffer, NetworkSession, require_provider

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from numpy.typing import NDArray

    from kad_sdk.artifact import PatchCoreArtifact

__all__ = ["CudaPatchCoreScorer", "DeviceNetwork", "SessionNetwork", "open_batches"]

AHEAD = 3  # batches that the GPU has been given and the host has not asked for
_STAGES = {"cut": "preprocess"}  # the kernels' name of a stage to the one of the other engine


class DeviceNetwork(Protocol):
    """A network that reads its tiles on the GPU and leaves its base maps there.

    Attributes
    ----------
    provider, device, precision
        As :class:`kad_sdk.session.NetworkSession` has them.
    """

    provider: str
    device: str
    precision: str

    def run(self, tiles: Any, n: int) -> Sequence[Any]:
        """Give the work on a batch to the stream; do not wait.

        Parameters
        ----------
        tiles
            (B, 3, t, t) float32 on the GPU, always the same memory; the first `n` are of use.

        Returns
        -------
        sequence
            For each layer (at least n, C, h, w) float32 on the GPU, in C order, with
            ``__cuda_array_interface__``; they stay as they are until the next run.
        """

    def close(self) -> None:
        """Wait until no thread of its own gives work to the stream any more."""


class SessionNetwork:
    """ONNX Runtime on the GPU's own memory: whole batches, so that its shapes repeat.

    Parameters
    ----------
    session
        On the stream of `batches`.
    batches
        A ``kad_kernels.batches.Batches``, whose tiles are read.
    """

    def __init__(self, session: NetworkSession, batches: Any) -> None:
        self.provider, self.device = session.provider, session.device
        self.precision = session.precision
        with gpu_lock.shared():
            self._maps = batches.empty_maps()
        arrays = (batches.tiles, *self._maps)
        buffers = [Buffer(batches.address(x), tuple(x.shape)) for x in arrays]
        self._run = session.bind(buffers[0], buffers[1:])
        # ONNX Runtime keeps a CUDA graph for each thread that runs it, so one thread runs it. Its
        # first run records the graph. It takes no lock: whoever waits for it holds one.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kad-network")
        with gpu_lock.alone():
            self.run(batches.tiles, 0)
            batches.wait()

    def run(self, tiles: Any, n: int) -> Sequence[Any]:
        """See :class:`DeviceNetwork`."""
        del tiles, n
        self._thread.submit(self._run).result()
        return list(self._maps)

    def close(self) -> None:
        """See :class:`DeviceNetwork`."""
        self._thread.shutdown(wait=True)


class CudaPatchCoreScorer(BoardScorer):
    """Scores boards as :class:`kad_sdk.patchcore.PatchCoreScorer` does, on a GPU.

    Threads may share it; one at a time scores. Its stages are ``upload`` (what the host does for
    it), and by the GPU's clock ``preprocess``, ``network``, ``features``, ``search``, ``scores``,
    ``copy``; ``map`` on the host runs beside them.

    Parameters
    ----------
    network
        A :class:`DeviceNetwork` on the stream of `batches`.
    batches
        What :func:`open_batches` gave.
    artifact
        Its settings are used.
    threads
        Of the compiled stages on the host.
    maps
        Whether board maps are made.
    """

    def __init__(
        self,
        network: DeviceNetwork,
        batches: Any,
        *,
        artifact: PatchCoreArtifact,
        threads: int | None = None,
        maps: bool = True,
    ) -> None:
        from kad_kernels.upload import Uploads  # noqa: PLC0415 - needs numba

        manifest = artifact.manifest
        super().__init__(
            network,
            preprocessing=manifest.preprocessing,
            map_settings=manifest.map,
            grid=manifest.patchcore.grid if maps else None,
            threads=threads or default_threads(),
            batch=batches.batch,
        )
        self._network, self._batches = network, batches
        self.stage_device = network.device
        with gpu_lock.shared():
            # Urgent: a board that is scored, and shares the lock, may wait for its upload.
            self._uploads = Uploads(batches.device_id, lambda: gpu_lock.shared(urgent=True))
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        artifact: PatchCoreArtifact,
        *,
        maps: bool,
        threads: int,
        batch: int,
        device_id: int = 0,
    ) -> CudaPatchCoreScorer:
        """Open an artifact's network and bank on a GPU.

        Raises
        ------
        MissingDependencyError
            onnxruntime or numba-cuda is not installed.
        ProviderUnavailableError
            ONNX Runtime has no CUDA, or there is no GPU, or its memory ran out.
        """
        require_provider("cuda")
        batches = open_batches(artifact, batch=batch, device_id=device_id)
        session = NetworkSession(
            artifact.network,
            provider="cuda",
            threads=threads,
            device_id=device_id,
            stream=batches.pointer,
            precision=artifact.manifest.network.precision,
        )
        session.check(artifact.manifest.graph())
        with _gpu_errors(device_id):
            network = SessionNetwork(session, batches)
            return cls(network, batches, artifact=artifact, threads=threads, maps=maps)

    def score_tiles(  # noqa: D102 - as the base's
        self, tiles: NDArray[np.float32], watch: Stopwatch | None = None
    ) -> TileFindings:
        def put(first: int, n: int) -> Any:
            return self._batches.put(tiles[first : first + n], first)

        with self._running():
            self._batches.begin(len(tiles))
            parts = [found for _, found in self._in_turn(len(tiles), put, watch or Stopwatch())]
        return TileFindings.joined(parts)

    def send_ahead(self, image: NDArray[Any]) -> None:  # noqa: D102 - as the base's
        settings = self._preprocessing
        if image.dtype == np.uint8 and settings.resize is None and settings.denoise is None:
            with _gpu_errors(self._batches.device_id):
                self._uploads.send_ahead(image)

    def forget(self, image: NDArray[Any]) -> None:  # noqa: D102 - as the base's
        self._uploads.forget(image)

    def close(self) -> None:  # noqa: D102 - as the base's
        with self._running():  # what frees memory asks for a current GPU
            self._network.close()  # an interrupt may have left a run behind
            self._batches.wait()
            self._uploads.close()
            del self._network, self.session
            del self._batches  # last: ONNX Runtime's session knows the stream

    def _find(
        self,
        image: NDArray[Any],
        xy: NDArray[np.int32],
        pixel_format: str | None,
        watch: Stopwatch,
    ) -> Generator[tuple[int, TileFindings], None, None]:
        if image.dtype == np.uint8:
            yield from self._find_8_bit(image, xy, pixel_format, watch)
            return

        def cut_here(first: int, n: int) -> Any:  # 16 bits: the host cuts, float tiles travel
            with watch.stage("upload"):
                tiles = self._cut(image, xy[first : first + n], pixel_format)
                return self._batches.put(tiles, first)

        with self._running():
            self._batches.begin(len(xy))
            yield from self._in_turn(len(xy), cut_here, watch)

    def _find_8_bit(
        self,
        image: NDArray[np.uint8],
        xy: NDArray[np.int32],
        pixel_format: str | None,
        watch: Stopwatch,
    ) -> Generator[tuple[int, TileFindings], None, None]:
        order = sample_order(image, pixel_format)
        with ExitStack() as stack:
            stack.enter_context(self._running())
            with watch.stage("upload"):
                self._batches.begin(len(xy), xy)
                pixels = stack.enter_context(self._uploads.board(image))
                pixels.ready.wait(self._batches.stream)
            stack.callback(self._batches.wait)  # until nothing reads the board any more

            def cut(first: int, n: int) -> Any:
                return self._batches.cut(pixels, order, first, n)

            yield from self._in_turn(len(xy), cut, watch)

    def _in_turn(
        self, n_tiles: int, put: Callable[[int, int], Any], watch: Stopwatch
    ) -> Iterator[tuple[int, TileFindings]]:
        """Give batch after batch to the GPU, and take the answers some batches later.

        `put(first, n)` brings tiles to where the network reads them.
        """
        waiting: list[Any] = []
        for first in range(0, n_tiles, self.batch):
            n = min(self.batch, n_tiles - first)
            ticket = put(first, n)
            maps = self._network.run(self._batches.tiles, n)
            self._batches.score(ticket, maps)
            waiting.append(ticket)
            if len(waiting) > AHEAD:
                yield self._read(waiting.pop(0), watch)
        for ticket in waiting:
            yield self._read(ticket, watch)

    def _read(self, ticket: Any, watch: Stopwatch) -> tuple[int, TileFindings]:
        """Wait for a batch; its first tile, and what was found."""
        found = self._batches.read(ticket)
        for stage, ms in found.stages_ms.items():
            watch.ms[_STAGES.get(stage, stage)] += ms
        bad = np.flatnonzero(found.bad < found.dist.shape[1])
        if len(bad):
            with in_batch(ticket.first):
                raise NotFiniteError(
                    f"the base maps of tile {bad[0]} hold NaN or Inf at patch "
                    f"{found.bad[bad[0]]}: every value must be finite"
                )
        return ticket.first, TileFindings(found.scores, found.dist, found.rows)

    @contextmanager
    def _running(self) -> Iterator[None]:
        device_id = self._batches.device_id
        with (
            self._lock,  # first: nobody who shares the other one may wait for a scorer
            gpu_lock.shared(),
            _gpu_errors(device_id),
            self._batches.on_device(),
        ):
            yield


def open_batches(
    artifact: PatchCoreArtifact, *, batch: int, device_id: int = 0, tier: str = "auto"
) -> Any:
    """Bring an artifact's bank to a GPU, with the stages around its network.

    Parameters
    ----------
    artifact
        The artifact.
    batch
        Tiles at a time.
    device_id
        Which GPU.
    tier
        Of the search; see ``kad_kernels.nearest.open_rows``.

    Returns
    -------
    kad_kernels.batches.Batches

    Raises
    ------
    MissingDependencyError
        numba-cuda is not installed.
    ProviderUnavailableError
        There is no such GPU, or its memory ran out.
    ArtifactCorruptError
        Bank, neighbours and network do not belong together.
    """
    try:
        from kad_kernels.batches import Batches  # noqa: PLC0415 - needs numba
    except ImportError as error:
        raise MissingDependencyError(
            "provider 'cuda' needs numba-cuda, which runs the search on the GPU, and it cannot be "
            f"imported ({error}). Install kad-sdk[gpu], or score with provider 'cpu'."
        ) from error
    manifest = artifact.manifest
    with gpu_lock.shared(), _gpu_errors(device_id):
        try:
            return Batches(
                artifact.bank,
                layers=[(o.channels, o.height, o.width) for o in manifest.network.outputs],
                grid=manifest.patchcore.grid,
                resampling=manifest.patchcore.resampling,
                neighbors=artifact.neighbors,
                n_neighbors=manifest.patchcore.n_neighbors,
                reweighting=manifest.patchcore.reweighting,
                tile=manifest.preprocessing.tile,
                mean=manifest.preprocessing.mean,
                std=manifest.preprocessing.std,
                batch=batch,
                device_id=device_id,
                tier=tier,
            )
        except ValueError as error:
            raise ArtifactCorruptError(f"{error}; export the artifact again") from error


@contextmanager
def _gpu_errors(device_id: int) -> Iterator[None]:
    """Turn what the kernels raise into errors of the runtime."""
    from kad_kernels.device import GPU_ERRORS  # noqa: PLC0415 - needs numba

    try:
        yield
    except GPU_ERRORS as error:
        raise ProviderUnavailableError(
            f"provider 'cuda' cannot use GPU {device_id}: {error}\nCheck the driver and the GPU's "
            "number with nvidia-smi; if memory ran out, use a smaller batch, or score with "
            "provider 'cpu'."
        ) from error
