"""The folder of a grid's results: what is done stays, what was begun is begun anew.

::

    OUT/
      experiments.json    all rows; beside it experiments.csv and experiments.md
      runs/NAME/
        artifact.kad      what was exported
        training/         CutPaste: the training's folder
        evaluation/       what `kad evaluate` wrote
        log.txt           what the commands said
        result.json       the run's figures, written last: a run that has it is done
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kad_export.errors import ExperimentError
from kad_sdk.errors import OutputError
from kad_sdk.storage import strict_json, write_atomic, write_together, writing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from kad_export.experiments.plan import Run

__all__ = ["Store"]

FORMAT, FORMAT_VERSION = "kad-experiment", 1
_TABLES, _LOCK = "experiments.json", ".lock"
_LIMIT_BYTES = 16 << 20


class Store:
    """A grid's folder, which one process at a time works in.

    Attributes
    ----------
    folder : Path
    lock : int
        File descriptor of the lock. A command that is given it holds the lock too, so that none
        that outlived its grid is disturbed.
    """

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder, self.lock = folder, lock

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Iterator[Store]:
        """Make the folder or find it, and keep others out of it during the block.

        Raises
        ------
        OutputError
            It holds something else, cannot be made, or another process works in it.
        """
        there = {path.name for path in folder.iterdir()} - {_LOCK} if folder.is_dir() else set()
        if there and _TABLES not in there:
            raise OutputError(
                f"{folder} is neither empty nor a folder of experiments: name another --out"
            )
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield cls(folder, lock)
        except BlockingIOError as error:
            raise OutputError(
                f"another process works in {folder}, or a command of one that was killed still "
                "does: wait for it, or name another --out"
            ) from error
        finally:
            os.close(lock)

    def run_folder(self, run: Run) -> Path:
        """Give the folder of a run."""
        return self.folder / "runs" / run.name

    def result(self, run: Run) -> dict[str, Any] | None:
        """Give the result of a run that is done; None where it is not.

        Raises
        ------
        ExperimentError
            It was done with other options or on other images, or its file is damaged.
        """
        path = self.run_folder(run) / "result.json"
        if not path.exists():
            return None
        try:
            before, result = _read(path.read_bytes())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ExperimentError(
                f"{path} cannot be read ({error}): remove {path.parent}, and the run is done anew"
            ) from error
        _compare(before, run.subject(), path.parent)
        return result

    def begin(self, run: Run) -> Path:
        """Make a run's folder anew, without what an unfinished attempt left in it."""
        folder = self.run_folder(run)
        self.discard(run)
        with writing(folder):
            folder.mkdir(parents=True)
        return folder

    def discard(self, run: Run) -> None:
        """Remove a run's folder."""
        shutil.rmtree(self.run_folder(run), ignore_errors=True)

    def finish(self, run: Run, result: Mapping[str, Any]) -> None:
        """Keep the result: the run is done."""
        document = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "subject": run.subject(),
            "result": result,
        }
        write_atomic(self.run_folder(run) / "result.json", _json(document))

    def write_tables(self, files: Mapping[str, str]) -> None:
        """Write the tables, all or none; by suffix: ``json``, ``csv``, ``md``."""
        write_together({
            self.folder / f"experiments.{suffix}": [text.encode()] for suffix, text in files.items()
        })  # fmt: skip


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()


def _read(data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    document = strict_json(data, limit=_LIMIT_BYTES)
    if (document["format"], document["format_version"]) != (FORMAT, FORMAT_VERSION):
        raise ValueError(f"not a {FORMAT} of version {FORMAT_VERSION}")
    return dict(document["subject"]), dict(document["result"])


def _compare(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    differ = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    if "images" in differ:
        raise ExperimentError(
            f"{folder} was done on other images: boards or annotations have changed since; name "
            "another --out, or remove the folder to do the run anew"
        )
    if differ:
        key = differ[0]
        raise ExperimentError(
            f"{folder} was done with {key} = {before.get(key)}, and {now.get(key)} is asked for: "
            "name another --out, or remove the folder to do the run anew"
        )
