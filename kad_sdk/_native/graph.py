"""The network's graph, looked at before a runtime sees it."""

from __future__ import annotations

from kad_sdk._native.abi import call


def check_graph(graph: bytes) -> None:
    """Check that an ONNX graph reads no other file.

    Raises
    ------
    ArtifactCorruptError
        A tensor's data lies in another file, a node loads one, or the bytes are no protobuf.
    """
    call("kad_graph_check", graph, len(graph))
