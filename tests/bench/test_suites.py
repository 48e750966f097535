"""What all suites share: the document, its tables, the guard of counts, growth laws, noise."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kad_bench.compare import Change, compare_documents
from kad_bench.counts import (
    CountRegressionError,
    check_counts,
    collect_counts,
    name_unheld,
    read_counts,
    write_counts,
)
from kad_bench.laws import fit_law, law_text
from kad_bench.level import at_level
from kad_bench.measure import summarise
from kad_bench.noise import ProcessorUse
from kad_bench.report_plots import plots_of
from kad_bench.tables import case_name, format_seconds, like_with_like, suite_table

from kad_sdk._native import cpu_level
from kad_sdk.errors import InvalidArgumentError

COUNTS = Path(__file__).parents[2] / "benchmarks" / "results" / "smoke_counts.json"
EXAMPLE_S = [0.02, 0.021, 0.022]


def example() -> dict[str, Any]:
    """Results of an invented suite that uses every shared key."""
    kad = {
        "seconds": summarise(EXAMPLE_S),
        "counts": {"pairs": 1000, "bytes": 50},
        "accuracy": {"AUROC": 0.91},
        "stages_s": {"network": 0.015, "search": 0.005},
        "memory_bytes": {"host": 2_000_000},
        "energy_j": {"cpu": 1.5},
        "batch": 16,
        "notes": "on a quiet day",
    }
    peer = {"seconds": summarise([0.2, 0.21, 0.23]), "accuracy": {"AUROC": 0.91}}
    case = {
        "case": "small",
        "what": "made up",
        "unit": "tile",
        "engines": {"kad": kad, "peer": peer},
        "ratios": {"kad": {"peer": summarise([9.8, 10.0, 10.4])}},
        "skipped": {"other": "not installed"},
    }
    points = [[100, 0.3], [200, 0.5], [400, 0.9]]
    growth = [{"x": "rows", "y": "s", "points": {"kad": points}, "law": {"kad": fit_law(points)}}]
    return {"cases": [case], "growth": growth}


def test_table_shows_every_shared_figure() -> None:
    text = suite_table(example())
    engines, stages, growth, notes = text.split("\n\n")
    assert (
        "| small | kad | 16 | 21 ms | 21.8 ms | 22 ms | 3 | 47.6 tiles | – | 0.91 | 2 | 1.5 |"
        in engines
    )
    assert (
        "| small | peer | – | 210 ms | 226 ms | 230 ms | 3 | 4.76 tiles | 10.0 (9.8 to 10.4) |"
        in engines
    )
    assert "| small | kad | 15 ms (75 %) | 5 ms (25 %) |" in stages
    assert "| s | rows | kad | 0.1 + 0.002 x" in growth
    assert notes.splitlines() == [
        "- small: made up",
        "- small: other not run: not installed",
        "- small: kad: on a quiet day",
    ]
    for table in (engines, stages, growth):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_table_shows_sizes_without_times_and_one_round_without_bounds() -> None:
    results = example()
    case = results["cases"][0]
    case["ratios"] = {"kad": {"peer": summarise([10.0])}}
    assert "| 10.0 (one round) |" in suite_table(results)
    for figures in case["engines"].values():
        del figures["seconds"]
    engines = suite_table(results).split("\n\n")[0]
    assert engines.splitlines()[0] == "| case | engine | batch | AUROC | host MB | cpu J |"
    assert "| small | peer | – | 0.91 | – | – |" in engines


def _compared(seconds: list[float], size: float = 2e6) -> Change:
    """What `compare` says of kad's time or size against those of the example."""
    before, after = _counted(), _counted()
    kad = after["suites"]["made"]["cases"][0]["engines"]["kad"]
    kad |= {"seconds": summarise(seconds), "memory_bytes": {"host": size}}
    return compare_documents(before, after)[seconds == EXAMPLE_S]


@pytest.mark.parametrize(
    ("seconds", "size", "verdict"),
    [
        ([0.03], 2e6, "within noise"),  # one time proves nothing below a factor of 1.6 or so
        ([0.04], 2e6, "WORSE"),
        ([0.012], 2e6, "better"),
        (EXAMPLE_S, 2.05e6, "within noise"),
        (EXAMPLE_S, 2.15e6, "worse, within the limit"),
        (EXAMPLE_S, 2.3e6, "WORSE"),
        (EXAMPLE_S, 1.9e6, "better"),
    ],
)
def test_compare_allows_for_noise(seconds: list[float], size: float, verdict: str) -> None:
    assert _compared(seconds, size).verdict(0.05) == verdict


