"""Exactness and invariance of the search on every family of hard data, codes really in use."""

from __future__ import annotations

import fuzz_search
import numpy as np
import pytest
import search_oracle
from click.testing import CliRunner
from fuzz_search import Case, Totals, check_case
from hypothesis import given, settings
from hypothesis import strategies as st
from search_families import FAMILIES, curved
from search_oracle import Oracle, at_level, levels_here

from kad_sdk.errors import InvalidArgumentError, NotFiniteError
from kad_sdk.search import SearchIndex

# Values of extreme size, and rows that are all the same, get no codes: products of all pairs.
NEVER_CODED = {"huge", "tiny", "equal_rows"}
# Codes tell no row from another, which a sample of the pairs shows beforehand: products of all
# pairs, which take a hundredth of the time that codes would, since these leave all to be decided.
ALL_DENSE = {"uniform", "shell", "lattice", "far_queries"}
# All queries are answered from codes. For the other families it depends on the level and the size:
# tests/c/search_bound.cpp makes all of them use codes.
ALL_CODED = {"curved", "queries_of_the_bank"}


@pytest.mark.parametrize("family", FAMILIES)
def test_family_at_the_size_of_codes(family):
    totals = Totals()
    for seed, (rows, dims, n, k) in enumerate([(1100, 64, 40, 1), (1300, 130, 70, 3)]):
        totals.update(check_case(Case(family, seed, rows, dims, n, k), levels_here()))
    if family in NEVER_CODED | ALL_DENSE:
        assert totals["narrow bounds"] == 0
        assert totals["dense bounds"] > 0
    elif family in ALL_CODED:
        assert totals["narrow bounds"] > 0
        assert totals["wide bounds"] > 0
        assert totals["coded answers"] == totals["answers"]


@pytest.mark.parametrize("family", FAMILIES)
def test_family_below_the_size_of_codes(family):
    for seed, (rows, dims, n, k) in enumerate([(1, 1, 9, 1), (16, 17, 9, 16), (130, 33, 20, 5)]):
        totals = check_case(Case(family, seed, rows, dims, n, k), levels_here())
        assert totals["narrow bounds"] == 0


@settings(max_examples=40, deadline=None)
@given(
    family=st.sampled_from(list(FAMILIES)),
    seed=st.integers(0, 2**32 - 1),
    rows=st.one_of(st.integers(1, 100), st.integers(1024, 1200)),
    dims=st.one_of(st.integers(1, 63), st.integers(64, 140)),
    queries=st.integers(1, 40),
    data=st.data(),
)
def test_any_case(family, seed, rows, dims, queries, data):
    k = data.draw(st.integers(1, min(16, rows)))
    level = data.draw(st.sampled_from(levels_here()))
    check_case(Case(family, seed, rows, dims, queries, k), [level])


@pytest.mark.parametrize("dims", [64, 95, 96, 97, 191, 192, 193, 511, 512, 513, 1535, 1536])
def test_dimensions_around_lanes_blocks_and_widths(dims):
    totals = check_case(Case("curved", dims, 1030, dims, 20, 2), levels_here())
    assert totals["coded answers"] == totals["answers"]


