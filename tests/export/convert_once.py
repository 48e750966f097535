"""One conversion to ONNX for each network, for tests that do not look at the conversion itself.

That the same network gives the same bytes is what test_onnx_export.py shows.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import onnx
from kad_export import onnx_export

from kad_sdk.storage import write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from torch import nn

PLAIN = (bool, int, float, str, tuple)


def convert_once(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Let exports take graphs from a folder, where those that are missing are put."""
    convert = onnx_export._convert
    folder.mkdir(exist_ok=True)

    def look_up(network: nn.Module, *settings: Any, **named: Any) -> onnx.ModelProto:
        path = folder / f"{_digest(network, (*settings, *named.items()))}.onnx"
        if not path.is_file():
            write_atomic(path, convert(network, *settings, **named).SerializeToString())
        return onnx.load_from_string(path.read_bytes())

    patch.setattr(onnx_export, "_convert", look_up)


def _digest(network: nn.Module, settings: tuple[Any, ...]) -> str:
    """Hash all that a conversion hangs on: modules, their settings, and every tensor."""
    digest = hashlib.sha256(repr((settings, network)).encode())
    for name, module in network.named_modules():
        kept = {key: value for key, value in vars(module).items() if isinstance(value, PLAIN)}
        digest.update(repr((name, type(module).__qualname__, kept)).encode())
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
