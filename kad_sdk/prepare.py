"""From an image to the frame that tiles are cut from: checked, resized, denoised; dark tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from kad_sdk._native import resize_image
from kad_sdk.errors import ImageTooSmallError, InvalidArgumentError, UnsupportedImageError
from kad_sdk.images import full_scale
from kad_sdk.manifest_entries import MAX_FRAME_PX

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kad_sdk.manifest import Denoise

__all__ = ["bright_tiles", "check_image", "frame_size", "prepare_image", "resize_text", "too_small"]

MIN_MEAN_GREY = 31 / 255
"""Tiles whose mean grey level is not above this share of full scale are dropped (thesis 3.2.1)."""


def frame_size(size: tuple[int, int], resize: tuple[int, int] | float | None) -> tuple[int, int]:
    """Size (height, width) in which an image of `size` is scored.

    `resize` is a size, a factor, or None for the image's own size.

    Raises
    ------
    InvalidArgumentError
        The factor makes more than ``MAX_FRAME_PX`` of it.
    """
    if resize is None:
        return size
    if isinstance(resize, tuple):
        return resize
    height, width = max(1, round(size[0] * resize)), max(1, round(size[1] * resize))
    if height * width > MAX_FRAME_PX:
        raise InvalidArgumentError(
            f"the image of {size[0]} x {size[1]} px (height x width) becomes {height} x {width} px "
            f"by the artifact's factor {resize:g}: expected at most {MAX_FRAME_PX} px in all; "
            "score it in parts, or export with a smaller --resize"
        )
    return height, width


def resize_text(resize: tuple[int, int] | float) -> str:
    """Write what boards are brought to: ``0.5``, or ``160 x 128 px`` (height x width)."""
    return f"{resize[0]} x {resize[1]} px" if isinstance(resize, tuple) else f"{resize:g}"


def too_small(
    error: ImageTooSmallError,
    size: tuple[int, int],
    resize: tuple[int, int] | float | None,
    tile: int,
) -> str:
    """Say what is smaller than a tile; where boards are resized, in px of the image itself too.

    Parameters
    ----------
    error : ImageTooSmallError
        What planning the tiles said, in px of the scored frame.
    size : (height, width)
        Of the image, px.
    resize : (height, width), float or None
        What the image was brought to.
    tile : int
        px.
    """
    if resize is None:
        return str(error)
    frame = frame_size(size, resize)
    how = resize_text(resize)
    if tile > min(frame):
        return (
            f"the image is {size[0]} x {size[1]} px, brought to {frame[0]} x {frame[1]} px (height "
            f"x width) by resize {how}, smaller than one tile of {tile} x {tile} px"
        )
    return (
        f"{error}, where the image of {size[0]} x {size[1]} px is brought to {frame[0]} x "
        f"{frame[1]} px by resize {how}"
    )


def prepare_image(
    image: NDArray[Any],
    *,
    resize: tuple[int, int] | float | None,
    denoise: Denoise | None,
    pixel_format: str | None = None,
    threads: int = 1,
) -> NDArray[Any]:
    """Bring a board to the state that tiles are cut from: resized, then denoised.

    Parameters
    ----------
    image
        (H, W) or (H, W, channels), uint8 or uint16.
    resize
        (height, width) in px, a factor, or None to keep the size.
    denoise
        Settings of ``cv2.fastNlMeansDenoisingColored``, or None.
    pixel_format
        As :func:`kad_sdk._native.preprocess` takes it; None: by dtype and shape.
    threads
        Threads of the resizing.

    Returns
    -------
    ndarray
        `image` itself when there is nothing to do; otherwise (height, width, 3) RGB.

    Raises
    ------
    UnsupportedImageError
        `denoise` is set and the image has 16 bits.
    InvalidArgumentError
        As :func:`frame_size`.
    """
    if resize is None and denoise is None:
        return image
    if denoise is not None and image.dtype != np.uint8:
        raise UnsupportedImageError(
            f"denoising works on 8-bit images, got {image.dtype}; give 8-bit images, or export "
            "the artifact without --denoise"
        )
    # At its own size this is an exact copy as RGB, whatever the pixel format.
    height, width = frame_size((image.shape[0], image.shape[1]), resize)
    rgb = resize_image(image, height, width, pixel_format=pixel_format, threads=threads)
    return rgb if denoise is None else _denoised(rgb, denoise)


def _denoised(rgb: NDArray[np.uint8], denoise: Denoise) -> NDArray[np.uint8]:
    bgr = cv2.fastNlMeansDenoisingColored(  # it takes the first channel for blue
        cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR),
        None,
        denoise.h,
        denoise.h_color,
        denoise.template_window,
        denoise.search_window,
    )
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def bright_tiles(image: NDArray[Any], xy: NDArray[np.integer[Any]], tile: int) -> NDArray[np.bool_]:
    """Tell which tiles at `xy` (n, 2) have a mean grey level above 31 of 255; (n,) bool."""
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    darkest = MIN_MEAN_GREY * full_scale(image)
    means = (cv2.mean(grey[y : y + tile, x : x + tile])[0] for x, y in xy)
    return np.array([mean > darkest for mean in means], dtype=np.bool_)


def check_image(image: NDArray[Any]) -> None:
    """Refuse arrays that are no image, before any work.

    Raises
    ------
    InvalidArgumentError
        Not an array of 2 or 3 dimensions.
    UnsupportedImageError
        A dtype other than uint8 and uint16: floats have no defined full scale.
    """
    if not isinstance(image, np.ndarray) or image.ndim not in {2, 3}:
        what = image.shape if isinstance(image, np.ndarray) else type(image).__name__
        raise InvalidArgumentError(
            f"image: expected an array (H, W), (H, W, 3) or (H, W, 4), got {what}"
        )
    if image.dtype not in {np.dtype(np.uint8), np.dtype(np.uint16)}:
        raise UnsupportedImageError(
            f"image: expected uint8 or uint16, got {image.dtype}; convert it, scaled by its full "
            "scale and not by its own maximum"
        )