@pytest.mark.parametrize("rows", [1, 15, 1024])
def test_k_up_to_the_number_of_rows(level, rows):
    bank, queries = curved(np.random.default_rng(rows), rows, 64, 9)
    with SearchIndex(bank) as index:
        most = min(rows, 16)
        Oracle(bank, queries).check(*index.query(queries, most))
        with pytest.raises(InvalidArgumentError, match=f"got {most + 1}"):
            index.query(queries, most + 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_is_named_where_codes_are_used(level, bad):
    bank, queries = curved(np.random.default_rng(1), 1200, 80, 30)
    with SearchIndex(bank) as index:
        assert index.info().narrow_dims > 0
        queries[[17, 29], 79] = bad
        with pytest.raises(NotFiniteError, match="query 17 holds NaN or Inf"):
            index.query(queries, threads=2)
    bank[[600, 1199], 0] = bad
    with pytest.raises(NotFiniteError, match="bank row 600 holds NaN or Inf"):
        SearchIndex(bank, threads=2)


def test_an_index_serves_every_level(level):
    """Codes are written at one level and read at another."""
    bank, queries = curved(np.random.default_rng(2), 1200, 100, 50)
    oracle = Oracle(bank, queries)
    with SearchIndex(bank) as index:
        for other in levels_here():
            with at_level(other):
                oracle.check(*index.query(queries, 4))


def test_real_features(data_dir, weights_file):
    """Patches of hazelnuts, whole and broken, against a bank of whole ones."""
    from kad_export.patchcore import build_network

    network = build_network("resnet18", ("layer2", "layer3"), "same-bilinear", str(weights_file))
    good, bad = data_dir / "hazelnut" / "train" / "good", data_dir / "hazelnut" / "test"
    bank = _patches(network, sorted(good.glob("*"))[:2])
    queries = np.concatenate(
        [_patches(network, sorted(folder.glob("*"))[:1])[::4] for folder in sorted(bad.iterdir())]
    )
    oracle = Oracle(bank, queries)
    for level in levels_here():
        with at_level(level), SearchIndex(bank) as index:
            for threads in (1, 2, 7):
                oracle.check(*index.query(queries, 3, threads=threads))
            stats = index.stats()
            # In plain C++ a dimension of the 8-bit codes costs 14 times what it does with AVX2, a
            # pair of 16-bit codes about the same: so 12 dimensions are compared instead of 64,
            # which leave twice the rows (28 % instead of 15 %).
            least = 2 if level == "scalar" else 4
            assert stats.narrow_pairs > least * stats.wide_pairs > 0
            # With AVX-512 all rows of so small a bank are soon measured: of seven threads one
            # starts where its first guesses are bad, and takes the dense path for a block.
            assert stats.dense_queries < 0.1 * stats.queries


def _base_maps(network, path):
    """Base maps of an image that is squeezed into one tile."""
    import cv2
    import torch

    from kad_sdk.images import read_image

    tile = cv2.resize(read_image(path), (224, 224), interpolation=cv2.INTER_AREA)
    values = (tile.astype(np.float32) / 255 - 0.45) / 0.225
    with torch.inference_mode():
        maps = network(torch.from_numpy(values.transpose(2, 0, 1)[None].copy()))
    return [x.numpy() for x in maps]


def _patches(network, paths):
    """Patch features of images, each squeezed into one tile."""
    from kad_sdk._native import patch_features

    found = [
        patch_features(_base_maps(network, path), grid=(28, 28), resampling="bilinear", threads=1)
        for path in paths
    ]
    return np.concatenate([features[0] for features in found])


def test_real_base_maps_are_found_by_codes_at_every_level(data_dir, weights_file):
    """Where products of first guesses overflow, guesses are bad, and the dense path is taken."""
    from kad_export.patchcore import build_network

    from kad_sdk._native import MapLayout

    network = build_network("resnet18", ("layer2", "layer3"), "same-bilinear", str(weights_file))
    good = sorted((data_dir / "kolektor_sdd" / "train" / "good").glob("*"))
    bank = _patches(network, good[:12])
    maps = _base_maps(network, good[12])
    layout = MapLayout([x.shape[1:] for x in maps], (28, 28), "bilinear")
    for level in levels_here():
        with at_level(level), SearchIndex(bank, layout=layout) as index:
            index.query_maps(maps, 3, grid=(28, 28), resampling="bilinear", threads=1)
            assert index.stats().dense_queries == 0, level


@pytest.fixture
def answer():
    bank, queries = curved(np.random.default_rng(3), 60, 20, 7)
    oracle = Oracle(bank, queries)
    return oracle, oracle.dist[:, :2].copy(), oracle.index[:, :2].copy()


def test_the_oracle_accepts_its_own_answer(answer):
    oracle, dist, index = answer
    oracle.check(dist, index)


def test_the_oracle_notices_one_bit(answer):
    oracle, dist, index = answer
    dist[4, 1] = np.nextafter(dist[4, 1], np.float32(0))
    with pytest.raises(AssertionError, match="1 of 7 queries are wrong, the first is 4"):
        oracle.check(dist, index)


def test_the_oracle_notices_another_row(answer):
    oracle, dist, index = answer
    index[2, 0] += 1
    with pytest.raises(AssertionError, match="the first is 2"):
        oracle.check(dist, index)


@pytest.mark.parametrize("factor", [1 - 4e-6, 1 + 4e-6])
def test_the_oracle_holds_the_reference_to_float64(factor, monkeypatch):
    right = search_oracle.distances
    monkeypatch.setattr(
        search_oracle, "distances", lambda q, m: (right(q, m) * factor).astype(np.float32)
    )
    bank, queries = curved(np.random.default_rng(4), 60, 20, 7)
    with pytest.raises(AssertionError, match="more than its roundings explain"):
        Oracle(bank, queries)


def fuzz(*words):
    return CliRunner().invoke(fuzz_search.main, words)


def test_fuzzing_counts_what_it_checked():
    result = fuzz("--cases", "6", "--family", "curved", "--family", "lattice")
    assert result.exit_code == 0, result.output
    assert "6 cases, " in result.output
    assert result.output.rstrip().endswith("0 violations")


def test_fuzzing_tells_how_to_see_a_failure_again(monkeypatch):
    right = SearchIndex.query

    def wrong(self, features, k=1, *, threads=None):
        dist, index = right(self, features, k, threads=threads)
        if threads == 7:
            index[-1, 0] ^= 1
        return dist, index

    monkeypatch.setattr(SearchIndex, "query", wrong)
    result = fuzz("--cases", "3", "--seed", "5", "--family", "uniform")
    assert result.exit_code == 1
    assert "level scalar, 7 threads: 1 of " in result.stderr
    assert "--family uniform --seed 5 --cases 1" in result.stderr
    assert "violations" not in result.stdout
