"""Find the images of a data folder: normal ones to learn from, test ones with their ground truth.

Three layouts are known. *boards*: ``train/`` and ``test/`` hold images, a test image's mask lies
beside it as ``<stem>_groundtruth.png``, and ``annotations.json`` lies in the folder itself, in
``train/`` or in ``test/``; ``defects.json`` in the folder may tell the kinds of defects apart, see
:mod:`kad_sdk.defects`. *mvtec* (MVTec AD): ``train/good/``, ``test/<kind>/`` and
``ground_truth/<kind>/<stem>_mask.png``, and neither of the two files, whose entries go by names
that are not unique there. *folder*: images directly in the folder, all of them for training.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from kad_sdk.annotations import Annotation, find_annotation, read_annotations
from kad_sdk.defects import DEFECTS_NAME, Defect, read_defects
from kad_sdk.errors import AnnotationError, DatasetError, InvalidArgumentError
from kad_sdk.images import (
    GROUND_TRUTH_SUFFIX,
    MASK_SUFFIX,
    is_image_file,
    is_mask_file,
    read_image,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    import numpy.typing as npt

    Layout = Literal["mvtec", "boards", "folder"]
    Split = Literal["train", "test"]

__all__ = ["Dataset", "Sample", "read_mask", "resize_mask", "scan_dataset", "tile_labels"]

ANNOTATIONS_NAME = "annotations.json"

_LAYOUTS_HELP = (
    "expected train/ and test/ with board images, the MVTec AD layout (train/good/, test/<kind>/), "
    "or images directly in the folder"
)


@dataclass(frozen=True)
class Sample:
    """One image of a data set.

    Attributes
    ----------
    path : Path
        The image file.
    name : str
        Its path relative to the data set's folder, with forward slashes.
    split : {"train", "test"}
        What it is for.
    kind : str
        ``"good"``; mvtec: the folder's name; boards: ``"unlabelled"``, ``"defect"``, or the kinds
        of its defects where they are known.
    label : {0, 1} or None
        1: has a defect; None: a test board without ground truth.
    mask_path : Path or None
        Ground truth, where there is a file.
    annotation : Annotation or None
        Active areas and stickers, where an annotation file names the image.
    defects : tuple of Defect
        Its defects by kind, where the data set has a file of them.
    """

    path: Path
    name: str
    split: Split
    kind: str
    label: int | None
    mask_path: Path | None
    annotation: Annotation | None
    defects: tuple[Defect, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Images of a data folder, each split sorted by name."""

    root: Path
    layout: Layout
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]


def scan_dataset(root: str | PathLike[str], *, need_train: bool = True) -> Dataset:
    """List a data folder's images. Nothing is decoded but the masks of boards.

    Hidden files and files with other suffixes are left out. Where an annotation file names test
    boards, it has to name all of them: scoring one of them whole, with its black surround, would
    be a silent change of method.

    Parameters
    ----------
    root : path
        The data folder.
    need_train : bool
        Whether a folder without training images is refused.

    Raises
    ------
    DatasetError
        No such folder, no known layout or two at once, no training image, two images that would
        share one mask, annotations or defects beside the MVTec AD layout.
    AnnotationError
        An annotation file is malformed, fits no image or two at once, or leaves out a test board; a
        file of defects is malformed or does not fit the ground truth.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; {_LAYOUTS_HELP}")
    layout = _layout(folder, ("train",) if need_train else ("train", "test"))
    test: tuple[Sample, ...] = ()
    if layout == "folder":
        train = _board_samples(folder, folder, "train")
    elif layout == "boards":
        train = _board_samples(folder, folder / "train", "train")
        test = _with_defects(folder, _board_samples(folder, folder / "test", "test"))
    else:
        _check_names_are_not_used(folder)
        train, test = _mvtec_samples(folder, "train"), _mvtec_samples(folder, "test")
    if need_train and not train:
        raise DatasetError(
            f"{folder}: no training images; put images of normal boards into "
            f"{'train/good/' if layout == 'mvtec' else 'train/'}"
        )
    if layout != "mvtec":
        _check_annotations_fit(folder, train + test)
    return Dataset(folder, layout, train, test)


def read_mask(sample: Sample, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Read a sample's ground truth.

    Parameters
    ----------
    sample : Sample
    height, width : int
        Size of the sample's image, px; the mask must have it too.

    Returns
    -------
    ndarray
        (H, W) bool, True where the mask is above 0; all False for a good sample
        without a mask.

    Raises
    ------
    DatasetError
        The mask has another size, or a sample that is not known to be good has none.
    """
    if sample.mask_path is None:
        if sample.label != 0:
            raise DatasetError(f"{sample.name}: has no ground truth mask; {_mask_help(sample)}")
        return np.zeros((height, width), dtype=np.bool_)
    mask = _read_mask_file(sample.mask_path)
    if mask.shape != (height, width):
        raise DatasetError(
            f"{sample.mask_path}: the mask is {mask.shape[1]} x {mask.shape[0]} px, expected the "
            f"size of {sample.name}, {width} x {height} px; draw it on the image at its full size"
        )
    return mask


