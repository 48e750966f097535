"""The safetensors subset, against the safetensors package and against damaged files."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kad_sdk.errors import ArtifactCorruptError, InvalidArgumentError, OutputError
from kad_sdk.tensors import encode_tensors, parse_tensors, read_tensors, write_tensors

DTYPES = [np.float32, np.float16, np.int64, np.int32, np.uint8]


def example():
    generator = np.random.default_rng(0)
    tensors = {f"t{i}": (generator.random((3, i + 1)) * 99).astype(d) for i, d in enumerate(DTYPES)}
    return {**tensors, "empty": np.empty((4, 0), np.int64), "scalar": np.array(2.5, np.float32)}


def assert_same(got, expected):
    assert set(got) == set(expected)
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype
        np.testing.assert_array_equal(got[name], tensor)
        assert got[name].shape == tensor.shape


def test_ours_is_read_by_the_package(tmp_path):
    write_tensors(tmp_path / "x", example())
    assert_same(safetensors.numpy.load_file(tmp_path / "x"), example())


def test_the_package_is_read_by_us(tmp_path):
    safetensors.numpy.save_file(example(), tmp_path / "x", metadata={"format": "np"})
    assert_same(read_tensors(tmp_path / "x"), example())


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda s: s.isprintable()),
        st.sampled_from(DTYPES).flatmap(
            lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
        ),
        max_size=5,
    )
)
def test_round_trip_and_determinism(tensors):
    data = b"".join(encode_tensors(tensors))
    assert_same(parse_tensors(data, "x"), tensors)
    assert data == b"".join(encode_tensors(dict(reversed(tensors.items()))))


def test_read_only_aligned_and_from_any_order(tmp_path):
    tensor = np.asfortranarray(np.arange(12, dtype=">f4").reshape(3, 4))
    write_tensors(tmp_path / "x", {"a": tensor})
    got = read_tensors(tmp_path / "x")["a"]
    np.testing.assert_array_equal(got, tensor)
    assert not got.flags.writeable
    assert got.ctypes.data % 64 == 0


def test_unusable_tensors(tmp_path):
    with pytest.raises(InvalidArgumentError, match="got float64"):
        encode_tensors({"a": np.zeros(2)})
    with pytest.raises(InvalidArgumentError, match="cannot be the name"):
        encode_tensors({"__metadata__": np.zeros(2, np.float32)})


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_tensors(tmp_path / "x", {"a": np.ones(2, np.float32)})

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OutputError, match=r"No space left on device.*free some space"):
        write_tensors(tmp_path / "x", {"a": np.zeros(2, np.float32)})
    monkeypatch.undo()
    assert read_tensors(tmp_path / "x")["a"].tolist() == [1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def file_of(header, body=b"\0" * 16, size=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return (len(text) if size is None else size).to_bytes(8, "little") + text + body


def entry(begin=0, end=16, dtype="F32", shape=(4,), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end], **more}


MALFORMED = {
    "too short": (b"\0" * 7, "at least 8 bytes"),
    "header beyond the file": (file_of({}, b"", size=1000), "the header's length must be at most"),
    "huge header": (file_of({}, b"", size=2**63), "the header's length must be at most"),
    "not JSON": (file_of(b"{,,,,,,}"), "header:"),
    "not UTF-8": (file_of(b"\xff" * 8), "header:"),
    "a list": (file_of([]), "expected a JSON object"),
    "nested deeply": (file_of(b"[" * 100_000), "header:"),
    "key twice": (
        file_of(b'{"a":%b,"a":%b}' % ((json.dumps(entry()).encode(),) * 2)),
        "'a' is given twice",
    ),
    "unknown dtype": (file_of({"a": entry(dtype="F64")}), "expected a dtype of"),
    "dtype no string": (file_of({"a": entry(dtype=[])}), "expected a dtype of"),
    "missing key": (file_of({"a": {"dtype": "F32"}}), "expected the keys"),
    "extra key": (file_of({"a": entry(note=1)}), "expected the keys"),
    "negative size": (file_of({"a": entry(shape=(-4,))}), "expected a shape"),
    "size no integer": (file_of({"a": entry(shape=(4.0,))}), "expected a shape"),
    "size a bool": (file_of({"a": entry(0, 4, shape=(True,))}), "expected a shape"),
    "product overflows": (file_of({"a": entry(shape=(2**32, 2**32))}), "takes 7378697629"),
    "too many dimensions": (file_of({"a": entry(shape=(1,) * 9)}), "expected a shape"),
    "offsets reversed": (file_of({"a": entry(16, 0)}), "takes 16 bytes, not -16"),
    "three offsets": (
        file_of({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8, 16]}}),
        "expected two offsets",
    ),
    "size against shape": (file_of({"a": entry(shape=(3,))}), "takes 12 bytes, not 16"),
    "a hole": (
        file_of({"a": entry(0, 4, shape=(1,)), "b": entry(8, 16, shape=(2,))}),
        "'b' should begin at byte 4",
    ),
    "an overlap": (
        file_of({"a": entry(0, 16), "b": entry(8, 16, shape=(2,))}),
        "'b' should begin at byte 16",
    ),
    "trailing bytes": (file_of({"a": entry(0, 8, shape=(2,))}), "take 8 bytes, the file holds 16"),
    "cut off": (file_of({"a": entry(0, 32, shape=(8,))}), "take 32 bytes, the file holds 16"),
    "metadata no strings": (file_of({"__metadata__": {"a": 1}}, b""), "__metadata__ must map"),
    "misaligned": (
        file_of({"a": entry(0, 2, "U8", (2,)), "b": entry(2, 14, shape=(3,))}, b"\0" * 14),
        "not a multiple of 4",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(tmp_path, case):
    data, message = MALFORMED[case]
    (tmp_path / "bad.safetensors").write_bytes(data)
    with pytest.raises(ArtifactCorruptError, match="bad.safetensors.*" + message):
        read_tensors(tmp_path / "bad.safetensors")


def test_cannot_be_opened(tmp_path):
    with pytest.raises(ArtifactCorruptError, match="No such file"):
        read_tensors(tmp_path / "none")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(ArtifactCorruptError, match="at least 8 bytes, got 0"):
        read_tensors(tmp_path / "empty")


@given(st.binary(max_size=200), st.integers(0, 8))
def test_random_bytes_raise_nothing_else(data, length):
    for candidate in (data, length.to_bytes(8, "little") + data):
        with contextlib.suppress(ArtifactCorruptError):
            parse_tensors(candidate, "fuzz")
