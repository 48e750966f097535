"""What a bank build keeps on disk while it runs, and what it needs to go on after a kill.

::

    FOLDER/
      job.lock               locked by the export that is at work here; a kill frees it
      job.json               what the job is of: another one cannot be mistaken for it
      points-00000.bin ...   projected features, one file for each shard, named when whole
      selected.safetensors   rows selected so far, and the distance of each when it was
      state-00000.bin        8 bytes a point of one worker: distance, centres compared with

Every file gets its name once it is complete and on disk. What is missing is made again: shards from
the boards, the state from the selected rows. Nothing else is needed, because the selection does not
depend on when it was interrupted.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from kad_export.budget import no_scratch_folder
from kad_export.coreset.driver import Selected
from kad_export.coreset.workers import PointsWorker
from kad_export.errors import JobError
from kad_sdk.errors import ArtifactCorruptError
from kad_sdk.storage import strict_json, write_atomic
from kad_sdk.tensors import read_tensors, write_tensors

if TYPE_CHECKING:
    from io import FileIO
    from pathlib import Path

    from kad_export.coreset.workers import Candidates, Points

__all__ = ["Job", "SavedWorker"]

FORMAT = 1
JSON_LIMIT = 64 << 20
LOCK = "job.lock"
_UNFINISHED = (".job.json.*.tmp", ".selected.*.tmp", ".state-*.tmp", "points-[0-9]*.part")
# job.json goes after the rest: until then there is a job that can be gone on with.
_MADE = ("points-[0-9]*.bin", "state-[0-9]*.bin", "selected.safetensors", "job.json", LOCK)


class Job:
    """A folder that holds a build's files.

    Parameters
    ----------
    folder : Path
        An existing folder.
    lasting : bool
        It is to outlive the process: the selection's state is saved too.
    lock : FileIO, optional
        An open file that keeps other exports out of the folder until :meth:`close`.
    """

    def __init__(self, folder: Path, *, lasting: bool = False, lock: FileIO | None = None) -> None:
        self.folder, self.lasting, self._lock = folder, lasting, lock

    def __enter__(self) -> Job:
        """Nothing is opened here; leaving the block closes the job."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the lock behind: workers in other processes are part of the export that has it."""
        return {**self.__dict__, "_lock": None}

    @classmethod
    def open(cls, folder: Path, subject: dict[str, Any]) -> Job:
        """Make a lasting job in a folder, or find the one that is there; nobody else may then.

        Parameters
        ----------
        folder : Path
            Made where it is missing.
        subject : dict
            JSON values that tell all that the result depends on.

        Raises
        ------
        JobError
            The folder holds a job of something else, or no job, or another export is at work in it.
        ExportError
            There is no such folder, and none can be made.
        """
        wanted = {"format": FORMAT, "subject": json.loads(json.dumps(subject))}
        file, lock = folder / "job.json", _hold(folder)
        try:
            for pattern in _UNFINISHED:
                for path in folder.glob(pattern):
                    path.unlink(missing_ok=True)
            if file.is_file():
                _compare(file, wanted)
            else:
                write_atomic(file, json.dumps(wanted, indent=1, sort_keys=True).encode())
        except BaseException:
            lock.close()
            raise
        return cls(folder, lasting=True, lock=lock)

    def close(self) -> None:
        """Let others into the folder; what is in it stays."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def has(self, name: str, n_bytes: int) -> bool:
        """Tell whether a file of that size is there."""
        path = self.folder / name
        return path.is_file() and path.stat().st_size == n_bytes

    def load_selected(self) -> Selected:
        """Rows selected so far; none when there is no such file."""
        path = self.folder / "selected.safetensors"
        if not path.is_file():
            return Selected()
        try:
            tensors = read_tensors(path)
            return Selected(tensors["rows"].tolist(), tensors["dist"].tolist())
        except (ArtifactCorruptError, KeyError) as error:
            raise JobError(f"{path} is damaged ({error}): remove it and go on") from error

    def save_selected(self, selected: Selected) -> None:
        """Keep the rows selected so far, when the job is a lasting one."""
        if self.lasting:
            rows = np.array(selected.rows, np.int64)
            dist = np.array(selected.dist, np.float32)
            write_tensors(self.folder / "selected.safetensors", {"rows": rows, "dist": dist})

    def remove(self) -> None:
        """Remove what jobs make, and the folder when nothing else is in it."""
        for pattern in (*_UNFINISHED, *_MADE):
            for path in self.folder.glob(pattern):
                with suppress(OSError):
                    path.unlink()
        with suppress(OSError):
            self.folder.rmdir()


class SavedWorker(PointsWorker):
    """A worker that keeps its state in a job's folder after every flush.

    Parameters
    ----------
    points : Points
        The points.
    path : Path or None
        File of its state; None: nothing is kept.
    settings
        Of :class:`PointsWorker`.
    """

    def __init__(self, points: Points, path: Path | None, **settings: Any) -> None:
        super().__init__(points, **settings)
        self._path = path
        if path is not None and path.is_file() and path.stat().st_size == 8 * self.shape[0]:
            with path.open("rb") as file:
                self.dist[:] = np.fromfile(file, np.float32, self.shape[0])
                self.seen[:] = np.fromfile(file, np.int32, self.shape[0])

    def flush(self, rows: np.ndarray, centres: np.ndarray, level: float) -> Candidates:
        """See :class:`kad_export.coreset.workers.Worker`."""
        if len(self._centres) == 0 and self.seen.max() > len(rows):
            # The file is of rows that are no longer selected: they were damaged, and removed.
            self.dist.fill(np.inf)
            self.seen.fill(0)
        found = super().flush(rows, centres, level)
        if self._path is not None:
            write_atomic(self._path, self.dist.data.cast("B"), self.seen.data.cast("B"))
        return found


def _hold(folder: Path) -> FileIO:
    """Make the folder if need be, and lock it; a folder of other things is left as it is."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "job.json").is_file() and _has_others(folder):
            raise JobError(
                f"{folder} is neither empty nor an unfinished job: name another folder with "
                "--scratch"
            )
        return _locked(folder / LOCK)
    except OSError as error:
        raise no_scratch_folder(folder, error) from error


def _has_others(folder: Path) -> bool:
    """Whether there is more in it than what a job has before its job.json."""
    early = (LOCK, *_UNFINISHED)
    return not all(any(path.match(pattern) for pattern in early) for path in folder.iterdir())


def _locked(path: Path) -> FileIO:
    """Open a file and lock it; the system unlocks it when the process ends, however it does.

    The lock is of the open file: a second one of the same process is kept out too, and no program
    that this process starts inherits it.
    """
    while True:
        file = path.open("ab", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        except BlockingIOError as error:
            file.close()
            raise JobError(
                f"another export is at work in {path.parent}: wait until it has ended, or name "
                "another folder with --scratch"
            ) from error
        except BaseException:
            file.close()
            raise
        file.close()  # it was removed by a job that has just ended: its name is free, or another's


def _compare(file: Path, wanted: dict[str, Any]) -> None:
    try:
        found = strict_json(file.read_bytes(), limit=JSON_LIMIT)
        before = found["subject"] if found["format"] == FORMAT else {}
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise JobError(f"{file} cannot be read ({error}): remove {file.parent}") from error
    now = wanted["subject"]
    other = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
    if other:
        raise JobError(
            f"{file.parent} holds an unfinished job with other {', '.join(other)}: give the "
            "options and boards that it was started with, or remove it"
        )
