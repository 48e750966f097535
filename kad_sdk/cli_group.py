"""What the commands share: an error is one message and an exit code, a signal unwinds the command.

Exit codes: 0 done; 1 an error; 2 wrong usage; 130 Ctrl-C; 143 SIGTERM.
"""

from __future__ import annotations

import errno
import math
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from kad_sdk.errors import KadError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType
    from typing import Self

__all__ = ["EXIT_ERROR", "Commands", "Texts"]

EXIT_ERROR, EXIT_INTERRUPTED = 1, 128 + signal.SIGINT
_ONE_WISH_S = 2.0


class _Stopped(BaseException):
    """A signal asked to stop.

    Not a KeyboardInterrupt: Python ends a process by the signal, not by its exit code, when one
    has passed through `exec` of a string, and click gives one the exit code 1.
    """


class _Signals:
    """Turns SIGINT and SIGTERM into an exception while a command runs.

    Signals that follow within two seconds are the same wish: a second exception would stop the
    removal of unfinished files. A later one is raised again, should the first have been lost in a
    finaliser. Signals that were ignored from the start, as in background jobs, stay ignored.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._at = -math.inf
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self.received, self._at = None, -math.inf
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._previous[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._at < _ONE_WISH_S:
            return
        self.received, self._at = number, now
        raise _Stopped


@dataclass(frozen=True)
class Texts:
    """A command's name, and what it tells in cases that are not errors of its own.

    `stopped` says what an interrupted command leaves; `stopped_by` that of commands, by name, of
    which another text is true. `memory` are options that take less memory where their values are
    lower; those that a command has are named to its user.
    """

    name: str
    stopped: str
    memory: tuple[str, ...]
    no_space: str
    no_package: str
    stopped_by: Mapping[str, str] = field(default_factory=dict)


class Commands(click.Group):
    """Turns errors into one message and an exit code; ``--debug`` shows the traceback instead."""

    def __init__(self, *args: Any, texts: Texts, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._texts = texts
        self._signals = _Signals()
        self._stopped = texts.stopped

    def main(self, *args: Any, **settings: Any) -> Any:
        """Read the command line and run the command."""
        self._stopped = self._texts.stopped
        with self._signals:
            try:
                return super().main(*args, **settings)
            except SystemExit:
                raise
            except BaseException:
                # Also what the signal may have become on its way, such as an ImportError.
                if self._signals.received is None:
                    raise
                how = "terminated" if self._signals.received == signal.SIGTERM else "interrupted"
                self._tell(f"{how}; {self._stopped}")
                sys.exit(128 + self._signals.received)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is asked for, and with it what its end by a signal leaves."""
        name, command, rest = super().resolve_command(ctx, args)
        self._stopped = self._texts.stopped_by.get(name or "", self._texts.stopped)
        return name, command, rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            self._tell(f"interrupted; {self._stopped}")
            ctx.exit(EXIT_INTERRUPTED)
        except (KadError, OSError, MemoryError, ModuleNotFoundError) as error:
            closed = isinstance(error, OSError) and error.errno == errno.EPIPE
            if closed or ctx.params.get("debug") or self._signals.received is not None:
                raise
            self._tell(self._explain(error, ctx))
            ctx.exit(EXIT_ERROR)

    def _explain(self, error: Exception, ctx: click.Context) -> str:
        if isinstance(error, MemoryError):
            return f"memory ran out: {self._less_memory(ctx)}"
        if isinstance(error, ModuleNotFoundError):
            return f"the package {error.name} is not installed: {self._texts.no_package}"
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return f"the disk is full: {self._texts.no_space}"
        return str(error)

    def _less_memory(self, ctx: click.Context) -> str:
        """Say how the command that was run can do with less memory."""
        command = self.commands.get(ctx.invoked_subcommand or "")
        known = {name for option in (command.params if command else ()) for name in option.opts}
        lower = " or ".join(name for name in self._texts.memory if name in known)
        return f"lower {lower}, or close other programs" if lower else "close other programs"

    def _tell(self, text: str) -> None:
        click.echo(f"{self._texts.name}: {text}", err=True)
