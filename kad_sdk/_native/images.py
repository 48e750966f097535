"""Images and tiles: plan, resize, preprocess."""

from __future__ import annotations

from ctypes import byref, c_int64
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kad_sdk._native.abi import BUFFER_TOO_SMALL, Image, TileGrid, call
from kad_sdk._native.arguments import (
    Floats,
    Ints,
    array_argument,
    choice,
    int_argument,
    rectangles_argument,
    threads_argument,
    triple_argument,
)
from kad_sdk.errors import ImageTooSmallError, InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence


class PixelFormat(NamedTuple):
    code: int
    channels: int
    dtype: type[np.uint8 | np.uint16]


_PIXEL_FORMATS = {
    "grey8": PixelFormat(0, 1, np.uint8),
    "rgb8": PixelFormat(1, 3, np.uint8),
    "bgr8": PixelFormat(2, 3, np.uint8),
    "rgba8": PixelFormat(3, 4, np.uint8),
    "bgra8": PixelFormat(4, 4, np.uint8),
    "grey16": PixelFormat(5, 1, np.uint16),
    "rgb16": PixelFormat(6, 3, np.uint16),
    "bgr16": PixelFormat(7, 3, np.uint16),
}
_INFERRED_FORMATS = {
    (1, "uint8"): "grey8",
    (3, "uint8"): "rgb8",
    (4, "uint8"): "rgba8",
    (1, "uint16"): "grey16",
    (3, "uint16"): "rgb16",
}


def _image(image: npt.NDArray[Any], pixel_format: str | None) -> tuple[Image, npt.NDArray[Any]]:
    """Make the C struct of an image, and the array it points into, which must outlive it."""
    if not isinstance(image, np.ndarray) or image.ndim not in (2, 3):
        what = image.shape if isinstance(image, np.ndarray) else type(image).__name__
        raise InvalidArgumentError(
            f"image must be an array of shape (H, W), (H, W, 3) or (H, W, 4), got {what}"
        )
    channels = 1 if image.ndim == 2 else image.shape[2]
    name = pixel_format or _INFERRED_FORMATS.get((channels, image.dtype.name))
    given = f"got {image.dtype} of shape {image.shape}"
    if name is None:
        raise InvalidArgumentError(
            "image must be uint8 with 1, 3 or 4 channels or uint16 with 1 or 3, as (H, W) or "
            f"(H, W, C), {given}"
        )
    choice("pixel_format", name, dict.fromkeys(_PIXEL_FORMATS, 0))
    wanted = _PIXEL_FORMATS[name]
    if channels != wanted.channels or image.dtype.name != np.dtype(wanted.dtype).name:
        raise InvalidArgumentError(
            f"pixel_format {name} needs {np.dtype(wanted.dtype).name} with {wanted.channels} "
            f"channel(s), {given}"
        )
    pixels = _packed(image.astype(wanted.dtype, copy=False))  # native byte order
    height, width = (int_argument("image side", side) for side in pixels.shape[:2])
    if not image.size:
        raise InvalidArgumentError(f"image size must be at least 1 x 1, got {height} x {width}")
    return Image(
        pixel_format=wanted.code,
        height=height,
        width=width,
        row_stride=pixels.strides[0] if height > 1 else pixels.nbytes,
        data=pixels.ctypes.data,
    ), pixels


def sample_order(image: npt.NDArray[Any], pixel_format: str | None) -> tuple[int, int, int]:
    """Say which of a pixel's samples are red, green and blue.

    Raises
    ------
    InvalidArgumentError
        The array is not an image of that format, or of any.
    """
    struct, _ = _image(image, pixel_format)
    name = next(name for name, known in _PIXEL_FORMATS.items() if known.code == struct.pixel_format)
    if name.startswith("grey"):
        return 0, 0, 0
    return (2, 1, 0) if name.startswith("bgr") else (0, 1, 2)


