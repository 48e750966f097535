"""What an export tells its user: progress bars with rates, warnings, time by step, memory.

A :class:`Console` writes to one text stream: a bar that redraws itself on a terminal, a line every
few seconds elsewhere. :class:`Silent` is for use as a library: it writes nothing, keeps the times,
and passes warnings on to :mod:`warnings`.
"""

from __future__ import annotations

import resource
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from kad_sdk.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "Console",
    "Progress",
    "Silent",
    "format_bytes",
    "format_seconds",
    "parse_bytes",
    "peak_memory_bytes",
    "resident_memory_bytes",
]

BAR_WIDTH = 24
SECONDS_TO_SHOW = 0.5  # shorter work shows no bar
SECONDS_PER_DRAW = 0.1
SECONDS_PER_LINE = 5.0  # where the stream is not a terminal
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_bytes(text: str) -> int:
    """Bytes of a size such as ``"8GB"``, ``"512 MB"`` or ``"1.5G"`` (powers of 1024)."""
    number = text.strip().upper().removesuffix("B").removesuffix("I").strip()
    unit = number[-1:] if number[-1:] in UNITS else ""
    try:
        size = int(float(number.removesuffix(unit)) * UNITS[unit])
    except (ValueError, OverflowError):
        size = 0
    if size <= 0:
        raise InvalidArgumentError(f"a size such as 4GB or 512MB is expected, got {text!r}")
    return size


def format_bytes(n_bytes: float) -> str:
    """``n_bytes`` with the unit that suits it."""
    for unit, size in reversed(UNITS.items()):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}B" if unit else f"{n_bytes:.0f} B"
    return "0 B"


def format_seconds(seconds: float) -> str:
    """``seconds`` as 12.3 s, 4 min 05 s or 2 h 10 min."""
    if seconds < 59.95:  # what rounds to 60.0 is a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def peak_memory_bytes() -> int:
    """Largest resident memory this process has had.

    On Linux not getrusage's, which a process inherits from the one that started it.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError):
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_memory_bytes() -> int:
    """Resident memory of this process now; where the system does not tell, the largest so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_memory_bytes()
    return pages * resource.getpagesize()


class Progress:
    """One running count; made by :meth:`Console.progress`."""

    def __init__(self, console: Console | None, label: str, total: int, unit: str) -> None:
        self._console, self._label, self._total, self._unit = console, label, total, unit
        self._done, self._note = 0, ""
        self._start = self._drawn = time.monotonic()

    def advance(self, n: int = 1) -> None:
        """Count ``n`` more."""
        self._done += n
        if self._console is None:
            return
        now = time.monotonic()
        every = SECONDS_PER_DRAW if self._console.live else SECONDS_PER_LINE
        if now - self._start > SECONDS_TO_SHOW and now - self._drawn >= every:
            self._drawn = now
            self._console.draw(self.text(now - self._start))

    def reach(self, n: int) -> None:
        """Count up to ``n`` in all."""
        self.advance(n - self._done)

    def note(self, text: str) -> None:
        """Show `text` behind the count from the next drawing on."""
        self._note = f"  {text}"

    def text(self, seconds: float) -> str:
        """Draw the bar as it stands after ``seconds``."""
        share = min(1.0, self._done / max(1, self._total))
        rate = self._done / max(seconds, 1e-9)
        left = (self._total - self._done) / rate if rate else 0.0
        bar = "#" * round(share * BAR_WIDTH)
        return (
            f"{self._label:<22} [{bar:<{BAR_WIDTH}}] {self._done:,}/{self._total:,} {self._unit}"
            f"  {rate:,.1f} {self._unit}/s  {format_seconds(max(0.0, left))} left"
            f"{self._note}"
        )


class Silent:
    """Keeps the time of each step and writes nothing."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}  # by step, in the order of their start

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step; steps of the same name add up."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start

    @contextmanager
    def progress(self, label: str, total: int, unit: str) -> Iterator[Progress]:
        """Count work that can take more than two seconds."""
        yield Progress(None, label, total, unit)

    def line(self, text: str) -> None:
        """Tell the user something that is worth a line."""

    def warn(self, text: str) -> None:
        """Tell the user something that may spoil the result."""
        warnings.warn(text, UserWarning, stacklevel=2)

    def table(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        """Show the final summary."""


class Console(Silent):
    """Writes to a text stream, by default standard error; the final table to standard output.

    Parameters
    ----------
    stream : TextIO, optional
        Where lines and bars go.
    quiet : bool
        Only warnings and the final table.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        super().__init__()
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self.live = self._stream.isatty()
        self._bar = False

    @contextmanager
    def progress(self, label: str, total: int, unit: str) -> Iterator[Progress]:
        """Count work that can take more than two seconds."""
        try:
            yield Progress(None if self._quiet else self, label, total, unit)
        finally:
            self._clear()

    def draw(self, text: str) -> None:
        """Show a bar: over the previous one on a terminal, on a line of its own elsewhere."""
        self._write(f"\r\x1b[K{text}" if self.live else f"{text}\n")
        self._bar = self.live

    def line(self, text: str) -> None:
        """Tell the user something that is worth a line."""
        if not self._quiet:
            self._clear()
            self._write(f"{text}\n")

    def warn(self, text: str) -> None:
        """Tell the user something that may spoil the result."""
        self._clear()
        self._write(f"kad-export: warning: {text}\n")

    def table(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        """Show the final summary, on standard output."""
        self._clear()
        width = max(len(name) for name, _ in rows)
        lines = [title, *(f"  {name:<{width}}  {value}" for name, value in rows)]
        sys.stdout.write("\n".join(lines) + "\n")

    def _clear(self) -> None:
        if self._bar:
            self._write("\r\x1b[K")
            self._bar = False

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
