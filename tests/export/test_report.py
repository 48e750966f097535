"""Sizes, times and progress as a user reads them."""

from __future__ import annotations

import io
import mmap

import pytest
from kad_export import report
from kad_export.report import Console, Progress, Silent, format_bytes, format_seconds, parse_bytes

from kad_sdk.errors import InvalidArgumentError


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves: ``clock[0]`` is the time in seconds."""
    now = [0.0]
    monkeypatch.setattr(report.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 << 30), ("512 mb", 512 << 20), ("1.5G", 3 << 29), ("100", 100), ("2GiB", 2 << 30)],
)
def test_parse_bytes(text, size):
    assert parse_bytes(text) == size


def test_resident_memory_is_what_the_process_holds_now():
    before = report.resident_memory_bytes()
    with mmap.mmap(-1, 64 << 20) as held:  # an allocator may reuse, and keep, what it once had
        held.write(b"\1" * len(held))
        with_it = report.resident_memory_bytes()
    assert with_it - before > 60 << 20
    assert with_it - report.resident_memory_bytes() > 60 << 20


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "nan", "inf", "4XB", "1e400GB"])
def test_sizes_that_are_none(text):
    with pytest.raises(InvalidArgumentError, match="a size such as 4GB or 512MB is expected"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KB"), (5 << 40, "5.0 TB")]
)
def test_format_bytes(size, text):
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.97, "1 min 00 s"),
        (245, "4 min 05 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_format_seconds(seconds, text):
    assert format_seconds(seconds) == text


def test_bar_tells_count_rate_and_time_left():
    bar = Progress(None, "features", 1_200, "tiles")
    bar.advance(300)
    text = bar.text(10.0)
    assert text.startswith("features               [######                  ]")
    assert text.endswith("300/1,200 tiles  30.0 tiles/s  30.0 s left")


def test_terminal_redraws_one_line_and_clears_it(clock):
    stream = _Terminal()
    console = Console(stream)
    with console.progress("images", 10, "boards") as bar:
        bar.advance()
        assert stream.getvalue() == ""  # quick work shows no bar
        for clock[0] in (1.0, 1.05, 2.0):
            bar.advance()
    drawn = stream.getvalue()
    assert drawn.count("\r\x1b[Kimages") == 2  # the one at 1.05 s came too soon
    assert drawn.endswith("\r\x1b[K")
    assert "\n" not in drawn


def test_other_streams_get_a_line_every_few_seconds(clock):
    stream = io.StringIO()
    with Console(stream).progress("images", 10, "boards") as bar:
        for clock[0] in (1.0, 4.0, 6.0, 7.0, 12.0):
            bar.advance()
    lines = stream.getvalue().splitlines()
    assert [line.split("] ")[1].split()[0] for line in lines] == ["3/10", "5/10"]


def test_quiet_tells_warnings_and_the_table_alone(clock, capsys):
    stream = io.StringIO()
    console = Console(stream, quiet=True)
    with console.progress("images", 10, "boards") as bar:
        clock[0] = 10.0
        bar.advance()
    console.line("by the way")
    console.warn("look out")
    console.table("done", [("a", "1"), ("long", "2")])
    assert stream.getvalue() == "kad-export: warning: look out\n"
    assert capsys.readouterr().out == "done\n  a     1\n  long  2\n"


def test_steps_add_up_in_order(clock):
    console = Silent()
    for name, seconds in (("first", 2.0), ("second", 3.0), ("first", 4.0)):
        with console.step(name):
            clock[0] += seconds
    assert list(console.seconds.items()) == [("first", 6.0), ("second", 3.0)]


def test_silent_warns_as_python_does():
    with pytest.warns(UserWarning, match="look out"):
        Silent().warn("look out")
