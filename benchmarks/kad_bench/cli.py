"""The command ``kad-bench``: measure this machine, and the software on it."""

from __future__ import annotations

import json

import click

from kad_sdk import __version__

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
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


if __name__ == "__main__":
    main()