def resize_mask(mask: npt.NDArray[np.bool_], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Bring a mask (H, W) to `size` (height, width): a pixel that covers any defect is defective.

    However thin a defect is, and whichever axis shrinks, it stays.
    """
    for axis, length in enumerate(size):
        if length != mask.shape[axis]:
            mask = _any_in_spans(np.moveaxis(mask, axis, 0), length)
            mask = np.moveaxis(mask, 0, axis)
    return mask


def _any_in_spans(mask: npt.NDArray[np.bool_], length: int) -> npt.NDArray[np.bool_]:
    """Resize axis 0 to `length`: whether any row within the span of each new row is set."""
    n, at = mask.shape[0], np.arange(length)
    first, beyond = at * n // length, -(-(at + 1) * n // length)
    counts = np.zeros((n + 1, *mask.shape[1:]), np.int32)
    np.cumsum(mask, axis=0, out=counts[1:])
    return np.asarray(counts[beyond] > counts[first])


def tile_labels(
    mask: npt.NDArray[np.bool_], xy: npt.NDArray[np.integer], tile: int
) -> npt.NDArray[np.uint8]:
    """Label tiles by ground truth: 1 when the mean of a tile's mask is above 0 (thesis 3.2.3).

    Parameters
    ----------
    mask : ndarray
        (H, W) bool.
    xy : ndarray
        (n, 2) top-left corners (x, y), px.
    tile : int
        Side, px.

    Returns
    -------
    ndarray
        (n,) uint8.

    Raises
    ------
    InvalidArgumentError
        A tile reaches outside the mask.
    """
    corners = np.asarray(xy).reshape(-1, 2)
    height, width = mask.shape
    if corners.size and (corners.min() < 0 or (corners.max(axis=0) + tile > (width, height)).any()):
        raise InvalidArgumentError(
            f"tiles of {tile} px reach from {corners.min(axis=0).tolist()} to "
            f"{(corners.max(axis=0) + tile).tolist()}, outside the mask of {width} x {height} px; "
            "plan them on an image of the mask's size"
        )
    hits = (mask[y : y + tile, x : x + tile].any() for x, y in corners)
    return np.fromiter(hits, np.uint8, len(corners))  # (n,)


def _layout(folder: Path, splits: tuple[str, ...]) -> Layout:
    found: dict[Layout, str] = {}
    if _images(folder):
        found["folder"] = "images directly in the folder"
    for split in splits:
        if _images(folder / split):
            found["boards"] = f"images in {split}/"
        kinds = _kinds(folder / split)
        if kinds:
            found["mvtec"] = f"images in {', '.join(f'{split}/{kind}/' for kind in kinds)}"
    if len(found) > 1:
        raise DatasetError(
            f"{folder}: two layouts at once: {' and '.join(found.values())}; keep one: "
            f"{_LAYOUTS_HELP}"
        )
    if found:
        return next(iter(found))
    if (folder / "train" / "good").is_dir():
        return "mvtec"
    if (folder / "train").is_dir():
        return "boards"
    raise DatasetError(f"{folder}: no images; {_LAYOUTS_HELP}")


def _images(folder: Path) -> list[Path]:
    """Images directly in a folder, masks left out, by name; none when there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if is_image_file(path) and not is_mask_file(path) and path.is_file()
    )


