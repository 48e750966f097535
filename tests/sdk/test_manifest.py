"""The manifest: a round trip, and an error naming the key for every way to be wrong."""

from __future__ import annotations

import dataclasses
import json

import pytest

from kad_sdk.errors import ArtifactCorruptError, ArtifactVersionError
from kad_sdk.manifest import FileEntry, Manifest, Windows


@pytest.fixture(scope="module")
def manifest(tiny):
    entry = FileEntry(10, "a" * 64)
    files = dict.fromkeys(("network.onnx", "bank.safetensors", "golden.safetensors"), entry)
    return dataclasses.replace(tiny.manifest, files=files)


@pytest.fixture
def content(manifest):
    return json.loads(manifest.to_json())


def read(content):
    return Manifest.from_json(json.dumps(content).replace("Infinity", "1e999"))


def change(content, path, value):
    *parents, key = path.split(".")
    for parent in parents:
        content = content[int(parent) if parent.isdigit() else parent]
    content[key] = value


def test_round_trip(manifest):
    text = manifest.to_json()
    assert Manifest.from_json(text) == manifest
    assert Manifest.from_json(text.encode()).to_json() == text
    assert text.index('"bank"') < text.index('"created_by"') < text.index('"files"')


def keys(content, prefix=""):
    for key, value in content.items():
        yield prefix + key
        if isinstance(value, dict) and prefix + key not in {"created_by", "verification", "files"}:
            yield from keys(value, f"{prefix}{key}.")


def test_every_key_is_required(manifest):
    original = manifest.to_json()
    paths = list(keys(json.loads(original)))
    assert len(paths) > 60
    for path in paths:
        content = json.loads(original)
        parent = content
        *parents, key = path.split(".")
        for name in parents:
            parent = parent[name]
        del parent[key]
        with pytest.raises((ArtifactCorruptError, ArtifactVersionError), match=path.split(".")[-1]):
            read(content)


