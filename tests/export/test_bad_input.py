"""Bad input to an export, each kind by API and by command: its own error, nothing half-written.

The command must say exactly what the error of the API says, so what a text has to hold is checked
once: what is wrong, what was expected, what was got, what to do.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from convert_once import convert_once
from kad_export import onnx_export, pipeline
from kad_export.cli import main
from kad_export.errors import BackboneError, JobError, WeightsError
from kad_export.options import PatchCoreOptions
from kad_export.pipeline import export_patchcore
from kad_export.weights import load_weights
from PIL import Image

from kad_sdk import artifact, artifact_folder
from kad_sdk.artifact import Artifact
from kad_sdk.errors import (
    AnnotationError,
    DatasetError,
    ImageReadError,
    ImageTooSmallError,
    OutputError,
    UnsupportedImageError,
)
from kad_sdk.tensors import read_tensors, write_tensors

STOPPED = "nothing unfinished was left behind, but for the work of --resume"


def kad_export(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def told(result, *, code=1) -> str:
    """Check that a command failed as it should, and give its last message without its name."""
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.output
    assert result.stdout == ""
    _, found, text = result.stderr.rpartition("kad-export: ")
    assert found
    return text.removesuffix("\n")


def refuse(error, call) -> str:
    """Check that a call raises exactly this error, and give its text."""
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    return str(caught.value)


def holds(text, parts):
    for part in parts:
        assert part in text, f"{part!r} is not in: {text}"


@pytest.fixture
def exports(monkeypatch, graphs, tmp_path, quick_options):
    """The same export by API and by command."""
    convert_once(graphs, monkeypatch)
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def api(data, out, **changes):
        options = {**quick_options, "scratch": scratch, **changes}
        return export_patchcore(data, out, PatchCoreOptions(**options))

    def command(data, out, **changes):
        options = {**quick_options, "scratch": scratch, **changes}
        words = [
            word
            for name, value in options.items()
            for word in (
                f"--{name.replace('_', '-')}",
                ",".join(value) if isinstance(value, tuple) else value,
            )
        ]
        return kad_export("patchcore", data, "--out", out, *words)

    return SimpleNamespace(api=api, command=command)


@pytest.fixture
def refused(exports, snapshot, tmp_path):
    """Check that an export fails alike both ways and leaves all as it was; gives the text."""

    def check(error, data, **changes):
        before, out = snapshot(tmp_path), tmp_path / "x.kad"
        text = refuse(error, lambda: exports.api(data, out, **changes))
        assert told(exports.command(data, out, **changes)) == text
        assert snapshot(tmp_path) == before
        return text

    return check


# ---- training data ------------------------------------------------------------------------------


@pytest.fixture
def boards(tmp_path, small_dataset):
    """A folder of four training boards of 160 x 128 px that a test may spoil."""
    folder = shutil.copytree(small_dataset / "train" / "good", tmp_path / "boards" / "train")
    return folder.parent


def _truncated(root):
    data = cv2.imencode(".jpg", cv2.imread(str(root / "train" / "001.png")))[1].tobytes()
    (root / "train" / "002.jpg").write_bytes(data[: len(data) // 2])


def _cmyk(root):
    Image.new("CMYK", (128, 160)).save(root / "train" / "002.jpg")


def _float(root):
    cv2.imwrite(str(root / "train" / "002.tif"), np.ones((160, 128), np.float32))


def _small(root):
    cv2.imwrite(str(root / "train" / "001.png"), np.full((63, 200), 99, np.uint8))


def _empty(root):
    for path in (root / "train").iterdir():
        path.unlink()


def _nothing(root):
    shutil.rmtree(root / "train")


def _missing(root):
    shutil.rmtree(root)


def _dark(root):
    for path in (root / "train").iterdir():
        cv2.imwrite(str(path), np.full((160, 128), 31, np.uint8))


def _annotate(text):
    return lambda root: (root / "annotations.json").write_text(text)


def _stickers_everywhere(root):
    entries = (f'"{p.name}": {{"labels": [[0, 0, 128, 160]]}}' for p in (root / "train").iterdir())
    (root / "annotations.json").write_text("{" + ", ".join(entries) + "}")


FILTERED = ["none of the tiles of the 3 training images passes", "above 31 of 255 is expected"]
BAD_DATA = {
    "truncated": (_truncated, ImageReadError, ["002.jpg: truncated JPEG", "copy it again"]),
    "cmyk": (_cmyk, UnsupportedImageError, ["002.jpg: ", "CMYK, expected grey or RGB", "convert"]),
    "float": (
        _float,
        UnsupportedImageError,
        ["002.tif: pixels are float32, expected 8", "rescale"],
    ),
    "small": (
        *(_small, ImageTooSmallError),
        ["001.png: the image is 63 x 200 px", "one tile of 64 x 64 px", "--resize", "--tile"],
    ),
    "empty": (_empty, DatasetError, ["boards: no training images; put images", "into train/"]),
    "nothing": (_nothing, DatasetError, ["boards: no images; expected train/ and test/"]),
    "missing": (_missing, DatasetError, ["boards: no such folder; expected train/ and test/"]),
    "dark": (_dark, DatasetError, [*FILTERED, "check the images' exposure"]),
    "stickers": (_stickers_everywhere, DatasetError, [*FILTERED, "touch a label", "annotations"]),
    "border outside": (
        *(_annotate('{"001.png": {"borders": [[0, 0, 129, 160]]}}'), AnnotationError),
        ["001.png: borders[0] = [0, 0, 129, 160]", "outside the image of 128 x 160 px", "measure"],
    ),
    "malformed": (
        *(_annotate('{"001.png": {"borders": [[0, 0, 1'), AnnotationError),
        ["boards/annotations.json: not an annotation file in JSON", "line 1 column", "correct it"],
    ),
    "not four": (
        *(_annotate('{"001.png": {"labels": [[1, 2, 3, 4, 5]]}}'), AnnotationError),
        ["annotations.json: 001.png: labels[0]: expected [x, y, width, height], got [1, 2, 3, 4"],
    ),
    "no such image": (
        *(_annotate('{"board.png": {}}'), AnnotationError),
        ["annotations.json: names none of the 4 images", "'board.png'", "first image '000.png'"],
    ),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_named_before_anything_is_computed(monkeypatch, refused, boards, case):
    monkeypatch.setattr(pipeline, "export_onnx", lambda *_a, **_k: pytest.fail("too late"))
    spoil, error, parts = BAD_DATA[case]
    spoil(boards)
    holds(refused(error, boards), parts)


def test_an_empty_mvtec_folder_says_where_images_go(refused, tmp_path):
    (tmp_path / "data" / "train" / "good").mkdir(parents=True)
    holds(refused(DatasetError, tmp_path / "data"), ["no training images", "into train/good/"])


def test_other_pixel_formats_train_as_the_same_boards(exports, tmp_path):
    board = np.repeat(np.random.default_rng(3).integers(60, 255, (96, 192, 1), np.uint8), 3, axis=2)
    kinds = {
        "grey": board[..., 0],
        "alpha": np.dstack([board, np.full(board.shape[:2], 9, np.uint8)]),
        "16": board.astype(np.uint16) * 257,
    }
    for name, pixels in {"rgb": board, **kinds}.items():
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "board.png"), pixels)
    expected = Artifact.open(exports.api(tmp_path / "rgb", tmp_path / "rgb.kad")).bank
    for name in kinds:
        result = exports.command(tmp_path / name, tmp_path / f"{name}.kad")
        assert result.exit_code == 0, result.output
        bank = Artifact.open(tmp_path / f"{name}.kad").bank
        np.testing.assert_allclose(bank, expected, rtol=1e-4, atol=1e-5, err_msg=name)


# ---- network and weights ------------------------------------------------------------------------

NETWORKS = [
    ({"backbone": "resnet19"}, ["unknown backbone 'resnet19': expected one of resnet18, resnet50"]),
    (
        {"layers": ("layer2", "layer9")},
        ["resnet18 has no layer 'layer9': expected one of layer1 ("],
    ),
    ({"pooling": "max"}, ["unknown pooling 'max': expected", "same-bilinear", "valid-adaptive"]),
]


@pytest.mark.parametrize(("changes", "parts"), NETWORKS)
def test_unknown_networks(refused, small_dataset, changes, parts):
    holds(refused(BackboneError, small_dataset, **changes), parts)


def test_imagenet_weights_asked_for_offline(monkeypatch, refused, small_dataset, tmp_path):
    def offline(request, *_args, **_kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "urlopen", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("KAD_WEIGHTS_DIR", raising=False)
    text = refused(WeightsError, small_dataset, weights="imagenet")
    holds(text, ["ImageNet weights of resnet18 cannot be had. Tried:", "resnet18-f37072fd.pth: no"])
    holds(text, ["https://download.pytorch.org/", "Name or service not known"])
    holds(text, ["--weights FILE", "KAD_WEIGHTS_DIR", "--weights random:SEED"])


@pytest.fixture(scope="module")
def resnet18_file(tmp_path_factory):
    """Random weights of ResNet-18's trunk."""
    path = tmp_path_factory.mktemp("weights") / "other.safetensors"
    state = load_weights("random:1", "resnet18").state_dict
    names = [n for n in state if not n.startswith(("layer4", "fc")) and "batches" not in n]
    write_tensors(path, {name: state[name].numpy() for name in names})
    return path


