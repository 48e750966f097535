"""The folder of an artifact: exactly the listed files, each of the listed hash; whole or not there.

Nothing here knows what the files hold.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

from kad_sdk.errors import ArtifactCorruptError, ArtifactError, OutputError
from kad_sdk.inspection import INSPECTION, INSPECTION_LIMIT_BYTES, Inspection, manifest_digest
from kad_sdk.manifest import MANIFEST_LIMIT_BYTES, FileEntry
from kad_sdk.storage import locked_folder, map_file, sync_folder, write_synced, writing

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = [
    "MANIFEST",
    "check_listing",
    "check_target",
    "file_entry",
    "read_checked",
    "read_inspection",
    "read_manifest",
    "write_folder",
    "write_inspection",
]

MANIFEST = "manifest.json"


def read_manifest(path: Path) -> bytes:
    """Read the manifest of the artifact `path`, unparsed."""
    file = path / MANIFEST
    with _reading(path):
        is_folder = path.is_dir()
    if not is_folder:
        raise ArtifactError(
            f"{path}: expected an artifact, a folder NAME.kad; there is none: "
            "give the path of one that kad-export made"
        )
    with _reading(file):
        try:
            status = file.lstat()
        except FileNotFoundError:
            raise ArtifactCorruptError(
                f"{file}: is missing; a folder without it is not an artifact"
            ) from None
    _check_regular(file, status)
    return _read_small(file, status.st_size, MANIFEST_LIMIT_BYTES)


def read_inspection(path: Path, *, manifest: str) -> Inspection:
    """Read what was set on site for the artifact `path`, whose manifest has that SHA-256."""
    file = path / INSPECTION
    with _reading(file):
        if not os.path.lexists(file):
            return Inspection(manifest)
        status = file.lstat()
    _check_regular(file, status)
    text = _read_small(file, status.st_size, INSPECTION_LIMIT_BYTES)
    return Inspection.from_json(text, manifest=manifest, name=str(file))


def _read_small(file: Path, size: int, limit: int) -> bytes:
    if size > limit:
        raise ArtifactCorruptError(f"{file}: expected at most {limit} bytes, got {size}")
    return bytes(_map(file))


def _check_regular(file: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ArtifactCorruptError(
            f"{file}: expected a regular file; links and folders are not allowed in an artifact"
        )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn the system's errors inside the block into errors of the artifact.

    A file that is missing or has become a link is the artifact's fault; permission, disk and limits
    are not.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ELOOP, errno.ENXIO}:
            raise ArtifactCorruptError(f"{path}: cannot be opened: {error.strerror}") from error
        denied = error.errno in {errno.EACCES, errno.EPERM}
        advice = (
            "allow this user to read it"
            if denied
            else "check the disk, and how many files are open"
        )
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}; {advice}") from error


def _map(file: Path) -> mmap.mmap | bytes:
    with _reading(file):
        return map_file(file)


def check_listing(path: Path, files: Mapping[str, FileEntry]) -> None:
    """Check that the folder holds the listed files, at the listed sizes, and no others.

    But for what was set on site, which no manifest lists.
    """
    listed = {MANIFEST, INSPECTION, *files}
    with _reading(path), os.scandir(path) as entries:
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


def read_checked(file: Path, entry: FileEntry) -> mmap.mmap | bytes:
    """Map a file and hash the mapping, so that what was checked is what is used."""
    data = _map(file)
    digest = hashlib.sha256(data).hexdigest()
    if len(data) != entry.size or digest != entry.sha256:
        raise ArtifactCorruptError(
            f"{file}: expected SHA-256 {entry.sha256}, got {digest}: the file was changed; copy "
            "the artifact again"
        )
    return data


def check_target(path: Path, *, replace: bool) -> None:
    """Refuse to write over what is there, but for an artifact that may be replaced."""
    with writing(path):
        is_link, is_there = path.is_symlink(), path.exists()
    if is_link:
        raise OutputError(
            f"{path} is a link, and links are not replaced: give the path that it leads to, or "
            "remove it"
        )
    if not is_there:
        return
    if not replace:
        raise OutputError(f"{path} exists already: remove it, or replace it with --force")
    if not (path / MANIFEST).is_file():
        raise OutputError(f"{path} exists and is not an artifact, so it is not replaced: remove it")


def file_entry(content: Sequence[bytes | memoryview]) -> FileEntry:
    """Give size and SHA-256 of a file's content."""
    digest = hashlib.sha256()
    for part in content:
        digest.update(part)
    return FileEntry(size=sum(len(part) for part in content), sha256=digest.hexdigest())


