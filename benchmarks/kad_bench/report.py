"""A run's document as one HTML page that needs no other file, and as PNG plots."""

from __future__ import annotations

import base64
import html
import re
from typing import TYPE_CHECKING, Any

from markdown_it import MarkdownIt

from kad_bench.environment import format_table
from kad_bench.noise import name_busy_suites
from kad_bench.suites import suite_markdown
from kad_sdk.storage import write_atomic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kad_bench.report_plots import Plot

__all__ = ["report_html", "write_plots"]

_STYLE = """
:root { color-scheme: light dark; --ink: #222222; --ground: #ffffff; --rule: #cccccc;
  --soft: #f3f4f6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --ground: #191919; --rule: #444b52; --soft: #242424; }
  figure img { filter: invert(.9) hue-rotate(180deg); } /* white becomes the ground's grey */
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1100px; padding: 16px; color: var(--ink);
  background: var(--ground); font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; }
nav a { display: inline-block; margin-right: 1em; } a { color: inherit; }
figure { margin: 1.5rem 0; } figcaption { font-weight: 600; margin-bottom: .4rem; }
figure img { width: 100%; height: auto; display: block; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--rule); text-align: left;
  white-space: nowrap; vertical-align: top; }
th { background: var(--soft); }
td:first-child { white-space: normal; min-width: 9em; overflow-wrap: normal; }
pre { overflow-x: auto; background: var(--soft); padding: .8rem; font-size: .8rem; }
"""
_NARROW = "(max-width: 640px)"


def report_html(document: dict[str, Any], plots: Sequence[Plot]) -> str:
    """Lay a run's document out as a page.

    Parameters
    ----------
    document : dict
        What :func:`kad_bench.suites.run_suites` gave.
    plots : sequence of Plot
        What :func:`kad_bench.report_plots.plots_of` drew of it.
    """
    environment, run = document["environment"], document["run"]
    commit = environment["git"] or {}
    head = (
        f"{environment['cpu']['model']}, {run['threads']} threads, profile {run['profile']}, "
        f"commit {(commit.get('commit') or 'unknown')[:12]}"
        f"{' with changes' if commit.get('dirty') else ''}, {run['started']}"
    )
    head = ". ".join([head, *name_busy_suites(document)])
    sections = [
        _section(name, results, [plot for plot in plots if plot.name.startswith(f"{name}-")])
        for name, results in document["suites"].items()
    ]
    links = " ".join(f'<a href="#{name}">{name}</a>' for name in document["suites"])
    use = [f"{name}: {_use_text(found)}" for name, found in run["processor_use"].items()]
    machine = html.escape("\n".join([format_table(environment), "", *use]))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>kad-bench</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>kad-bench</h1><p>{html.escape(head)}</p><nav>{links} <a href='#machine'>machine</a>"
        f"</nav>\n{''.join(sections)}"
        f'<h2 id="machine">machine</h2><pre>{machine}</pre></body></html>\n'
    )


def write_plots(plots: Sequence[Plot], folder: Path) -> list[Path]:
    """Write every plot, drawn wide, as a PNG; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{plot.name}.png" for plot in plots]
    for path, plot in zip(paths, plots, strict=True):
        write_atomic(path, plot.wide)
    return paths


def _section(name: str, results: dict[str, Any], plots: list[Plot]) -> str:
    body = (
        MarkdownIt("commonmark", {"html": False})
        .enable("table")
        .render(suite_markdown(name, results))
    )
    body = re.sub(r"<table>(.*?)</table>", r'<div class="wide"><table>\1</table></div>', body,
                  flags=re.DOTALL)  # fmt: skip
    figures = "".join(_figure(plot) for plot in plots)
    return f'<h2 id="{name}">{name}</h2>\n{figures}{body}'


def _figure(plot: Plot) -> str:
    """Give both drawings of a plot, for the browser to choose from."""
    wide, narrow = (
        f"data:image/png;base64,{base64.b64encode(data).decode()}"
        for data in (plot.wide, plot.narrow)
    )
    title = html.escape(plot.title)
    return (
        f"<figure><figcaption>{title}</figcaption><picture>"
        f'<source media="{_NARROW}" srcset="{narrow}"><img alt="{title}" src="{wide}">'
        "</picture></figure>\n"
    )


def _use_text(use: dict[str, float | None]) -> str:
    known = {name: value for name, value in use.items() if value is not None}
    return ", ".join(f"{name} {value:.1f}" for name, value in known.items())
