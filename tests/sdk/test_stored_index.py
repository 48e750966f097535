"""An index that was stored: the same bytes everywhere, the same answers, and no other bank's."""

from __future__ import annotations

import dataclasses
import struct
from functools import cache

import numpy as np
import pytest
import tiny_artifacts
from search_families import FAMILIES, curved
from search_layouts import ask, made
from search_oracle import Oracle

from kad_sdk._native import MapLayout, NativeIndex, StoredIndex, search
from kad_sdk.artifact import PatchCoreArtifact
from kad_sdk.detector import Detector
from kad_sdk.errors import ArtifactCorruptError, InvalidArgumentError
from kad_sdk.verify import verify_artifact

ONE, OTHER = "1" * 64, "1" * 63 + "2"  # names of banks
ROWS, DIMS = 1100, 96
PLAIN = MapLayout([(DIMS, 4, 4)], (4, 4), "bilinear")

# Where things lie: csrc/search/stored_index.cpp and sieve/sieve_stored.cpp.
VERSION_AT, ROWS_AT, CENTRE_AT = 8, 80, 128
TERMS_AT = CENTRE_AT + 4 * DIMS
FACTS_AT = -(-(TERMS_AT + 4 * ROWS) // 64) * 64
FINE_WIDTH_AT, N_GROUPS_AT, N_DEPTHS_AT, DEPTHS_AT, UNIT_AT, SHIFT_AT = (
    FACTS_AT + offset for offset in (0, 16, 24, 32, 112, 120)
)
GROUPS_AT = FACTS_AT + 128


@cache
def bank_and_queries(family="curved"):
    return FAMILIES[family](np.random.default_rng(5), ROWS, DIMS, 40)


@cache
def stored(family="curved"):
    return NativeIndex(bank_and_queries(family)[0], layout=PLAIN).store(ONE)


def restore(data, bank=None, digest=ONE, layout=PLAIN, threads=1):
    bank = bank_and_queries()[0] if bank is None else bank
    return NativeIndex(bank, layout=layout, threads=threads, stored=StoredIndex(data, digest))


def numbers(data):
    """Where the arrays begin that come behind the groups, and how long they are."""
    fine_width, _, n_groups, n_depths = struct.unpack_from("<4q", data, FACTS_AT)
    depths = struct.unpack_from(f"<{2 * n_depths}q", data, DEPTHS_AT)
    groups = np.frombuffer(data, "<i4", 7 * n_groups, GROUPS_AT).reshape(-1, 7)
    slots = 32 * int(np.sum(-(-groups[:, 0] // 32)))
    sizes = {
        "rows": 4 * ROWS,
        "fine": 4 * fine_width * DIMS,
        "narrow": slots * sum(depths[-2:]),
        "wide": 2 * slots * fine_width,
        "scales": 4 * slots,
        "errors": 4 * slots,
    }
    places, at = {}, GROUPS_AT + 28 * n_groups
    for name, size in sizes.items():
        places[name] = at = -(-at // 64) * 64
        at += size
    return places


def test_the_bytes_are_the_same_at_every_level_and_number_of_threads(level):
    bank, _ = bank_and_queries()
    for threads in (1, 3):
        index = NativeIndex(bank, layout=PLAIN, threads=threads)
        assert np.array_equal(index.store(ONE, threads=threads), stored())


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_of_every_family(family):
    bank, queries = bank_and_queries(family)
    data = stored(family)
    if data is None:
        assert family in {"huge", "tiny", "equal_rows", "every_scale"}
        return
    Oracle(bank, queries).check(*restore(data, bank, threads=2).query(queries, 5, threads=2))


@pytest.mark.parametrize("name", ["two coarse", "coarse first", "odd grid", "few fine"])
def test_answers_of_every_layout(level, name):
    layout, bank, maps, features = made(name, batch=1)
    built = NativeIndex(bank, layout=layout)
    index = restore(built.store(ONE), bank, layout=layout)
    for k in (1, 3):
        for got, expected in zip(
            ask(index, layout, maps, k), ask(built, layout, maps, k), strict=True
        ):
            assert np.array_equal(got, expected)
    assert index.info() == built.info()
    counts = index.stats()
    assert counts["narrow_pairs"] > 0
    assert counts["wide_pairs"] == pytest.approx(built.stats()["wide_pairs"], rel=0.05)
    Oracle(bank, features).check(*index.query(features, 2))


def test_rows_of_several_scales_keep_their_groups():
    bank, queries = bank_and_queries()
    bank = bank.copy()
    bank[:60] *= np.float32(2) ** (1 + np.arange(60, dtype=np.float32)[:, None] % 5)
    data = NativeIndex(bank, layout=PLAIN).store(ONE)
    assert struct.unpack_from("<q", data, N_GROUPS_AT)[0] > 3
    Oracle(bank, queries).check(*restore(data, bank).query(queries, 3))


def test_a_small_bank_is_not_worth_storing():
    assert NativeIndex(bank_and_queries()[0][:500]).store(ONE) is None


@pytest.mark.parametrize(("rows", "dims"), [(5, 64), (16, 64), (1023, 64), (1100, 32)])
def test_codes_of_a_small_bank_are_refused(rows, dims):
    """None are ever stored: first guesses are looked for among more rows than these."""
    layout = MapLayout([(dims, 4, 4)], (4, 4), "bilinear")
    slots = -(-rows // 32) * 32
    arrays = [
        b"kadindex" + struct.pack("<q64s4q", 1, ONE.encode(), rows, dims, 0, 0),
        np.zeros(dims, "<f4"),
        np.ones(rows, "<f4"),
        struct.pack("<4q", 32, 0, -(-rows // 1024), 1) + struct.pack("<10q2d", 4, *[0] * 9, 1, 0),
        b"".join(struct.pack("<2i5f", min(1024, rows - i), *[0] * 6) for i in range(0, rows, 1024)),
        np.arange(rows, dtype="<i4"),
        np.zeros(32 * dims, "<f4"),
        np.full(4 * slots, 128, np.uint8),
        np.zeros(32 * slots, "<i2"),
        np.ones(slots, "<f4"),
        np.zeros(slots, "<f4"),
    ]
    padded = [(part := bytes(array)) + bytes(-len(part) % 64) for array in arrays]
    data = np.frombuffer(b"".join(padded), np.int64).copy().view(np.uint8)
    with pytest.raises(ArtifactCorruptError, match="bank that is too small"):
        restore(data, np.zeros((rows, dims), np.float32), layout=layout)


def test_it_is_small():
    index = restore(stored())
    assert stored().size < 0.6 * ROWS * DIMS * 4 + 100_000
    assert index.info()["bytes"] < 1.6 * ROWS * DIMS * 4


def test_it_is_borrowed_and_outlives_its_name():
    data = stored().copy()
    index = restore(data)
    del data
    bank, queries = bank_and_queries()
    Oracle(bank, queries).check(*index.query(queries, 1))


def test_another_version_is_built_anew(level):
    data = stored().copy()
    struct.pack_into("<q", data, VERSION_AT, 999)
    data[DIMS * 8 :] = 255
    bank, queries = bank_and_queries()
    Oracle(bank, queries).check(*restore(data).query(queries, 2))


def test_another_banks_is_refused():
    with pytest.raises(ArtifactCorruptError, match=r"the index: .* of another bank: the SHA-256"):
        restore(stored(), digest=OTHER)
    other = made("same")
    with pytest.raises(ArtifactCorruptError, match=r"\(1100, 96\).* expected \(1100, 100"):
        restore(stored(), other[1], layout=other[0])
    split = MapLayout([(48, 4, 4), (48, 2, 2)], (4, 4), "bilinear")
    with pytest.raises(ArtifactCorruptError, match=r"expected .* from 48 on, 48"):
        restore(stored(), layout=split)
    with pytest.raises(ArtifactCorruptError, match="expected"):
        restore(stored(), bank_and_queries()[0][:-1])


def test_arguments():
    for digest in ("", "1" * 63, "1" * 65):
        with pytest.raises(InvalidArgumentError, match="64 hexadecimal digits"):
            restore(stored(), digest=digest)
        with pytest.raises(InvalidArgumentError, match="64 hexadecimal digits"):
            restore(stored()).store(digest)
    with pytest.raises(InvalidArgumentError, match="layout"):
        restore(stored(), layout=None)
    odd = np.zeros(stored().size + 8, np.uint8)
    odd = odd[(1 - odd.ctypes.data) % 8 :][: stored().size]
    with pytest.raises(ArtifactCorruptError, match="multiple of 8 bytes"):
        restore(odd)


def test_no_shorter_or_longer_one_is_taken():
    data = stored()
    ends = {*range(0, 256, 37), *(at + d for at in numbers(data).values() for d in (-1, 0, 1))}
    for end in sorted(ends | {FACTS_AT, GROUPS_AT, data.size - 64, data.size - 257}):
        with pytest.raises(ArtifactCorruptError, match="export the artifact again"):
            restore(data[:end].copy())
    for more in (1, 64, 4096):
        with pytest.raises(ArtifactCorruptError, match=f"followed by {more} bytes"):
            restore(np.concatenate([data, np.zeros(more, np.uint8)]))


INT, FLOAT, DOUBLE = "<q", "<f", "<d"
NAN, INFINITY = float("nan"), float("inf")
DAMAGES = [
    *((0, "<B", 0, "does not begin like one"),),
    *((ROWS_AT, INT, v, "is of a bank") for v in (0, -1, ROWS + 1)),
    *((CENTRE_AT, FLOAT, v, "NaN or Inf") for v in (NAN, INFINITY)),
    *((TERMS_AT + 4, FLOAT, v, "NaN or Inf") for v in (NAN, -INFINITY)),
    *((FINE_WIDTH_AT, INT, v, "number of its coordinates") for v in (0, 31, 33, -32, 1 << 60)),
    *((FINE_WIDTH_AT + 8, INT, v, "number of its coordinates") for v in (32, -32)),
    *((N_GROUPS_AT, INT, v, "number of its groups") for v in (0, -1, ROWS + 1, 1 << 62)),
    *((N_DEPTHS_AT, INT, v, "number of its depths") for v in (0, -1, 6, 1 << 62)),
    *((DEPTHS_AT, INT, v, "its depths") for v in (-4, 0, 5, 100, 1 << 62)),
    *((DEPTHS_AT + 8, INT, v, "its depths") for v in (4, -4)),
    *((UNIT_AT, DOUBLE, v, "its scale") for v in (0.0, -1.0, NAN, INFINITY, 1e-300)),
    *((SHIFT_AT, DOUBLE, v, "its scale") for v in (NAN, INFINITY)),
    *((GROUPS_AT, "<i", v, "a group's|do not hold all") for v in (0, -1, 1025, 1 << 30, 3)),
    *((GROUPS_AT + 4, "<i", v, "a group's") for v in (-1, 41, 1 << 30)),
    *((GROUPS_AT + 8, FLOAT, v, "a group's") for v in (-1e-6, NAN, INFINITY)),
    *(("rows", "<i", v, "names bank row") for v in (-1, ROWS, 1 << 30)),
    *(("fine", FLOAT, v, "may lengthen") for v in (NAN, INFINITY, 1.5, 2.0**-16, 1.0)),
    *(("narrow", "<B", v, "a narrow code") for v in (0, 1, 255)),
    *(("scales", FLOAT, v, "wide codes, scale or error") for v in (0.0, -1.0, NAN, INFINITY)),
    *(("errors", FLOAT, v, "wide codes, scale or error") for v in (-1e-9, NAN, INFINITY)),
]


@pytest.mark.parametrize(("at", "kind", "value", "message"), DAMAGES)
def test_damage_is_named(at, kind, value, message):
    data = stored().copy()
    struct.pack_into(kind, data, numbers(data)[at] if isinstance(at, str) else at, value)
    with pytest.raises(ArtifactCorruptError, match=message):
        restore(data)


def test_a_row_that_is_named_twice_is_refused():
    data = stored().copy()
    rows = data[numbers(data)["rows"] :].view("<i4")
    rows[7] = rows[1000]
    with pytest.raises(ArtifactCorruptError, match="names bank row"):
        restore(data)


def test_wide_codes_whose_products_could_overflow_are_refused():
    data = stored().copy()
    data[numbers(data)["wide"] :].view("<i2")[:32] = 16_000
    with pytest.raises(ArtifactCorruptError, match="wide codes"):
        restore(data)


def test_no_damage_of_one_byte_harms_the_process(level):
    """Bounds may then be wrong, which the file's hash excludes; nothing is read out of place."""
    queries = bank_and_queries()[1]
    generator = np.random.default_rng(8)
    head = generator.choice(GROUPS_AT + 400, 150, replace=False)
    for at in [*head, *generator.choice(stored().size, 60, replace=False)]:
        data = stored().copy()
        data[at] ^= 1 << generator.integers(8)
        try:
            dist, row = restore(data).query(queries[:9], 3)
        except ArtifactCorruptError:
            continue
        assert np.isfinite(dist).all()
        assert ((row >= 0) & (row < ROWS)).all()


def test_curved_is_what_the_offsets_are_for():
    assert FAMILIES["curved"] is curved
    data = stored()
    assert bytes(data[:8]) == b"kadindex"
    assert struct.unpack_from("<4q", data, ROWS_AT) == (ROWS, DIMS, 0, 0)
    places = numbers(data)
    assert places["errors"] + 4 * (places["errors"] - places["scales"]) // 4 >= data.size - 64


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return tiny_artifacts.write(
        tmp_path_factory.mktemp("index") / "good.kad", tiny_artifacts.indexed()
    )


def test_an_artifact_opens_with_its_index(artifact, tmp_path, monkeypatch):
    manifest, files = tiny_artifacts.indexed()
    bank = dataclasses.replace(manifest.bank, index_file=None)
    del files["index.safetensors"]
    without = tiny_artifacts.write(
        tmp_path / "without.kad", (dataclasses.replace(manifest, bank=bank), files)
    )
    assert PatchCoreArtifact.open(without).stored_index is None
    opened = PatchCoreArtifact.open(artifact)
    assert opened.stored_index.bank_sha256 == opened.manifest.files["bank.safetensors"].sha256
    board = tiny_artifacts.board(3, 96, 141)
    results = [Detector.open(path, threads=2).score(board) for path in (artifact, without)]
    assert [t.score for t in results[0].tiles] == [t.score for t in results[1].tiles]
    np.testing.assert_array_equal(results[0].map, results[1].map)

    def refuse(name, *arguments, **options):
        assert name != "kad_index_create_for_maps", "the index was built"
        return call(name, *arguments, **options)

    call = search.call
    monkeypatch.setattr(search, "call", refuse)
    Detector.open(artifact).close()
    with pytest.raises(AssertionError, match="was built"):
        Detector.open(without)


def test_the_index_of_another_bank_is_named(artifact, tmp_path):
    manifest, files = tiny_artifacts.indexed()
    other = {**files["bank.safetensors"]}
    other["bank"] = other["bank"] * np.float32(1.25)
    path = tiny_artifacts.write(
        tmp_path / "other.kad", (manifest, {**files, "bank.safetensors": other})
    )
    for open_ in (Detector.open, verify_artifact):
        with pytest.raises(ArtifactCorruptError, match=r"index\.safetensors: .* of another bank"):
            open_(path)