def test_weights_of_another_network(refused, small_dataset, resnet18_file):
    text = refused(WeightsError, small_dataset, weights=str(resnet18_file), backbone="resnet50")
    holds(text, ["weights other.safetensors do not belong to this network", "and 153 more"])
    holds(text, ["expected shape (64, 64, 1, 1), got (64, 64, 3, 3)", "choose their backbone"])


def test_weights_that_are_not_there_or_not_whole(refused, small_dataset, resnet18_file, tmp_path):
    text = refused(WeightsError, small_dataset, weights=str(tmp_path / "no.pth"))
    holds(text, ["no.pth cannot be read: No such file"])
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(resnet18_file.read_bytes()[:-1])
    holds(refused(WeightsError, small_dataset, weights=str(cut)), ["cut.safetensors", "cannot be"])
    tensors = {name: tensor.copy() for name, tensor in read_tensors(resnet18_file).items()}
    tensors["conv1.weight"][0] = np.nan
    write_tensors(tmp_path / "nan.safetensors", tensors)
    text = refused(WeightsError, small_dataset, weights=str(tmp_path / "nan.safetensors"))
    holds(text, ["nan.safetensors: conv1.weight holds NaN or Inf"])


# ---- where it is written ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("out", "call it out.kad"),
        ("no/out.kad", "does not exist: make it first"),
        ("old.kad", "exists already: remove it, or replace it with --force"),
        ("link.kad", "is a link, and links are not replaced"),
    ],
)
def test_output_is_checked_first(exports, snapshot, tmp_path, name, part):
    (tmp_path / "old.kad").mkdir()
    (tmp_path / "link.kad").symlink_to("old.kad")
    before = snapshot(tmp_path)
    text = refuse(OutputError, lambda: exports.api(tmp_path / "no-data", tmp_path / name))
    assert told(exports.command(tmp_path / "no-data", tmp_path / name)) == text
    holds(text, [str(tmp_path / name), part])
    assert snapshot(tmp_path) == before