def test_compare_holds_many_times_to_their_own_bounds() -> None:
    document = _counted()
    kad = document["suites"]["made"]["cases"][0]["engines"]["kad"]
    kad["seconds"] = summarise([0.020, 0.021, 0.0215, 0.022, 0.023])
    after = copy.deepcopy(document)
    slower = after["suites"]["made"]["cases"][0]["engines"]["kad"]
    slower["seconds"] = summarise([0.025, 0.026, 0.0265, 0.027, 0.028])
    (time, size) = compare_documents(document, after)
    assert time.regressed(0.05)
    assert not time.regressed(0.1)
    assert size.verdict(0.05) == "within noise"


def test_plots_of_every_shared_figure_also_without_a_law() -> None:
    results = example()
    results["growth"].append({**results["growth"][0], "law": {}})
    plots = list(plots_of({"suites": {"made": results}}))
    names = ["speedup", "stages", "growth-0", "growth-1"]
    assert [plot.name for plot in plots] == [f"made-{name}" for name in names]
    assert all(plot.wide.startswith(b"\x89PNG") and plot.narrow != plot.wide for plot in plots)
    assert plots[2].wide != plots[3].wide


def test_a_case_is_named_with_its_queries_and_k() -> None:
    assert case_name({"case": "a", "queries": "good tiles", "k": 3}) == "a, good tiles, k = 3"
    assert case_name({"case": "a"}) == "a"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0123456, "12.3 ms"), (0.9, "900 ms"), (2.345, "2.35 s"), (1234, "1234 s")],
)
def test_times_have_three_digits(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def _counted(suite: str = "made", level: str = "avx2") -> dict[str, Any]:
    return {"environment": {"cpu": {"kad_level": level}}, "suites": {suite: example()}}


def test_guard_stops_more_work_and_tells_of_less(tmp_path: Path) -> None:
    document = _counted()
    path = tmp_path / "counts.json"
    write_counts(document, path)
    assert collect_counts(document) == {"made: small: kad": {"pairs": 1000, "bytes": 50}}
    assert check_counts(document, path) == []
    counts = document["suites"]["made"]["cases"][0]["engines"]["kad"]["counts"]
    counts["pairs"] = 1010  # 1 % more
    assert check_counts(document, path) == []
    counts["pairs"] = 1011
    with pytest.raises(CountRegressionError, match="kad: pairs: expected at most 1,000, got 1,011"):
        check_counts(document, path)
    counts["pairs"] = 900
    (text,) = check_counts(document, path)
    assert "got 900" in text
    del counts["bytes"]
    with pytest.raises(CountRegressionError, match="bytes: expected at most 50, got nothing"):
        check_counts(document, path)


@pytest.mark.parametrize("suite", ["search", "tile", "coreset", "bank"])
def test_guard_holds_what_hangs_on_instructions_on_its_own_level(
    suite: str, tmp_path: Path
) -> None:
    path = tmp_path / "counts.json"
    write_counts(_counted(suite), path)
    assert list(json.loads(path.read_text())) == [f"{suite} (avx2): small: kad"]
    more, elsewhere = _counted(suite), _counted(suite, "scalar")
    for document in (more, elsewhere):
        document["suites"][suite]["cases"][0]["engines"]["kad"]["counts"]["pairs"] = 2000
    assert check_counts(elsewhere, path) == []
    text = f"not held at level scalar, of which {path} has no counts: {suite}"
    assert name_unheld(elsewhere, path) == text
    with pytest.raises(CountRegressionError, match=rf"{suite} \(avx2\): small: kad: pairs"):
        check_counts(more, path)
    assert name_unheld(more, path) == ""


def test_counts_of_other_levels_and_suites_stay_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "counts.json"
    for document in (_counted("network"), _counted("search"), _counted("search", "avx512")):
        write_counts(document, path)
    before = read_counts(path)
    again = _counted("search")
    (case,) = again["suites"]["search"]["cases"]
    case["case"] = "other"
    write_counts(again, path)
    expected = dict(before)
    expected["search (avx2): other: kad"] = expected.pop("search (avx2): small: kad")
    assert read_counts(path) == expected
    assert list(before) == [
        "network: small: kad",
        "search (avx2): small: kad",
        "search (avx512): small: kad",
    ]


@pytest.mark.parametrize("text", ["[1]", '{"format": 1}', '{"a": {"b": "c"}}', "no JSON"])
def test_a_file_without_counts_is_refused_and_kept(text: str, tmp_path: Path) -> None:
    path = tmp_path / "quality.json"
    path.write_text(text)
    wrong = r"quality\.json: expected a file that kad-bench run --write-counts wrote"
    for use in (check_counts, name_unheld, write_counts):
        with pytest.raises(InvalidArgumentError, match=wrong):
            use(_counted(), path)
    assert path.read_text() == text


@pytest.mark.parametrize("level", ["avx2", "avx512", "avx512vnni"])
def test_the_committed_counts_hold_every_suite_at_a_level(level: str) -> None:
    held = {place.partition(": ")[0] for place in read_counts(COUNTS)}
    by_level = {f"{suite} ({level})" for suite in ("search", "tile", "coreset", "bank")}
    assert held >= {"network", *by_level}


def test_a_forced_level_reaches_what_a_run_starts() -> None:
    look = "from kad_bench.level import follow_level; follow_level(); "
    look += "from kad_sdk._native import cpu_level; print(cpu_level())"

    def levels() -> tuple[str, str]:
        done = subprocess.run([sys.executable, "-c", look], capture_output=True, check=True)
        return cpu_level(), done.stdout.decode().strip()

    best = levels()
    with at_level("scalar"):
        assert levels() == ("scalar", "scalar")
    assert levels() == best
    with at_level(None):
        assert levels() == best


def test_laws_find_line_and_power() -> None:
    x = np.array([1.0, 2.0, 4.0, 8.0])
    line = fit_law(np.stack([x, 3 + 2 * x], axis=1))
    assert (line["a"], line["b"]) == pytest.approx((3, 2))
    assert line["worst"] < 1e-12
    power = fit_law(np.stack([x, 5 * x**1.5], axis=1))
    assert power["exponent"] == pytest.approx(1.5)
    assert power["a"] == 0  # the best line would begin below 0
    assert power["worst"] > 0.1
    assert law_text(line, "s") == "3 + 2 x s (within 0 %), about x^0.64"
    assert law_text({**line, "a": 0.0}, "s") == "2 x s (within 0 %), about x^0.64"


def test_processor_use_tells_own_time_from_others() -> None:
    use = ProcessorUse()
    burn = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    found = use.read()
    assert found["own_cpu_s"] > 0.3
    assert found["wall_s"] > 0.3
    assert found["other_cpu_s"] is None or found["other_cpu_s"] >= 0


def test_processor_use_reads_the_kernels_account(tmp_path: Path) -> None:
    stat = tmp_path / "proc/stat"
    stat.parent.mkdir()
    stat.write_text("cpu  1000 0 500 9000 0 0 0 100 0 0\ncpu0 1 2 3\n")
    use = ProcessorUse(tmp_path)
    stat.write_text("cpu  3000 0 600 9900 0 0 0 300 0 0\ncpu0 1 2 3\n")
    found = use.read()
    assert found["steal_s"] == 2
    assert found["other_cpu_s"] == pytest.approx(21, abs=0.5)
    stat.unlink()
    assert ProcessorUse(tmp_path).read()["steal_s"] is None


def test_counts_are_written_as_json(tmp_path: Path) -> None:
    path = tmp_path / "counts.json"
    write_counts(_counted(), path)
    assert json.loads(path.read_text()) == {"made: small: kad": {"pairs": 1000, "bytes": 50}}


def test_peers_are_compared_with_what_is_like_them() -> None:
    engines = {"kad": {"batch": 16}, "kad, one": {"batch": 1}, "one": {"batch": 1}, "many": {}}
    ratios = {
        "kad": {"one": {"median": 5.0}, "many": {"median": 3.0}},
        "kad, one": {"one": {"median": 4.0}, "many": {"median": 2.0}},
    }
    found = like_with_like({"engines": engines, "ratios": ratios})
    assert found == [("kad, one", "one", {"median": 4.0}), ("kad", "many", {"median": 3.0})]
