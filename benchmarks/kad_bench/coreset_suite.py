"""Greedy k-center selection against plain greedy in PyTorch and anomalib, checked before timed.

All engines are given the same projected features in memory. The selection is compared index by
index with plain greedy in the defined arithmetic. That of a peer is not: its arithmetic rounds
otherwise, so that near-ties may fall otherwise, and all picks after one that does.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from kad_export.coreset import Projection, k_center
from kad_kernels import reference
from kad_kernels.device import gpu_is_available

from kad_bench.answers import WrongAnswerError
from kad_bench.coreset_peers import direct_greedy, make_peers
from kad_bench.generated import PATCHES, generated_features
from kad_bench.laws import growth, law_text
from kad_bench.measure import interleave, ratios, summarise
from kad_bench.patches import RealPatches
from kad_bench.tables import format_seconds, markdown, ratio_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kad_export.coreset import Coreset
    from kad_export.coreset.driver import Selected

    from kad_bench.suites import Settings

__all__ = ["PROFILES", "Profile", "run", "table"]

KAD_CPU, KAD_GPU = "kad, CPU", "kad, GPU"
FRACTIONS = (0.01, 0.1)


@dataclass(frozen=True)
class GeneratedPatches:
    """Features without images, for the smoke profile."""

    points: int
    what: str = "generated features, 384 channels"

    def prepare(self, *_settings: object) -> np.ndarray:
        """Make them."""
        tiles = -(-self.points // PATCHES)
        return np.concatenate([generated_features(t, 384) for t in range(tiles)])[: self.points]


@dataclass(frozen=True)
class Profile:
    """How much a run measures.

    Attributes
    ----------
    sources
        Where points come from.
    rounds : int
        How often each engine is timed.
    peer_picks : int
        So many first picks of a peer are timed.
    in_numpy : int
        So many first picks are compared with the NumPy reference.
    in_full : float
        As many picks as make so many pairs are compared with plain greedy by the core's direct
        distances.
    """

    sources: tuple[RealPatches | GeneratedPatches, ...]
    rounds: int
    peer_picks: int
    in_numpy: int
    in_full: float


_REAL = RealPatches("hazelnut", 39_200, whole=True), RealPatches("kolektor_sdd", 120_000, False)
PROFILES = {
    "smoke": Profile((GeneratedPatches(3_000),), 2, 20, in_numpy=40, in_full=1e6),
    "regular": Profile(_REAL, 2, 20, in_numpy=40, in_full=1.6e8),
    "full": Profile(_REAL, 5, 200, in_numpy=400, in_full=1.5e9),
}


def run(settings: Settings) -> dict[str, Any]:
    """Measure every source at every fraction, and how time grows.

    Raises
    ------
    WrongAnswerError
        A selection is not that of plain greedy.
    """
    profile = PROFILES[settings.profile]
    torch.set_num_threads(settings.threads)
    cases = []
    for source in profile.sources:
        features = source.prepare(settings.cache, settings.threads, settings.say)
        points = Projection(*features.shape)(np.asarray(features))
        truth = _truth(points, profile, settings)
        for fraction in FRACTIONS:
            n = round(fraction * len(points))
            settings.say(f"{len(points):,} points, {n:,} picks")
            cases.append(
                _measure(source.what, points, n, truth, profile=profile, settings=settings)
            )
    growth = [_growth_with_picks(cases[-1]), _growth_with_points(points, settings)]
    return {"cases": cases, "growth": growth}


def _truth(points: np.ndarray, profile: Profile, settings: Settings) -> np.ndarray:
    """First picks of plain greedy, checked itself against NumPy; picks do not depend on n."""
    n = round(min(profile.in_full / len(points), max(FRACTIONS) * len(points)))
    settings.say(f"{len(points):,} points: {n:,} picks of plain greedy, to check the others")
    found = direct_greedy(points, n, settings.threads)
    first = min(profile.in_numpy, n)
    _check("plain greedy in the core", found[:first], reference.k_center(points, first)[0])
    return found


def _check(name: str, found: np.ndarray, expected: np.ndarray) -> None:
    n = min(len(found), len(expected))
    wrong = np.flatnonzero(found[:n] != expected[:n])
    if len(wrong):
        i = wrong[0]
        raise WrongAnswerError(
            f"{name}: pick {i} is row {found[i]}, plain greedy takes row {expected[i]}"
        )


def _measure(
    what: str,
    points: np.ndarray,
    n: int,
    truth: np.ndarray,
    *,
    profile: Profile,
    settings: Settings,
) -> dict[str, Any]:
    ours: dict[str, Callable[..., Coreset]] = {
        KAD_CPU: partial(k_center, points, n, backend="cpu", threads=settings.threads)
    }
    if gpu_is_available():
        ours[KAD_GPU] = partial(k_center, points, n, backend="cuda")
    reached: dict[str, list[list[float]]] = {name: [] for name in ours}
    last = {name: engine(report=_Clock(reached[name]).report) for name, engine in ours.items()}
    for name, coreset in last.items():
        _check(name, coreset.index, truth)
    peers, skipped = make_peers(points)
    picks = min(n, profile.peer_picks)
    for peer in peers.values():
        peer(2)
    calls = ours | {name: partial(peer, picks) for name, peer in peers.items()}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    watched = {name: partial(_watched, call, cpu[name]) for name, call in calls.items()}
    seconds = interleave(watched, profile.rounds)
    for name in peers:
        seconds[name] = [n / picks * value for value in seconds[name]]
        cpu[name] = [n / picks * value for value in cpu[name]]
    engines = {name: _figures(coreset) for name, coreset in last.items()}
    engines |= {name: _peer_figures(n, picks, len(points)) for name in peers}
    for name, figures in engines.items():
        figures |= {"seconds": summarise(seconds[name]), "cpu_seconds": summarise(cpu[name])}
    return {
        "case": f"{len(points):,} x {points.shape[1]}",
        "k": n,
        "what": f"{what}, projected to {points.shape[1]}",
        "unit": "selection",
        "checked": {"numpy": min(n, profile.in_numpy), "plain greedy": min(n, len(truth))},
        "engines": engines,
        "picks_and_seconds": reached,
        "ratios": _ratios(ours, peers, seconds),
        "cpu_ratios": _ratios(ours, peers, cpu),
        "skipped": skipped,
    }


def _watched(call: Callable[[], object], cpu: list[float]) -> None:
    """Keep the processor's time of a call, which other work on the machine hardly changes."""
    start = time.process_time()
    call()
    cpu.append(time.process_time() - start)