WRONG = [
    ("network.layers", "layer2", "network.layers: expected a list"),
    ("network.layers", ["layer2", 3], r"network.layers\[1\]: expected a string, got 3"),
    ("network.opset", 18.0, "network.opset: expected an integer"),
    ("network.opset", True, "network.opset: expected an integer, got True"),
    ("network.outputs", [], "network.outputs: expected one for each of 2 layers, got 0"),
    ("network.weights.source", "web", "expected 'imagenet' or 'file' or 'random'"),
    ("network.weights.sha256", "A" * 64, "expected 64 hexadecimal digits"),
    ("network.file", "../network.onnx", "network.file: expected a plain file name"),
    ("network.backbone", "", "network.backbone: expected a non-empty string"),
    ("preprocessing.tile", 0, "preprocessing.tile: expected a number at least 1"),
    ("preprocessing.tile", 1 << 40, "preprocessing.tile: expected a number at least 1 and at most"),
    ("preprocessing.resize", [224], "preprocessing.resize: expected 2 items"),
    ("preprocessing.resize", 9.0, "preprocessing.resize: expected a number above 0 and at most 8"),
    ("preprocessing.resize", "half", "preprocessing.resize: expected a finite number"),
    ("preprocessing.mean", [0.5, 0.5], "preprocessing.mean: expected 3 items"),
    ("preprocessing.std", [1, 0, 1], r"preprocessing.std\[1\]: expected a number at least 1"),
    ("preprocessing.std", [1, 1, 3.5e38], r"std\[2\]: expected .* and at most 3.40282e\+38"),
    ("preprocessing.std", [1, 1e-46, 1], r"std\[1\]: expected a number at least 1.17549e-38"),
    ("preprocessing.mean", [0, -3.5e38, 0], r"mean\[1\]: expected a number at least -3.40282e\+38"),
    (
        "preprocessing.mean",
        [0, 0, 3e38],
        r"std\[2\]: expected a number for which \(value - mean\) /",
    ),
    ("preprocessing.tile", (1 << 15) + 1, "preprocessing.tile: .* at most 32768, got 32769"),
    ("preprocessing.resize", [65536, 65536], "resize: expected at most 268435456 px in all, got"),
    ("preprocessing.resize", [90, 31], "resize: expected sides of at least a tile, 32 px, got"),
    ("map.sigma", 1e39, r"map.sigma: expected .* at most 3.40282e\+38"),
    ("preprocessing.std", [1, 1e999, 1], r"preprocessing.std\[1\]: expected a finite number"),
    ("preprocessing.std", [1, 10**400, 1], r"std\[1\]: expected a finite number, got 10000"),
    (
        "preprocessing.denoise",
        {"h": 3, "h_color": 3, "template_window": 4, "search_window": 21},
        "preprocessing.denoise: expected odd windows",
    ),
    ("patchcore.reweighting", None, "patchcore.reweighting: expected 'none' or"),
    ("patchcore.n_neighbors", 0, "patchcore.n_neighbors: expected 1 to 8 for re-weighting"),
    ("patchcore.n_neighbors", 9, "patchcore.n_neighbors: expected a number at least 0"),
    ("map", [], "map: expected an object"),
    ("bank.dims", 12, "bank.dims: expected 11, the sum of the outputs' channels"),
    ("bank.images", [], "bank.images: expected at least one name"),
    ("bank.rows", 3, "patchcore.n_neighbors: expected 1 to 2"),
    ("thresholds.tile", "0.5", "thresholds.tile: expected a finite number"),
    ("thresholds.tile", 0, "thresholds.tile: expected a number at least 1.17549e-38"),
    ("thresholds.map", 1e39, "thresholds.map: expected a number at least 1.17549e-38 and at most"),
    ("golden.file", "bank.safetensors", "files: expected a different name for each file"),
    ("golden.file", "other.safetensors", "files: other.safetensors is not listed"),
    ("verification", {"a": {"b": [1, "x", None, 1e999]}}, r"verification.a.b\[3\]: expected a fin"),
    ("created_by.torch", 2.6, "created_by.torch: expected a string"),
    ("files", {"a/b": {"size": 1, "sha256": "a" * 64}}, "files: each key: expected a plain file"),
    ("method", "padim", "method: expected 'patchcore' or 'cutpaste', got 'padim'"),
    ("extra", 1, "unknown key extra"),
    ("bank.coreset.extra", 1, "unknown key bank.coreset.extra"),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG)
def test_wrong_values(content, path, value, message):
    change(content, path, value)
    with pytest.raises(ArtifactCorruptError, match=r"manifest\.json: .*" + message):
        read(content)


def test_nested_too_deeply(content):
    content["verification"] = {"a": [[[[[[[[[[1]]]]]]]]]]}
    with pytest.raises(ArtifactCorruptError, match=r"verification.a.*: nested too deeply"):
        read(content)


def test_versions(content, manifest):
    for version, error, message in [
        ("2.0", ArtifactVersionError, "2.0 cannot be read by this version.*upgrade kad-sdk"),
        ("0.9", ArtifactVersionError, "export the artifact again"),
        ("1", ArtifactCorruptError, "expected 'major.minor'"),
        (1.0, ArtifactCorruptError, "expected 'major.minor'"),
    ]:
        with pytest.raises(error, match=message):
            read({**content, "format_version": version})
    with pytest.raises(ArtifactVersionError, match="not an artifact of kad-export"):
        read({**content, "format": "zip"})
    newer = read({**content, "format_version": "1.7", "unheard_of": 1})
    assert dataclasses.replace(newer, format_version="1.3") == manifest


ADDED = [  # minor version, entry, and the keys that came with it
    (1, "bank", ("index_file",)),
    (2, "bank", ("extended",)),
    (3, "patchcore", ("mode", "windows")),
]


def as_of(content, minor):
    """Give a manifest as an older minor version would have written it."""
    content = {**content, "format_version": f"1.{minor}"}
    for since, entry, keys in ADDED:
        if since > minor:
            kept = {k: v for k, v in content[entry].items() if k not in keys}
            content[entry] = kept
    return content


