"""The command ``kad``: score boards, evaluate, inspect and verify artifacts.

Exit codes: 0 done; 1 an error, told in one message, or a failed verification; 2 wrong usage;
3 `kad drift` sees a change; 130 Ctrl-C; 143 SIGTERM.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kad_sdk import __version__
from kad_sdk.cli_calibrate import calibrate
from kad_sdk.cli_drift import drift
from kad_sdk.cli_group import EXIT_ERROR, Commands, Texts
from kad_sdk.cli_options import (
    ARTIFACT,
    BATCH,
    JSON,
    MAP_THRESHOLD,
    TILE_THRESHOLD,
    open_detector,
    running,
)
from kad_sdk.cli_report import report
from kad_sdk.cli_rules import rules
from kad_sdk.defaults import PICTURE_SIDE

if TYPE_CHECKING:
    from kad_sdk.detector import Detector
    from kad_sdk.result import Result

__all__ = ["main"]

_TEXTS = Texts(
    name="kad",
    stopped="nothing was changed",
    memory=("--batch",),
    no_space="free some space, or choose another --out",
    no_package="install it with pip install 'kad-sdk[cpu,evaluate]'",
    stopped_by={
        "score": "boards that were reported are complete",
        "evaluate": "figures are written once all images are scored: run it again",
        "report": "the page is written once all images are scored: run it again",
        "calibrate": "the thresholds are as they were, unless others are reported above",
        "rules": "the rules are as they were, unless others are reported above",
    },
)


@click.group(cls=Commands, texts=_TEXTS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kad")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def main(debug: bool) -> None:
    """Find defects on kitchen boards with an artifact that kad-export made."""


@main.command()
@ARTIFACT
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--annotations", type=click.Path(path_type=Path), help="JSON: borders and labels.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
@running
@BATCH
@TILE_THRESHOLD
@MAP_THRESHOLD
@click.option(
    "--log-scores", type=click.Path(path_type=Path), help="Append a line for each board, for drift."
)
@click.option("--maps/--no-maps", default=True, help="Scores alone take less time.")
@click.option("--npy", is_flag=True, help="Write the map as float32 .npy too.")
@click.option("--hot", is_flag=True, help="Write the map coloured from black to white too.")
@click.option("--overlay/--no-overlay", default=True, help="Write the board with its regions.")
@click.option("--heat", is_flag=True, help="Blend the map into the overlay.")
@click.option(
    "--max-overlay-side",
    type=click.IntRange(0),
    default=PICTURE_SIDE,
    show_default=True,
    help="Scale larger overlays down to this, px; 0: never.",
)
def score(
    artifact: Path,
    images: tuple[Path, ...],
    annotations: Path | None,
    out: Path,
    *,
    log_scores: Path | None,
    maps: bool,
    npy: bool,
    hot: bool,
    overlay: bool,
    heat: bool,
    max_overlay_side: int,
    **how: Any,
) -> None:
    """Score boards: IMAGES are files or folders.

    Writes OUT/STEM.json, OUT/STEM_map.png (16 bits) and OUT/STEM_overlay.png for each board, and
    prints one line for each. A board that cannot be read or scored is reported and left out; the
    exit code is then 1. With --annotations every image has to be named there; without, all of an
    image is scored, its surround and stickers too. With --no-maps, for artifacts that decide boards
    by their largest tile, the JSON alone is written, without regions.
    """
    from kad_sdk.annotations import read_annotations
    from kad_sdk.cli_score import BOARD_ERRORS, Outputs, Summary, plan_jobs, score_job
    from kad_sdk.facts import extension_notes

    if not maps and (npy or hot or heat):
        raise click.UsageError("--npy, --hot and --heat show the map: leave --no-maps out")
    if heat and not overlay:
        raise click.UsageError("--heat blends the map into the overlay: leave --no-overlay out")
    jobs = plan_jobs(images, None if annotations is None else read_annotations(annotations), out)
    if annotations is None:
        _warn_of_annotations(images)
    outputs = Outputs(out, maps, npy, hot, overlay, heat, max_overlay_side or None, log_scores)
    with open_detector(artifact, maps=maps, **how) as detector:
        click.echo(f"{artifact.name}: {_describe(detector)}")
        for note in extension_notes(detector.artifact.manifest, detector.artifact.inspection):
            click.echo(f"kad: warning: the thresholds were {note}", err=True)
        summary = Summary()
        for job in jobs:
            try:
                result, timings = score_job(detector, job, outputs)
            except BOARD_ERRORS as error:
                summary.failed += 1
                text = str(error)
                name = "" if str(job.image) in text else f"{job.image}: "
                click.echo(f"kad: {name}{text}", err=True)
                continue
            summary.add(result, timings)
            click.echo(
                f"{result.verdict:<9}  {result.normalised_score:.4f}  score {result.score:.5g}  "
                f"{len(result.regions)} regions{_unscored(result)}  {timings['total']:.0f} ms  "
                f"{job.image}"
            )
    click.echo("\n".join(summary.lines()))
    if summary.failed:
        raise click.exceptions.Exit(EXIT_ERROR)


def _unscored(result: Result) -> str:
    """Say how much of a board was not scored, where that is more than rounding."""
    share = 1.0 if result.scored_share is None else result.scored_share
    return f", {100 * (1 - share):.1f} % not scored" if share < 0.9995 else ""


def _warn_of_annotations(images: tuple[Path, ...]) -> None:
    """Say so where a data folder's annotations lie near the images and are not used."""
    from kad_sdk.dataset import ANNOTATIONS_NAME

    folders = [entry if entry.is_dir() else entry.parent for entry in images]
    for folder in dict.fromkeys(near for f in folders for near in (f, f.parent)):
        if (folder / ANNOTATIONS_NAME).is_file():
            click.echo(
                f"kad: warning: {folder / ANNOTATIONS_NAME} is not used, all of each image is "
                f"scored; use it with --annotations {folder / ANNOTATIONS_NAME}",
                err=True,
            )