def _ratios(
    ours: Iterable[str], peers: Iterable[str], seconds: dict[str, list[float]]
) -> dict[str, dict[str, dict[str, float]]]:
    return {name: {peer: ratios(seconds[peer], seconds[name]) for peer in peers} for name in ours}


def _peer_figures(n: int, picks: int, n_points: int) -> dict[str, Any]:
    told = "timed in full"
    if picks < n:
        told = f"timed on the first {picks} picks; n picks take n / {picks} times as long"
    return {"notes": told, "counts": {"passes": n, "measured_pairs": n * n_points}}


def _figures(coreset: Coreset) -> dict[str, Any]:
    """Give counts, times by phase, certificate; a pool of all points is compared pass by pass."""
    counts = coreset.counts
    return {
        "counts": counts | {"passes": counts["passes"] + counts["pool_passes"]},
        "stages_s": coreset.seconds,
        "certificate": {"radius": coreset.radius, "separation": coreset.separation},
    }


class _Clock:
    """Enters the picks of a running selection, and the processor's seconds so far, into a list."""

    def __init__(self, reached: list[list[float]]) -> None:
        self._reached, self._start = reached, time.process_time()

    def report(self, selected: Selected) -> None:
        """See :func:`kad_export.coreset.driver.run_selection`."""
        self._reached.append([len(selected.rows), time.process_time() - self._start])


