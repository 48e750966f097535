"""Bad input to scoring, each kind by API and by command: its own error, and nothing half-written.

The command must say exactly what the error of the API says, so what a text has to hold is checked
once: what is wrong, what was expected, what was got, what to do.
"""

from __future__ import annotations

import hashlib
import json
import shutil

import cv2
import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from PIL import Image

from kad_sdk import Detector, evaluate, find_annotation, read_annotations, scan_dataset
from kad_sdk.artifact import Artifact
from kad_sdk.cli import main
from kad_sdk.errors import (
    AnnotationError,
    ArtifactCorruptError,
    ArtifactError,
    ArtifactVersionError,
    ImageReadError,
    ImageTooSmallError,
    InvalidArgumentError,
    OutputError,
    ProviderUnavailableError,
    UnsupportedImageError,
)
from kad_sdk.tensors import encode_tensors, read_tensors

HEIGHT, WIDTH = 90, 140


def kad(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def told(result, *, code=1) -> str:
    """Check that a command failed as it should, and give its one message without its name."""
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.output
    assert result.stderr.startswith("kad: ")
    return result.stderr.removeprefix("kad: ").removesuffix("\n")


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
def room(tmp_path, make_board, tiny_artifact):
    """A folder with a board, and an artifact that a test may spoil."""
    board = make_board(1, HEIGHT, WIDTH, defect=True)
    cv2.imwrite(str(tmp_path / "board.png"), board[..., ::-1])
    shutil.copytree(tiny_artifact, tmp_path / "x.kad")
    return tmp_path


# ---- images -------------------------------------------------------------------------------------


def _truncated(board, path):
    data = cv2.imencode(".jpg", board)[1].tobytes()
    path.write_bytes(data[: len(data) // 2])


def _cmyk(board, path):
    Image.fromarray(board).convert("CMYK").save(path)


def _float(board, path):
    cv2.imwrite(str(path), board.astype(np.float32) / 255)


def _small(board, path):
    cv2.imwrite(str(path), board[:31])


def _text(_board, path):
    path.write_text("This is a board.")


RECOPY, CONVERT = "copy it again from its source", "convert it to RGB"
IMAGES = {
    "truncated.jpg": (_truncated, ImageReadError, ["truncated JPEG: the file ends after", RECOPY]),
    "cmyk.jpg": (_cmyk, UnsupportedImageError, ["are CMYK, expected grey or RGB", CONVERT]),
    "cmyk.tif": (_cmyk, UnsupportedImageError, ["are CMYK, expected grey or RGB", CONVERT]),
    "float.tif": (_float, UnsupportedImageError, ["are float32, expected 8-bit or 16", "rescale"]),
    "text.png": (_text, ImageReadError, ["expected an intact JPEG, PNG", "got 16 bytes"]),
    "small.png": (
        *(_small, ImageTooSmallError),
        ["31 x 140 px (height x width)", "tile of 32 x 32 px", "give the whole board, or export"],
    ),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images(room, snapshot, make_board, name):
    make, error, parts = IMAGES[name]
    make(make_board(1, HEIGHT, WIDTH, defect=False), room / name)
    before = snapshot(room)
    with Detector.open(room / "x.kad") as detector:
        text = refuse(error, lambda: detector.score(room / name))
        assert refuse(error, lambda: list(detector.score_batch([room / name]))) == text
    result = kad("score", room / "x.kad", room / name, "--out", room / "out")
    assert told(result) == text
    assert "0 scored, 0 anomalous, 1 failed" in result.stdout
    holds(text, [f"{room / name}: ", *parts])
    assert snapshot(room) == before


@pytest.mark.parametrize(
    ("shape", "dtype", "error"),
    [
        ((90,), np.uint8, InvalidArgumentError),
        ((90, 140, 3), np.float32, UnsupportedImageError),
        ((31, 140, 3), np.uint8, ImageTooSmallError),
    ],
)
def test_arrays_that_are_no_board(tiny_artifact, shape, dtype, error):
    with Detector.open(tiny_artifact) as detector:
        refuse(error, lambda: detector.score(np.zeros(shape, dtype)))


def _same_in(kind, board):
    """The board in another pixel format, and the RGB board that it has to score like."""
    if kind == "grey":
        return board[..., 0], np.repeat(board[..., :1], 3, axis=2)
    if kind == "alpha":
        return np.dstack([board, np.full(board.shape[:2], 9, np.uint8)]), board
    if kind == "grey 16":
        return board[..., 0].astype(np.uint16) * 257, np.repeat(board[..., :1], 3, axis=2)
    return board.astype(np.uint16) * 257, board


@pytest.mark.parametrize("kind", ["grey", "alpha", "16", "grey 16"])
def test_other_pixel_formats_score_as_the_same_board(room, make_board, kind):
    board = make_board(1, HEIGHT, WIDTH, defect=True)
    pixels, same = _same_in(kind, board)
    swapped = pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    cv2.imwrite(str(room / "kind.png"), swapped)
    with Detector.open(room / "x.kad") as detector:
        expected = detector.score(same)
        result = detector.score(room / "kind.png")
    assert expected.anomalous
    np.testing.assert_allclose(result.map, expected.map, rtol=1e-5)  # 16 bits round otherwise
    assert kad("score", room / "x.kad", room / "kind.png", "--out", room / "out").exit_code == 0
    assert json.loads((room / "out" / "kind.json").read_text())["score"] == result.score


# ---- annotations --------------------------------------------------------------------------------

ANNOTATIONS = {
    "cut off": (
        '{"board.png": {"borders": [[0, 0, 1',
        ["a.json: not an", "line 1 column 36", "correct"],
    ),
    "a list": ("[]", ["a.json: expected an object of image names, got []", "write {"]),
    "three numbers": (
        '{"board.png": {"borders": [[0, 0, 9]]}}',
        ["a.json: board.png: borders[0]: expected [x, y, width, height], got [0, 0, 9]"],
    ),
    "unknown key": (
        '{"board.png": {"border": []}}',
        ["a.json: board.png: unknown key 'border'; known are borders and labels"],
    ),
    "no such image": ('{"boart.png": {}}', ["board.png: not among", "did you mean boart.png?"]),
    "nothing like it": ('{"x": {}}', ["board.png: not among the 1 images", "add an entry for it"]),
    "outside": (
        '{"board.png": {"borders": [[100, 0, 50, 90]]}}',
        ["board.png: borders[0] = [100, 0, 50, 90]", "(150, 90), outside the image of 140 x 90 px"],
    ),
    "label outside": (
        '{"board.png": {"labels": [[0, 60, 9, 31]]}}',
        ["board.png: labels[0] = [0, 60, 9, 31]", "(9, 91), outside", "measure it on this image"],
    ),
    "area below a tile": (
        '{"board.png": {"borders": [[0, 0, 20, 90]]}}',
        ["board.png: borders[0] is 90 x 20 px (height x width)", "one tile of 32 x 32", "--tile"],
    ),
    "all covered": (
        '{"board.png": {"labels": [[0, 0, 140, 90]]}}',
        ["board.png: the 1 labels touch every tile: nothing is left to score", "check that"],
    ),
}


@pytest.mark.parametrize("case", ANNOTATIONS)
def test_annotations(room, snapshot, case):
    content, parts = ANNOTATIONS[case]
    error = ImageTooSmallError if case == "area below a tile" else AnnotationError
    board, file = room / "board.png", room / "a.json"
    file.write_text(content)
    before = snapshot(room)
    with Detector.open(room / "x.kad") as detector:
        text = refuse(
            error, lambda: detector.score(board, find_annotation(read_annotations(file), board))
        )
    command = ("score", room / "x.kad", board, "--annotations", file, "--out", room / "out")
    assert told(kad(*command)) == text
    holds(text, parts)
    assert snapshot(room) == before


# ---- artifacts ----------------------------------------------------------------------------------


def _flip(artifact, name):
    data = bytearray((artifact / name).read_bytes())
    data[-1] ^= 1
    (artifact / name).write_bytes(data)


def _remove(artifact, name):
    (artifact / name).unlink()


def _edit(artifact, change):
    content = json.loads((artifact / "manifest.json").read_text())
    change(content)
    (artifact / "manifest.json").write_text(json.dumps(content))


def _list_outside(artifact, name):
    """List a file that exists outside the artifact, with its true size and hash."""
    (artifact.parent / "outside.bin").write_bytes(b"123")
    entry = {"size": 3, "sha256": hashlib.sha256(b"123").hexdigest()}
    _edit(artifact, lambda content: content["files"].update({name: entry}))


def _set_version(artifact, version):
    _edit(artifact, lambda content: content.update(format_version=version))


def _nan(artifact, row):
    """A NaN in the bank of an artifact whose hashes are right."""
    file = artifact / "bank.safetensors"
    tensors = {name: tensor.copy() for name, tensor in read_tensors(file).items()}
    tensors["bank"][row, 3] = np.nan
    data = b"".join(bytes(part) for part in encode_tensors(tensors))
    file.write_bytes(data)
    entry = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    _edit(artifact, lambda content: content["files"].update({file.name: entry}))


def _drop(artifact, _):
    shutil.rmtree(artifact)


AGAIN = "copy the artifact again"
FILES = ("network.onnx", "bank.safetensors", "golden.safetensors")
ARTIFACTS = [
    *((_flip, name, [f"x.kad/{name}: expected SHA-256 ", ", got ", AGAIN]) for name in FILES),
    *((_remove, name, [f"x.kad/{name}: is listed in the", "missing", AGAIN]) for name in FILES),
    (_remove, "manifest.json", ["x.kad/manifest.json: is missing; a folder without it is not"]),
    *(
        (
            *(_list_outside, name),
            ["x.kad/manifest.json: files: ", "expected a plain file name", f"got '{name}'", AGAIN],
        )
        for name in ("../outside.bin", "x/../../outside.bin", "..")
    ),
    (_set_version, "2.0", ["x.kad/manifest.json: format version 2.0", "1.x: upgrade kad-sdk"]),
    (_nan, 17, ["x.kad/bank.safetensors: tensor 'bank': row 17 holds NaN", "export the artifact"]),
    (_drop, "folder", ["x.kad: expected an artifact, a folder NAME.kad", "kad-export made"]),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory, make_board):
    """One normal board to learn from, and one to test."""
    root = tmp_path_factory.mktemp("data")
    for kind in ("train", "test"):
        (root / kind / "good").mkdir(parents=True)
        board = make_board(1, HEIGHT, WIDTH, defect=False)
        cv2.imwrite(str(root / kind / "good" / "0.png"), board)
    return root


@pytest.mark.parametrize("case", ARTIFACTS, ids=[f"{s.__name__[1:]}-{w}" for s, w, _ in ARTIFACTS])
def test_artifacts(room, data, snapshot, case):
    spoil, what, parts = case
    artifact = room / "x.kad"
    spoil(artifact, what)
    error = {_set_version: ArtifactVersionError, _drop: ArtifactError}.get(
        spoil, ArtifactCorruptError
    )
    before = snapshot(room)
    text = refuse(error, lambda: Detector.open(artifact))
    assert refuse(error, lambda: Artifact.open(artifact)) == text
    out = ("--out", room / "out")
    for command in (
        ("inspect", artifact),
        ("verify", artifact),
        ("score", artifact, room / "board.png", *out),
        ("evaluate", artifact, data, *out),
    ):
        assert told(kad(*command)) == text
    holds(text, parts)
    assert snapshot(room) == before


def test_nan_is_not_written(tiny, tmp_path):
    bank = {**tiny.bank, "bank": tiny.bank["bank"].copy()}
    bank["bank"][17, 3] = np.nan
    refuse(ArtifactCorruptError, lambda: tiny.write(tmp_path / "x.kad", bank=bank))
    assert not list(tmp_path.iterdir())


# ---- where and how it runs ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "name"),
    [("cuda", "CUDAExecutionProvider"), ("tensorrt", "TensorrtExecutionProvider")],
)
def test_a_provider_that_is_not_available(room, snapshot, monkeypatch, provider, name):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    before = snapshot(room)
    text = refuse(ProviderUnavailableError, lambda: Detector.open(room / "x.kad", provider))
    out = ("--out", room / "out")
    for command in (
        ("score", room / "x.kad", room / "board.png", *out),
        ("verify", room / "x.kad"),
    ):
        assert told(kad(*command, "--provider", provider)) == text
    holds(text, [f"provider '{provider}'", f"has no {name} (it has CPU", "kad-sdk[gpu]", "'cpu'"])
    assert snapshot(room) == before


def test_an_unknown_provider_is_wrong_usage(room, snapshot):
    before = snapshot(room)
    text = refuse(InvalidArgumentError, lambda: Detector.open(room / "x.kad", "gpu"))
    assert text == "provider: expected one of cpu, cuda, tensorrt, got 'gpu'"
    words = ("score", room / "x.kad", room / "board.png", "--out", room / "out")
    result = kad(*words, "--provider", "gpu")
    assert result.exit_code == 2
    assert "'gpu' is not one of 'cpu', 'cuda', 'tensorrt'" in result.stderr
    assert snapshot(room) == before


def _refused(text, path):
    """A full disk or a quota, told with what to do."""
    reasons = ("No space left on device", "File too large")
    assert text.startswith(tuple(f"cannot write {path}: {reason}" for reason in reasons)), text
    holds(text, ["free there: ", "Nothing was left behind", "free some space or quota"])


@pytest.mark.parametrize("existing", [False, True])
def test_disk_full_while_scoring(room, snapshot, small_disk, existing):
    with small_disk(8192) as disk:
        if existing:
            (disk / "out").mkdir()
            (disk / "out" / "board.json").write_text("from before")
        before = snapshot(room)
        words = ("score", room / "x.kad", room / "board.png", "--out", disk / "out")
        _refused(told(kad(*words)), disk / "out" / "board_overlay.png")
        assert snapshot(room) == before


def test_disk_full_after_the_first_file(room, snapshot, small_disk, tmp_path):
    """The overlay is small and fits, the .npy does not: the overlay is not left behind alone."""
    words = ("score", room / "x.kad", room / "board.png", "--npy", "--max-overlay-side", 40)
    assert kad(*words, "--out", tmp_path / "whole").exit_code == 0
    whole = tmp_path / "whole"
    room_for = sum((whole / f"board_{n}").stat().st_size for n in ("overlay.png", "map.png"))
    with small_disk(-(-room_for // 4096) * 4096 + 8192) as disk:
        before = snapshot(room)
        _refused(told(kad(*words, "--out", disk / "out")), disk / "out" / "board_map.npy")
        assert snapshot(room) == before


def test_a_folder_in_the_place_of_one_file_leaves_none(room, snapshot):
    (room / "out" / "board.json").mkdir(parents=True)  # the file that is written last
    before = snapshot(room)
    text = told(kad("score", room / "x.kad", room / "board.png", "--out", room / "out"))
    holds(text, [f"cannot write {room / 'out' / 'board.json'}: a folder of that name is there"])
    assert snapshot(room) == before


def test_disk_full_while_evaluating(room, data, snapshot, small_disk):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    with small_disk(4096) as disk, Detector.open(room / "x.kad") as detector:
        before = snapshot(room)
        out = disk / "out"
        text = refuse(OutputError, lambda: evaluate(detector, scan_dataset(data), out))
        _refused(text, out / "roc.png")
        result = kad("evaluate", room / "x.kad", data, "--out", out)
        assert result.exit_code == 1
        assert "kad: cannot write" in result.stderr
        assert snapshot(room) == before


def test_disk_full_while_writing_an_artifact(tiny, snapshot, small_disk, tmp_path):
    with small_disk(4096) as disk:
        before = snapshot(tmp_path)
        text = refuse(OutputError, lambda: tiny.write(disk / "x.kad"))
        _refused(text, disk / "x.kad")
        assert snapshot(tmp_path) == before


def test_a_bad_image_ends_an_evaluation_and_leaves_no_folder(room, data, snapshot):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    spoiled = shutil.copytree(data, room / "data")
    _truncated(np.zeros((90, 140, 3), np.uint8), spoiled / "test" / "good" / "1.jpg")
    before = snapshot(room)
    with Detector.open(room / "x.kad") as detector:
        text = refuse(
            ImageReadError, lambda: evaluate(detector, scan_dataset(spoiled), room / "out")
        )
    result = kad("evaluate", room / "x.kad", spoiled, "--out", room / "out")
    assert result.exit_code == 1
    assert result.stderr.endswith(f"kad: {text}\n")
    assert "1.jpg: truncated JPEG" in text
    assert snapshot(room) == before
