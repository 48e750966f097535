"""The network's graph, looked at before a runtime sees it."""

from __future__ import annotations

from kad_sdk._native.abi import call
from kad_sdk.errors import ArtifactCorruptError


def check_graph(graph: bytes, name: str = "") -> None:
    """Check that an ONNX graph reads no other file; `name` is what errors call it.

    Raises
    ------
    ArtifactCorruptError
        A tensor's data lies in another file, a node loads one, or the bytes are no protobuf.
    """
    try:
        call("kad_graph_check", graph, len(graph))
    except ArtifactCorruptError as error:
        raise ArtifactCorruptError(f"{name}: {error}" if name else str(error)) from None
