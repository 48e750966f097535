"""The banks of the thesis' table 5.2, each built within 8 GB of memory.

The boards of the thesis are not public, so features are generated (:mod:`kad_bench.generated`); all
that follows, projection, disk, selection, second pass, is what ``kad-export`` runs. A row that is
too long for a profile is built at a fraction of its tiles, and said to be so. For all its tiles it
then has the memory and disk that the plan asks for, an upper bound that kad-export checks before it
starts, and a time extrapolated by a law that is fitted to what was built: linear in the number of
patches, because the bank has 10,000 rows in all of them.

A row that was built is kept in the cache folder: a run that is cut off goes on with the next one.
Times are the processor's, which other work on the machine hardly changes, and the clock's.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kad_export.budget import BankSettings, Probe, make_plan
from kad_export.report import format_bytes, format_seconds, parse_bytes, resident_memory_bytes

from kad_bench.bank_build import POINTS, BankRun, build_in_process
from kad_bench.generated import PATCHES, generated_boards
from kad_bench.laws import growth, law_text
from kad_bench.measure import summarise
from kad_bench.tables import markdown
from kad_sdk._native import cpu_level
from kad_sdk.storage import write_atomic

if TYPE_CHECKING:
    from kad_bench.suites import Settings

__all__ = ["TABLE", "Row", "run", "table"]

DIMS = 384  # ResNet-18, layers 2 and 3
MEMORY = "8GB"


@dataclass(frozen=True)
class Row:
    """A row of the thesis' table 5.2.

    Attributes
    ----------
    category : str
        Of boards.
    stride : int
        Of tiles, px.
    tiles : int
        As the thesis counts them.
    thesis : str
        What became of it there.
    """

    category: str
    stride: int
    tiles: int
    thesis: str


TABLE = (
    Row("White", 112, 185_875, "out of memory"),
    Row("White", 224, 46_821, "out of memory"),
    Row("White", 448, 11_899, "out of memory"),
    Row("White", 512, 9_254, "worked"),
    Row("With Edges", 112, 42_746, "out of memory"),
    Row("With Edges", 224, 10_946, "out of memory"),
    Row("With Edges", 448, 2_826, "worked"),
)
# Rows of so many tiles are built in full: one that was built in the thesis, and one that was not;
# or all but the largest. The others are cut to 1/128 of the largest, which has 10,000 rows still.
IN_FULL = {
    "smoke": (),
    "regular": (2_826, 10_946),
    "full": tuple(sorted(row.tiles for row in TABLE)[:-1]),
}
CUT_TILES = {"smoke": 12, "regular": 1_452, "full": 1_452}


def run(settings: Settings) -> dict[str, Any]:
    """Build every row of the table.

    Returns
    -------
    dict
        ``cases``, one for each row, smallest first; ``growth``, time by patches.
    """
    cases = []
    for row in sorted(TABLE, key=lambda row: row.tiles):
        whole = row.tiles in IN_FULL[settings.profile]
        tiles = row.tiles if whole else min(row.tiles, CUT_TILES[settings.profile])
        # What is cut to the same number of tiles is the same build: the cache has it.
        wanted = BankRun(tiles=tiles, dims=DIMS, memory=MEMORY, threads=settings.threads)
        settings.say(f"{row.category}, stride {row.stride}: {tiles:,} of {row.tiles:,} tiles")
        cases.append(_case(row, wanted, _built(wanted, settings)))
    return {"memory": MEMORY, "dims": DIMS, "cases": cases, "growth": _growth(cases)}


def _built(wanted: BankRun, settings: Settings) -> dict[str, Any]:
    made_by = asdict(wanted) | {"level": cpu_level()}  # which the counts depend on
    digest = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()
    path = settings.cache / f"bank-{digest[:16]}.json"
    if not path.is_file():
        found = build_in_process(wanted)
        found["built"] = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        settings.cache.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(found, indent=1).encode())
    kept: dict[str, Any] = json.loads(path.read_text())
    return kept


def _case(row: Row, wanted: BankRun, found: dict[str, Any]) -> dict[str, Any]:
    steps = ("features", "coreset", "bank rows")
    figures = {
        "seconds": summarise([sum(found["seconds"][step] for step in steps)]),
        "stages_s": {step: found["seconds"][step] for step in steps},
        "cpu_s": {step: found["cpu_seconds"][step] for step in steps},
        "counts": found["counts"] | {"disk_bytes": found["disk_bytes"]},
        "memory_bytes": {"peak": found["peak_bytes"]},
        "notes": found["plan"],
    }
    return {
        "case": f"{row.category} {row.stride}",
        "what": f"{wanted.tiles:,} of {row.tiles:,} tiles, generated features, {DIMS} channels",
        "unit": "bank",
        "engines": {"kad-export": figures},
        "ratios": {},
        "skipped": {},
        "row": asdict(row),
        "run": asdict(wanted),
        "found": found,
        "planned": _planned(row, wanted),
    }


def _planned(row: Row, wanted: BankRun) -> dict[str, int]:
    """Memory and disk that the plan asks for, for all tiles of a row."""
    measured = Probe(
        dims=DIMS,
        resident_bytes=resident_memory_bytes(),  # it has loaded what an export loads, or more
        seconds_per_board=0.0,
        seconds_per_tile=0.0,
        seconds_per_pair=0.0,
    )
    settings = BankSettings(
        Path(), points=POINTS, memory_bytes=parse_bytes(wanted.memory), threads=1
    )
    plan = make_plan(generated_boards(row.tiles), PATCHES, measured, settings)
    return {"memory_bytes": plan.memory_bytes, "disk_bytes": plan.disk_bytes}


def _growth(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fit a line to what was built; a build that several rows share counts once."""
    built = {case["found"]["candidates"]: case for case in cases}
    if len(built) < 3:
        return []
    points = [
        [n, sum(case["engines"]["kad-export"]["cpu_s"].values())]
        for n, case in sorted(built.items())
    ]
    return [growth("patches", "processor seconds", {"kad-export": points})]


