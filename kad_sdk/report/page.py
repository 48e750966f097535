"""The page: its frame, its head, and the sections in order."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

from kad_sdk.report import boards, curves

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from kad_sdk.plots import Level
    from kad_sdk.report.gather import Evidence, Finding
    from kad_sdk.report.training import TrainingPatch
    from kad_sdk.tally import Row

__all__ = ["Content", "render"]


@dataclass(frozen=True)
class Content:
    """All that a page shows.

    Attributes
    ----------
    figures : dict
        As in ``metrics.json``.
    rows : sequence of Row
        The boards, in order.
    levels : sequence of Level
        Labels and scores of tiles, and of images.
    map_threshold : float
        tau of the map.
    evidence : Evidence
        Pictures of boards, and how far tiles disagree.
    findings : sequence of Finding
        Missed defects, then false alarms.
    training : dict
        Nearest training patch of some findings, by their number.
    no_training : str
        Why training patches cannot be shown; empty when they can.
    facts : sequence of (name, text)
        The artifact in words; a name is empty where the one before goes on.
    places : tuple or None
        Where t-SNE lays tiles (n, 2), and the kind of each.
    """

    figures: dict[str, Any]
    rows: Sequence[Row]
    levels: Sequence[Level]
    map_threshold: float
    evidence: Evidence
    findings: Sequence[Finding]
    training: dict[int, TrainingPatch]
    no_training: str
    facts: Sequence[tuple[str, str]]
    places: tuple[NDArray[np.float32], list[str]] | None


def render(content: Content) -> str:
    """Lay out the page; what comes from files and names is escaped."""
    sections = [
        ("verdicts", "Verdicts", boards.verdicts(content)),
        ("wrong", "Misses and false alarms", boards.findings(content)),
        ("maps", "Board maps", boards.maps(content)),
        ("kinds", "Kinds of defects", curves.kinds(content)),
        ("curves", "Curves", curves.curve_charts(content)),
        ("scores", "Scores", curves.histograms(content)),
        ("overlap", "Overlapping tiles", boards.overlap(content)),
        ("embeddings", "Tile embeddings", curves.embeddings(content)),
        ("time", "Time", curves.times(content)),
        ("artifact", "Artifact and data", curves.facts(content)),
    ]
    figures = content.figures
    title = f"{figures['artifact']['name']} on {figures['data']['name']}"
    return Template(_text("page.html")).substitute(
        title=escape(title),
        style=_text("style.css"),
        script=_text("script.js"),
        head=f"<h1>{escape(title)}</h1>{_summary(content)}",
        contents="".join(f'<a href="#{key}">{name}</a>' for key, name, _ in sections),
        body="".join(
            f'<section id="{key}" aria-labelledby="{key}-name">'
            f'<h2 id="{key}-name">{name}</h2>{body}</section>'
            for key, name, body in sections
        ),
    )


def _text(name: str) -> str:
    return files("kad_sdk.report").joinpath(name).read_text("utf-8").strip()


def _summary(content: Content) -> str:
    """Give a reader in a hurry one sentence, and the figures that matter most."""
    figures = content.figures
    image, regions, counts = figures["image"], figures["regions"], figures["counts"]
    (passed, false_alarms), (missed, found) = image["confusion_matrix"] or [[0, 0], [0, 0]]
    sentence = (
        f"{_of(found, found + missed, 'defective board')} flagged, "
        f"{_of(false_alarms, false_alarms + passed, 'good board')} flagged wrongly."
    )
    unknown = counts["unlabelled_images"]
    if unknown:
        sentence += f" Nothing is known of {unknown} more: they count in no figure."
    unscored = regions["unscored_defects"]
    if unscored:
        lie, count = ("lies", "counts") if unscored == 1 else ("lie", "count")
        sentence += (
            f" {_counted(unscored, 'marked defect')} {lie} where nothing is judged (near a "
            f"label, outside of the borders, or by a rule) and {count} neither as found nor as "
            "missed."
        )
    cards = [
        _card(f"{missed:,}", "defective boards missed", wrong=missed > 0),
        _card(f"{false_alarms:,}", "good boards flagged wrongly", wrong=false_alarms > 0),
        _card(
            f"{regions['found_defects']:,} / {regions['defects']:,}",
            "defects found: a region overlaps the marked defect",
            wrong=regions["found_defects"] < regions["defects"],
        ),
        _card(
            _number(regions["false_regions_per_image"], ".3g"),
            "false regions a board: they touch no marked defect",
        ),
        _card(
            _number(figures["image_roc_auc"]),
            "board ROC-AUC: how well scores tell defective from good boards; 1 is perfect, "
            "0.5 a guess",
        ),
        _card(
            _number(figures["aupro"]),
            "AUPRO: how well maps cover the marked defects; 1 is perfect",
        ),
    ]
    return f'<p class="verdict">{escape(sentence)}</p><div class="numbers">{"".join(cards)}</div>'


def _of(part: int, whole: int, noun: str) -> str:
    return f"{part:,} of {_counted(whole, noun)}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _card(figure: str, text: str, *, wrong: bool = False) -> str:
    kind = ' class="wrong"' if wrong else ""
    return f"<div{kind}><b>{figure}</b><span>{text}</span></div>"


def _number(value: float | None, form: str = ".4f") -> str:
    return "–" if value is None else format(value, form)