def _kinds(folder: Path) -> list[str]:
    """Names of the subfolders that hold images."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and _images(path))


def _check_names_are_not_used(root: Path) -> None:
    """Refuse files that go by the names of images: MVTec AD has a 000.png of every kind."""
    places = [folder / ANNOTATIONS_NAME for folder in (root, root / "train", root / "test")]
    for path in (*places, root / DEFECTS_NAME):
        if path.is_file():
            raise DatasetError(
                f"{path}: goes by the names of images, which need not be unique in the MVTec AD "
                "layout, and is not used there: remove it, or use the layout of boards, with the "
                f"images directly in train/ and test/, and masks NAME{GROUND_TRUTH_SUFFIX} beside "
                "those of test/"
            )


def _mvtec_samples(root: Path, split: Split) -> tuple[Sample, ...]:
    folder = root / split
    kinds = _kinds(folder)
    if split == "train" and set(kinds) - {"good"}:
        raise DatasetError(
            f"{root}: train/ holds {', '.join(kinds)}; training uses normal images alone: "
            "keep train/good/ and move the others to test/"
        )
    if _images(folder):
        raise DatasetError(
            f"{root}: images directly in {split}/ beside train/good/; put each into the folder of "
            f"its kind, such as {split}/good/"
        )
    return tuple(
        _mvtec_sample(root, split, path) for kind in kinds for path in _images(folder / kind)
    )


def _mvtec_sample(root: Path, split: Split, path: Path) -> Sample:
    kind = path.parent.name
    mask = root / "ground_truth" / kind / f"{path.stem}{MASK_SUFFIX}"
    return Sample(
        path=path,
        name=path.relative_to(root).as_posix(),
        split=split,
        kind=kind,
        label=int(kind != "good"),
        mask_path=mask if split == "test" and mask.is_file() else None,
        annotation=None,
    )


def _board_samples(root: Path, folder: Path, split: Split) -> tuple[Sample, ...]:
    if split == "test" and _kinds(folder):
        raise DatasetError(
            f"{root}: test/ holds folders of images ({', '.join(_kinds(folder))}) but train/ holds "
            "boards; put the boards directly into test/, or use the MVTec AD layout for both"
        )
    paths = _images(folder)
    annotations = _annotations(root, folder)
    complete = split == "test" and any(path.name in annotations for path in paths)
    samples = []
    for path in paths:
        entry = find_annotation(annotations, path) if complete else annotations.get(path.name)
        samples.append(_board_sample(root, path, split, entry))
    _check_masks_are_apart(samples)
    return tuple(samples)


def _board_sample(root: Path, path: Path, split: Split, annotation: Annotation | None) -> Sample:
    mask = path.with_name(path.stem + GROUND_TRUTH_SUFFIX)
    if split == "train" or not mask.is_file():
        mask_path, label = None, 0 if split == "train" else None
    else:
        mask_path, label = mask, int(_read_mask_file(mask).any())
    return Sample(
        path=path,
        name=path.relative_to(root).as_posix(),
        split=split,
        kind="unlabelled" if label is None else ("good", "defect")[label],
        label=label,
        mask_path=mask_path,
        annotation=annotation,
    )


def _with_defects(root: Path, samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """Give each test board its defects by kind, where a file names them: then it names them all."""
    path = root / DEFECTS_NAME
    if not path.is_file():
        return samples
    entries = read_defects(path)
    unknown = sorted(entries.keys() - {sample.path.name for sample in samples})
    if unknown:
        raise AnnotationError(f"{path}: names {unknown[0]}, and test/ has no such board")
    for sample in samples:
        named = bool(entries.get(sample.path.name))
        if sample.label is not None and named != bool(sample.label):
            truth = "marks a defect" if sample.label else "marks none"
            raise AnnotationError(
                f"{path}: has {'defects' if named else 'no defect'} of {sample.path.name}, whose "
                f"ground truth {truth}; make them agree"
            )
    return tuple(
        dataclasses.replace(
            sample, defects=defects, kind=", ".join(sorted({d.kind for d in defects}))
        )
        if (defects := entries.get(sample.path.name, ()))
        else sample
        for sample in samples
    )


def _check_masks_are_apart(samples: Sequence[Sample]) -> None:
    owners: dict[Path, str] = {}
    for sample in samples:
        if sample.mask_path is None:
            continue
        other = owners.setdefault(sample.mask_path, sample.name)
        if other != sample.name:
            raise DatasetError(
                f"{sample.mask_path}: belongs to {other} and {sample.name} alike; rename one of "
                "them and give it its own mask"
            )


def _annotations(root: Path, folder: Path) -> dict[str, Annotation]:
    """Annotations that hold for the images of a folder: those beside them and those of the root."""
    merged: dict[str, Annotation] = {}
    for path in sorted({root / ANNOTATIONS_NAME, folder / ANNOTATIONS_NAME}):
        if not path.is_file():
            continue
        entries = read_annotations(path)
        twice = sorted(merged.keys() & entries.keys())
        if twice:
            raise AnnotationError(
                f"{path}: {twice[0]} is annotated in {root / ANNOTATIONS_NAME} too; keep one"
            )
        merged |= entries
    return merged


def _check_annotations_fit(root: Path, samples: Sequence[Sample]) -> None:
    """Refuse a root annotation file that fits none of the images, or one name to two of them."""
    path = root / ANNOTATIONS_NAME
    if not path.is_file():
        return
    named = sorted(read_annotations(path))
    images: dict[str, list[str]] = {}
    for sample in samples:
        images.setdefault(sample.path.name, []).append(sample.name)
    for name in named:
        if len(images.get(name, [])) > 1:
            raise AnnotationError(
                f"{path}: {name} is the name of both {' and '.join(images[name])}; give train/ and "
                f"test/ an {ANNOTATIONS_NAME} of their own"
            )
    if named and images.keys().isdisjoint(named):
        raise AnnotationError(
            f"{path}: names none of the {len(images)} images in {root}; its first entry is "
            f"{named[0]!r}, the folder's first image {min(images)!r}"
        )


def _read_mask_file(path: Path) -> npt.NDArray[np.bool_]:
    """Ground truth is where any channel is above 0: 1 of 255 counts as well as 255."""
    image = read_image(path)
    return np.asarray(image > 0 if image.ndim == 2 else (image > 0).any(axis=2))  # (H, W)


def _mask_help(sample: Sample) -> str:
    stem = Path(sample.name).stem
    if sample.kind == "unlabelled":
        return f"expected {stem}{GROUND_TRUTH_SUFFIX} beside it, black for a normal board"
    return f"expected ground_truth/{sample.kind}/{stem}{MASK_SUFFIX}"
