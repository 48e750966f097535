"""What the host does for the tensor tier, without a GPU."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba.cuda", reason="numba-cuda is not installed: pip install 'kad-sdk[gpu]'")

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