@pytest.mark.parametrize("minor", [0, 1, 2])
def test_older_versions_are_read(content, manifest, minor):
    assert read(as_of(content, minor)) == manifest


@pytest.mark.parametrize(("since", "entry", "keys"), ADDED)
def test_keys_belong_to_the_version_that_brought_them(content, since, entry, keys):
    older = as_of(content, since - 1)
    with pytest.raises(ArtifactCorruptError, match=rf"the key {entry}\.{keys[0]} is missing"):
        read({**as_of(content, since), entry: older[entry]})
    newer = as_of(content, since)[entry]
    with pytest.raises(ArtifactCorruptError, match=rf"unknown key {entry}\.{keys[0]}"):
        read({**older, entry: newer})


WINDOWS = {
    "window_px": 64,
    "halo_px": 32,
    "align_px": 16,
    "patch_px": 8,
    "label_margin_px": 16,
}


def in_windows(content, **changes):
    """Make a manifest one of windows; `changes` replace values of ``patchcore.windows``."""
    content["preprocessing"]["tile"] = 224
    content["patchcore"] |= {
        "mode": "windows",
        "resampling": "aligned-bilinear",
        "pooling": "same-bilinear",
        "grid": [28, 28],
        "windows": {**WINDOWS, **changes},
    }
    for output, side in zip(content["network"]["outputs"], (28, 14), strict=True):
        output |= {"height": side, "width": side}
    return content


def test_windows_are_read(content):
    manifest = read(in_windows(content))
    assert manifest.patchcore.windows == Windows(64, 32, 16, 8, 16)
    assert manifest.graph().input_shape == (3, None, None)
    assert all(shape[1:] == (None, None) for shape in manifest.graph().outputs.values())


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("patchcore.mode", "tiles", "patchcore.windows: expected null with mode 'tiles'"),
        ("patchcore.mode", "strips", "patchcore.mode: expected 'tiles' or 'windows'"),
        ("patchcore.windows", None, "patchcore.windows: expected an object with mode 'windows'"),
        ("patchcore.resampling", "bilinear", "patchcore.resampling: expected 'aligned-bilinear'"),
        ("patchcore.windows.window_px", 72, "window_px: expected a multiple of .*16 px"),
        ("patchcore.windows.halo_px", 24, "halo_px: expected a multiple of .*16 px"),
        ("patchcore.windows.align_px", 24, "align_px: expected 1, 2, 4 ... times 8 px"),
        ("patchcore.windows.patch_px", 5, "align_px: expected 1, 2, 4 ... times 5 px"),
        ("patchcore.windows.label_margin_px", 97, "preprocessing.tile: expected at least 2 label"),
        ("patchcore.windows.label_margin_px", -1, "label_margin_px: expected a number at least 0"),
        ("preprocessing.tile", 232, "preprocessing.tile: expected a multiple of"),
        ("patchcore.grid", [28, 27], r"patchcore.grid: expected \[28, 28\]"),
        ("patchcore.windows.align_px", 32, "network.outputs: expected one cell for every 8 to 32"),
    ],
)
def test_windows_that_contradict_the_rest_are_refused(content, path, value, message):
    change(in_windows(content), path, value)
    with pytest.raises(ArtifactCorruptError, match=message):
        read(content)


def test_tiles_do_not_resample_like_windows(content):
    change(content, "patchcore.resampling", "aligned-bilinear")
    with pytest.raises(ArtifactCorruptError, match="expected not 'aligned-bilinear'"):
        read(content)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "manifest.json: "),
        (b"{", "manifest.json: "),
        (b"\xff{}", "codec can't decode"),
        (b"[]", "expected a JSON object"),
        (b'{"a": 1, "a": 2}', "the key 'a' is given twice"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b"[" * 200_000, "manifest.json: "),
        (b" " * ((16 << 20) + 1), "expected at most 16777216 bytes"),
        (b'{"a": ' + b"9" * 5000 + b"}", "manifest.json: "),
    ],
)
def test_not_strict_json(text, message):
    with pytest.raises(ArtifactCorruptError, match=message):
        Manifest.from_json(text)
