"""The suites of the coreset: right answers only, tables, and the generator of features."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from kad_bench import bank_suite, coreset_peers, coreset_suite
from kad_bench.answers import WrongAnswerError
from kad_bench.generated import GeneratedExtractor, generated_boards, generated_features
from kad_bench.level import at_level
from kad_bench.suites import Settings
from kad_kernels import reference

from kad_sdk._native import cpu_level


def _settings(tmp_path) -> Settings:
    return Settings("smoke", 1, tmp_path, lambda _: None)


def test_peers_pick_as_the_reference():
    points = generated_features(3, 20)[:200]
    expected, _ = reference.k_center(points, 12)
    np.testing.assert_array_equal(coreset_peers.direct_greedy(points, 12, 1), expected)
    np.testing.assert_array_equal(coreset_peers.torch_greedy(points, 12), expected)


def test_missing_peers_are_named():
    peers, skipped = coreset_peers.make_peers(generated_features(0, 8))
    assert coreset_peers.TORCH in peers
    for name in (coreset_peers.ANOMALIB, coreset_peers.TORCH_GPU):
        assert (name in peers) != (name in skipped)


@pytest.fixture
def small(monkeypatch):
    source = coreset_suite.GeneratedPatches(600)
    profile = coreset_suite.Profile((source,), 2, 5, in_numpy=10, in_full=60 * 600)
    monkeypatch.setitem(coreset_suite.PROFILES, "smoke", profile)


@pytest.mark.usefixtures("small")
def test_coreset_suite_gives_its_table(tmp_path):
    results = json.loads(json.dumps(coreset_suite.run(_settings(tmp_path))))
    assert [case["k"] for case in results["cases"]] == [6, 60]
    text = coreset_suite.table(results)
    assert "the first 60 picks equal plain greedy's by direct distances" in text
    assert "| torch plain greedy |" in text
    figures = results["cases"][1]["engines"][coreset_suite.KAD_CPU]
    assert 0 < figures["counts"]["measured_pairs"] < 60 * 600
    assert figures["cpu_seconds"]["median"] > 0


@pytest.mark.usefixtures("small")
def test_wrong_selection_is_not_timed(tmp_path, monkeypatch):
    right = coreset_suite.k_center

    def wrong(*words, **more):
        found = right(*words, **more)
        index = found.index.copy()
        index[3] += 1
        return dataclasses.replace(found, index=index)

    monkeypatch.setattr(coreset_suite, "k_center", wrong)
    with pytest.raises(WrongAnswerError, match="kad, CPU: pick 3 is row"):
        coreset_suite.run(_settings(tmp_path))


def test_bank_suite_builds_every_row_and_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setattr(bank_suite, "CUT_TILES", {"smoke": 3})
    monkeypatch.setattr(bank_suite, "DIMS", 24)
    results = json.loads(json.dumps(bank_suite.run(_settings(tmp_path))))
    text = bank_suite.table(results)
    assert len(text.splitlines()) >= 2 + len(bank_suite.TABLE)
    assert "| White | 112 | 185,875 | 145,726,000 | out of memory | 3 tiles (0.0 %) |" in text
    case = results["cases"][0]
    assert case["found"]["rows"] == 24
    assert case["found"]["peak_bytes"] > 10 << 20
    monkeypatch.setattr(bank_suite, "build_in_process", None)  # all is there already
    assert bank_suite.run(_settings(tmp_path))["cases"][0]["found"] == case["found"]
    built = []  # its counts depend on the level of instructions, so it is built at each

    def build(_):
        built.append(cpu_level())
        return dict(case["found"])

    monkeypatch.setattr(bank_suite, "build_in_process", build)
    with at_level("scalar"):
        bank_suite.run(_settings(tmp_path))
    assert built == ["scalar"]


def test_a_cut_row_is_extrapolated(tmp_path):
    found = {"radius": 1.0, "rows": 10, "disk_bytes": 0, "counts": {"passes": 2}}

    def case(row, tiles):
        whole = found | {"candidates": 784 * tiles, "peak_bytes": (100 + tiles) << 20}
        engine = {"cpu_s": {"features": float(tiles)}, "seconds": {"median": 1.0}}
        run = {"tiles": tiles}
        return {
            "planned": {"memory_bytes": 3 << 30, "disk_bytes": 0},
            "row": dataclasses.asdict(row),
            "run": run,
            "found": whole,
            "engines": {"kad-export": engine},
        }

    rows = [dataclasses.replace(bank_suite.TABLE[0], tiles=t) for t in (10, 20, 40, 1000)]
    cases = [case(row, min(row.tiles, 80)) for row in rows]
    results = {"memory": "8GB", "cases": cases, "growth": bank_suite._growth(cases)}
    line = bank_suite.table(results).splitlines()[2]
    assert "| 80 tiles (8.0 %) |" in line
    assert "| 180.0 MB | 3.0 GB | – |" in line
    assert "1 min 20 s; ≈ 16 min 40 s" in line


def test_generated_features_are_the_same_again():
    extract = GeneratedExtractor(dims=16, batch=2)
    boards = generated_boards(5, per_board=3)
    assert [len(board.xy) for board in boards] == [3, 2]
    again = np.concatenate(list(extract(None, boards[1].xy)))
    np.testing.assert_array_equal(again[1], generated_features(4, 16))
    assert (generated_features(0, 16) != generated_features(1, 16)).any()