def _describe(detector: Detector) -> str:
    from kad_sdk._native import cpu_level

    stage = "search" if detector.artifact.manifest.method == "patchcore" else "density"
    return (
        f"network on {detector.device} ({detector.provider}, {detector.precision}), {stage} on "
        f"{detector.stage_device} ({cpu_level()}, {detector.threads} threads on the host)"
    )


@main.command()
@ARTIFACT
@JSON
def inspect(artifact: Path, *, as_json: bool) -> None:
    """Check an artifact's files and print what it is."""
    from kad_sdk.artifact import Artifact
    from kad_sdk.facts import describe

    opened = Artifact.open(artifact)
    if as_json:
        content = json.loads(opened.manifest.to_json())
        if opened.inspection.calibrations or opened.inspection.rules:
            content["inspection"] = json.loads(opened.inspection.to_json())
        click.echo(json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False))
        return
    for name, value in describe(opened.manifest, opened.inspection):
        click.echo(f"{name:<16}{value}")


@main.command()
@ARTIFACT
@running
@JSON
def verify(
    artifact: Path,
    *,
    provider: str,
    device_id: int,
    threads: int | None,
    level: str | None,
    build_engine: bool,
    as_json: bool,
) -> None:
    """Check an artifact's hashes, and re-score its golden tiles on this machine."""
    from kad_sdk._native import force_cpu_level
    from kad_sdk.verify import verify_artifact

    if level is not None:
        force_cpu_level(level)
    found = verify_artifact(
        artifact,
        provider=provider,
        threads=threads,
        device_id=device_id,
        build_engine=build_engine,
    )
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=1))
    else:
        click.echo(
            f"{artifact.name}: hashes are right; {found.tiles} golden tiles on {found.device} "
            f"({found.provider}, {found.precision}, {found.level})"
        )
        click.echo(f"  {'':<24}{'max abs':>12}{'max rel':>12}{'allowed':>12}")
        for check in found.checks:
            click.echo(
                f"  {check.name:<24}{check.max_abs:>12.3g}{check.max_rel:>12.3g}"
                f"{check.tolerance:>12.3g}  {'ok' if check.passed else 'FAILED'}"
            )
        flipped = ", ".join(map(str, found.flipped))
        click.echo(f"  decisions: {f'FLIPPED for tiles {flipped}' if flipped else 'all the same'}")
    if not found.passed:
        click.echo(
            "kad: this machine does not reproduce the artifact's scores; update the provider's "
            "libraries, use --provider cpu, or export the artifact again",
            err=True,
        )
        sys.exit(EXIT_ERROR)


@main.command()
@ARTIFACT
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
@running
@BATCH
@TILE_THRESHOLD
@MAP_THRESHOLD
def evaluate(artifact: Path, data: Path, out: Path, **how: Any) -> None:
    """Score the test images of DATA and compare with their ground truth.

    Writes OUT/metrics.json, scores.csv and pictures of the curves, and prints a table.
    """
    from kad_sdk.dataset import scan_dataset
    from kad_sdk.evaluation import evaluate as evaluate_detector
    from kad_sdk.evaluation import format_table

    dataset = scan_dataset(data, need_train=False)
    with (
        open_detector(artifact, **how) as detector,
        click.progressbar(
            length=len(dataset.test), label="images", file=sys.stderr, show_pos=True
        ) as bar,
    ):
        figures = evaluate_detector(detector, dataset, out, progress=bar.update)
    click.echo(format_table(figures))
    click.echo(f"written to {out}")


main.add_command(calibrate)
main.add_command(rules)
main.add_command(report)
main.add_command(drift)
