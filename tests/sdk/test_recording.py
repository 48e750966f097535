"""The lock of GPUs: many share it, a recording has it alone, and nobody waits for ever."""

from __future__ import annotations

import threading
import time

import pytest

from kad_sdk.recording import SharedLock

SOON, NOT_YET = 20, 0.05  # seconds to wait for what must come, and for what must not


class Turn:
    """A thread that takes a turn of a lock, and holds it until it is told to leave."""

    def __init__(self, turn):
        self._has, self._leave = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold, args=(turn,), daemon=True)
        self._thread.start()

    def _hold(self, turn):
        with turn:
            self._has.set()
            self._leave.wait(SOON)

    def begins(self):
        return self._has.wait(SOON)

    def waits(self):
        return not self._has.wait(NOT_YET)

    def end(self):
        self._leave.set()
        self._thread.join(SOON)
        assert not self._thread.is_alive()


@pytest.fixture
def lock():
    return SharedLock()


def test_threads_share(lock):
    first, second = Turn(lock.shared()), Turn(lock.shared())
    assert first.begins()
    assert second.begins()
    first.end()
    second.end()


def test_one_alone(lock):
    sharing = Turn(lock.shared())
    assert sharing.begins()
    alone = Turn(lock.alone())
    assert alone.waits()
    sharing.end()
    assert alone.begins()
    others = [Turn(lock.shared()), Turn(lock.shared(urgent=True)), Turn(lock.alone())]
    assert all(other.waits() for other in others)
    alone.end()
    for other in others:
        other._leave.set()  # in whatever order they come
    for other in others:
        assert other.begins()
        other.end()


def test_who_waits_to_be_alone_goes_before_who_comes_to_share(lock):
    sharing = Turn(lock.shared())
    assert sharing.begins()
    alone = Turn(lock.alone())
    _wait_for_waiting(lock)
    later, urgent = Turn(lock.shared()), Turn(lock.shared(urgent=True))
    assert later.waits()
    assert urgent.begins()  # what a thread that shares may wait for
    urgent.end()
    sharing.end()
    assert alone.begins()
    assert later.waits()
    alone.end()
    assert later.begins()
    later.end()


def test_a_thread_that_shares_may_share_again(lock):
    with lock.shared():
        alone = Turn(lock.alone())
        _wait_for_waiting(lock)
        with lock.shared():
            assert alone.waits()
        assert alone.waits()
    assert alone.begins()
    alone.end()


def test_a_thread_never_waits_for_itself(lock):
    with lock.shared(), pytest.raises(RuntimeError, match="expected a thread that does not use"):
        lock.alone().__enter__()
    with lock.alone():
        with pytest.raises(RuntimeError, match="expected a thread that does not use"):
            lock.alone().__enter__()
        with lock.shared():
            pass
    assert lock._alone is None
    assert not lock._sharing


def test_an_exception_gives_it_back(lock):
    for turn in (lock.shared, lock.alone):
        with pytest.raises(ZeroDivisionError), turn():
            raise ZeroDivisionError
    with lock.alone():
        pass


def _wait_for_waiting(lock):
    end = time.monotonic() + SOON
    while lock._waiting == 0:
        assert time.monotonic() < end
        time.sleep(0.001)
