"""Search random hard cases for as long as told; every answer must have the reference's bits.

    python tests/fuzz/fuzz_search.py --seconds 300 --seed 0

A case is a family of data, a size, and a seed. It is searched at every instruction-set level, with
several numbers of threads, in batches, and in another order, and each answer is compared. A failure
prints the command that repeats it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from search_families import FAMILIES
from search_oracle import Oracle, at_level, levels_here

from kad_sdk.search import SearchIndex

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["Case", "Totals", "check_case", "run"]

THREADS = (1, 2, 7)
EDGES = (*range(1, 10), 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 95, 96, 97, 127, 128, 129)
WIDE = (144, 160, 192, 255, 256, 257, 384, 511, 512, 513, 1024, 1536)
LEAST_CODED = 1024, 64  # rows and dimensions from which an index holds codes
MOST_VALUES = 2_000_000  # of a bank: the reference takes its time


@dataclass(frozen=True)
class Case:
    """One search: what the data are, and how large."""

    family: str
    seed: int
    rows: int
    dims: int
    queries: int
    k: int

    @classmethod
    def draw(cls, family: str, seed: int) -> Case:
        """Draw a size; two cases of three are large enough for codes."""
        rng = np.random.default_rng([seed, *family.encode()])
        if rng.random() < 1 / 3:
            rows, dims = int(rng.integers(1, 400)), int(rng.choice(EDGES))
        else:
            dims = int(rng.choice(WIDE) if rng.random() < 0.5 else rng.integers(64, 200))
            most = max(LEAST_CODED[0] + 1, min(4000, MOST_VALUES // dims))
            rows = int(rng.integers(LEAST_CODED[0], most))
        queries = int(rng.choice([1, 2, 7, 8, 9, 33, 65, 150]))
        return cls(family, seed, rows, dims, queries, int(rng.integers(1, min(16, rows) + 1)))

    def data(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rng = np.random.default_rng(self.seed)
        return FAMILIES[self.family](rng, self.rows, self.dims, self.queries)


class Totals(Counter[str]):
    """What has been checked: answers, pairs of a query and a row, bounds by kind."""

    def text(self) -> str:
        names = ("cases", "answers", "pairs", "narrow bounds", "wide bounds", "dense bounds")
        return ", ".join(f"{self[name]:,} {name}" for name in names)


def check_case(case: Case, levels: Iterable[str]) -> Totals:
    """Check a case at some levels.

    Raises
    ------
    AssertionError
        An answer is wrong; the text says at which level and how it was asked for.
    """
    bank, queries = case.data()
    oracle, totals = Oracle(bank, queries), Totals(cases=1)
    shuffle = np.random.default_rng(case.seed).permutation(len(queries))
    for level in levels:
        with at_level(level), SearchIndex(bank, threads=THREADS[case.seed % 3]) as index:
            asked = "first"
            try:
                for threads in THREADS:
                    asked = f"{threads} threads"
                    oracle.check(*index.query(queries, case.k, threads=threads))
                asked = "other order"
                oracle.check(*_restored(index.query(queries[shuffle], case.k), shuffle))
                asked = "batches"
                oracle.check(*_in_batches(index, queries, case))
            except AssertionError as error:
                raise AssertionError(f"{case}, level {level}, {asked}: {error}") from error
            totals.update(_work(index, len(bank)))
    return totals


def _restored(answer: tuple[Any, Any], shuffle: NDArray[np.int64]) -> tuple[Any, Any]:
    back = np.argsort(shuffle)
    return answer[0][back], answer[1][back]


def _in_batches(index: SearchIndex, queries: NDArray[np.float32], case: Case) -> tuple[Any, Any]:
    size = max(1, len(queries) // 3)
    parts = [index.query(queries[i : i + size], case.k) for i in range(0, len(queries), size)]
    dist, row = (np.concatenate(column) for column in zip(*parts, strict=True))
    return dist, row


def _work(index: SearchIndex, rows: int) -> Totals:
    stats = index.stats()
    return Totals(
        {
            "answers": stats.queries,
            "pairs": stats.queries * rows,
            "narrow bounds": stats.narrow_pairs,
            "wide bounds": stats.wide_pairs,
            "dense bounds": stats.dense_pairs,
            "coded answers": stats.queries - stats.dense_queries,
        }
    )


def run(families: Iterable[str], seed: int, seconds: float, most_cases: int | None = None) -> int:
    """Check case after case, families in turn; the exit code."""
    names, totals = list(families), Totals()
    levels, end = levels_here(), time.monotonic() + seconds
    click.echo(f"levels {', '.join(levels)}; families {', '.join(names)}")
    count = 0
    while count < most_cases if most_cases else time.monotonic() < end:
        case = Case.draw(names[count % len(names)], seed + count // len(names))
        try:
            totals.update(check_case(case, levels))
        except Exception as error:  # noqa: BLE001 - whatever it is, say how to see it again
            click.echo(f"FAILED: {type(error).__name__}: {error}", err=True)
            again = f"--family {case.family} --seed {case.seed} --cases 1"
            click.echo(f"again: python {Path(__file__).name} {again}", err=True)
            return 1
        count += 1
    click.echo(f"{totals.text()}; {totals['coded answers']:,} answers from codes; 0 violations")
    return 0


@click.command()
@click.option("--seconds", type=float, default=300.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the first cases.")
@click.option("--cases", type=int, help="So many, instead of so long.")
@click.option("--family", "families", multiple=True, type=click.Choice(list(FAMILIES)))
@click.option(
    "--bound-checker", type=click.Path(exists=True), help="Run it first, a third as long."
)
def main(
    seconds: float, seed: int, cases: int | None, families: tuple[str, ...], bound_checker: str
) -> None:
    """Search random hard cases; every answer must have the reference's bits."""
    if bound_checker:
        command = [bound_checker, "--seconds", f"{seconds / 3:g}", "--seed", str(seed)]
        if subprocess.run(command, check=False).returncode:
            sys.exit(1)
        seconds *= 2 / 3
    sys.exit(run(families or FAMILIES, seed, seconds, cases))


if __name__ == "__main__":
    main()
