"""A command in a process of its own: memory and time are that command's alone."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kad_export.errors import ExperimentError
from kad_sdk.storage import writing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Execute = Callable[..., "Used"]

__all__ = ["Used", "run_command"]

_SECONDS_TO_END = 30.0  # of a command that was asked to end, to remove its unfinished files
_MESSAGE = re.compile(r"^(?:kad|kad-export): (?!warning: )(.*)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Used:
    """What a command took: wall time, time of all processors, largest resident memory."""

    seconds: float
    processor_seconds: float
    peak_bytes: int


def run_command(words: Sequence[str], log: Path, *, keep_open: Sequence[int] = ()) -> Used:
    """Run ``kad`` or ``kad-export`` in a fresh process, and wait for it.

    Whatever ends the waiting, such as Ctrl-C, ends the process too.

    Parameters
    ----------
    words
        The command, see :mod:`kad_export.experiments.child`.
    log
        File that its output is appended to.
    keep_open
        File descriptors that the process holds as long as it lives.

    Raises
    ------
    ExperimentError
        It failed; with its own message.
    OutputError
        The log cannot be written.
    """
    report = log.with_suffix(".used")
    child = [sys.executable, "-m", "kad_export.experiments.child", str(report), *words]
    with writing(log), log.open("ab") as output:
        begun = output.tell()
        process = subprocess.Popen(  # noqa: S603 - this interpreter, a module of this package
            child, stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=keep_open
        )
    try:
        code = process.wait()
    finally:
        _end(process)
    if code != 0:
        raise ExperimentError(_why(code, log, begun))
    used = Used(**json.loads(report.read_bytes()))
    report.unlink()
    return used


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_END)
        process.kill()
        process.wait()


def _why(code: int, log: Path, begun: int) -> str:
    """Give the command's own last message, or what is known without one."""
    with log.open("rb") as file:
        file.seek(begun)
        text = file.read().decode(errors="replace").strip()
    if code < 0:
        name = signal.Signals(-code).name
        hint = ": memory may have run out, a smaller --set batch=N takes less"
        return f"ended by {name}{hint if name == 'SIGKILL' else ''}"
    found = _MESSAGE.findall(text)
    return found[-1].strip() if found else f"exit code {code}; see {log}"
