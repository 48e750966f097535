"""Who may use a GPU while a CUDA graph is recorded: nobody else of the process.

ONNX Runtime records in CUDA's global mode: until it has finished, a call that may allocate memory,
of any thread and on any GPU, is refused and spoils the recording. So a recording runs alone, and
what else works on a GPU holds the lock together with others.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SharedLock", "gpu_lock"]


class SharedLock:
    """Held by many threads together, or by one alone.

    A thread that waits to be alone goes before those that come to share, else it might wait for
    ever; a thread that shares already may share again.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sharing: Counter[int] = Counter()  # threads, and how often each holds it
        self._alone: int | None = None
        self._waiting = 0  # to be alone

    @contextmanager
    def shared(self, *, urgent: bool = False) -> Iterator[None]:
        """Hold it together with others, for as long as the block runs.

        Parameters
        ----------
        urgent
            Go before those that wait to be alone: for work that a thread which shares waits for.
        """
        me = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: self._may_share(me, urgent=urgent))
            self._sharing[me] += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharing[me] -= 1
                if self._sharing[me] == 0:
                    del self._sharing[me]
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold it alone, for as long as the block runs.

        Raises
        ------
        RuntimeError
            This thread holds it already, and would wait for itself.
        """
        me = threading.get_ident()
        with self._changed:
            if me == self._alone or me in self._sharing:
                raise RuntimeError(
                    "expected a thread that does not use a GPU, got one that does: record a CUDA "
                    "graph before or after"
                )
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: self._alone is None and not self._sharing)
                self._alone = me
            finally:
                self._waiting -= 1
                self._changed.notify_all()  # should the wait have been interrupted
        try:
            yield
        finally:
            with self._changed:
                self._alone = None
                self._changed.notify_all()

    def _may_share(self, thread: int, *, urgent: bool) -> bool:
        if thread == self._alone or thread in self._sharing:
            return True
        return self._alone is None and (urgent or self._waiting == 0)


gpu_lock = SharedLock()
"""That of this process, for all GPUs."""