def _refused_by_the_disk(texts, name):
    for text in texts:
        assert text.startswith("cannot write ")
        holds(text, [name, "free there: ", "Nothing was left behind", "free some space or quota"])


def test_disk_full_for_scratch_files(exports, snapshot, small_disk, small_dataset, tmp_path):
    """The graph is larger than 1 MB."""
    out = tmp_path / "x.kad"
    with small_disk(1 << 20) as disk:
        before = snapshot(tmp_path)
        text = refuse(OutputError, lambda: exports.api(small_dataset, out, scratch=disk))
        texts = [text, told(exports.command(small_dataset, out, scratch=disk))]
        assert snapshot(tmp_path) == before
    _refused_by_the_disk(texts, "network.onnx")


@pytest.mark.parametrize("small_disk", ["tmpfs"], indirect=True)
def test_disk_full_for_the_artifact(exports, snapshot, small_disk, small_dataset, tmp_path):
    with small_disk(1 << 20) as disk:
        before = snapshot(tmp_path)
        text = refuse(OutputError, lambda: exports.api(small_dataset, disk / "x.kad"))
        assert told(exports.command(small_dataset, disk / "x.kad")) == text
        assert snapshot(tmp_path) == before
    _refused_by_the_disk([text], "x.kad")


# ---- Ctrl-C -------------------------------------------------------------------------------------


def _press(*_args, **_kwargs):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)
    pytest.fail("Ctrl-C was not noticed")


def _press_between_files(write):
    def write_one(path, *parts):
        write(path, *parts)
        if path.name == "golden.safetensors":
            _press()

    return write_one


