"""The index of the search, made for an artifact's bank once and for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kad_export.describe import INDEX_FILE
from kad_sdk._native import NativeIndex
from kad_sdk.artifact_folder import file_entry
from kad_sdk.patchcore import map_layout
from kad_sdk.tensors import encode_tensors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kad_sdk.artifact_layout import Tensors
    from kad_sdk.manifest import NetworkOutput, PatchCore

__all__ = ["store_index"]


def store_index(
    bank: Tensors, outputs: Sequence[NetworkOutput], patchcore: PatchCore, *, threads: int
) -> dict[str, Tensors]:
    """Make the file of the index.

    Parameters
    ----------
    bank
        The tensors of ``bank.safetensors``.
    outputs, patchcore
        The manifest's entries.

    Returns
    -------
    dict
        Name of the file to its tensors; nothing for a bank that is too small for an index.
    """
    layout = map_layout(outputs, patchcore)
    digest = file_entry(encode_tensors(bank)).sha256
    index = NativeIndex(bank["bank"], layout=layout, threads=threads)
    stored = index.store(digest, threads=threads)
    index.close()
    return {} if stored is None else {INDEX_FILE: {"index": stored}}
