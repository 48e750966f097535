"""What a bank build keeps on disk while it runs, and what it needs to go on after a kill.

::

    FOLDER/
      job.json               what the job is of: another one cannot be mistaken for it
      points-00000.bin ...   projected features, one file for each shard, named when whole
      selected.safetensors   rows selected so far, and the distance of each when it was
      state-00000.bin        8 bytes a point of one worker: distance, centres compared with

Every file gets its name once it is complete and on disk. What is missing is made again: shards from
the boards, the state from the selected rows. Nothing else is needed, because the selection does not
depend on when it was interrupted.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from kad_export.coreset.driver import Selected
from kad_export.coreset.workers import PointsWorker
from kad_export.errors import JobError
from kad_sdk.errors import ArtifactCorruptError
from kad_sdk.storage import strict_json, write_atomic
from kad_sdk.tensors import read_tensors, write_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from kad_export.coreset.workers import Candidates, Points

__all__ = ["Job", "SavedWorker"]

FORMAT = 1
JSON_LIMIT = 64 << 20
_UNFINISHED = (".job.json.*.tmp", ".selected.*.tmp", ".state-*.tmp", "points-*.part")


class Job:
    """A folder that holds a build's files.

    Parameters
    ----------
    folder : Path
        An existing folder.
    lasting : bool
        It is to outlive the process: the selection's state is saved too.
    """

    def __init__(self, folder: Path, *, lasting: bool = False) -> None:
        self.folder, self.lasting = folder, lasting

    @classmethod
    def open(cls, folder: Path, subject: dict[str, Any]) -> Job:
        """Make a lasting job in a folder, or find the one that is there.

        Parameters
        ----------
        folder : Path
            Made where it is missing.
        subject : dict
            JSON values that tell all that the result depends on.

        Raises
        ------
        JobError
            The folder holds a job of something else, or no job.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for pattern in _UNFINISHED:
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)
        wanted = {"format": FORMAT, "subject": json.loads(json.dumps(subject))}
        file = folder / "job.json"
        if file.is_file():
            _compare(file, wanted)
        elif any(folder.iterdir()):
            raise JobError(
                f"{folder} is neither empty nor an unfinished job: name another folder with "
                "--scratch"
            )
        else:
            write_atomic(file, json.dumps(wanted, indent=1, sort_keys=True).encode())
        return cls(folder, lasting=True)

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
        """Remove the folder and all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)


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
