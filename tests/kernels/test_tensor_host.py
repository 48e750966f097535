"""What the host does for the tensor tier, without a GPU."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("numba.cuda", reason="numba-cuda is not installed: pip install 'kad-sdk[gpu]'")

from kad_kernels.tensor import points
from kad_kernels.tensor import rows as tensor_rows
from kad_kernels.tensor.points import GROUPS, POINT
from kad_kernels.tensor.rows import ScreenedRows


class FakeRows:
    """Queries (n, D) that are said to be on a GPU, at an address."""

    __cuda_ndarray__ = True
    dtype = np.dtype(np.float32)

    def __init__(self, shape, address):
        self.shape = shape
        self.__cuda_array_interface__ = {"data": (address, False)}

    def is_c_contiguous(self):
        return True


@pytest.mark.parametrize("address", [0x7F0000000004, 0x7F0000000008])
def test_queries_that_would_be_read_astride_are_refused(address):
    rows = ScreenedRows.__new__(ScreenedRows)
    rows.dims = 8
    with pytest.raises(ValueError, match=f"multiple of 16 bytes, got address {address:#x}, inside"):
        rows.query_device(FakeRows((2, 8), address))
    for dims, place in ((8, 0x7F0000000010), (7, address)):
        rows.dims = dims
        with pytest.raises(ValueError, match="k must be 1 to 16, got 0"):  # looked at next
            rows.query_device(FakeRows((2, dims), place), k=0)


@pytest.fixture
def memory(monkeypatch):
    """Give the shapes of all memory that is asked for; it is the host's."""
    asked = []

    def device_array(shape, dtype):
        asked.append(shape)
        return np.empty(shape, dtype)

    fake = SimpleNamespace(device_array=device_array, to_device=np.array)
    monkeypatch.setattr(points, "cuda", fake)
    monkeypatch.setattr(tensor_rows, "cuda", fake)
    return asked


def test_room_for_the_most_queries_serves_fewer(memory):
    rows, tiles = ScreenedRows.__new__(ScreenedRows), 17
    rows._kept_room, rows._parts, rows._bank = None, {}, SimpleNamespace(tiles=tiles)
    for n, padded in ((300, 384), (1_000, 1_024)):
        rows._room(n)
        assert memory[:2] == [(tiles, padded, GROUPS), (padded, POINT)]
        memory.clear()
    most, least = rows._kept_room
    for n in (1_000, 130, 7, 1_000, 300):  # whole batches, the last of a board, what is left of it
        room, here = rows._room(n)
        assert room.padded == len(room.point) == len(room.norm2) == len(room.slack)
        assert n <= room.padded < n + 128
        assert np.shares_memory(room.point, most.point)
        assert here is least
    assert memory == []
