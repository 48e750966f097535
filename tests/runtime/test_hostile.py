"""Bad artifacts are refused by both doors: each with its status by C, under sanitizers, and with
its class by Python; and what one door accepts, the other accepts too."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

import hostile
import hostile_index
import hostile_inspection
import hostile_manifest
import hostile_tensors
import programs
import pytest
import tiny_artifacts as tiny

from kad_sdk import Detector
from kad_sdk.errors import ArtifactCorruptError, ArtifactError, ArtifactVersionError

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = {
    "NOT_FOUND": ArtifactError,
    "VERSION": ArtifactVersionError,
    **dict.fromkeys(
        ("MANIFEST", "LISTING", "SIZE", "HASH", "TENSORS", "NETWORK"), ArtifactCorruptError
    ),
}
# Each error says what to do; a text that is too long would have a gap.
ADVICE = re.compile(
    "copy the artifact again|export the artifact again|upgrade libkad|remove it"
    "|give the path of one that kad-export made|not an artifact of kad-export"
)
GAP = " [...] "
SANITIZED = {
    "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}


@pytest.fixture(scope="module", params=hostile.METHODS)
def method(request, tmp_path_factory):
    """Give a method's name and a good artifact of it."""
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, tiny.write(folder / "good.kad", hostile.METHODS[request.param]())


def statuses(paths: list[Path]) -> list[tuple[str, str]]:
    """Give what the C door says to artifacts: status without its prefix, and text."""
    result = programs.run(
        programs.program("asan", "open_artifacts"),
        *paths,
        KAD_ONNXRUNTIME=programs.onnxruntime_library(),
        **SANITIZED,
    )
    assert not result.stderr
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    return [
        (name.removeprefix("KAD_").removeprefix("ERROR_ARTIFACT_"), text) for name, text in lines
    ]


def python_error(path: Path) -> Exception | None:
    try:
        Detector.open(path, threads=1).close()
    except ArtifactError as error:
        return error
    return None


def check(cases, good: Path, tmp_path: Path) -> None:
    """Compare both doors on every case."""
    named = list(cases)
    paths = []
    for i, (_, spoil, _) in enumerate(named):
        paths.append(shutil.copytree(good, tmp_path / f"{i}.kad"))
        spoil(paths[-1])
    wrong = []
    for path, (name, _, expected), (status, text) in zip(
        paths, named, statuses(paths), strict=True
    ):
        error = python_error(path)
        problem = _problem(expected, status, text, error)
        if problem:
            wrong.append(f"{name}: {problem}; C says {status} {text!r}, Python {error!r}")
    assert not wrong, f"{len(wrong)} of {len(named)}:\n" + "\n".join(wrong[:40])


def _problem(expected: str | None, status: str, text: str, error: Exception | None) -> str:
    if status == "OK":
        if expected not in {None, "OK"}:
            return f"expected {expected}"
        return "" if error is None else "Python refuses it"
    if expected not in {None, status}:
        return f"expected {expected}"
    if status not in CLASSES or not ADVICE.search(text) or GAP in text:
        return "no status of artifacts, no advice, or a gap in the text"
    if error is None:
        return "Python accepts it"
    return "" if type(error) is CLASSES[status] else f"expected {CLASSES[status].__name__}"


def files_of(good: Path) -> list[str]:
    return sorted(path.name for path in good.iterdir() if path.name != "manifest.json")


def test_the_good_one_is_good(method):
    assert statuses([method[1]]) == [("OK", "")]
    assert python_error(method[1]) is None


def test_folder(method, tmp_path):
    check(hostile.folder_cases(files_of(method[1])), method[1], tmp_path)


def test_bytes(method, tmp_path):
    check(hostile.byte_cases(files_of(method[1])), method[1], tmp_path)


def test_manifest_text(method, tmp_path):
    size = (method[1] / "manifest.json").stat().st_size
    check(hostile_manifest.text_cases(size), method[1], tmp_path)