def table(results: dict[str, Any]) -> str:
    """Lay out what :func:`run` returned."""
    header = ["category", "stride", "tiles", "patches", "thesis", "built", "bank rows"]
    header += ["peak memory", "planned for all", "disk planned", "processor time", "clock"]
    header += ["passes", "R"]
    laws = {one["y"]: one["law"]["kad-export"] for one in results["growth"]}
    rows = [_line(case, laws) for case in reversed(results["cases"])]
    notes = [
        f"Budget: `--memory {results['memory']}`. *≈*: not measured but extrapolated to all tiles "
        "of the row, by the line that is fitted to what was built. *Planned*: what the plan asks "
        "for before the start, an upper bound; –: features stay in memory.",
        *(f"- {one['y']}: {law_text(one['law']['kad-export'], '')}" for one in results["growth"]),
    ]
    return "\n\n".join([markdown(header, rows), "\n".join(notes)])


def _line(case: dict[str, Any], laws: dict[str, dict[str, float]]) -> list[str]:
    row, found, n_built = case["row"], case["found"], case["run"]["tiles"]
    patches = row["tiles"] * PATCHES
    whole = n_built == row["tiles"]

    planned, law = case["planned"], laws.get("processor seconds")
    cpu = sum(case["engines"]["kad-export"]["cpu_s"].values())
    time = format_seconds(cpu)
    if law and not whole:
        time += f"; ≈ {format_seconds(law['a'] + law['b'] * patches)}"
    return [
        row["category"],
        str(row["stride"]),
        f"{row['tiles']:,}",
        f"{patches:,}",
        row["thesis"],
        "all" if whole else f"{n_built:,} tiles ({100 * n_built / row['tiles']:.1f} %)",
        f"{found['rows']:,}",
        format_bytes(found["peak_bytes"]),
        format_bytes(planned["memory_bytes"]),
        format_bytes(planned["disk_bytes"]) if planned["disk_bytes"] else "–",
        time,
        format_seconds(case["engines"]["kad-export"]["seconds"]["median"]),
        str(found["counts"]["passes"]),
        f"{found['radius']:.3f}",
    ]
