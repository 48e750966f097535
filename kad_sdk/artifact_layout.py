"""What the tensor files of an artifact hold, by method; the same checks for reader and writer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from kad_sdk.errors import ArtifactCorruptError
from kad_sdk.manifest import MAX_NEIGHBORS, CutPasteManifest, Manifest, PatchCoreManifest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["Layout", "Tensors", "check_tensors", "tensor_layouts"]

Tensors: TypeAlias = "Mapping[str, NDArray[Any]]"
# Name to dtype and shape; None is any length.
Layout: TypeAlias = "dict[str, tuple[type[np.generic], tuple[int | None, ...]]]"


def tensor_layouts(manifest: Manifest) -> dict[str, Layout]:
    """Give the tensors that each safetensors file of an artifact must hold, by file name."""
    if isinstance(manifest, PatchCoreManifest):
        index = manifest.bank.index_file
        return {
            **({} if index is None else {index: {"index": (np.uint8, (None,))}}),
            manifest.bank.file: _bank_layout(manifest),
            manifest.golden.file: _golden_layout(manifest) | _patchcore_golden(manifest),
        }
    if isinstance(manifest, CutPasteManifest):
        return {
            manifest.density.file: _density_layout(manifest),
            manifest.golden.file: _golden_layout(manifest) | _cutpaste_golden(manifest),
        }
    raise TypeError(f"expected the manifest of a method, got {type(manifest).__name__}")


def check_tensors(tensors: Mapping[str, Tensors], manifest: Manifest, where: str) -> None:
    """Check the tensor files (file name to tensors) of an artifact against its manifest.

    Parameters
    ----------
    where
        The folder, as errors call it.

    Raises
    ------
    ArtifactCorruptError
        A tensor is missing, superfluous, of another dtype or shape, holds NaN or Inf, or its
        values are none that scoring could use. The text names file and tensor.
    """
    for file, layout in tensor_layouts(manifest).items():
        _check_layout(tensors[file], layout, f"{where}{file}")
        for key, tensor in tensors[file].items():
            if tensor.dtype.kind == "f":
                _check_finite(tensor, f"{where}{file}: tensor {key!r}")
    if isinstance(manifest, PatchCoreManifest):
        _check_indices(tensors[manifest.bank.file], manifest, f"{where}{manifest.bank.file}")
    elif isinstance(manifest, CutPasteManifest):
        _check_density(tensors[manifest.density.file], manifest, f"{where}{manifest.density.file}")


def _bank_layout(manifest: PatchCoreManifest) -> Layout:
    M, D = manifest.bank.rows, manifest.bank.dims
    return {
        "bank": (np.float32, (M, D)),
        "neighbors": (np.int64, (M, min(MAX_NEIGHBORS, M - 1))),
        "source_image": (np.int32, (M,)),
        "source_xy": (np.int32, (M, 2)),
    }


def _density_layout(manifest: CutPasteManifest) -> Layout:
    E = manifest.cutpaste.embedding_dims
    if manifest.density.kind == "kernel":
        return {"samples": (np.float32, (None, E))}
    return {"mean": (np.float32, (E,)), "cholesky": (np.float32, (E, E))}


def _golden_layout(manifest: Manifest) -> Layout:
    G, t = manifest.golden.count, manifest.preprocessing.tile
    return {
        "tiles": (np.uint8, (G, t, t, 3)),
        "score": (np.float32, (G,)),
        "anomalous": (np.uint8, (G,)),
    }


def _patchcore_golden(manifest: PatchCoreManifest) -> Layout:
    G = manifest.golden.count
    h, w = manifest.patchcore.grid
    maps: Layout = {
        f"base_map_{i}": (np.float32, (G, output.channels, output.height, output.width))
        for i, output in enumerate(manifest.network.outputs)
    }
    return {**maps, "dist": (np.float32, (G, h * w))}


def _cutpaste_golden(manifest: CutPasteManifest) -> Layout:
    G, settings = manifest.golden.count, manifest.cutpaste
    layout: Layout = {
        "logits": (np.float32, (G, settings.classes)),
        "embedding": (np.float32, (G, settings.embedding_dims)),
    }
    if settings.explain_file is not None:
        layout["cam"] = (np.float32, (G, *settings.map_grid))
    return layout


def _check_layout(tensors: Tensors, layout: Layout, name: str) -> None:
    if set(tensors) != set(layout):
        raise ArtifactCorruptError(
            f"{name}: expected the tensors {', '.join(sorted(layout))}; got "
            f"{', '.join(sorted(tensors)) or 'none'}"
        )
    for key, (dtype, shape) in layout.items():
        tensor = tensors[key]
        fits = len(shape) == tensor.ndim and all(
            side in {None, given} for side, given in zip(shape, tensor.shape, strict=True)
        )
        if tensor.dtype != dtype or not fits:
            wanted = str(shape).replace("None", "any")
            raise ArtifactCorruptError(
                f"{name}: tensor {key!r}: expected {np.dtype(dtype)} {wanted} by the manifest, got "
                f"{tensor.dtype} {tensor.shape}"
            )


def _check_finite(tensor: NDArray[Any], where: str) -> None:
    # The sum of absolute values in float64 is finite exactly when each is: one pass, no temporary.
    if np.isfinite(np.sum(tensor, dtype=np.float64)):
        return
    rows = np.flatnonzero(~np.isfinite(tensor.reshape(len(tensor), -1)).all(axis=1))
    if rows.size:
        raise ArtifactCorruptError(
            f"{where}: row {rows[0]} holds NaN or Inf ({rows.size} such rows); export the "
            "artifact again"
        )


def _check_indices(bank: Tensors, manifest: PatchCoreManifest, where: str) -> None:
    """Check that indices point somewhere."""
    rows, images = manifest.bank.rows, len(manifest.bank.images)
    for key, end in (("neighbors", rows), ("source_image", images)):
        tensor = bank[key]
        if tensor.size and (tensor.min() < 0 or tensor.max() >= end):
            raise ArtifactCorruptError(
                f"{where}: tensor {key!r}: expected values in 0..{end - 1}, "
                f"got {tensor.min()}..{tensor.max()}"
            )


def _check_density(tensors: Tensors, manifest: CutPasteManifest, where: str) -> None:
    if manifest.density.kind == "gaussian":
        _check_factor(tensors["cholesky"], f"{where}: tensor 'cholesky'")
    elif not 1 <= len(tensors["samples"]) <= manifest.density.samples:
        raise ArtifactCorruptError(
            f"{where}: tensor 'samples': expected 1 to {manifest.density.samples} rows, as many as "
            f"the density was fitted on at the most, got {len(tensors['samples'])}"
        )


def _check_factor(factor: NDArray[np.float32], where: str) -> None:
    """Check what forward substitution relies on: the diagonal, and nothing above it."""
    diagonal = np.diagonal(factor)
    if not (diagonal > 0).all():
        raise ArtifactCorruptError(
            f"{where}: expected a diagonal above 0, got {diagonal.min():g} in row "
            f"{diagonal.argmin()}; export the artifact again"
        )
    if np.triu(factor, 1).any():
        row, column = np.argwhere(np.triu(factor, 1))[0]
        raise ArtifactCorruptError(
            f"{where}: expected a lower triangle, got {factor[row, column]:g} in row {row}, "
            f"column {column}; export the artifact again"
        )
