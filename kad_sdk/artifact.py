"""Artifacts on disk: check everything before anything is used; write whole ones or none.

The layout and the tensors are described in ``docs/artifact.md``.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from kad_sdk._native import StoredIndex, check_graph
from kad_sdk.artifact_folder import (
    MANIFEST,
    check_listing,
    check_target,
    file_entry,
    read_checked,
    read_inspection,
    read_manifest,
    write_folder,
    write_inspection,
)
from kad_sdk.artifact_layout import check_tensors, tensor_layouts
from kad_sdk.density import NormalDensity
from kad_sdk.errors import InvalidArgumentError
from kad_sdk.inspection import INSPECTION, Inspection, manifest_digest
from kad_sdk.manifest import CutPasteManifest, Manifest, PatchCoreManifest
from kad_sdk.tensors import encode_tensors, parse_tensors

if TYPE_CHECKING:
    import mmap
    import os
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from kad_sdk.artifact_layout import Tensors
    from kad_sdk.manifest_entries import Thresholds
    from kad_sdk.rules import Rules, RulesEntry

__all__ = [
    "Artifact",
    "CutPasteArtifact",
    "CutPasteGoldenTiles",
    "GoldenTiles",
    "PatchCoreArtifact",
    "PatchCoreGoldenTiles",
    "write_artifact",
]


@dataclass(frozen=True)
class GoldenTiles:
    """Real tiles and what they must score.

    Attributes
    ----------
    tiles
        (G, t, t, 3) uint8, RGB.
    score
        (G,) float32, tile scores.
    anomalous
        (G,) bool, score >= tau.
    """

    tiles: NDArray[np.uint8]
    score: NDArray[np.float32]
    anomalous: NDArray[np.bool_]


@dataclass(frozen=True)
class PatchCoreGoldenTiles(GoldenTiles):
    """Golden tiles of PatchCore.

    Attributes
    ----------
    base_maps
        One (G, C, h, w) float32 for each layer.
    dist
        (G, P) float32, patch distances.
    """

    base_maps: tuple[NDArray[np.float32], ...]
    dist: NDArray[np.float32]


@dataclass(frozen=True)
class CutPasteGoldenTiles(GoldenTiles):
    """Golden tiles of CutPaste.

    Attributes
    ----------
    logits
        (G, K) float32.
    embedding
        (G, E) float32.
    cam
        (G, h, w) float32, Grad-CAM; None where the artifact has no graph of it.
    """

    logits: NDArray[np.float32]
    embedding: NDArray[np.float32]
    cam: NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class Artifact(ABC):
    """An opened artifact, all of it checked; each method has a subclass with what it adds.

    Attributes
    ----------
    path
        The folder.
    manifest
        What the artifact says about itself.
    inspection
        What was set on site since.
    network
        The ONNX graph's bytes.
    """

    path: Path
    manifest: Manifest
    inspection: Inspection
    network: bytes
    _golden: Tensors = dataclasses.field(repr=False)

    @staticmethod
    def open(path: str | os.PathLike[str]) -> Artifact:
        """Open and check an artifact: a :class:`PatchCoreArtifact` or a :class:`CutPasteArtifact`.

        Raises
        ------
        ArtifactError
            There is no such folder, or the system does not let it be read.
        ArtifactVersionError
            Its format is newer than this version reads.
        ArtifactCorruptError
            A file is missing, superfluous, a link, or of another size, hash, shape or range than
            the manifest says. The text names the file and the check.
        """
        path = Path(path)
        text = read_manifest(path)
        manifest = Manifest.from_json(text, str(path / MANIFEST))
        check_listing(path, manifest.files)
        inspection = read_inspection(path, manifest=manifest_digest(text))
        content = {name: read_checked(path / name, e) for name, e in manifest.files.items()}
        for name in manifest.graph_files():  # those that are not run, too
            content[name] = graph = bytes(content[name])
            check_graph(graph, str(path / name))
        tensors = {
            name: parse_tensors(content[name], str(path / name))
            for name in tensor_layouts(manifest)
        }
        check_tensors(tensors, manifest, f"{path}/")
        return _assemble(path, manifest, inspection, content, tensors)

    @property
    def thresholds(self) -> Thresholds:
        """The thresholds in force: those of the last calibration, or else the manifest's."""
        return self.inspection.thresholds(self.manifest.thresholds)

    @property
    def rules(self) -> Rules:
        """The rules in force that were set on site; empty ones where there are none."""
        return self.inspection.rules_in_force

    def set_inspection(self, inspection: Inspection) -> None:
        """Write what is set on site into the artifact's folder; this object stays as it is.

        Raises
        ------
        OutputError
            The artifact or what was set has been changed since this was opened; no reader would
            take `inspection`; or the place cannot be written.
        """
        write_inspection(self.path, inspection, before=self.inspection)

    @abstractmethod
    def golden(self) -> GoldenTiles:
        """Give the golden tiles and what they must score."""


