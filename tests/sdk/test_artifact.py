"""The artifact's reader refuses every kind of damage by name; the writer is atomic."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from kad_sdk.artifact import Artifact
from kad_sdk.errors import (
    ArtifactCorruptError,
    ArtifactError,
    OutputError,
)

FILES = ("network.onnx", "bank.safetensors", "golden.safetensors")


@pytest.fixture
def copy(tiny_artifact, tmp_path):
    return Path(shutil.copytree(tiny_artifact, tmp_path / "copy.kad"))


def edit_manifest(artifact, change):
    file = artifact / "manifest.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_round_trip(tiny, tiny_artifact):
    artifact = Artifact.open(tiny_artifact)
    assert dataclasses.replace(artifact.manifest, files={}) == tiny.manifest
    assert artifact.network == tiny.network
    for name, tensor in tiny.bank.items():
        np.testing.assert_array_equal(getattr(artifact, name), tensor)
        assert not getattr(artifact, name).flags.writeable
    golden = artifact.golden()
    np.testing.assert_array_equal(golden.tiles, tiny.golden["tiles"])
    np.testing.assert_array_equal(golden.base_maps[1], tiny.golden["base_map_1"])
    assert golden.anomalous.dtype == bool


def test_same_inputs_give_the_same_bytes(tiny, tiny_artifact, tmp_path):
    other = tiny.write(tmp_path / "other.kad", bank=dict(reversed(tiny.bank.items())))
    for name in (*FILES, "manifest.json"):
        assert (other / name).read_bytes() == (tiny_artifact / name).read_bytes(), name


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("position", [0, 9, -1])
def test_flipped_byte(copy, name, position):
    data = bytearray((copy / name).read_bytes())
    data[position] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(ArtifactCorruptError, match=f"{name}: expected SHA-256"):
        Artifact.open(copy)


@pytest.mark.parametrize("name", FILES)
def test_truncated(copy, name):
    (copy / name).write_bytes((copy / name).read_bytes()[:-1])
    with pytest.raises(ArtifactCorruptError, match=rf"{name}: expected \d+ bytes, got \d+"):
        Artifact.open(copy)


def test_extra_file(copy):
    (copy / "notes.txt").write_text("hello")
    with pytest.raises(ArtifactCorruptError, match=r"notes.txt: is not listed"):
        Artifact.open(copy)


@pytest.mark.parametrize(
    "name", ["../outside.bin", "..", "/etc/passwd", "a/b", "", ".hidden", "a\0b"]
)
def test_names_that_leave_the_folder(copy, name):
    entry = {"size": 1, "sha256": "0" * 64}
    edit_manifest(copy, lambda content: content["files"].update({name: entry}))
    with pytest.raises(ArtifactCorruptError, match="expected a plain file name"):
        Artifact.open(copy)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_symbolic_link(copy, tiny_artifact, name):
    (copy / name).unlink()
    (copy / name).symlink_to(tiny_artifact / name)
    with pytest.raises(ArtifactCorruptError, match=f"{name}: expected a regular file"):
        Artifact.open(copy)


def test_folder_in_place_of_a_file(copy):
    (copy / "network.onnx").unlink()
    (copy / "network.onnx").mkdir()
    with pytest.raises(ArtifactCorruptError, match=r"network.onnx: expected a regular file"):
        Artifact.open(copy)


def test_a_graph_that_reads_other_files_is_named(tiny, tiny_artifact, tmp_path):
    model = onnx.load_from_string(tiny.network)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    bad = dataclasses.replace(tiny, network=model.SerializeToString())
    with pytest.raises(ArtifactCorruptError, match=r"x\.kad/network\.onnx: the graph's tensor"):
        bad.write(tmp_path / "x.kad")
    assert list(tmp_path.iterdir()) == []


# ---- what the system does not give --------------------------------------------------------------

DENIED = "cannot be read: Permission denied; allow this user to read it"


@pytest.mark.parametrize(
    ("where", "number", "kind", "message"),
    [
        ("os.open", errno.EACCES, ArtifactError, DENIED),
        ("os.open", errno.EMFILE, ArtifactError, "Too many open files; check the disk, and how"),
        ("os.open", errno.EIO, ArtifactError, "Input/output error; check the disk"),
        ("os.open", errno.ENOENT, ArtifactCorruptError, "cannot be opened: No such file"),
        ("os.open", errno.ELOOP, ArtifactCorruptError, "cannot be opened: Too many levels"),
        ("os.scandir", errno.EIO, ArtifactError, "copy.kad: cannot be read: Input/output error"),
        ("pathlib.Path.is_dir", errno.EACCES, ArtifactError, f"copy.kad: {DENIED}"),
        ("pathlib.Path.lstat", errno.EACCES, ArtifactError, f"manifest.json: {DENIED}"),
        ("pathlib.Path.lstat", errno.ENOENT, ArtifactCorruptError, "manifest.json: is missing"),
    ],
)
def test_the_system_refuses(copy, monkeypatch, where, number, kind, message):
    def refuse(*_arguments, **_named):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(where, refuse)
    with pytest.raises(ArtifactError, match=message) as caught:
        Artifact.open(copy)
    monkeypatch.undo()
    assert type(caught.value) is kind


@pytest.mark.parametrize("key", ["neighbors", "source_image"])
@pytest.mark.parametrize("value", [-1, 40])
def test_index_out_of_range(tiny, tmp_path, key, value):
    bank = {**tiny.bank, key: tiny.bank[key].copy()}
    bank[key].flat[5] = value
    with pytest.raises(ArtifactCorruptError, match=f"'{key}': expected values in 0"):
        tiny.write(tmp_path / "x.kad", bank=bank)


def test_tensors_against_the_manifest(tiny, tmp_path):
    with pytest.raises(ArtifactCorruptError, match=r"'bank': expected float32 \(40, 11\)"):
        tiny.write(tmp_path / "x.kad", bank={**tiny.bank, "bank": tiny.bank["bank"][:39]})
    with pytest.raises(ArtifactCorruptError, match="expected the tensors"):
        tiny.write(tmp_path / "x.kad", golden={"tiles": tiny.golden["tiles"]})


def test_existing_target_is_kept_or_replaced(tiny, tiny_artifact, tmp_path):
    target = tiny.write(tmp_path / "x.kad")
    with pytest.raises(OutputError, match="exists already"):
        tiny.write(target)
    changed = dataclasses.replace(tiny.manifest, created_by={"kad-sdk": "9.9"})
    tiny.write(target, manifest=changed, replace=True)
    assert Artifact.open(target).manifest.created_by == {"kad-sdk": "9.9"}
    assert [p.name for p in tmp_path.iterdir()] == ["x.kad"]


def test_a_folder_that_is_no_artifact_is_never_replaced(tiny, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_text("dear")
    with pytest.raises(OutputError, match="is not an artifact"):
        tiny.write(tmp_path / "photos", replace=True)
    assert (tmp_path / "photos" / "one.jpg").read_text() == "dear"


@pytest.mark.parametrize("leads", ["y.kad", "nowhere"])
@pytest.mark.parametrize("replace", [False, True])
def test_a_link_is_told_as_what_it_is(tiny, tmp_path, leads, replace):
    tiny.write(tmp_path / "y.kad")
    (tmp_path / "x.kad").symlink_to(leads)
    with pytest.raises(OutputError, match=r"x\.kad is a link, and links are not replaced"):
        tiny.write(tmp_path / "x.kad", replace=replace)
    assert Artifact.open(tmp_path / "y.kad").manifest.bank.rows == 40


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_when_writing_fails(tiny, tmp_path, monkeypatch, error):
    from kad_sdk import artifact_folder

    write = artifact_folder.write_synced

    def fail(path, *parts):
        write(path, *parts)
        if path.name == "golden.safetensors":
            raise error

    monkeypatch.setattr(artifact_folder, "write_synced", fail)
    expected = OutputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match="No space left" if isinstance(error, OSError) else None):
        tiny.write(tmp_path / "x.kad")
    assert list(tmp_path.iterdir()) == []


def test_failed_replacement_keeps_the_old_artifact(tiny, tmp_path, monkeypatch):
    target = tiny.write(tmp_path / "x.kad")
    rename = Path.rename

    def fail(self, to):
        if self.suffix == ".tmp":
            raise OSError(5, "Input/output error")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OutputError, match="Input/output error"):
        tiny.write(target, replace=True)
    monkeypatch.undo()
    assert Artifact.open(target).manifest.bank.rows == 40
    assert [p.name for p in tmp_path.iterdir()] == ["x.kad"]