MOMENTS = {
    "looking at the data": (pipeline, "scan_dataset", _press),
    "building the network": (pipeline, "build_network", _press),
    "surveying the boards": (pipeline, "survey_boards", _press),
    "converting": (onnx_export, "_convert", _press),
    "selecting the bank": (pipeline, "build_bank", _press),
    "calibrating": (pipeline, "_calibrate", _press),
    "writing": (
        artifact_folder,
        "write_synced",
        _press_between_files(artifact_folder.write_synced),
    ),
}


@pytest.fixture(params=MOMENTS)
def pressed(request, monkeypatch, exports):
    """Press Ctrl-C at a moment of the export; comes after the cache of conversions."""
    monkeypatch.setattr(*MOMENTS[request.param])


@pytest.mark.usefixtures("pressed")
def test_ctrl_c(exports, snapshot, small_dataset, tmp_path):
    """A real signal, at each step."""
    before = snapshot(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        exports.api(small_dataset, tmp_path / "x.kad")
    assert snapshot(tmp_path) == before
    text = told(exports.command(small_dataset, tmp_path / "x.kad"), code=130)
    assert text == f"interrupted; {STOPPED}"
    assert snapshot(tmp_path) == before


def test_ctrl_c_between_the_renames_of_a_replacement(
    monkeypatch, snapshot, tmp_path, small_artifact
):
    old = shutil.copytree(small_artifact, tmp_path / "x.kad")
    opened, rename = Artifact.open(old), type(old).rename
    files = {
        "network.onnx": opened.network,
        "bank.safetensors": read_tensors(old / "bank.safetensors"),
        "golden.safetensors": read_tensors(old / "golden.safetensors"),
    }

    def rename_and_press(self, to):
        rename(self, to)
        os.kill(os.getpid(), signal.SIGINT)

    before = snapshot(tmp_path)
    monkeypatch.setattr(type(old), "rename", rename_and_press)
    with pytest.raises(KeyboardInterrupt):
        artifact.write_artifact(old, opened.manifest, files, replace=True)
    assert snapshot(tmp_path) == before


@contextmanager
def _running(*words):
    command = [sys.executable, "-m", "kad_export.cli", *map(str, words)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


LONG = ("--weights", "random:0", "--tile", 64, "--train-stride", 4, "--coreset", 1)


@pytest.mark.parametrize(
    ("name", "code", "seconds"),
    [("SIGTERM", 143, None), ("SIGINT", 130, 0.5)],
)
def test_signals_to_a_process(tmp_path, small_dataset, name, code, seconds):
    """While torch is imported (None), and amid the conversion to ONNX."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    words = ("patchcore", small_dataset, "--out", tmp_path / "x.kad", *LONG, "--scratch", scratch)
    with _running(*words) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (
            "libtorch" in maps.read_text() if seconds is None else any(scratch.iterdir())
        ):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        time.sleep(seconds or 0)
        process.send_signal(getattr(signal, name))
        _, text = process.communicate(timeout=60)
    assert process.returncode == code, text
    assert text.endswith(f"; {STOPPED}\n")
    assert "Traceback" not in text
    assert list(tmp_path.rglob("*")) == [scratch]


def test_killed_export_is_resumed(tmp_path, small_dataset, small_artifact, quick_options):
    """SIGKILL once features are on disk; the same command then gives the same artifact."""
    job = tmp_path / "job"
    words = [f"--{name.replace('_', '-')}={value}" for name, value in quick_options.items()]
    words = ("patchcore", small_dataset, "--out", tmp_path / "x.kad", *words)
    with _running(*words, "--resume", "--scratch", job) as process:
        deadline = time.monotonic() + 120
        while not list(job.glob("points-*")) and time.monotonic() < deadline:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        process.kill()
    assert not (tmp_path / "x.kad").exists()
    options = PatchCoreOptions(**quick_options, resume=True, scratch=job)
    with pytest.raises(JobError, match="an unfinished job with other images, seed"):
        export_patchcore(small_dataset, tmp_path / "x.kad", dataclasses.replace(options, seed=3))
    path = export_patchcore(small_dataset, tmp_path / "x.kad", options)
    for file in small_artifact.iterdir():
        assert file.read_bytes() == (path / file.name).read_bytes(), file.name
    assert not job.exists()
