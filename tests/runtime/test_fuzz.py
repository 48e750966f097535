"""The fuzz targets of the readers, for seconds; `make fuzz` runs them for minutes."""

from __future__ import annotations

import fuzz_readers
import programs


def test_readers():
    missing = fuzz_readers.missing()
    if missing:
        programs.lacking(f"needs {missing}")
    fuzz_readers.build()
    lines = fuzz_readers.fuzz(seconds=3)
    assert len(lines) == len(fuzz_readers.TARGETS)
    assert all("Done" in line for line in lines), lines
