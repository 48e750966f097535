"""Read image files: pixels as stored, RGB or grey, 8 or 16 bits, or an error that says why not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np

from kad_sdk.containers import check_container
from kad_sdk.errors import ImageReadError, UnsupportedImageError

if TYPE_CHECKING:
    from os import PathLike

    import numpy.typing as npt

    Image = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

__all__ = [
    "GROUND_TRUTH_SUFFIX",
    "IMAGE_SUFFIXES",
    "MASK_SUFFIX",
    "full_scale",
    "is_image_file",
    "is_mask_file",
    "list_images",
    "read_image",
]

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Suffixes, in lower case, that make a file of a data folder an image."""
GROUND_TRUTH_SUFFIX, MASK_SUFFIX = "_groundtruth.png", "_mask.png"
"""Endings of the names of ground truth: beside a board, and in the MVTec AD layout."""


def is_image_file(path: Path) -> bool:
    """Tell by its name whether a file is an image; hidden files are not."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def is_mask_file(path: Path) -> bool:
    """Tell by its name whether a file is ground truth."""
    return path.name.endswith((GROUND_TRUTH_SUFFIX, MASK_SUFFIX))


def list_images(folder: str | PathLike[str]) -> list[Path]:
    """List the images in a folder and its subfolders, sorted; ground truth is left out.

    Raises
    ------
    ImageReadError
        There is no such folder, or no image in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ImageReadError(f"{root}: no such folder")
    found = sorted(
        path
        for path in root.rglob("*")
        if is_image_file(path) and not is_mask_file(path) and path.is_file()
    )
    if not found:
        raise ImageReadError(
            f"{root}: no images in this folder: expected files ending in "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}; another kind of image is read when it is named"
        )
    return found


def full_scale(image: Image) -> int:
    """Value of white, by dtype and never by the image's own maximum: 255 or 65535."""
    return int(np.iinfo(image.dtype).max)


def read_image(path: str | PathLike[str]) -> Image:
    """Read an image file.

    Numbers come as they are stored: 16-bit images stay 16-bit, a palette is looked up, alpha is
    ignored. An orientation noted in the file (EXIF, TIFF) is applied, as viewers do, so that
    rectangles and masks drawn over the image in a viewer fit. Of several pages the first is read.

    Parameters
    ----------
    path : str or path-like
        JPEG, PNG, TIFF, BMP or WebP file.

    Returns
    -------
    ndarray
        (H, W, 3) RGB or (H, W) grey; uint8 or uint16; C-contiguous.

    Raises
    ------
    ImageReadError
        The file is missing, truncated, damaged or of no known image format.
    UnsupportedImageError
        The pixels are floats, signed or 32-bit integers, or CMYK or Lab colours.
    """
    name = str(path)
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise ImageReadError(f"{name}: no such image file") from None
    except OSError as error:
        raise ImageReadError(f"{name}: cannot be read: {error.strerror}") from error
    if not data:
        raise ImageReadError(f"{name}: the file is empty; copy it again from its source")
    check_container(data, name)
    return _decode(data, name)


def _decode(data: bytes, name: str) -> Image:
    try:
        image = cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
        )
    except cv2.error as error:
        raise ImageReadError(f"{name}: cannot be decoded: {error.err}") from error
    if image is None:
        raise ImageReadError(
            f"{name}: cannot be decoded; expected an intact JPEG, PNG, TIFF, BMP or WebP image, "
            f"got {len(data)} bytes starting with {data[:8]!r}"
        )
    if image.dtype not in (np.uint8, np.uint16):
        raise UnsupportedImageError(
            f"{name}: pixels are {image.dtype}, expected 8-bit or 16-bit unsigned integers; "
            "rescale the image to one of these (floats have no defined white)"
        )
    pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return cast("Image", pixels)  # (H, W) or (H, W, 3)
