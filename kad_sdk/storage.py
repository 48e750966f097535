"""Strict JSON in, atomic files out: what every reader and writer of the SDK shares."""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import secrets
import shutil
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from kad_sdk.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "locked_folder",
    "made_folder",
    "map_file",
    "output_error",
    "strict_json",
    "sync_folder",
    "write_atomic",
    "write_synced",
    "write_together",
    "writing",
]

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def strict_json(data: bytes | bytearray | memoryview, *, limit: int) -> Any:
    """Parse UTF-8 JSON without the leniency of :mod:`json`.

    Parameters
    ----------
    data
        The text's bytes.
    limit
        Largest size that is parsed, in bytes.

    Raises
    ------
    ValueError
        Larger than `limit`, not UTF-8, not JSON, nested too deeply, a key given twice, or a
        number that is not finite.
    """
    if len(data) > limit:
        raise ValueError(f"expected at most {limit} bytes of JSON, got {len(data)}")
    try:
        text = bytes(data).decode("utf-8")
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is given twice")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def map_file(path: Path) -> mmap.mmap | bytes:
    """Map a file read-only; an empty file gives ``b""``. Symbolic links are not followed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_size == 0:
            return b""
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)


def output_error(error: OSError, path: Path) -> OutputError:
    """Say what could not be written, why, and what to do."""
    if error.errno in _NO_SPACE:
        free = "unknown"
        with suppress(OSError):
            free = f"{shutil.disk_usage(path.parent).free / 2**20:.1f} MiB"
        return OutputError(
            f"cannot write {path}: {os.strerror(error.errno or 0)} (free there: {free}). Nothing "
            "was left behind; free some space or quota, or choose a folder on another disk."
        )
    reason = error.strerror or str(error)
    return OutputError(
        f"cannot write {path}: {reason}. Check that the folder exists and may be written to."
    )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's errors inside the block into :class:`OutputError`."""
    try:
        yield
    except OSError as error:
        raise output_error(error, path) from error


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable: a rename survives a power cut only after this."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked_folder(folder: Path, *, busy: str | None = None) -> Iterator[int]:
    """Open a folder, and keep others who do so here out of it during the block.

    Where another one is in it, waits until it has left, or raises what `busy` says.

    The system frees it when the process ends, however it does; programs that this one starts do
    not hold it.

    Raises
    ------
    OutputError
        It cannot be opened, or `busy`.
    """
    with writing(folder):
        descriptor = _lock(folder, busy)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(folder: Path, busy: str | None) -> int:
    how = fcntl.LOCK_EX if busy is None else fcntl.LOCK_EX | fcntl.LOCK_NB
    while True:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, how)
            if os.path.samestat(os.fstat(descriptor), folder.stat()):
                return descriptor
        except BlockingIOError as error:
            os.close(descriptor)
            raise OutputError(busy) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # another one has its name since: it was replaced while we waited


def write_synced(path: Path, *parts: bytes | bytearray | memoryview) -> None:
    """Write a new file and bring it to disk. The file must not exist yet."""
    with path.open("xb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def write_atomic(path: Path, *parts: bytes | bytearray | memoryview) -> None:
    """Write a file so that at every moment either the old or the whole new one is there.

    Raises
    ------
    OutputError
        The disk is full or the place cannot be written; no temporary file is left.
    """
    write_together({path: parts})


def write_together(files: Mapping[Path, Sequence[bytes | bytearray | memoryview]]) -> None:
    """Write files that belong together: all of them, or none when one cannot be written.

    They get their names once all are on disk, in the order given; a system that refuses a name
    even then leaves those before it.

    Raises
    ------
    OutputError
        As :func:`write_atomic`.
    """
    ending = f".{secrets.token_hex(6)}.tmp"
    temporaries = {path: path.with_name(f".{path.name}{ending}") for path in files}
    _refuse_folders(files)
    try:
        for path, parts in files.items():
            with writing(path):
                write_synced(temporaries[path], *parts)
        for path, temporary in temporaries.items():
            with writing(path):
                temporary.replace(path)
    finally:
        for temporary in temporaries.values():
            with suppress(OSError):  # a read-only system refuses it, and what is wrong is told
                temporary.unlink(missing_ok=True)
    for folder in {path.parent for path in files}:
        with writing(folder):
            sync_folder(folder)


def _refuse_folders(paths: Iterable[Path]) -> None:
    """Refuse what no file can be put in place of, while nothing is written yet."""
    for path in paths:
        with writing(path):
            occupied = path.is_dir() and not path.is_symlink()
        if occupied:
            raise OutputError(
                f"cannot write {path}: a folder of that name is there; remove it, or write to "
                "another place"
            )


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; when the block fails, those that are empty are gone again.

    Raises
    ------
    OutputError
        It cannot be made, or no file can be made in it.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):  # permissions alone do not tell
                pass
        yield
    except BaseException:
        with suppress(OSError):  # the first that is not empty ends it
            for path in missing:
                path.rmdir()
        raise