@dataclass(frozen=True, eq=False)
class PatchCoreArtifact(Artifact):
    """An opened PatchCore artifact.

    Attributes
    ----------
    bank
        (M, D) float32, read-only, memory-mapped.
    neighbors
        (M, min(8, M - 1)) int64: each row's nearest other rows.
    source_image
        (M,) int32, index into ``manifest.bank.images``.
    source_xy
        (M, 2) int32, centre of the training patch in that image, px.
    index
        (n,) uint8, the stored index of the search; None where there is none, and it is built from
        the bank.
    """

    manifest: PatchCoreManifest
    bank: NDArray[np.float32]
    neighbors: NDArray[np.int64]
    source_image: NDArray[np.int32]
    source_xy: NDArray[np.int32]
    index: NDArray[np.uint8] | None = None

    @property
    def stored_index(self) -> StoredIndex | None:
        """The stored index with the bank that it is of."""
        if self.index is None:
            return None
        files, bank = self.manifest.files, self.manifest.bank
        return StoredIndex(
            self.index, files[bank.file].sha256, name=f"{self.path / str(bank.index_file)}"
        )

    def golden(self) -> PatchCoreGoldenTiles:
        """Give the golden tiles and what they must score."""
        return self._golden_tiles

    @cached_property
    def _golden_tiles(self) -> PatchCoreGoldenTiles:
        tensors = self._golden
        layers = range(len(self.manifest.network.outputs))
        return PatchCoreGoldenTiles(
            tiles=tensors["tiles"],
            score=tensors["score"],
            anomalous=tensors["anomalous"].astype(bool),
            base_maps=tuple(tensors[f"base_map_{i}"] for i in layers),
            dist=tensors["dist"],
        )


@dataclass(frozen=True, eq=False)
class CutPasteArtifact(Artifact):
    """An opened CutPaste artifact.

    Attributes
    ----------
    explain
        The bytes of the ONNX graph that gives Grad-CAM besides; None for the tile-score map.
    density
        Where the embeddings of normal tiles lie.
    """

    manifest: CutPasteManifest
    explain: bytes | None
    density: NormalDensity

    def golden(self) -> CutPasteGoldenTiles:
        """Give the golden tiles and what they must score."""
        return self._golden_tiles

    @cached_property
    def _golden_tiles(self) -> CutPasteGoldenTiles:
        tensors = self._golden
        return CutPasteGoldenTiles(
            tiles=tensors["tiles"],
            score=tensors["score"],
            anomalous=tensors["anomalous"].astype(bool),
            logits=tensors["logits"],
            embedding=tensors["embedding"],
            cam=tensors.get("cam"),
        )


def _assemble(
    path: Path,
    manifest: Manifest,
    inspection: Inspection,
    content: Mapping[str, mmap.mmap | bytes],
    tensors: Mapping[str, Tensors],
) -> Artifact:
    network, golden = bytes(content[manifest.network.file]), tensors[manifest.golden.file]
    if isinstance(manifest, PatchCoreManifest):
        index = manifest.bank.index_file
        stored = {} if index is None else tensors[index]
        bank = tensors[manifest.bank.file]
        return PatchCoreArtifact(path, manifest, inspection, network, golden, **bank, **stored)
    if isinstance(manifest, CutPasteManifest):
        explain = manifest.cutpaste.explain_file
        kind, bandwidth = manifest.density.kind, manifest.density.bandwidth
        return CutPasteArtifact(
            path,
            manifest,
            inspection,
            network,
            golden,
            explain=None if explain is None else bytes(content[explain]),
            density=NormalDensity(kind, bandwidth=bandwidth, **tensors[manifest.density.file]),
        )
    raise TypeError(f"expected the manifest of a method, got {type(manifest).__name__}")


def write_artifact(
    path: str | os.PathLike[str],
    manifest: Manifest,
    files: Mapping[str, bytes | Tensors],
    *,
    replace: bool = False,
    rules: Sequence[RulesEntry] = (),
    before: Inspection | None = None,
) -> Path:
    """Write an artifact, whole or not at all; the same inputs give the same bytes.

    Parameters
    ----------
    path
        The folder to make.
    manifest
        Everything but ``files``, which is filled in here.
    files
        File name to content: the bytes of a graph, or the tensors of a safetensors file as in
        ``docs/artifact.md``. Exactly the files that the manifest's entries name.
    replace
        Whether an artifact that is already there is replaced. Anything else that is there is
        never touched.
    rules
        Set on another artifact, to hold for this one too.
    before
        What is set on the artifact that is replaced, where nothing newer may be lost with it.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InvalidArgumentError
        `files` are not those of the manifest.
    ArtifactError
        The inputs contradict each other: what a reader would refuse is not written.
    OutputError
        The place is taken, the disk is full, or something else than `before` was set meanwhile;
        nothing is left behind.
    """
    path = Path(path)
    check_target(path, replace=replace)
    if set(files) != set(manifest.named_files()):
        raise InvalidArgumentError(
            f"files: expected {', '.join(sorted(manifest.named_files()))}, the files that the "
            f"manifest names, got {', '.join(sorted(files)) or 'none'}"
        )
    parts = {
        name: [content] if isinstance(content, bytes) else encode_tensors(content)
        for name, content in files.items()
    }
    entries = {name: file_entry(content) for name, content in parts.items()}
    text = dataclasses.replace(manifest, files=entries).to_json().encode()
    checked = Manifest.from_json(text)
    tensors = {name: content for name, content in files.items() if not isinstance(content, bytes)}
    for name in set(checked.graph_files()) - set(tensors):
        check_graph(b"".join(parts[name]), str(path / name))
    if set(tensors) != set(tensor_layouts(checked)):
        raise InvalidArgumentError(
            f"files: expected tensors for {', '.join(sorted(tensor_layouts(checked)))} and bytes "
            f"for the others, got tensors for {', '.join(sorted(tensors)) or 'none'}"
        )
    check_tensors(tensors, checked, f"{path}/")
    set_on_site = {}
    if rules:
        inspection = Inspection(manifest_digest(text), rules=tuple(rules))
        set_on_site = {INSPECTION: [inspection.to_file()]}
    write_folder(path, {**parts, **set_on_site, MANIFEST: [text]}, before=before)
    return path
