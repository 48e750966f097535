"""Greedy k-center on a GPU: kad's selection against plain greedy in PyTorch on the same GPU.

kad is given points in the host's memory, and its time includes their way to the GPU; PyTorch's lie
there. First picks are compared with plain greedy in the core's defined arithmetic, all of them
with kad's selection on the CPU where that is quick.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from kad_export.coreset import k_center

from kad_bench.answers import WrongAnswerError
from kad_bench.coreset_peers import direct_greedy, torch_greedy
from kad_bench.generated import generated_features
from kad_bench.gpu_parts import TORCH_DEVICE, gather, on_gpu, seconds_of
from kad_bench.gpu_parts import gpu_table as table
from kad_bench.measure import summarise

if TYPE_CHECKING:
    from kad_export.coreset import Coreset
    from kad_export.coreset.driver import Selected

    from kad_bench.suites import Settings

__all__ = ["PROFILES", "run", "table"]

KAD, PLAIN = "kad, GPU", "torch plain greedy, GPU"
SPREAD_POWER = -0.8  # of the large case's points, as kad_bench.generated has it


@dataclass(frozen=True)
class Selection:
    """Points, and how many of them are picked.

    Attributes
    ----------
    points, dims, picks : int
    checked : int
        First picks that are compared with plain greedy in the core.
    peer_picks : int
        First picks that are timed in PyTorch; all take n / peer_picks as long.
    limit_s : float
        kad is stopped after that time.
    """

    points: int
    dims: int
    picks: int
    checked: int
    peer_picks: int
    limit_s: float = 60.0


PROFILES = {
    "smoke": ((Selection(70, 9, 3, 3, 2),), 600.0),
    "regular": (
        (
            Selection(39_200, 384, 392, 392, 392),
            Selection(39_200, 384, 3_920, 3_920, 1_000),
            Selection(1_000_000, 384, 10_000, 40, 200, limit_s=75.0),
        ),
        100.0,
    ),
    "full": (
        (
            Selection(39_200, 384, 392, 392, 392),
            Selection(39_200, 384, 3_920, 3_920, 3_920),
            Selection(1_000_000, 384, 10_000, 200, 2_000, limit_s=600.0),
        ),
        1_800.0,
    ),
}


class TooSlowError(RuntimeError):
    """A selection has not come to its end within its time."""


def run(settings: Settings) -> dict[str, Any]:
    """Select, in every case of the profile."""
    torch.set_num_threads(settings.threads)
    selections, limit_s = PROFILES[settings.profile]
    cases = {
        f"{_name(one)}, k = {one.picks:,}": partial(_measure, one, settings) for one in selections
    }
    return gather("gpu_coreset", cases, settings, limit_s)


def _name(one: Selection) -> str:
    return f"{one.points:,} x {one.dims}"


def _measure(one: Selection, settings: Settings) -> dict[str, Any]:
    points = _points(one)
    start = time.perf_counter()
    coreset = _select(points, one)
    seconds = [time.perf_counter() - start]
    _check(coreset, points, one, settings.threads)
    if seconds[0] < one.limit_s / 5:  # the first time includes compiling the kernels
        seconds = seconds_of(partial(_select, points, one), 3, limit_s=one.limit_s / 5)
    held = on_gpu(points)
    torch_greedy(held, 3)
    peer = [
        one.picks / one.peer_picks * value
        for value in seconds_of(partial(torch_greedy, held, one.peer_picks), 3, limit_s=8)
    ]
    pairs = one.points * one.picks
    counts = coreset.counts | {"passes": coreset.counts["passes"] + coreset.counts["pool_passes"]}
    part = "" if one.peer_picks == one.picks else f" on its first {one.peer_picks:,} picks, scaled"
    return {
        "case": _name(one),
        "k": one.picks,
        "what": f"generated points; the first {one.checked:,} picks equal plain greedy's",
        "unit": "selection",
        "engines": {
            KAD: {
                "seconds": summarise(seconds),
                "stages_s": coreset.seconds,
                "counts": counts,
                "rates": {"share of all pairs measured": counts["measured_pairs"] / pairs},
                "notes": "from the host's memory; time by stage of the first run",
            },
            PLAIN: {
                "seconds": summarise(peer),
                "rates": {"share of all pairs measured": 1.0},
                "notes": f"points on the GPU; timed{part or ' in full'}",
            },
        },
        "ratios": {KAD: {PLAIN: summarise([value / float(np.median(seconds)) for value in peer])}},
        "skipped": {},
    }


def _select(points: np.ndarray, one: Selection) -> Coreset:
    """Let kad select, for as long as it may take."""
    end = time.perf_counter() + one.limit_s

    def report(selected: Selected) -> None:
        if time.perf_counter() > end:
            raise TooSlowError(
                f"{len(selected.rows):,} of {one.picks:,} picks after {one.limit_s:.0f} s"
            )

    return k_center(points, one.picks, backend="cuda", report=report)


def _check(coreset: Coreset, points: np.ndarray, one: Selection, threads: int) -> None:
    """Compare the selection with plain greedy.

    Raises
    ------
    WrongAnswerError
        It differs.
    """
    right = direct_greedy(points, one.checked, threads)
    wrong = np.flatnonzero(coreset.index[: one.checked] != right)
    if len(wrong):
        i = wrong[0]
        raise WrongAnswerError(
            f"pick {i} is row {coreset.index[i]}, plain greedy takes row {right[i]}"
        )


def _points(one: Selection) -> np.ndarray:
    """Make generated features of tiles, or, where that would take long, others on the GPU.

    Those are normal around 500 centres, their spread falling with the dimension as there.
    """
    if one.points <= 100_000:
        tiles = -(-one.points // len(generated_features(0, one.dims)))
        every = [generated_features(tile, one.dims) for tile in range(tiles)]
        return np.concatenate(every)[: one.points]
    generator = torch.Generator(TORCH_DEVICE).manual_seed(0)
    made = {"generator": generator, "device": TORCH_DEVICE}
    spread = (torch.arange(one.dims, device=TORCH_DEVICE) + 8.0) ** SPREAD_POWER
    centres = torch.randn(500, one.dims, **made) * spread
    kinds = torch.randint(500, (one.points,), **made)
    points = torch.randn(one.points, one.dims, **made) * spread
    points += centres[kinds]
    return points.cpu().numpy()
