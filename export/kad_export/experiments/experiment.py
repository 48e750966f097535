"""Run a grid: export, evaluate, one run after another, each in processes of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kad_export.errors import ExperimentError
from kad_export.experiments.plan import plan_runs
from kad_export.experiments.process import run_command
from kad_export.experiments.rows import Row, command_text, keep_figures
from kad_export.experiments.store import Store
from kad_export.experiments.tables import tables
from kad_export.report import Silent, format_seconds
from kad_sdk import metrics, plots

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from kad_export.experiments.grid import Grid, Setting
    from kad_export.experiments.plan import Run
    from kad_export.experiments.process import Execute

__all__ = ["run_experiments"]


def run_experiments(
    data: str | os.PathLike[str],
    grid: Grid,
    out: str | os.PathLike[str],
    *,
    categories: Sequence[str] = (),
    settings: Sequence[Setting] = (),
    provider: str = "cpu",
    keep_going: bool = False,
    console: Silent | None = None,
    execute: Execute = run_command,
) -> list[Row]:
    """Run what is not done yet of a grid, and write its tables.

    A run that is done is kept and never done again. One that was interrupted is begun anew.

    Parameters
    ----------
    data : path
        Holds a data set for each category, see :func:`kad_sdk.dataset.scan_dataset`.
    grid : Grid
        See :func:`kad_export.experiments.grid.read_grid`.
    out : path
        Folder of the results, see :mod:`kad_export.experiments.store`.
    categories, settings
        See :func:`kad_export.experiments.plan.plan_runs`.
    provider : str
        What runs the network in the evaluation.
    keep_going : bool
        After a run that failed go on with the next; the error comes at the end.
    console : Silent, optional
        Told the progress; silent by default.
    execute : callable
        Runs a command; see :func:`kad_export.experiments.process.run_command`.

    Returns
    -------
    list of Row
        One for each run.

    Raises
    ------
    GridError, DatasetError
        The grid cannot be run on this data; found before anything is run.
    ExperimentError
        A run failed, or one that is done was done otherwise.
    OutputError
        The folder is not to be used, or cannot be written to.
    KadError
        A data set, a network or a package cannot be had; found before anything is run.
    """
    console = console or Silent()
    runs = plan_runs(grid, data, categories=categories, settings=settings)
    with Store.open(Path(out)) as store:
        experiment = _Experiment(store, grid, runs, provider, console, execute)
        experiment.check()
        failed = experiment.run(keep_going=keep_going)
    if failed:
        raise ExperimentError(_failures(failed, runs, Path(out)))
    return experiment.rows()


@dataclass
class _Experiment:
    """A grid's runs, and what is known of each."""

    store: Store
    grid: Grid
    runs: Sequence[Run]
    provider: str
    console: Silent
    execute: Execute
    results: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.results = {run.name: self.store.result(run) for run in self.runs}

    def rows(self) -> list[Row]:
        """Give one row for each run, as things stand."""
        return [Row(r, self.results[r.name], self.errors.get(r.name)) for r in self.runs]

    def check(self) -> None:
        """Write the tables as they stand, and see that what is to do has all that it needs."""
        self._write()
        to_do = [run for run in self.runs if self.results[run.name] is None]
        done = len(self.runs) - len(to_do)
        self.console.line(f"{done} of {len(self.runs)} runs are done")
        if to_do:
            plots.require()
            metrics.require()
            networks = list({json.dumps(_network(run)): _network(run) for run in to_do}.values())
            words = ["check-networks", json.dumps(networks)]
            log = self.store.folder / "networks.txt"
            self.execute(words, log, keep_open=[self.store.lock])
            log.unlink(missing_ok=True)

    def run(self, *, keep_going: bool) -> dict[str, str]:
        """Run what is to do; returns the errors by run."""
        for number, run in enumerate(self.runs, 1):
            if self.results[run.name] is not None:
                continue
            folder = self.store.begin(run)
            log = folder / "log.txt"
            self.console.line(f"run {number} of {len(self.runs)}: {run.name} (see {log})")
            try:
                self.results[run.name] = self._one(run, folder, log)
            except ExperimentError as error:
                self.errors[run.name] = str(error)
                self.console.line(f"  failed: {error}")
                if not keep_going:
                    break
            except BaseException:
                self.store.discard(run)
                raise
            finally:
                self._write()
        return self.errors

    def _one(self, run: Run, folder: Path, log: Path) -> dict[str, Any]:
        artifact, evaluation = folder / "artifact.kad", folder / "evaluation"
        words = ["kad-export", run.method, str(run.data), "--out", str(artifact), *run.words()]
        if run.method == "cutpaste":
            words += ["--run", str(folder / "training")]
        threads = run.values["threads"]
        scoring = ["kad", "evaluate", str(artifact), str(run.data), "--out", str(evaluation)]
        scoring += ["--provider", self.provider] + (["--threads", str(threads)] if threads else [])
        scoring += ["--build-engine"] * (self.provider == "tensorrt")  # each artifact is a new one
        export, score = (
            self.execute(command, log, keep_open=[self.store.lock]) for command in (words, scoring)
        )
        figures = json.loads((evaluation / "metrics.json").read_bytes())
        result = {
            "command": command_text(run),
            **keep_figures(figures),
            "export": vars(export),
            "scoring": vars(score),
        }
        self.store.finish(run, result)
        taken = format_seconds(export.seconds + score.seconds)
        self.console.line(f"  {Row(run, result).summary()}, in {taken}")
        return result

    def _write(self) -> None:
        self.store.write_tables(tables(self.grid.name, self.rows()))


def _network(run: Run) -> dict[str, Any]:
    names = ("backbone", "weights", "tile", "seed")
    if run.method == "patchcore":
        names = (*names, "layers", "pooling")
    return {"method": run.method, **{name: run.values[name] for name in names}}


def _failures(failed: dict[str, str], runs: Sequence[Run], out: Path) -> str:
    told = "; ".join(f"{name}: {text}" for name, text in failed.items())
    return (
        f"{len(failed)} of {len(runs)} runs failed: {told}. Runs that are done are kept, see "
        f"{out / 'experiments.md'}; the same command does the others (--keep-going: past failures)"
    )
