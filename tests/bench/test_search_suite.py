"""The search suite: right answers are timed and counted, wrong ones stop it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from kad_bench import answers, search_suite, search_work
from kad_bench.answers import WrongAnswerError, check_answer, find_truth
from kad_bench.bank_probe import probe_bank
from kad_bench.cases import PROFILES, SmoothFeatures
from kad_bench.cli import main
from kad_bench.counts import check_counts, collect_counts
from kad_bench.features import ImageFeatures, StoredFeatures
from kad_bench.measure import interleave, ratios, summarise
from kad_bench.peaks import sgemm_gflop_per_s
from kad_bench.peers import FAISS, TORCH_CDIST, TORCH_MATMUL, make_peers
from kad_bench.search_suite import KAD_MAPS, KAD_VECTORS, NEIGHBOURS
from kad_bench.suites import LEVELS, default_cache, document_table

from kad_sdk.errors import DatasetError, InvalidArgumentError
from kad_sdk.search import SearchIndex

if TYPE_CHECKING:
    from collections.abc import Callable

PEERS = {FAISS, TORCH_CDIST, TORCH_MATMUL}
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def smoke(cache: Path, *options: str) -> Result:
    words = ["run", "search", "--profile", "smoke", "--threads", "2", "--cache", str(cache)]
    return CliRunner().invoke(main, [*words, *options])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    folder = tmp_path_factory.mktemp("smoke")
    result = smoke(folder, "--json", str(folder / "out.json"))
    assert result.exit_code == 0, result.output
    return result, folder / "out.json"


@pytest.fixture(scope="module")
def document(finished: tuple[Result, Path]) -> dict[str, Any]:
    return json.loads(finished[1].read_text())


def test_document_says_first_what_it_was_measured_on(document: dict[str, Any]) -> None:
    assert list(document) == ["format", "environment", "run", "suites"]
    assert document["environment"]["packages"]["numpy"] == np.__version__
    assert (document["run"]["profile"], document["run"]["threads"]) == ("smoke", 2)
    before, after = document["run"]["load_average_before_and_after"]
    assert len(before) == len(after) == 3
    assert document["suites"]["search"]["sgemm_gflop_per_s"] > 0.1


def test_every_case_is_measured_with_every_engine(document: dict[str, Any]) -> None:
    found = [(c["case"], c["queries"], c["k"]) for c in document["suites"]["search"]["cases"]]
    cases = [
        ("smooth 2,000 x 64", "good tiles"),
        ("smooth 2,000 x 64", "defective tiles"),
        ("uniform 500 x 33", "uniform vectors"),
    ]
    assert found == [(*case, k) for case in cases for k in NEIGHBOURS]
    for case in document["suites"]["search"]["cases"]:
        ours = {KAD_VECTORS} if "uniform" in case["case"] else {KAD_VECTORS, KAD_MAPS}
        assert set(case["engines"]) == ours | PEERS
        assert set(case["ratios"]) == ours
        assert all(set(peers) == PEERS for peers in case["ratios"].values())
        assert case["skipped"] == {}
        assert set(case["work"]) == ours


def test_work_is_counted_for_a_query(document: dict[str, Any]) -> None:
    for case in document["suites"]["search"]["cases"]:
        for work in case["work"].values():
            if case["case"].startswith("smooth"):
                assert work["dense_queries"] == 0
                assert 0 < work["left_by_narrow"] < 0.1
                assert 0 < work["left_by_wide"] < 1
                assert work["products"]["16-bit"] > 0
                assert work["products"]["8-bit"] >= work["narrow_dims"] * case["rows"] > 0
                assert min(work["stages_s"][name] for name in ("narrow", "wide", "decide")) > 0
            else:  # so small a bank has no codes
                assert (work["dense_queries"], work["candidates"], work["narrow_dims"]) == (1, 0, 0)
                assert (work["left_by_narrow"], work["left_by_wide"]) == (None, None)
                assert work["products"]["float32"] == case["rows"] * case["dims"]
                assert work["stages_s"]["dense"] > 0
            assert work["products"]["differences"] == work["decided"] * case["dims"]
            assert work["decided"] >= case["k"]
            assert work["shortest_s"] > 0


def test_shortest_time_counts_products_by_their_instructions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    products = {"8-bit": 4e9, "16-bit": 2e9, "float32": 1e9, "differences": 1e9}
    for level, expected in (("avx2", 2 + 2 + 1 + 3), ("avx512vnni", 1 + 1 + 1 + 3)):
        monkeypatch.setattr(search_work, "cpu_level", lambda level=level: level)
        assert search_work.shortest_time({"products": products}, 2.0) == pytest.approx(expected)


def test_counts_of_the_work_are_exact(document: dict[str, Any]) -> None:
    for case in document["suites"]["search"]["cases"]:
        smooth = case["case"].startswith("smooth")
        assert (case["rows"], case["dims"]) == ((2_000, 64) if smooth else (500, 33))
        for name, figures in case["engines"].items():
            n = 784 * (3 if smooth and name not in PEERS else 1)
            assert figures["queries"] == n
            assert figures["gflop_equivalent"] == pytest.approx(
                2e-9 * n * case["rows"] * case["dims"]
            )
            median = figures["seconds"]["median"]
            assert 0 < figures["seconds"]["min"] <= median <= figures["seconds"]["max"]
            assert figures["queries_per_s"] == pytest.approx(n / median)
            assert 0 <= figures["largest_error_of_allowed"] <= 1
        assert case["checked_queries"] == PROFILES["smoke"].checked


def test_no_more_work_than_the_committed_counts(document: dict[str, Any]) -> None:
    check_counts(document, RESULTS / "smoke_counts.json")
    coded = [counts["code_products"] for counts in collect_counts(document).values()]
    assert sum(n > 0 for n in coded) == 8  # of the smooth features


def test_banks_are_opened_in_a_process_of_their_own(document: dict[str, Any]) -> None:
    (bank,) = document["suites"]["search"]["banks"]
    assert (bank["case"], bank["bank_bytes"]) == ("smooth 2,000 x 64", 2_000 * 64 * 4)
    assert bank["open_s"] > 0
    assert bank["first_tile_s"] > 0
    assert bank["index_bytes"] > 2_000 * 4
    assert bank["added_bytes"] is None or bank["added_bytes"] >= 0


def test_memory_of_the_index_is_that_of_the_process(tmp_path: Path) -> None:
    features = SmoothFeatures("large", 12_000, (24, 40), (28, 14), 16).prepare(tmp_path, 1, print)
    found = probe_bank(features.path, 2)
    assert features.bank.size <= found["index_bytes"] <= 1.6 * features.bank.nbytes
    if found["added_bytes"] is None:
        pytest.skip("this system does not say how much memory a process has")
    # Not the mapped bank; what building takes for a while is not all given back.
    assert 0.9 * found["index_bytes"] <= found["added_bytes"] <= 3 * features.bank.nbytes
    # Of a stored index most stays where it is mapped.
    stored = found["stored"]
    assert stored["index_bytes"] == pytest.approx(found["index_bytes"], rel=0.05)
    assert stored["added_bytes"] < 0.7 * stored["index_bytes"]


def test_tables_come_from_the_document_alone(
    finished: tuple[Result, Path], document: dict[str, Any]
) -> None:
    result, path = finished
    printed = CliRunner().invoke(main, ["table", str(path)])
    assert printed.exit_code == 0
    assert printed.output == result.stdout
    tables = [part.splitlines() for part in printed.output.split("\n\n") if part.startswith("|")]
    assert [len(lines) - 2 for lines in tables] == [10, 10, 1]  # ways of kad and k, the same, banks
    for lines in tables:
        assert len({line.count("|") for line in lines}) == 1
    case = document["suites"]["search"]["cases"][0]
    case["ratios"][KAD_MAPS][FAISS] = {"median": 15.25, "p90": 16, "min": 14.0, "max": 16.4}
    assert "| 15.2 (14.0 to 16.4) |" in document_table(document)


def test_tables_go_between_the_marks_of_a_page(finished: tuple[Result, Path]) -> None:
    result, path = finished
    page = path.parent / "page.md"
    marks = "<!-- kad-bench table: search -->", "<!-- end of table -->"
    page.write_text(f"before {marks[0]} old {marks[1]} after\n")
    for _ in range(2):
        done = CliRunner().invoke(main, ["table", str(path), "--into", str(page)])
        assert (done.exit_code, done.stdout) == (0, "")
        assert page.read_text() == f"before {marks[0]}\n\n{result.stdout}\n{marks[1]} after\n"
    page.write_text(f"before {marks[1]}\n")
    done = CliRunner().invoke(main, ["table", str(path), "--into", str(page)])
    assert done.exit_code == 1
    assert "expected the marks" in done.stderr


@pytest.mark.parametrize(
    ("page", "suite"), [("search", "search"), ("coreset", "coreset"), ("coreset", "bank")]
)
def test_committed_tables_are_those_of_the_committed_results(page: str, suite: str) -> None:
    root = Path(__file__).parents[2]
    text = (root / "docs" / f"{page}.md").read_text()
    between = text.partition(f"<!-- kad-bench table: {suite} -->")[2].partition("<!-- end of")[0]
    results = RESULTS / f"{suite}.json"
    expected = document_table(json.loads(results.read_text())) if results.is_file() else ""
    assert between.strip() == expected.strip()


def test_tables_name_a_peer_that_did_not_run(document: dict[str, Any]) -> None:
    changed = json.loads(json.dumps(document))
    for case in changed["suites"]["search"]["cases"]:
        del case["engines"][FAISS]
        for peers in case["ratios"].values():
            del peers[FAISS]
        case["skipped"] = {FAISS: "not installed"}
    text = document_table(changed)
    assert "- faiss IndexFlatL2 not run: not installed" in text
    assert "| – |" in text


def test_a_document_of_another_format_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="format 1, got 2"):
        document_table({**document, "format": 2})


def test_faiss_is_skipped_by_name_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    searches, skipped = make_peers(np.eye(4, dtype=np.float32), 1)
    assert set(searches) == {TORCH_CDIST, TORCH_MATMUL}
    assert set(skipped) == {FAISS}


def farther(dist: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return dist * np.float32(1 + 1e-4), index


def other_rows(dist: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return dist, (index + 1) % 500


@pytest.mark.parametrize(
    ("spoil", "text"), [(farther, "wrong distance"), (other_rows, "not nearest")]
)
@pytest.mark.parametrize("method", ["query", "query_maps"])
def test_a_wrong_answer_of_kad_stops_the_run(
    spoil: Callable, text: str, method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Spoilt(SearchIndex):
        pass

    right = getattr(SearchIndex, method)
    setattr(Spoilt, method, lambda self, *args, **kwargs: spoil(*right(self, *args, **kwargs)))
    monkeypatch.setattr(search_suite, "SearchIndex", Spoilt)
    result = smoke(tmp_path, "--json", str(tmp_path / "out.json"))
    assert result.exit_code == 1
    assert f"kad {method}" in result.stderr
    assert text in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "out.json").exists()


def test_a_wrong_answer_of_a_peer_stops_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def spoilt(bank: np.ndarray, threads: int) -> tuple[dict, dict]:
        searches, skipped = make_peers(bank, threads)
        right = searches[TORCH_CDIST]
        return searches | {TORCH_CDIST: lambda q, k: other_rows(*right(q, k))}, skipped

    monkeypatch.setattr(search_suite, "make_peers", spoilt)
    result = smoke(tmp_path)
    assert result.exit_code == 1
    assert "torch.cdist names a row that is not nearest" in result.stderr


@pytest.fixture
def vectors() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(5)
    return generator.random((40, 7), np.float32), generator.random((30, 7), np.float32)


def test_truth_is_that_of_all_differences(
    vectors: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_BLOCK_ROWS", 8)  # the last block has 6 rows
    queries, bank = vectors
    sample = np.array([0, 3, 39])
    truth = find_truth(queries, bank, 3, sample)
    every = np.linalg.norm(queries[sample, None].astype(float) - bank[None], axis=2)
    np.testing.assert_allclose(truth.dist, np.sort(every, axis=1)[:, :3], rtol=1e-13)
    assert truth.first(39).sample.tolist() == [0, 3]
    assert truth.first(39).dist.shape == (2, 3)


def test_checker_accepts_ties_and_nothing_else(vectors: tuple[np.ndarray, np.ndarray]) -> None:
    queries, bank = vectors
    bank = np.concatenate([bank, bank])  # every row twice
    truth = find_truth(queries, bank, 2, np.arange(40))
    dist = truth.dist.astype(np.float32)
    every = np.linalg.norm(queries[:, None].astype(float) - bank[None], axis=2)
    nearest = np.argsort(every, axis=1, kind="stable")[:, :2]
    for direct in (True, False):
        assert check_answer("x", truth, dist, nearest, direct=direct) < 0.1
        assert check_answer("x", truth, dist, nearest[:, ::-1], direct=direct) < 0.1
    wrong = nearest.copy()
    wrong[17, 1] = wrong[17, 0]
    with pytest.raises(WrongAnswerError, match=r"names a row twice at query 17 \(1 of 40"):
        check_answer("x", truth, dist, wrong, direct=True)
    wrong[17, 1] = np.argmax(every[17])
    with pytest.raises(WrongAnswerError, match="not nearest at query 17"):
        check_answer("x", truth, dist, wrong, direct=False)
    wrong[17, 1] = 60
    with pytest.raises(WrongAnswerError, match="outside the bank of 60 rows"):
        check_answer("x", truth, dist, wrong, direct=True)
    for direct, factor in ((True, 1 + 2e-5), (False, 1.01)):
        with pytest.raises(WrongAnswerError, match="wrong distance at query 0 "):
            check_answer("x", truth, dist * np.float32(factor), nearest, direct=direct)
    not_finite = dist.copy()
    not_finite[5] = np.nan
    with pytest.raises(WrongAnswerError, match="wrong distance at query 5"):
        check_answer("x", truth, not_finite, nearest, direct=True)


def test_calls_take_turns() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = interleave(calls, 4, pause_s=0)
    assert "".join(order) == "abcbcacababc"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 4, "b": 4, "c": 4}


def test_summaries() -> None:
    values = [3.0, 1.0, 2.0, 4.0, 5.0]
    expected = {"n": 5, "min": 1, "low": 1, "median": 3, "high": 5, "p90": 4.6, "p99": 4.96}
    assert summarise(values) == pytest.approx(expected | {"max": 5})
    twenty = summarise(list(range(20)))
    assert (twenty["low"], twenty["high"]) == (5, 14)  # ranks 6 and 15 of 20
    assert ratios([8.0, 9.0], [4.0, 1.0])["max"] == 9
    assert sgemm_gflop_per_s(1, sides=(64,)) > 0


def test_features_of_images_are_made_once(
    data_dir: Path, weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ImageFeatures(
        name="small",
        data="hazelnut",
        backbone="resnet18",
        layers=("layer2", "layer3"),
        weights=str(weights_file),
        rows=30,
        candidates=300,
        projected=False,
        tiles=2,
    )
    said: list[str] = []
    features = source.prepare(tmp_path, 2, said.append)
    assert features.bank.shape == (30, 384)
    assert len(np.unique(features.bank, axis=0)) == 30
    assert [x.shape for x in features.maps["defective"]] == [(2, 128, 28, 28), (2, 256, 14, 14)]
    assert features.features("good", 1, 1).shape == (784, 384)
    with SearchIndex(features.bank) as index:  # what the bank lacks is what defects show
        far = {kind: index.query(features.features(kind, 2, 1))[0].max() for kind in features.maps}
    assert far["defective"] > far["good"]
    again = source.prepare(tmp_path, 2, said.append)
    assert len(said) == len(list(tmp_path.iterdir())) == 1
    np.testing.assert_array_equal(again.bank, features.bank)
    assert isinstance(again, StoredFeatures)
    monkeypatch.delenv("KAD_DATA_DIR")
    with pytest.raises(DatasetError, match="KAD_DATA_DIR is not set"):
        source.prepare(tmp_path, 2, said.append)


def test_features_are_kept_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache() == Path("/somewhere/kad/bench")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache" / "kad" / "bench"


def test_every_profile_has_its_level() -> None:
    assert tuple(PROFILES) == LEVELS
