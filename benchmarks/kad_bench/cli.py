"""The command ``kad-bench``: measure this machine, and the software on it."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from kad_bench.suites import GROUPS, LEVELS, SUITES
from kad_sdk import __version__
from kad_sdk.errors import KadError

__all__ = ["main"]


class _OutFile(click.Path):
    """A file to write, in a folder that is there: said before hours of measuring, not after."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what could not be written."""
        path = super().convert(value, param, ctx)
        if not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
            self.fail(
                f"{path}: expected a folder that can be written to: make it first", param, ctx
            )
        return path


_FILE = _OutFile(dir_okay=False, writable=True, path_type=Path)
_RESULTS = click.Path(exists=True, dir_okay=False, path_type=Path)


class _Commands(click.Group):
    """Turns errors into one message and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (KadError, OSError) as error:
            click.echo(f"kad-bench: {error}", err=True)
            sys.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kad-bench")
def main() -> None:
    """Measure."""


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def env(as_json: bool) -> None:
    """Say what this machine is: processor, memory, software, GPU, commit."""
    from kad_bench.environment import collect, format_table

    found = collect()
    click.echo(json.dumps(found, indent=2) if as_json else format_table(found))


@main.command()
@click.argument("suites", nargs=-1, type=click.Choice([*SUITES, *GROUPS, "smoke"]))
@click.option("--profile", type=click.Choice(LEVELS), help="[default: regular]")
@click.option("--json", "json_path", type=_FILE, metavar="OUT", help="Write the results here.")
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=os.cpu_count,
    help="For every engine.  [default: all processors]",
)
@click.option(
    "--provider",
    type=click.Choice(["cpu", "cuda", "tensorrt"]),
    default="cpu",
    show_default=True,
    help="What runs the network of artifacts; the thesis' path runs on the same device.",
)
@click.option(
    "--takt",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds within which the line wants each board.",
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="What is made once is kept here.  [default: kad/bench in the user's cache folder]",
)
@click.option("--level", help="Of instructions, a lower one than the processor's: avx2, for one.")
@click.option("--counts", type=_RESULTS, help="Fail if the run did more work than this file says.")
@click.option("--write-counts", type=_FILE, help="Write such a file; other levels in it stay.")
def run(
    suites: tuple[str, ...],
    *,
    profile: str | None,
    json_path: Path | None,
    threads: int,
    provider: str,
    takt: float,
    cache: Path | None,
    level: str | None,
    counts: Path | None,
    write_counts: Path | None,
) -> None:
    """Measure SUITES (all when none is named), and print the results as Markdown tables.

    gpu: those named gpu_..., which need an NVIDIA GPU, numba-cuda and PyTorch with CUDA.

    smoke: two minutes, no images needed; `run smoke` is all suites in it. regular: minutes, the
    first time a quarter of an hour more for what is made once; KAD_DATA_DIR and KAD_WEIGHTS_DIR
    name the images and the weights. full: longer.
    """
    from kad_bench import counts as guard
    from kad_bench.level import at_level
    from kad_bench.suites import Settings, default_cache, document_table, run_suites
    from kad_sdk.storage import write_atomic

    for path in filter(None, (counts, write_counts)):
        if path.exists():
            guard.read_counts(path)  # another file is refused before anything is measured

    def keep(document: dict[str, Any]) -> None:
        if json_path:
            write_atomic(json_path, json.dumps(document, indent=1).encode() + b"\n")

    asked = [name for name in suites if name != "smoke"] or list(SUITES)
    names = [name for group in asked for name in GROUPS.get(group, (group,))]
    chosen = _profile(suites, profile)
    settings = Settings(chosen, threads, cache or default_cache(), _say, provider, takt)
    with at_level(level):
        document = run_suites(names, settings, keep)
    click.echo(document_table(document), nl=False)
    _exit_if_not_measured(document)
    if write_counts:
        guard.write_counts(document, write_counts)
    if counts:
        _hold(document, counts)


_say = partial(click.echo, err=True)


def _profile(suites: tuple[str, ...], asked: str | None) -> str:
    if "smoke" not in suites:
        return asked or "regular"
    if asked not in (None, "smoke"):
        raise click.UsageError(
            f"smoke is a profile: expected no other one beside it, got --profile {asked}: "
            "leave one out"
        )
    return "smoke"


def _exit_if_not_measured(document: dict[str, Any]) -> None:
    """Exit with 1 where a case failed, or where none was measured."""
    from kad_bench.suites import has_measured

    failed = [case for results in document["suites"].values() for case in results.get("failed", {})]
    if failed:
        _say(f"kad-bench: failed: {', '.join(failed)}")
    elif not has_measured(document):
        _say("kad-bench: nothing was measured: the tables say why")
    else:
        return
    sys.exit(1)


def _hold(document: dict[str, Any], counts: Path) -> None:
    """Hold a run to the counts of a file, and say what is not held and what has become less."""
    from kad_bench import counts as guard

    unheld = guard.name_unheld(document, counts)
    if unheld:
        _say(f"kad-bench: {unheld}")
    for text in guard.check_counts(document, counts):
        _say(f"less work than before: {text}")


@main.command()
@click.argument("results", type=_RESULTS)
@click.option(
    "--into", type=_FILE, help="Put them between the marks of this Markdown file instead."
)
def table(results: Path, into: Path | None) -> None:
    """Print the tables of a file that ``run --json`` wrote."""
    from kad_bench.suites import document_table, read_document, replace_table

    document = read_document(results)
    if into:
        replace_table(into, document)
    else:
        click.echo(document_table(document), nl=False)


@main.command()
@click.argument("results", type=_RESULTS)
@click.option("--out", type=_FILE, metavar="HTML", required=True, help="The page.")
@click.option(
    "--plots",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write the plots as PNG files too.",
)
def report(results: Path, *, out: Path, plots: Path | None) -> None:
    """Make one HTML page of a file that ``run --json`` wrote."""
    from kad_bench.report import report_html, write_plots
    from kad_bench.report_plots import plots_of
    from kad_bench.suites import read_document
    from kad_sdk.storage import write_atomic

    document = read_document(results)
    drawn = list(plots_of(document))
    write_atomic(out, report_html(document, drawn).encode())
    for path in write_plots(drawn, plots) if plots else []:
        click.echo(str(path))


@main.command()
@click.argument("before", type=_RESULTS)
@click.argument("after", type=_RESULTS)
@click.option(
    "--limit",
    type=click.FloatRange(0),
    default=0.05,
    show_default=True,
    help="Share by which a time or a size may grow, beyond the noise of both runs.",
)
@click.option(
    "--across-machines",
    is_flag=True,
    help="Compare what was measured on other processors, or otherwise, all the same.",
)
def compare(before: Path, after: Path, *, limit: float, across_machines: bool) -> None:
    """Compare kad's times and memory in two files of ``run --json``.

    Exits with 1 on a regression, and where AFTER lacks what BEFORE has.
    """
    from kad_bench import compare as comparing
    from kad_bench.noise import name_busy_suites
    from kad_bench.suites import read_document

    documents = read_document(before), read_document(after)
    for text in comparing.check_machines(*documents, across=across_machines):
        click.echo(f"kad-bench: warning: not measured alike: {text}", err=True)
    changes = comparing.compare_documents(*documents)
    missing = comparing.name_missing(*documents)
    click.echo(comparing.changes_table(changes, limit))
    notes = [f"- {after}: missing: {text}" for text in missing]
    for path, document in zip((before, after), documents, strict=True):
        notes += [f"- {path}: {text}" for text in name_busy_suites(document)]
    if notes:
        click.echo("\n" + "\n".join(notes))
    worse = sum(change.regressed(limit) for change in changes)
    if worse:
        click.echo(f"kad-bench: {worse} of {len(changes)} times and sizes grew by more than "
                   f"{limit:.0%}, noise aside", err=True)  # fmt: skip
    if missing:
        click.echo(f"kad-bench: {after} lacks what {before} has: {len(missing)}", err=True)
    if worse or missing:
        sys.exit(1)


@main.command()
@click.argument("results", type=_RESULTS, nargs=-1, required=True)
@click.argument("readme", type=_RESULTS)
def readme(results: tuple[Path, ...], readme: Path) -> None:
    """Replace README's performance table by that of files that ``run --json`` wrote."""
    from kad_bench.readme import write_readme
    from kad_bench.suites import read_document

    write_readme([read_document(path) for path in results], readme)


if __name__ == "__main__":
    main()
