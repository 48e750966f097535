"""The door itself: loading, levels, errors, argument checks."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kad_sdk
from kad_sdk import _native
from kad_sdk._native import abi, images, search
from kad_sdk.errors import InvalidArgumentError, NativeLibraryError, NotFiniteError

HEADER = Path(kad_sdk.__file__).parent / "include" / "kad" / "kad.h"


def exported_symbols() -> set[str]:
    output = subprocess.run(
        ["nm", "--dynamic", "--defined-only", abi.library()._name],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return {line.split()[-1].split("@")[0] for line in output.splitlines()}


def test_exports_are_the_headers_functions():
    declared = set(re.findall(r"KAD_API [^;(]*?(kad_\w+)\(", HEADER.read_text()))
    assert len(declared) >= 20
    assert {name for name in exported_symbols() if not name.startswith("KAD_")} == declared


def test_every_status_function_of_the_header_is_bound():
    returning_status = set(re.findall(r"KAD_API kad_status (kad_\w+)\(", HEADER.read_text()))
    assert set(abi._SIGNATURES) == returning_status


def test_version_is_the_packages():
    assert _native.version() == kad_sdk.__version__


def test_levels_can_be_forced_and_released():
    best = _native.cpu_level()
    try:
        for name in abi.LEVELS[: abi.LEVELS.index(best) + 1]:
            _native.force_cpu_level(name)
            assert _native.cpu_level() == name
    finally:
        _native.force_cpu_level(None)
    assert _native.cpu_level() == best


def test_unknown_level_is_refused():
    with pytest.raises(InvalidArgumentError, match="sse9"):
        _native.force_cpu_level("sse9")


@pytest.mark.parametrize(
    ("library", "message"),
    [("/nowhere/libkad.so", "cannot be loaded"), ("libc.so.6", "not this version's compiled core")],
)
def test_wrong_library_says_what_to_do(library: str, message: str):
    code = "from kad_sdk import _native; _native.version()"
    run = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "KAD_LIBRARY": library},
    )
    assert run.returncode != 0
    assert "NativeLibraryError" in run.stderr
    assert message in run.stderr


def test_missing_library_says_where_it_was_looked_for(monkeypatch, tmp_path):
    monkeypatch.delenv("KAD_LIBRARY", raising=False)
    monkeypatch.setattr(kad_sdk, "__path__", [str(tmp_path)])
    with pytest.raises(NativeLibraryError, match=re.escape(str(tmp_path))):
        abi._library_path()


def test_another_abi_is_refused(monkeypatch):
    monkeypatch.setattr(abi, "ABI", (0, 7))
    with pytest.raises(NativeLibraryError, match=r"has ABI 0\.1, expected 0\.7: rebuild"):
        abi._open_library(Path(abi.library()._name))


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 1.5, "4", None])
def test_integers_that_do_not_fit_are_refused(value: object):
    with pytest.raises(InvalidArgumentError, match="height"):
        _native.plan_tiles(value, 100, tile=10, stride=10)


def test_wrong_arrays_are_refused_by_name():
    board = _native.NativeBoard(32, 32, tile=16, grid=(2, 2), sigma=4.0, radius=4)
    xy = np.zeros((1, 2), np.int32)
    dist = np.zeros((1, 4), np.float32)
    for bad_xy in (xy.astype(np.int64), xy[0], xy[:, :1], [[0, 0]]):
        with pytest.raises(InvalidArgumentError, match="xy is"):
            board.add(bad_xy, dist)
    for bad_dist in (dist.astype(np.float64), dist[:, :3], np.zeros((2, 4), np.float32)):
        with pytest.raises(InvalidArgumentError, match="dist is"):
            board.add(xy, bad_dist)
    with pytest.raises(InvalidArgumentError, match="index is"):
        board.add(xy, dist, np.zeros((1, 4), np.int32))


def test_closed_objects_are_refused():
    board = _native.NativeBoard(16, 16, tile=16, grid=(2, 2), sigma=4.0, radius=0)
    board.close()
    board.close()
    with pytest.raises(InvalidArgumentError, match="closed"):
        board.map()
    index = _native.NativeIndex(np.ones((2, 3), np.float32))
    index.close()
    with pytest.raises(InvalidArgumentError, match="closed"):
        index.query(np.ones((1, 3), np.float32), 1)


def test_bank_with_nan_is_not_finite():
    bank = np.ones((5, 3), np.float32)
    bank[3, 1] = np.nan
    with pytest.raises(NotFiniteError, match="3"):
        _native.NativeIndex(bank)


def test_unaligned_and_strided_arrays_give_the_same():
    rng = np.random.default_rng(4)
    bank = rng.random((40, 6), dtype=np.float32)
    raw = np.empty(bank.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(np.float32).reshape(bank.shape)
    unaligned[:] = bank
    expected = _native.NativeIndex(bank).query(bank[:9], 3)
    got = _native.NativeIndex(unaligned).query(np.repeat(bank, 2, axis=0)[:18:2], 3)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])


# ---- the ABI as the C tests freeze it ----------------------------------------------------------

SNAPSHOT = Path(__file__).parents[1] / "c" / "abi_layout.txt"


def snapshot() -> dict[str, tuple[int, ...]]:
    """Give the numbers of every struct, field and value; the lines of functions hold none."""
    found = re.findall(r"^([\w.]+)((?: -?\d+)+)$", SNAPSHOT.read_text(), re.MULTILINE)
    return {name: tuple(map(int, numbers.split())) for name, numbers in found}


@pytest.mark.parametrize(
    ("name", "struct"),
    [
        ("kad_image", abi.Image),
        ("kad_tile_grid", abi.TileGrid),
        ("kad_base_maps", abi.BaseMaps),
        ("kad_index_facts", abi.IndexFacts),
        ("kad_search_stats", abi.SearchStatsRecord),
        ("kad_score_options", abi.ScoreOptions),
        ("kad_board_options", abi.BoardOptions),
        ("kad_region", abi.Region),
        ("kad_windows_options", abi.WindowsOptions),
    ],
)
def test_structs_are_laid_out_as_in_c(name, struct):
    expected = {k: v for k, v in snapshot().items() if k.startswith(f"{name}.")}
    got = {
        f"{name}.{field}": (getattr(struct, field).offset, getattr(struct, field).size)
        for field, _ in struct._fields_
    }
    assert got == expected
    assert (0, ctypes.sizeof(struct)) == snapshot()[name]


def test_the_snapshot_holds_every_struct_field_and_value_of_the_header():
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    declared = {"KAD_ABI_VERSION"}
    declared.update(re.findall(r"(KAD_\w+) = -?\d+", text))
    for name, body in re.findall(r"typedef struct (kad_\w+) \{(.*?)\}", text, flags=re.DOTALL):
        declared.add(name)
        declared.update(f"{name}.{field}" for field in re.findall(r"(\w+);", body))
    assert declared <= set(snapshot())


def test_names_of_the_door_have_the_headers_values():
    values = {name: numbers[0] for name, numbers in snapshot().items() if len(numbers) == 1}
    named = {
        **{f"KAD_PIXEL_{k.upper()}": v.code for k, v in images._PIXEL_FORMATS.items()},
        **{f"KAD_LEVEL_{k.upper()}": i for i, k in enumerate(abi.LEVELS)},
        **{f"KAD_REWEIGHT_{k.upper()}": v for k, v in search._REWEIGHTINGS.items()},
        "KAD_RESAMPLE_BILINEAR": search._RESAMPLINGS["bilinear"],
        "KAD_RESAMPLE_ADAPTIVE_AVERAGE": search._RESAMPLINGS["adaptive-average"],
        "KAD_RESAMPLE_ALIGNED_BILINEAR": search._RESAMPLINGS["aligned-bilinear"],
        "KAD_ERROR_BUFFER_TOO_SMALL": abi.BUFFER_TOO_SMALL,
    }
    assert {name: values[name] for name in named} == named
    assert divmod(values["KAD_ABI_VERSION"], 1 << 16) == abi.ABI
