"""Boards on their way to the GPU: the next one is copied while one is scored.

There are three places, each a pinned buffer of the host and memory of the GPU, and a stream of
their own: one for the board that is scored, two for boards sent ahead, since the next but one may
be sent before the next is asked for. A board goes in bands, so that a band travels while the next
is written to the pinned buffer.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kad_kernels._cuda import cuda
from kad_kernels.device import ceil_div

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

__all__ = ["Pixels", "Uploads"]

BANDS = 8
AHEAD = 2  # boards


@dataclass
class Pixels:
    """A board on the GPU.

    Attributes
    ----------
    values : (bytes,) uint8, on the GPU
        May be longer than the board.
    row_bytes, samples : int
        From a pixel to the one below it and beside it.
    ready
        Event after which it is there.
    """

    values: Any
    row_bytes: int
    samples: int
    ready: Any


class _Place:
    """A pinned buffer and as much memory of the GPU."""

    def __init__(self) -> None:
        self._pinned: Any = None
        self._values: Any = None
        self._ready = cuda.event()
        self._begun = False

    def fill(self, image: NDArray[np.uint8], stream: Any) -> Pixels:
        """Copy a board (H, W) or (H, W, C) of any row stride; it has left `image` on return."""
        height, row = image.shape[0], image[0].size
        if self._begun:
            self._ready.synchronize()  # of the board before: its bytes may still be read
        if self._pinned is None or self._pinned.size < image.size:
            self._pinned = self._values = None  # should memory run out now
            values = cuda.device_array(image.size, np.uint8)
            self._pinned, self._values = cuda.pinned_array(image.size, np.uint8), values
        each = ceil_div(height, BANDS)
        for top in range(0, height, each):
            part = image[top : top + each]
            begin, end = top * row, top * row + part.size
            np.copyto(self._pinned[begin:end].reshape(part.shape), part)
            self._values[begin:end].copy_to_device(self._pinned[begin:end], stream=stream)
        self._ready.record(stream)
        self._begun = True
        samples = 1 if image.ndim == 2 else image.shape[2]
        return Pixels(self._values, row, samples, self._ready)


@dataclass(eq=False)
class _Ahead:
    """A board that was sent ahead."""

    image: NDArray[np.uint8]
    place: _Place
    filled: Future[Pixels]


class Uploads:
    """Brings boards to one GPU; a board may be sent ahead.

    Parameters
    ----------
    device_id : int
    around : callable
        Gives a context; memory is asked for, and boards are copied, within one.
    """

    def __init__(
        self, device_id: int = 0, around: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self._device_id, self._around = device_id, around
        with cuda.gpus[device_id]:
            self._stream = cuda.stream()
            self._free = [_Place() for _ in range(1 + AHEAD)]
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="kad-upload")
        self._ahead: list[_Ahead] = []

    def send_ahead(self, image: NDArray[np.uint8]) -> None:
        """Begin to bring a board that :meth:`board` will ask for; it must not be changed.

        It is known by the array alone: whoever fills that anew calls this again, or :meth:`forget`.
        Of more than two boards that were not asked for, the oldest is dropped.
        """
        with self._lock:
            self._drop(image)
            if len(self._ahead) == AHEAD:
                self._drop(self._ahead[0].image)
            place = self._free.pop()
            self._ahead.append(_Ahead(image, place, self._worker.submit(self._fill, place, image)))

    def forget(self, image: NDArray[Any]) -> None:
        """Drop a board that was sent ahead, if it was: its array may hold other pixels soon."""
        with self._lock:
            self._drop(image)

    @contextmanager
    def board(self, image: NDArray[np.uint8]) -> Iterator[Pixels]:
        """Give a board's pixels for as long as the block runs, sent ahead or brought now.

        One block at a time. All that reads them must have finished when it ends.
        """
        with self._lock:
            sent = next((waiting for waiting in self._ahead if waiting.image is image), None)
            if sent is None:
                place = self._free.pop()
            else:
                self._ahead.remove(sent)
                place = sent.place
        try:
            yield self._fill(place, image) if sent is None else sent.filled.result()
        finally:
            with self._lock:
                self._free.append(place)

    def close(self) -> None:
        """Wait for what is on its way, and free all."""
        self._worker.shutdown(wait=True)
        self._ahead.clear()
        self._free.clear()

    def _drop(self, image: NDArray[Any]) -> None:
        """Give a waiting board's place back; the lock is held."""
        for waiting in [one for one in self._ahead if one.image is image]:
            self._ahead.remove(waiting)
            if not waiting.filled.cancel():
                waiting.filled.exception()  # waits; if it failed, nobody asks
            self._free.append(waiting.place)

    def _fill(self, place: _Place, image: NDArray[np.uint8]) -> Pixels:
        with self._around(), cuda.gpus[self._device_id]:
            return place.fill(image, self._stream)
