"""The fuzz targets of the readers, for seconds; `make fuzz` runs them for minutes."""

from __future__ import annotations

import fuzz_readers
import pytest


def test_readers():
    lacking = fuzz_readers.missing()
    if lacking:
        pytest.skip(f"needs {lacking}")
    fuzz_readers.build()
    lines = fuzz_readers.fuzz(seconds=3)
    assert len(lines) == len(fuzz_readers.TARGETS)
    assert all("Done" in line for line in lines), lines
