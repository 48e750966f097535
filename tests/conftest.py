"""Fixtures shared by all rooms: real weights and images, when their folders are named."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# A shell's background job ignores Ctrl-C and so would the commands that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set: it names a folder with real files")
    return Path(value)


@pytest.fixture(scope="session")
def weights_file() -> Path:
    """Real ImageNet ResNet-18 weights, conv1 to layer3."""
    path = _folder("KAD_WEIGHTS_DIR") / "resnet18_trunk.safetensors"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    return path


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with the data sets kolektor_sdd, magnetic_tile and hazelnut in MVTec layout."""
    return _folder("KAD_DATA_DIR")
