"""Sections of the page about single boards: verdicts, misses, maps, disagreement of tiles."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import TYPE_CHECKING

from kad_sdk.report.gather import outcome

if TYPE_CHECKING:
    from kad_sdk.report.gather import BoardPicture, Finding, Spread
    from kad_sdk.report.page import Content
    from kad_sdk.report.training import TrainingPatch
    from kad_sdk.tally import Row

__all__ = ["findings", "maps", "overlap", "verdicts"]

_WRONG = ("missed", "false alarm")
_ORDER = {"missed": 0, "false alarm": 1, "found": 2, "passed": 3}
_OVERLAP_ROWS = 12
_KEY = (
    '<ul class="key"><li class="regions"><i></i>region found: the map reaches its threshold τ</li>'
    '<li class="truth"><i></i>ground truth</li>'
    '<li class="heat"><i></i>anomaly map: clear up to τ/2, orange at τ, white from 2τ on</li>'
)


def verdicts(content: Content) -> str:
    """Every board in a table that sorts and filters."""
    shown = {board.name: i for i, board in enumerate(content.evidence.boards.in_order())}
    counts = Counter(outcome(row.sample.label, row.anomalous) for row in content.rows)
    names = sorted(counts, key=lambda name: (_ORDER.get(name, 9), name))
    buttons = [f'<button type="button" data-only="" aria-pressed="true">All {len(content.rows)}']
    buttons += [
        f'<button type="button" data-only="{name}" aria-pressed="false">{name} {counts[name]}'
        for name in names
    ]
    rows = sorted(
        content.rows,
        key=lambda row: (_ORDER.get(outcome(row.sample.label, row.anomalous), 9), -row.score),
    )
    heads = (
        "<th>board</th><th>outcome</th><th>score</th><th>kind</th>"
        '<th class="n">defects found</th><th class="n">false regions</th>'
        '<th class="n wide">tiles</th><th class="n wide">time, s</th>'
    )
    tau = content.figures["image"]["threshold"]
    return (
        "<p><b>found</b>: defective and flagged. <b>missed</b>: defective and passed. "
        "<b>false alarm</b>: good and flagged. <b>passed</b>: good and passed. "
        f"A board is flagged when its score reaches τ = {tau:.4g}, the middle of its bar.</p>"
        f'<div class="filters" role="group" aria-label="Show boards">'
        f"{'</button>'.join(buttons)}</button></div>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Verdicts of all boards">'
        f'<table class="sorts"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(_row(row, shown) for row in rows)}</tbody></table></div>"
    )


def _row(row: Row, shown: dict[str, int]) -> str:
    name = escape(row.sample.name)
    if row.sample.name in shown:
        name = f'<a href="#board-{shown[row.sample.name]}">{name}</a>'
    what = outcome(row.sample.label, row.anomalous)
    found = false = ""
    share = "-1"
    if row.match is not None:
        scored = [defect for defect in row.match.defects if defect.scored]
        hit = sum(defect.found for defect in scored)
        found = f"{hit} of {len(scored)}" if scored else "–"
        share = f"{hit / len(scored):.4f}" if scored else "-1"
        false = str(len(row.match.false_regions))
    over = " over" if row.anomalous else ""
    seconds = row.timings_ms["score_total"] / 1e3
    return (
        f'<tr data-outcome="{what}"><th scope="row">{name}</th>'
        f'<td data-v="{_ORDER.get(what, 9)}">{_tag(what)}</td>'
        f'<td data-v="{row.score:.6g}"><span class="bar half{over}">'
        f'<i style="width:{100 * row.normalised_score:.1f}%"></i></span> {row.score:.3f}</td>'
        f"<td>{escape(row.sample.kind)}</td>"
        f'<td class="n" data-v="{share}">{found}</td><td class="n">{false}</td>'
        f'<td class="n wide">{row.tile_scores.size}</td>'
        f'<td class="n wide">{seconds:.2f}</td></tr>'
    )


def _tag(what: str) -> str:
    style = " wrong" if what in _WRONG else " right" if what in _ORDER else ""
    return f'<span class="tag{style}">{what}</span>'


def maps(content: Content) -> str:
    """Every board with its layers; a click opens the viewer."""
    kept = content.evidence.boards
    cards = "".join(_board(i, board) for i, board in enumerate(kept.in_order()))
    pictured = len(kept.in_order())
    note = ""
    if kept.offered > pictured:
        note = (
            f"<p>{pictured} of {kept.offered} boards are shown: wrong verdicts first, then boards "
            "with a missed defect or a false region. --max-boards shows more.</p>"
        )
    return (
        "<p>Choose a board to zoom in, and to lay the anomaly map or the disagreement of its "
        f"tiles over it.</p>{_KEY}"
        '<li class="spread"><i></i>tiles disagree: clear where overlapping tiles agree, full blue '
        f"where their values lie τ apart</li></ul>{note}"
        f'<div class="maps">{cards}</div>'
    )


def _board(number: int, board: BoardPicture) -> str:
    height, width = board.size
    shape = f"aspect-ratio:{width}/{height}"
    layers = [_image("photo", board.photo), _image("heat", board.heat)]
    if board.spread:
        layers.append(_image("spread", board.spread))
    name = escape(board.name)
    return (
        f'<article id="board-{number}" data-outcome="{board.outcome}">'
        f'<button class="open" type="button" style="{shape}" data-name="{name}" '
        f'aria-label="Zoom {name}"><span class="stack" style="{shape}" '
        f'data-ratio="{height / width:.6f}">{"".join(layers)}'
        f"{_marks(f'0 0 {width} {height}', board.regions, board.truth)}</span></button>"
        f"<h3>{name}</h3>{_tag(board.outcome)} <span class='soft'>{escape(board.kind)}, "
        f"score {board.score:.3f}</span></article>"
    )


def _image(style: str, uri: str) -> str:
    """Show a picture that its button or caption names."""
    return f'<img class="{style}" src="{uri}" alt="" draggable="false">'


def _marks(view_box: str, regions: str, truth: str, spot: str = "") -> str:
    """Outlines over a picture: a pale halo below each, so that they show on any ground."""
    parts = []
    for style, path in (("truth", truth), ("regions", regions), ("spot", spot)):
        if path:
            parts.append(f'<path class="halo of-{style}" d="{path}"/>')
            parts.append(f'<path class="{style}" d="{path}"/>')
    return (
        f'<svg class="marks" viewBox="{view_box}" preserveAspectRatio="none" aria-hidden="true">'
        f"{''.join(parts)}</svg>"
    )


def findings(content: Content) -> str:
    """Missed defects and false alarms, each with where it lies and what it is most like."""
    tau = content.map_threshold
    groups = (
        (
            "missed",
            content.evidence.missed.offered,
            "Missed defects",
            "Marked in the ground truth, and no region overlaps them: the map stays below "
            f"τ = {tau:.4g} there.",
        ),
        (
            "false alarm",
            content.evidence.false_alarms.offered,
            "False alarms",
            f"Regions where the map reaches τ = {tau:.4g} and nothing is marked. If the picture "
            "shows a defect all the same, the ground truth is incomplete.",
        ),
    )
    parts = []
    for what, total, name, text in groups:
        cards = [
            _finding(i, finding, content)
            for i, finding in enumerate(content.findings)
            if finding.what == what
        ]
        parts.append(f'<h3 class="part">{name}: {total:,}</h3>')
        if not cards:
            parts.append('<p class="soft">None.</p>')
            continue
        if len(cards) < total:
            parts.append(f"<p>The {len(cards)} farthest from τ; --max-findings shows more.</p>")
        parts.append(f'<p>{text}</p><div class="findings">{"".join(cards)}</div>')
    note = ""
    if content.no_training and content.findings:
        note = f"<p>Training patches are not shown: {escape(content.no_training)}.</p>"
    return f"{_KEY}</ul>{note}{''.join(parts)}"


def _finding(number: int, finding: Finding, content: Content) -> str:
    window = finding.window
    x, y = finding.place
    ratio = finding.value / content.map_threshold
    plain = _panel(_image("photo", finding.photo), "", "the board")
    marked = _panel(
        _image("photo", finding.photo),
        _marks(window.view_box, finding.regions, finding.truth),
        "regions, ground truth",
    )
    heat = _panel(_image("photo", finding.photo) + _image("heat", finding.heat), "", "anomaly map")
    side = f"{window.side} × {window.side} px around ({x}, {y})"
    return (
        f'<article class="finding"><h3>{escape(finding.board)}</h3>'
        f"<p>{_tag(finding.what)} {escape(_place(finding))}; the map reaches <b>{finding.value:.3g}"
        f'</b>, {100 * ratio:.0f} % of τ. <span class="soft">{side}.</span></p>'
        f'<div class="panels">{plain}{marked}{heat}'
        f"{_training(finding, content.training.get(number))}</div></article>"
    )


def _place(finding: Finding) -> str:
    """Say what was missed, or what sort of board the false alarm is on."""
    if finding.what == "missed":
        return finding.kind
    return "on a good board" if finding.kind == "good" else f"on a board with {finding.kind}"


def _panel(images: str, marks: str, caption: str) -> str:
    return (
        f'<figure><span class="stack" style="aspect-ratio:1">{images}{marks}</span>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _training(finding: Finding, patch: TrainingPatch | None) -> str:
    nearest = finding.nearest
    if nearest is None:
        return (
            '<figure><span class="absent">no training patch: the method keeps none</span></figure>'
        )
    place = f"{escape(nearest.image)} at ({nearest.x}, {nearest.y})"
    caption = f"most alike in training: {place}"
    if patch is None:
        return (
            f'<figure><span class="absent">not at hand</span>'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    x, y = patch.place
    arm = patch.window.side / 14
    spot = f"M{x - arm:.1f} {y:.1f}a{arm:.1f} {arm:.1f} 0 1 0 {2 * arm:.1f} 0"
    spot += f"a{arm:.1f} {arm:.1f} 0 1 0 {-2 * arm:.1f} 0"
    return _panel(
        _image("photo", patch.photo), _marks(patch.window.view_box, "", "", spot), caption
    )


def overlap(content: Content) -> str:
    """How far overlapping tiles disagree, board by board."""
    spreads = content.evidence.spreads
    if not spreads:
        return '<p class="soft">No two tiles overlap: there is nothing to compare.</p>'
    tau = content.map_threshold
    worst = sorted(spreads, key=lambda s: -s.high)[:_OVERLAP_ROWS]
    rows = "".join(_spread_row(spread, tau) for spread in worst)
    more = "" if len(worst) == len(spreads) else f" The {len(worst)} worst boards are listed."
    return (
        "<p>Overlapping tiles see the same spot with different surroundings, and the board map "
        "averages what they say. The spread is the largest less the smallest of their values "
        "there, before smoothing, in shares of τ: where it comes near 100 %, one tile alone would "
        "have flagged what another passes. A cell is lone when a tile reaches τ and the average "
        f"does not.{more}</p>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Disagreement of tiles">'
        '<table class="sorts"><thead><tr><th>board</th><th class="n">median spread</th>'
        '<th class="n">99 % of cells below</th><th class="n">lone cells</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _spread_row(spread: Spread, tau: float) -> str:
    share = 100 * spread.n_lone / spread.n_cells
    return (
        f'<tr><th scope="row">{escape(spread.name)}</th>'
        f'<td class="n" data-v="{spread.median:.6g}">{100 * spread.median / tau:.0f} %</td>'
        f'<td class="n" data-v="{spread.high:.6g}">{100 * spread.high / tau:.0f} %</td>'
        f'<td class="n" data-v="{spread.n_lone}">{spread.n_lone:,} ({share:.2g} %)</td></tr>'
    )