def _growth_with_picks(case: dict[str, Any]) -> dict[str, Any]:
    """Processor's time of a case's first selection when it came to each of eight numbers."""
    reached = case["picks_and_seconds"][KAD_CPU]
    wanted = np.geomspace(reached[0][0], reached[-1][0], 8)
    chosen = {min(range(len(reached)), key=lambda i: abs(reached[i][0] - k)) for k in wanted}
    found = [reached[i] for i in sorted(chosen)]
    return growth("picks", f"processor seconds, {case['case']} points", {KAD_CPU: found})


def _growth_with_points(points: np.ndarray, settings: Settings) -> dict[str, Any]:
    """Processor's time of as many picks from more and more points, drawn at random."""
    n = max(30, len(points) // 100)
    order = np.random.default_rng(0).permutation(len(points))
    found = []
    for share in (0.125, 0.25, 0.5, 1):
        some = np.ascontiguousarray(points[np.sort(order[: round(share * len(points))])])
        start = time.process_time()
        k_center(some, n, backend="cpu", threads=settings.threads)
        found.append([len(some), time.process_time() - start])
    return growth("points", f"processor seconds, {n:,} picks", {KAD_CPU: found})


def table(results: dict[str, Any]) -> str:
    """Lay out what :func:`run` returned."""
    cases = results["cases"]
    header = ["points", "picks", "engine", "time", "kad is faster by", "processor time", "by that"]
    header += ["passes"]
    header += ["pairs measured", "of all pairs", "pairs screened", "R"]
    rows = [
        [case["case"], f"{case['k']:,}", *_line(case, name, figures)]
        for case in cases
        for name, figures in case["engines"].items()
    ]
    notes = [f"- {case['case']}, {case['k']:,} picks: {_checked(case)}" for case in cases]
    notes += dict.fromkeys(f"- {case['case']}: {case['what']}" for case in cases)
    for case in cases:
        notes += [f"- {name} not run: {why}" for name, why in case["skipped"].items()]
        notes += [f"- {n}: {e['notes']}" for n, e in case["engines"].items() if e.get("notes")]
    laws = [
        [one["y"], one["x"], ", ".join(f"{x:,.0f}: {y:.3g}" for x, y in one["points"][KAD_CPU])]
        + [law_text(law, "") for law in one["law"].values()]
        for one in results["growth"]
    ]
    grown = markdown(["how this grows", "with x", "measured", "fitted law"], laws)
    return "\n\n".join([markdown(header, rows), "\n".join(dict.fromkeys(notes)), grown])


def _line(case: dict[str, Any], name: str, figures: dict[str, Any]) -> list[str]:
    faster = case["ratios"][KAD_CPU].get(name) if name not in case["ratios"] else None
    counts, radius = figures["counts"], figures.get("certificate", {}).get("radius")
    all_pairs = case["k"] * int(case["case"].split(" ")[0].replace(",", ""))
    return [
        name,
        format_seconds(figures["seconds"]["median"]),
        ratio_text(faster),
        format_seconds(figures["cpu_seconds"]["median"]),
        ratio_text(case["cpu_ratios"][KAD_CPU].get(name) if name not in case["ratios"] else None),
        f"{counts['passes']:,}",
        f"{counts['measured_pairs']:.3g}",
        f"{100 * counts['measured_pairs'] / all_pairs:.2f} %",
        f"{counts['screened_pairs']:.3g}" if "screened_pairs" in counts else "–",
        f"{radius:.4g}" if radius is not None else "–",
    ]


def _checked(case: dict[str, Any]) -> str:
    checked = case["checked"]
    return (
        f"the first {checked['plain greedy']:,} picks equal plain greedy's by direct distances, of "
        f"which {checked['numpy']:,} were compared with NumPy's"
    )