def test_manifest_values(method, tmp_path):
    content = hostile.manifest_of(method[1])
    entries = {
        "patchcore": tuple(content),
        "cutpaste": ("cutpaste", "cutpaste_training", "density", "golden", "network"),
        "kernel": ("density",),
    }[method[0]]
    check(hostile_manifest.value_cases(content, entries), method[1], tmp_path)


def test_long_texts(method, tmp_path):
    check(hostile_manifest.long_cases(), method[1], tmp_path)


def test_ranges(method, tmp_path):
    check(hostile_manifest.range_cases(method[0]), method[1], tmp_path)


def test_precisions(method, tmp_path):
    check(hostile_manifest.precision_cases(), method[1], tmp_path)


def test_windows(tmp_path):
    good = tiny.write(tmp_path / "good.kad", tiny.windows())
    check(hostile_manifest.window_cases(), good, tmp_path)


def test_a_list_of_millions_takes_little_memory(tmp_path):
    """As large as a manifest may be: its values alone take 134 MB, their names would take 800."""
    path = tiny.write(tmp_path / "long.kad", tiny.patchcore()) / "manifest.json"
    content = json.loads(path.read_text())
    content["preprocessing"]["mean"] = "here"
    text = json.dumps(content, separators=(",", ":"))
    path.write_text(text.replace('"here"', "[" + "0," * ((16 << 20) // 2 - len(text)) + "0]"))
    result = programs.run(
        *("sh", "-c", 'ulimit -v 524288 && exec "$@"', "sh"),
        *(programs.program("test", "open_artifacts"), "--no-network", path.parent),
    )
    status, text = result.stdout.split("\t")
    assert status == "KAD_ERROR_ARTIFACT_MANIFEST"
    assert "preprocessing.mean: expected 3 items" in text


@pytest.mark.parametrize("make", [tiny.windows, tiny.patchcore])
def test_the_graph_of_the_other_mode_is_refused(make, tmp_path):
    other = tiny.patchcore if make is tiny.windows else tiny.windows
    path = tiny.write(tmp_path / "other.kad", make(), network_onnx=other()[1]["network.onnx"])
    assert statuses([path])[0][0] == "NETWORK"
    assert isinstance(python_error(path), ArtifactCorruptError)


def test_extended_banks(tmp_path):
    good = tiny.write(tmp_path / "good.kad", tiny.patchcore())
    check(hostile_manifest.extension_cases(), good, tmp_path)


def test_versions_and_names(method, tmp_path):
    check([*hostile_manifest.version_cases(), *hostile_manifest.name_cases()], method[1], tmp_path)


def test_tensors(method, tmp_path):
    cases = [
        case
        for name in files_of(method[1])
        if name.endswith(".safetensors") and not (method[0] != "patchcore" and "golden" in name)
        for case in hostile_tensors.tensor_cases(name, (method[1] / name).read_bytes())
    ]
    check([*cases, *hostile_tensors.meaning_cases(method[0])], method[1], tmp_path)


def test_stored_index(tmp_path):
    good = tiny.write(tmp_path / "good.kad", tiny.indexed())
    other = tiny.write(tmp_path / "other.kad", tiny.indexed("valid-adaptive"))
    cases = [
        ("good", lambda _: None, "OK"),
        ("old-version", hostile_index.old_version, "OK"),
        ("old-version-with-an-index", hostile_index.old_version_with_an_index, "MANIFEST"),
        *hostile.byte_cases(["index.safetensors"]),
        *hostile_index.index_cases(other / "index.safetensors"),
    ]
    check(cases, good, tmp_path)


def test_what_is_set_on_site(tmp_path):
    good = tiny.write(tmp_path / "good.kad", tiny.patchcore())
    check(hostile_inspection.cases(good), good, tmp_path)


def test_network(method, tmp_path):
    (tmp_path / "outside.bin").write_bytes(bytes(64))
    cases = [
        case
        for name in files_of(method[1])
        if name == ("explain.onnx" if method[0] == "cutpaste" else "network.onnx")
        for case in hostile.network_cases(name, (method[1] / name).read_bytes())
    ]
    if method[0] == "cutpaste":
        cases += hostile.reading_cases("network.onnx")  # with maps it is the other one that is run
    check(cases, method[1], tmp_path)
