"""A float32 graph to 8 bits: static QDQ, activations unsigned, weights signed and per channel.

Each activation has one scale, by the smallest and largest value that real tiles gave it; each
output channel's weights have their own. Weights have 7 of the 8 bits: instruction sets before VNNI
add pairs of products in 16 bits, which saturate above 32767, and 2 x 255 x 64 is below it: so an
int8 graph gives the same on processors with VNNI and without.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from kad_export.onnx_export import INPUT, strip_metadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LARGEST_WEIGHT", "OPERATORS", "to_int8"]

OPERATORS = ("Add", "Conv", "MaxPool", "Relu")
"""What is computed in 8 bits. Pooled base maps, and whatever else a network has, stay float32."""

LARGEST_WEIGHT = 64
_PREPROCESSED = ("onnx.quant.pre_process", "onnxruntime.quant")  # nothing is left to be folded


def to_int8(graph: bytes, tiles: Iterable[NDArray[np.float32]]) -> bytes:
    """Quantise a graph, with ranges by tiles.

    Parameters
    ----------
    graph
        The ONNX graph, as the export makes it.
    tiles
        Normalised real tiles (b, 3, t, t), batch by batch.
    """
    model = onnx.load_from_string(graph)
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{i}"  # the quantiser knows nodes by their names
    model.metadata_props.add(key=_PREPROCESSED[0], value=_PREPROCESSED[1])
    with tempfile.TemporaryDirectory(prefix="kad-int8-") as folder, _silence():
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(model.SerializeToString())
        quantize_static(
            source,
            target,
            _Reader(tiles),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        quantised = onnx.load(target)
    strip_metadata(quantised)
    onnx.checker.check_model(quantised, full_check=True)
    return bytes(quantised.SerializeToString(deterministic=True))


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Gives tiles in the form that the quantiser asks for."""

    def __init__(self, tiles: Iterable[NDArray[np.float32]]) -> None:
        self._tiles: Iterator[NDArray[np.float32]] = iter(tiles)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        batch = next(self._tiles, None)
        return None if batch is None else {INPUT: batch}


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the quantiser's advice, which goes to the root logger, out of the console."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