def _packed(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Copy an image unless its rows are packed and lie one after another."""
    row = image[:1]
    if row.flags.c_contiguous and image.strides[0] >= row.nbytes and image.flags.aligned:
        return image
    return np.ascontiguousarray(image)


def plan_tiles(
    height: int,
    width: int,
    *,
    tile: int,
    stride: int,
    borders: Sequence[Sequence[int]] = (),
    labels: Sequence[Sequence[int]] = (),
    cover_edges: bool = True,
) -> Ints:
    """Top-left corners of the tiles of an image, row by row.

    Parameters
    ----------
    height, width, tile, stride : int
        Image size, tile side and tile distance, px.
    borders, labels : sequences of (x, y, width, height)
        Active areas (none: the whole image); rectangles whose tiles are dropped.
    cover_edges : bool
        Add a column and a row flush with the far edges, so that every pixel is covered.

    Returns
    -------
    (n, 2) int32
        (x, y) of each tile.

    Raises
    ------
    ImageTooSmallError
        The image or a border is smaller than one tile.
    """
    areas, dropped = rectangles_argument("borders", borders), rectangles_argument("labels", labels)
    grid = TileGrid(
        image_height=int_argument("height", height),
        image_width=int_argument("width", width),
        tile=int_argument("tile", tile),
        stride=int_argument("stride", stride),
        cover_edges=int(cover_edges),
        borders=areas.ctypes.data,
        n_borders=len(areas),
        labels=dropped.ctypes.data,
        n_labels=len(dropped),
    )
    count = c_int64()
    call("kad_tiles_plan", byref(grid), None, 0, byref(count), accept=(BUFFER_TOO_SMALL,))
    xy = np.empty((count.value, 2), dtype=np.int32)
    call("kad_tiles_plan", byref(grid), xy.ctypes.data, len(xy), byref(count))
    return xy


def resize_image(
    image: npt.NDArray[Any],
    height: int,
    width: int,
    *,
    pixel_format: str | None = None,
    threads: int = 1,
) -> npt.NDArray[Any]:
    """Resize with an antialiased bilinear (triangle) filter.

    Returns
    -------
    (height, width, 3) uint8 or uint16
        RGB, of the image's own depth.
    """
    struct, pixels = _image(image, pixel_format)
    if int_argument("height", height) < 1 or int_argument("width", width) < 1:
        raise InvalidArgumentError(f"size must be at least 1 x 1, got {height} x {width}")
    out = np.empty((height, width, 3), dtype=pixels.dtype)
    call(
        "kad_image_resize", byref(struct), height, width, threads_argument(threads), out.ctypes.data
    )
    return out


def preprocess(
    image: npt.NDArray[Any],
    xy: Ints,
    *,
    tile: int,
    mean: npt.ArrayLike,
    std: npt.ArrayLike,
    pixel_format: str | None = None,
    threads: int = 1,
) -> Floats:
    """Cut tiles and normalise them: (value / full scale - mean) / std, RGB.

    Parameters
    ----------
    image : (H, W), (H, W, 3) or (H, W, 4) uint8 or uint16
    xy : (n, 2) int32
        Top-left corners, px.
    mean, std : three floats
        RGB, in units of full scale.

    Returns
    -------
    (n, 3, tile, tile) float32
    """
    struct, pixels = _image(image, pixel_format)
    xy = array_argument("xy", xy, np.int32, (None, 2))
    mean, std = triple_argument("mean", mean), triple_argument("std", std)
    height, width = pixels.shape[:2]
    if int_argument("tile", tile) < 1:
        raise InvalidArgumentError(f"tile must be at least 1 px, got {tile}")
    if tile > min(height, width):
        raise ImageTooSmallError(f"the image is {height} x {width} px, one tile {tile} x {tile}")
    out = np.empty((len(xy), 3, tile, tile), dtype=np.float32)
    arrays = (mean.ctypes.data, std.ctypes.data, threads_argument(threads), out.ctypes.data)
    call("kad_preprocess", byref(struct), xy.ctypes.data, len(xy), tile, *arrays)
    return out


def preprocess_window(
    image: npt.NDArray[Any],
    rect: Sequence[int],
    *,
    mean: npt.ArrayLike,
    std: npt.ArrayLike,
    pixel_format: str | None = None,
    threads: int = 1,
) -> Floats:
    """Normalise one rectangle (x, y, width, height) of an image; otherwise as `preprocess`.

    Returns
    -------
    (1, 3, height, width) float32
    """
    struct, pixels = _image(image, pixel_format)
    rects = rectangles_argument("rect", [rect])
    mean, std = triple_argument("mean", mean), triple_argument("std", std)
    height, width = pixels.shape[:2]
    x, y, w, h = rects[0].tolist()
    if min(x, y, w - 1, h - 1) < 0 or x + w > width or y + h > height:
        raise InvalidArgumentError(
            f"rect {(x, y, w, h)} (x, y, width, height) is empty or leaves the image of {height} x "
            f"{width} px (height x width)"
        )
    out = np.empty((1, 3, h, w), dtype=np.float32)
    arrays = (mean.ctypes.data, std.ctypes.data, threads_argument(threads), out.ctypes.data)
    call("kad_preprocess_window", byref(struct), rects.ctypes.data, *arrays)
    return out
