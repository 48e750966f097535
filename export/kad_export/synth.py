"""Synthetic boards: line-scan pictures of kitchen boards with known defects, made from a seed.

The real boards of the thesis are not public. These stand in for them in the demo, the tests and the
benchmarks: the same kinds of defects at the same sizes, the same nuisances (camera lines, uneven
light, stickers, black surround, mouldings, specks that do not count), and a ground truth that is
exact, because it is what the defects were painted with.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from kad_export.synth_board import CATEGORIES, make_board
from kad_export.synth_camera import Camera, make_camera
from kad_export.synth_defects import DEFECTS, dot
from kad_export.synth_stickers import sticker
from kad_sdk.annotations import Rect
from kad_sdk.defects import DEFECTS_NAME
from kad_sdk.errors import InvalidArgumentError, OutputError
from kad_sdk.storage import writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from os import PathLike

    from kad_export.synth_paint import Stamp

__all__ = ["MIN_SIDE", "Defect", "SynthSummary", "generate_dataset"]

MIN_SIDE = 512
"""Smallest height and width of a board image, px: room for the largest defect and a sticker."""

_SPACE = 14  # px kept free around a sticker or a defect
_JPEG_QUALITY = 95
_LIGHT = (-0.34, -0.94)  # the lamp stands before the line and a little to the left
_CAMERA, _SPLITS = 0, {"train": 1, "test": 2}  # branches of the seed


@dataclass(frozen=True)
class Defect:
    """One painted defect: its board, its kind, the box of its ground truth and its area in px."""

    board: str
    kind: str
    box: Rect
    area_px: int


@dataclass(frozen=True)
class SynthSummary:
    """What was made."""

    folder: Path
    category: str
    size: tuple[int, int]  # height, width
    seed: int
    train: tuple[str, ...]
    test: tuple[str, ...]
    defects: tuple[Defect, ...]

    def __str__(self) -> str:
        height, width = self.size
        counts = Counter(defect.kind for defect in self.defects)
        found = ", ".join(f"{count} x {kind}" for kind, count in counts.items()) or "none"
        return (
            f"{self.folder}: {len(self.train)} normal boards, {len(self.test)} test boards of "
            f"{height} x {width} px ({self.category}, seed {self.seed}); defects: {found}"
        )


@dataclass(frozen=True)
class _Picture:
    image: np.ndarray  # (H, W, 3) RGB uint8
    truth: np.ndarray  # (H, W) uint8, 255 = defect
    border: Rect
    labels: list[Rect]
    defects: list[tuple[str, Rect, int]]


def generate_dataset(
    folder: str | PathLike[str],
    *,
    boards: int,
    test_boards: int = len(DEFECTS) + 1,
    size: tuple[int, int] = (4730, 4074),
    category: str = "white",
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> SynthSummary:
    """Write a folder of synthetic boards in the layout that `kad_sdk.scan_dataset` reads.

    ``train/`` holds normal boards, ``test/`` normal and defective ones with
    ``<stem>_groundtruth.png``, ``annotations.json`` borders and labels of all, ``defects.json`` the
    defects by kind, ``synth.json`` the parameters. Of every eight test boards the first is normal
    and each other is dominated by one defect kind. Each board hangs on the seed and its number
    alone, so asking for more boards does not change the first ones.

    Parameters
    ----------
    folder : str or path-like
        Must not exist, or be empty. It appears when it is complete.
    boards, test_boards : int
        How many; at least one normal board.
    size : (height, width)
        px, at least `MIN_SIDE` each.
    category : {"white", "white-with-edges"}
    seed : int
        At least 0.
    progress : callable, optional
        Called with 1 after each board.

    Returns
    -------
    SynthSummary

    Raises
    ------
    InvalidArgumentError
        A number is out of range, or no such category.
    OutputError
        The folder is not empty or cannot be written to.
    """
    _check(boards, test_boards, size, category, seed)
    root = Path(folder)
    with _new_folder(root) as scratch:
        camera = make_camera(_generator(seed, _CAMERA), size[1])
        annotations: dict[str, dict[str, list[Rect]]] = {}
        defects: list[Defect] = []
        for split, count in (("train", boards), ("test", test_boards)):
            (scratch / split).mkdir()
            for number in range(count):
                kinds = _kinds(seed, number) if split == "test" else []
                rng = _generator(seed, _SPLITS[split], number)
                picture = _paint(rng, camera, size, category, kinds)
                name = _write(scratch / split, f"{split}_{number:04d}", picture)
                annotations[name] = {"borders": [picture.border], "labels": picture.labels}
                defects += [Defect(name, *defect) for defect in picture.defects]
                if progress is not None:
                    progress(1)
        _write_json(scratch / "annotations.json", annotations)
        names = list(annotations)
        summary = SynthSummary(
            root, category, size, seed, tuple(names[:boards]), tuple(names[boards:]), tuple(defects)
        )
        _write_json(scratch / DEFECTS_NAME, _defects_by_board(defects))
        _write_json(scratch / "synth.json", _record(summary))
    return summary


def _check(boards: int, test_boards: int, size: tuple[int, int], category: str, seed: int) -> None:
    if boards < 1 or test_boards < 0 or seed < 0:
        raise InvalidArgumentError(
            "expected at least 1 normal board, 0 test boards and a seed of at least 0, got "
            f"{boards}, {test_boards} and {seed}"
        )
    if min(size) < MIN_SIDE:
        raise InvalidArgumentError(
            f"a board image of {size[0]} x {size[1]} px (height x width) is too small; "
            f"give at least {MIN_SIDE} x {MIN_SIDE}"
        )
    if category not in CATEGORIES:
        raise InvalidArgumentError(
            f"unknown category {category!r}; expected {' or '.join(CATEGORIES)}"
        )


@contextmanager
def _new_folder(root: Path) -> Iterator[Path]:
    """Give a hidden sibling to fill; it becomes `root` at the end, or is removed on any failure."""
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise OutputError(f"{root}: exists and is not an empty folder; name another one")
    root = root.absolute()
    scratch = root.with_name(f".{root.name}.{secrets.token_hex(6)}.partial")
    with writing(root):
        try:
            scratch.mkdir(parents=True)
            yield scratch
            scratch.replace(root)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _generator(seed: int, *branch: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=branch))


def _kinds(seed: int, number: int) -> list[str]:
    """Defects of a test board: one to three of the board's own kind, at times another one."""
    turn = number % (len(DEFECTS) + 1)
    if turn == 0:
        return []
    rng = _generator(seed, _SPLITS["test"], number, 1)
    names = list(DEFECTS)
    kinds = [names[turn - 1]] * int(rng.integers(1, 4))
    if rng.random() < 0.4:
        kinds.append(names[int(rng.integers(len(names)))])
    return kinds


