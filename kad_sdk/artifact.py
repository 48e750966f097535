"""Artifacts on disk: check everything before anything is used; write whole ones or none.

The layout and the tensors are described in ``docs/artifact.md``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import secrets
import shutil
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kad_sdk.errors import ArtifactCorruptError, ArtifactError, OutputError
from kad_sdk.manifest import MANIFEST_LIMIT_BYTES, MAX_NEIGHBORS, FileEntry, Manifest
from kad_sdk.storage import map_file, sync_folder, write_synced, writing
from kad_sdk.tensors import encode_tensors, parse_tensors

if TYPE_CHECKING:
    import mmap
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["Artifact", "GoldenTiles", "write_artifact"]

_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class GoldenTiles:
    """Real tiles and what they must score.

    Attributes
    ----------
    tiles
        (G, t, t, 3) uint8, RGB.
    base_maps
        One (G, C, h, w) float32 for each layer.
    dist
        (G, P) float32, patch distances.
    score
        (G,) float32, tile scores.
    anomalous
        (G,) bool, score >= tau.
    """

    tiles: NDArray[np.uint8]
    base_maps: tuple[NDArray[np.float32], ...]
    dist: NDArray[np.float32]
    score: NDArray[np.float32]
    anomalous: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Artifact:
    """An opened artifact, all of it checked.

    Attributes
    ----------
    path
        The folder.
    manifest
        What the artifact says about itself.
    network
        The ONNX graph's bytes.
    bank
        (M, D) float32, read-only, memory-mapped.
    neighbors
        (M, min(8, M - 1)) int64: each row's nearest other rows.
    source_image
        (M,) int32, index into ``manifest.bank.images``.
    source_xy
        (M, 2) int32, centre of the training patch in that image, px.
    """

    path: Path
    manifest: Manifest
    network: bytes
    bank: NDArray[np.float32]
    neighbors: NDArray[np.int64]
    source_image: NDArray[np.int32]
    source_xy: NDArray[np.int32]
    _golden: Mapping[str, NDArray[Any]] = dataclasses.field(repr=False)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Artifact:
        """Open and check an artifact.

        Raises
        ------
        ArtifactError
            There is no such folder, or it holds no manifest.
        ArtifactVersionError
            Its format is newer than this version reads.
        ArtifactCorruptError
            A file is missing, superfluous, a link, or of another size, hash, shape or range than
            the manifest says. The text names the file and the check.
        """
        path = Path(path)
        manifest = Manifest.from_json(_read_manifest(path), str(path / _MANIFEST))
        _check_listing(path, manifest.files)
        content = {name: _read_checked(path / name, e) for name, e in manifest.files.items()}
        bank = parse_tensors(content[manifest.bank.file], str(path / manifest.bank.file))
        golden = parse_tensors(content[manifest.golden.file], str(path / manifest.golden.file))
        _check_tensors(bank, _bank_layout(manifest), str(path / manifest.bank.file))
        _check_tensors(golden, _golden_layout(manifest), str(path / manifest.golden.file))
        _check_values(bank, golden, manifest, path)
        return cls(
            path=path,
            manifest=manifest,
            network=bytes(content[manifest.network.file]),
            _golden=golden,
            **bank,
        )

    def golden(self) -> GoldenTiles:
        """Give the golden tiles and what they must score."""
        return self._golden_tiles

    @cached_property
    def _golden_tiles(self) -> GoldenTiles:
        tensors = self._golden
        layers = range(len(self.manifest.network.outputs))
        return GoldenTiles(
            tiles=tensors["tiles"],
            base_maps=tuple(tensors[f"base_map_{i}"] for i in layers),
            dist=tensors["dist"],
            score=tensors["score"],
            anomalous=tensors["anomalous"].astype(bool),
        )


def _read_manifest(path: Path) -> bytes:
    if not path.is_dir():
        raise ArtifactError(
            f"{path}: expected an artifact, a folder NAME.kad; there is none: "
            "give the path of one that kad-export made"
        )
    file = path / _MANIFEST
    try:
        status = file.lstat()
    except OSError as error:
        raise ArtifactCorruptError(
            f"{file}: cannot be read: {error.strerror}; a folder without it is not an artifact"
        ) from error
    _check_regular(file, status)
    if status.st_size > MANIFEST_LIMIT_BYTES:
        raise ArtifactCorruptError(
            f"{file}: expected at most {MANIFEST_LIMIT_BYTES} bytes, got {status.st_size}"
        )
    return bytes(_map(file))


def _check_regular(file: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ArtifactCorruptError(
            f"{file}: expected a regular file; links and folders are not allowed in an artifact"
        )


def _map(file: Path) -> mmap.mmap | bytes:
    try:
        return map_file(file)
    except OSError as error:
        raise ArtifactCorruptError(f"{file}: cannot be opened: {error.strerror}") from error


def _check_listing(path: Path, files: Mapping[str, FileEntry]) -> None:
    """Check that the folder holds the listed files, at the listed sizes, and no others."""
    listed = {_MANIFEST, *files}
    with os.scandir(path) as entries:
        found = {entry.name: entry.stat(follow_symlinks=False) for entry in entries}
    for name, status in sorted(found.items()):
        if name not in listed:
            raise ArtifactCorruptError(
                f"{path / name}: is not listed in the manifest; remove it, or copy the artifact "
                "again"
            )
        _check_regular(path / name, status)
    for name, entry in sorted(files.items()):
        if name not in found:
            raise ArtifactCorruptError(
                f"{path / name}: is listed in the manifest but is missing; copy the artifact again"
            )
        if found[name].st_size != entry.size:
            raise ArtifactCorruptError(
                f"{path / name}: expected {entry.size} bytes, got {found[name].st_size}: the "
                "file was changed or cut off; copy the artifact again"
            )


def _read_checked(file: Path, entry: FileEntry) -> mmap.mmap | bytes:
    """Map a file and hash the mapping, so that what was checked is what is used."""
    data = _map(file)
    digest = hashlib.sha256(data).hexdigest()
    if len(data) != entry.size or digest != entry.sha256:
        raise ArtifactCorruptError(
            f"{file}: expected SHA-256 {entry.sha256}, got {digest}: the file was changed; copy "
            "the artifact again"
        )
    return data


_Layout = dict[str, tuple[type[np.generic], tuple[int, ...]]]


def _bank_layout(manifest: Manifest) -> _Layout:
    M, D = manifest.bank.rows, manifest.bank.dims
    return {
        "bank": (np.float32, (M, D)),
        "neighbors": (np.int64, (M, min(MAX_NEIGHBORS, M - 1))),
        "source_image": (np.int32, (M,)),
        "source_xy": (np.int32, (M, 2)),
    }


def _golden_layout(manifest: Manifest) -> _Layout:
    G, t = manifest.golden.count, manifest.preprocessing.tile
    h, w = manifest.patchcore.grid
    maps: _Layout = {
        f"base_map_{i}": (np.float32, (G, output.channels, output.height, output.width))
        for i, output in enumerate(manifest.network.outputs)
    }
    return {
        **maps,
        "tiles": (np.uint8, (G, t, t, 3)),
        "dist": (np.float32, (G, h * w)),
        "score": (np.float32, (G,)),
        "anomalous": (np.uint8, (G,)),
    }


def _check_tensors(tensors: Mapping[str, NDArray[Any]], layout: _Layout, name: str) -> None:
    if set(tensors) != set(layout):
        raise ArtifactCorruptError(
            f"{name}: expected the tensors {', '.join(sorted(layout))}; got "
            f"{', '.join(sorted(tensors)) or 'none'}"
        )
    for key, (dtype, shape) in layout.items():
        tensor = tensors[key]
        if tensor.dtype != dtype or tensor.shape != shape:
            raise ArtifactCorruptError(
                f"{name}: tensor {key!r}: expected {np.dtype(dtype)} {shape} by the manifest, got "
                f"{tensor.dtype} {tensor.shape}"
            )


def _check_values(
    bank: Mapping[str, NDArray[Any]],
    golden: Mapping[str, NDArray[Any]],
    manifest: Manifest,
    folder: Path,
) -> None:
    """Numbers are finite and indices point somewhere."""
    for tensors, name in ((bank, manifest.bank.file), (golden, manifest.golden.file)):
        for key, tensor in tensors.items():
            if tensor.dtype.kind == "f":
                _check_finite(tensor, f"{folder / name}: tensor {key!r}")
    rows, images = manifest.bank.rows, len(manifest.bank.images)
    for key, end in (("neighbors", rows), ("source_image", images)):
        tensor = bank[key]
        if tensor.size and (tensor.min() < 0 or tensor.max() >= end):
            raise ArtifactCorruptError(
                f"{folder / manifest.bank.file}: tensor {key!r}: expected values in 0..{end - 1}, "
                f"got {tensor.min()}..{tensor.max()}"
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


def write_artifact(
    path: str | os.PathLike[str],
    manifest: Manifest,
    *,
    network: bytes,
    bank: Mapping[str, NDArray[Any]],
    golden: Mapping[str, NDArray[Any]],
    replace: bool = False,
) -> Path:
    """Write an artifact, whole or not at all; the same inputs give the same bytes.

    Parameters
    ----------
    path
        The folder to make.
    manifest
        Everything but ``files``, which is filled in here.
    network
        The ONNX graph.
    bank, golden
        Tensors as in ``docs/artifact.md``.
    replace
        Whether an artifact that is already there is replaced. Anything else that is there is
        never touched.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ArtifactError
        The inputs contradict each other: what a reader would refuse is not written.
    OutputError
        The place is taken, or the disk is full; nothing is left behind.
    """
    path = Path(path)
    _check_target(path, replace=replace)
    parts: dict[str, list[bytes | memoryview]] = {
        manifest.network.file: [network],
        manifest.bank.file: encode_tensors(bank),
        manifest.golden.file: encode_tensors(golden),
    }
    files = {name: _file_entry(content) for name, content in parts.items()}
    text = dataclasses.replace(manifest, files=files).to_json().encode()
    checked = Manifest.from_json(text)
    _check_tensors(bank, _bank_layout(checked), checked.bank.file)
    _check_tensors(golden, _golden_layout(checked), checked.golden.file)
    _check_values(bank, golden, checked, path)
    parts[_MANIFEST] = [text]
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    with writing(path):
        try:
            temporary.mkdir()
            for name, content in parts.items():
                write_synced(temporary / name, *content)
            sync_folder(temporary)
            _move_into_place(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return path


def _check_target(path: Path, *, replace: bool) -> None:
    if not os.path.lexists(path):
        return
    if not replace:
        raise OutputError(f"{path} exists already: remove it, choose another name, or use --force")
    if path.is_symlink() or not (path / _MANIFEST).is_file():
        raise OutputError(f"{path} exists and is not an artifact, so it is not replaced")


def _file_entry(content: list[bytes | memoryview]) -> FileEntry:
    digest = hashlib.sha256()
    for part in content:
        digest.update(part)
    return FileEntry(size=sum(len(part) for part in content), sha256=digest.hexdigest())


def _move_into_place(temporary: Path, path: Path) -> None:
    """Rename the new folder to its name, setting an old one aside for that moment."""
    aside = temporary.with_suffix(".old")
    try:
        if path.exists():
            path.rename(aside)
        temporary.rename(path)
        sync_folder(path.parent)
    finally:  # looks at what is there: Ctrl-C may come between any two of these lines
        if aside.exists():
            if path.exists():
                shutil.rmtree(aside, ignore_errors=True)
            else:
                aside.rename(path)
