"""Boards in two categories, and a real grid of two small runs, killed and gone on with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from experiments_grid import kill_and_go_on

if TYPE_CHECKING:
    from pathlib import Path

    from experiments_grid import Killed


@pytest.fixture(scope="session")
def categories(tmp_path_factory, small_dataset) -> Path:
    """A folder with the small data set as both of the thesis' categories."""
    root = tmp_path_factory.mktemp("categories")
    for name in ("white", "white-with-edges"):
        (root / name).symlink_to(small_dataset)
    return root


@pytest.fixture(scope="session")
def killed_grid(tmp_path_factory, categories) -> Killed:
    """The small grid, killed in its second run and gone on with."""
    return kill_and_go_on(categories, tmp_path_factory.mktemp("grid"))