def _paint(
    rng: np.random.Generator,
    camera: Camera,
    size: tuple[int, int],
    category: str,
    kinds: list[str],
) -> _Picture:
    board = make_board(rng, size, category, _LIGHT)
    stamps: list[Stamp] = []
    taken: list[Rect] = []
    truth = np.zeros(size, np.uint8)
    defects: list[tuple[str, Rect, int]] = []
    for kind in kinds:
        stamp = _put(rng, DEFECTS[kind](rng, _LIGHT), board.border, taken)
        if stamp is not None:
            stamps.append(stamp)
            defects.append((kind, *_mark(truth, stamp)))
    labels = []
    for label_size in _label_sizes(rng, board.border):
        stamp = _put(rng, sticker(rng, label_size, _LIGHT), board.border, taken)
        if stamp is not None:
            stamps.append(stamp)
            labels.append(taken[-1])
    for _ in range(int(2 + rng.poisson(board.border.width * board.border.height / 1.5e6))):
        stamp = _put(rng, dot(rng), board.border, taken)
        if stamp is not None:
            stamps.append(stamp)
    image = camera.expose(rng, lambda start, stop: board.render(start, stop, stamps), size)
    return _Picture(image, truth, board.border, labels, defects)


def _label_sizes(rng: np.random.Generator, border: Rect) -> list[tuple[int, int]]:
    """Draw none to two stickers: landscape ones, now and then a tall sheet."""
    sizes = []
    for _ in range(int(rng.choice([0, 1, 2], p=[0.25, 0.5, 0.25]))):
        width = min(rng.uniform(300, 620), 0.28 * border.width)
        ratio = rng.uniform(1.4, 2.0) if rng.random() < 0.25 else rng.uniform(0.5, 0.75)
        sizes.append((int(min(width * ratio, 0.36 * border.height)), int(width)))
    return sizes


def _put(rng: np.random.Generator, stamp: Stamp, area: Rect, taken: list[Rect]) -> Stamp | None:
    """Find a free place inside `area` and note it in `taken`; None when there is none."""
    height, width = stamp.shape
    room_x, room_y = area.width - width - 2 * _SPACE, area.height - height - 2 * _SPACE
    if room_x < 0 or room_y < 0:
        return None
    for _ in range(200):
        x = area.x + _SPACE + int(rng.integers(room_x + 1))
        y = area.y + _SPACE + int(rng.integers(room_y + 1))
        box = Rect(x, y, width, height)
        if not any(_overlap(box, other) for other in taken):
            taken.append(box)
            return stamp.at(x, y)
    return None


def _overlap(a: Rect, b: Rect) -> bool:
    return (
        a.x < b.x + b.width + _SPACE
        and b.x < a.x + a.width + _SPACE
        and a.y < b.y + b.height + _SPACE
        and b.y < a.y + a.height + _SPACE
    )


def _mark(truth: np.ndarray, stamp: Stamp) -> tuple[Rect, int]:
    """Enter a defect into the ground truth; returns its box and its area in px."""
    height, width = stamp.shape
    truth[stamp.y : stamp.y + height, stamp.x : stamp.x + width][stamp.truth] = 255
    x, y, box_width, box_height = cv2.boundingRect(stamp.truth.astype(np.uint8))
    return Rect(stamp.x + x, stamp.y + y, box_width, box_height), int(stamp.truth.sum())


def _write(folder: Path, stem: str, picture: _Picture) -> str:
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    bgr = cv2.cvtColor(picture.image, cv2.COLOR_RGB2BGR)
    name = f"{stem}.jpg"
    (folder / name).write_bytes(cv2.imencode(".jpg", bgr, quality)[1])
    if folder.name == "test":
        (folder / f"{stem}_groundtruth.png").write_bytes(cv2.imencode(".png", picture.truth)[1])
    return name


def _write_json(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _defects_by_board(defects: list[Defect]) -> dict[str, list[dict[str, object]]]:
    boards: dict[str, list[dict[str, object]]] = {}
    for defect in defects:
        boards.setdefault(defect.board, []).append({"kind": defect.kind, "box": list(defect.box)})
    return boards


def _record(summary: SynthSummary) -> dict[str, object]:
    """Give what `synth.json` holds: parameters and boards; no path of this machine."""
    return {
        "category": summary.category,
        "size": list(summary.size),
        "seed": summary.seed,
        "train": list(summary.train),
        "test": list(summary.test),
    }
