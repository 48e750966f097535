"""Commands and signals: the exit code is kept and cleaning up is not disturbed."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time

import click
import pytest
from click.testing import CliRunner

from kad_sdk import cli_group
from kad_sdk.cli_group import Commands, Texts

TEXTS = Texts("tool", "all is well", ("--batch",), "delete something", "install it")


def send(number):
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # Python runs the handler between two instructions


@pytest.fixture
def run():
    """Run a body as the command of a tool."""

    def invoke(body, *words):
        @click.group(cls=Commands, texts=TEXTS)
        @click.option("--debug", is_flag=True)
        def tool(debug):
            pass

        tool.command("work")(body)
        return CliRunner().invoke(tool, [*words, "work"])

    return invoke


@pytest.mark.parametrize(
    ("number", "code", "text"),
    [
        (signal.SIGINT, 130, "tool: interrupted; all is well\n"),
        (signal.SIGTERM, 143, "tool: terminated; all is well\n"),
    ],
)
def test_a_signal_unwinds_the_command(run, number, code, text):
    cleaned = []

    def work():
        try:
            send(number)
        finally:
            cleaned.append(True)

    result = run(work)
    assert (result.exit_code, result.stderr) == (code, text)
    assert cleaned


def test_a_command_has_its_own_text_from_its_options_on():
    texts = dataclasses.replace(TEXTS, stopped_by={"work": "work is kept"})
    tool = Commands("tool", texts=texts)

    @tool.command()
    @click.option("--parsing", is_flag=True, callback=lambda *given: given[2] and send(2))
    def work(parsing):
        send(signal.SIGINT)

    @tool.command()
    def rest():
        send(signal.SIGINT)

    for words, text in (
        (["work"], "work is kept"),
        (["work", "--parsing"], "work is kept"),
        (["rest"], "all is well"),
    ):
        assert CliRunner().invoke(tool, words).stderr == f"tool: interrupted; {text}\n"


def test_what_a_signal_becomes_on_its_way_is_still_the_signal(run):
    def work():
        try:
            send(signal.SIGINT)
        except BaseException as error:  # as extensions do while they are imported
            raise ImportError("initialization failed") from error

    result = run(work, "--debug")
    assert (result.exit_code, result.stderr) == (130, "tool: interrupted; all is well\n")


def test_memory_that_ran_out_names_no_option_that_the_command_lacks(run):
    def work(**_given):
        raise MemoryError

    result = run(work)
    assert (result.exit_code, result.stderr) == (
        1,
        "tool: memory ran out: close other programs\n",
    )
    result = run(click.option("--batch")(work))
    assert result.stderr == "tool: memory ran out: lower --batch, or close other programs\n"


def test_a_package_that_is_not_installed_is_one_message(run):
    def work():
        import no_such_package  # noqa: F401

    result = run(work)
    assert result.exit_code == 1
    assert result.stderr == "tool: the package no_such_package is not installed: install it\n"


def test_an_impatient_user_does_not_disturb_the_cleaning_up(run):
    cleaned = []

    def work():
        try:
            send(signal.SIGINT)
        finally:
            send(signal.SIGINT)
            send(signal.SIGTERM)
            cleaned.append(True)

    assert run(work).exit_code == 130
    assert cleaned


def test_a_signal_that_was_lost_can_be_sent_again(run, monkeypatch):
    reached = []

    class Careless:
        def __del__(self):
            send(signal.SIGINT)

    def lose(unraisable):
        reached.append(unraisable.exc_type.__name__)

    monkeypatch.setattr(sys, "unraisablehook", lose)

    def work():
        Careless()
        reached.append("on")
        monkeypatch.setattr(cli_group, "_ONE_WISH_S", 0.0)
        send(signal.SIGINT)

    result = run(work)
    assert result.exit_code == 130
    assert reached == ["_Stopped", "on"]


def test_handlers_are_put_back(run):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run(lambda: send(signal.SIGTERM))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_signal_that_is_ignored_stays_ignored(run):
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run(lambda: send(signal.SIGINT)).exit_code == 0
    finally:
        signal.signal(signal.SIGINT, previous)


PROGRAM = """
import os, signal, click
from kad_sdk.cli_group import Commands, Texts

@click.group(cls=Commands, texts=Texts("tool", "all is well", (), "", ""))
def tool(): pass

def parse(_context, _parameter, value):
    if value: os.kill(os.getpid(), signal.SIGINT)

@tool.command()
@click.option("--parsing", is_flag=True, callback=parse)
def work(parsing):
    exec("import os, signal; os.kill(os.getpid(), signal.SIGINT)")

tool()
"""


@pytest.mark.parametrize("option", [[], ["--parsing"]])
def test_the_exit_code_reaches_the_shell(tmp_path, option):
    """A KeyboardInterrupt would end `python -m` in -2 after exec(), and in 1 amid the options."""
    (tmp_path / "tool.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-m", "tool", "work", *option],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (130, "tool: interrupted; all is well\n")