def write_folder(
    path: Path,
    parts: Mapping[str, Sequence[bytes | memoryview]],
    *,
    before: Inspection | None = None,
) -> None:
    """Write files (name to content) as the folder `path`, whole or not at all.

    `before` is what was set on the artifact that is replaced; None where it does not matter.

    Raises
    ------
    OutputError
        The disk is full or the place cannot be written, or something else than `before` was set
        meanwhile; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    with writing(path):
        try:
            temporary.mkdir()
            for name, content in parts.items():
                write_synced(temporary / name, *content)
            sync_folder(temporary)
            _move_into_place(temporary, path, before)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _move_into_place(temporary: Path, path: Path, before: Inspection | None) -> None:
    """Rename the new folder to its name, setting an old one aside for that moment.

    The old one is locked until it is gone, so that nothing is set on it that would go with it.
    """
    aside = temporary.with_suffix(".old")
    lock: AbstractContextManager[int | None] = (
        locked_folder(path) if path.exists() else nullcontext()
    )
    with lock as folder:
        if folder is not None and before is not None:
            _check_unchanged(folder, path, before)
        try:
            if folder is not None:
                path.rename(aside)
            temporary.rename(path)
            sync_folder(path.parent)
        finally:  # looks at what is there: Ctrl-C may come between any two of these lines
            if aside.exists():
                if path.exists():
                    shutil.rmtree(aside, ignore_errors=True)
                else:
                    aside.rename(path)


def write_inspection(path: Path, inspection: Inspection, *, before: Inspection) -> None:
    """Set ``inspection.json``: at every moment, the old one or the whole new one is there.

    One process at a time. The new file is written beside the artifact, since a reader refuses
    unknown files in it, and is then renamed into the very folder that was looked at: so the folder
    above has to be writable, and on the same file system.

    Parameters
    ----------
    path
        The artifact.
    inspection, before
        What is to hold, and what it follows on.

    Raises
    ------
    OutputError
        The artifact is another one by now, or what was set has been changed meanwhile; no reader
        would take what is to hold; or the disk is full, or the place cannot be written.
    """
    path, content = path.resolve(), inspection.to_file()
    if inspection.manifest != before.manifest:
        raise OutputError(f"{path}: what is to be set is of another artifact: set it there")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    with writing(path / INSPECTION), locked_folder(path) as folder:
        _check_unchanged(folder, path, before)
        try:
            _write_beside(path, temporary, content)
            _rename_into(path, temporary, folder)
            os.fsync(folder)
        finally:
            with suppress(OSError):  # there is none, or the folder cannot be written to at all
                temporary.unlink()


def _write_beside(path: Path, temporary: Path, content: bytes) -> None:
    try:
        write_synced(temporary, content)
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise
        raise _not_by_way_of_above(
            path,
            f"{path.parent} cannot be written to: {error.strerror}. Allow this user to write "
            "there; in a container, mount that folder writable",
        ) from error


def _rename_into(path: Path, temporary: Path, folder: int) -> None:
    try:
        os.rename(temporary, INSPECTION, dst_dir_fd=folder)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise _not_by_way_of_above(
            path,
            f"{path} is mounted there by itself. Mount the folder that holds the artifact, not the "
            "artifact alone",
        ) from error


def _not_by_way_of_above(path: Path, why: str) -> OutputError:
    return OutputError(
        f"cannot write {path / INSPECTION}: it is made in the folder above first, and {why}"
    )


def _check_unchanged(folder: int, path: Path, before: Inspection) -> None:
    """Refuse an open artifact that is another than `before` is of, or where it is not in force."""
    digest, now = manifest_digest(_read_in(folder, MANIFEST) or b""), Inspection(before.manifest)
    if digest != before.manifest:
        raise OutputError(f"{path}: was replaced meanwhile: run the command again")
    text = _read_in(folder, INSPECTION)
    if text is not None:
        now = Inspection.from_json(text, manifest=digest, name=str(path / INSPECTION))
    if now != before:
        raise OutputError(f"{path / INSPECTION}: was changed meanwhile: run the command again")


def _read_in(folder: int, name: str) -> bytes | None:
    try:
        file = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        return None
    with os.fdopen(file, "rb") as opened:
        return opened.read()
