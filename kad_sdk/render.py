"""Pictures of a result: the board with its regions outlined, and the map as a 16-bit PNG."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from kad_sdk.defaults import PICTURE_SIDE
from kad_sdk.errors import InvalidArgumentError
from kad_sdk.regions import region_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kad_sdk.result import Region, Result

__all__ = [
    "hot_colours",
    "map_level",
    "map_npy",
    "map_png",
    "map_to_uint16",
    "picture_png",
    "render_map",
    "render_overlay",
    "shrink_image",
    "shrink_map",
    "to_rgb8",
]

OUTLINE = (208, 0, 112)  # RGB: a red-violet that neither boards nor their black surround have
HALO = (255, 255, 255)
UNSCORED = (96, 96, 96)
_ROWS = 64  # of a map that are converted at a time: they stay in the processor's cache
_HEAT_OPACITY = 0.6  # where the map is at twice its threshold or above
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def map_to_uint16(anomaly_map: NDArray[np.float32], high: float) -> NDArray[np.uint16]:
    """Quantise a map: 0 where nothing was scored, else 1..65535 linear over 0..`high`.

    A pixel's value v means the distance ``(v - 1) / 65534 * high``; larger ones are cut off.

    Parameters
    ----------
    anomaly_map
        (H, W) float32, NaN where nothing was scored.
    high
        The distance that 65535 stands for, above 0.
    """
    if not high > 0:
        raise InvalidArgumentError(f"high: expected a number above 0, got {high}")
    out = np.empty(anomaly_map.shape, np.uint16)
    for begin in range(0, len(out), _ROWS):
        steps = anomaly_map[begin : begin + _ROWS] * np.float32(65534 / high)
        np.rint(steps, out=steps)
        np.clip(steps, 0, 65534, out=steps)
        steps += 1
        out[begin : begin + _ROWS] = np.nan_to_num(steps, copy=False, nan=0)
    return out


def render_overlay(
    image: NDArray[Any], result: Result, *, max_side: int | None = PICTURE_SIDE, heat: bool = False
) -> NDArray[np.uint8]:
    """Draw a board with its regions outlined, boxed and labelled with their peak.

    All that is not judged is hatched, by rules set on site or as it was not scored, where the
    result has a map.

    Parameters
    ----------
    image
        The board that was scored: (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA.
    result
        Its result.
    max_side
        Larger boards are scaled down to this length of their longer side, px; None: never.
    heat
        Whether the map is blended in: nothing up to half of its threshold, then red through yellow
        to white at twice the threshold.

    Returns
    -------
    ndarray
        (h, w, 3) uint8 RGB.
    """
    if image.shape[:2] != result.image_size:
        raise InvalidArgumentError(
            f"image: expected the scored board's size {result.image_size}, got {image.shape[:2]}"
        )
    height, width = result.image_size
    canvas = shrink_image(image, max_side)
    size = (canvas.shape[1], canvas.shape[0])
    if heat:
        canvas = _blend_heat(canvas, result, size)
    if result.map is not None:
        _hatch_unjudged(canvas, result.map, size)
    factor = (size[0] / width, size[1] / height)
    for region in reversed(result.regions):  # the highest peak is drawn last, on top
        _draw_region(canvas, region, result, factor)
    return canvas


def _hatch_unjudged(
    canvas: NDArray[np.uint8], board_map: NDArray[np.float32], size: tuple[int, int]
) -> None:
    """Draw thin slanting lines where the map is NaN."""
    step = max(8, max(size) // 100)
    rows, columns = np.ogrid[: size[1], : size[0]]
    hatched = np.isnan(_resized(board_map, size)) & ((rows + columns) % step == 0)
    below = canvas[hatched]
    canvas[hatched] = below // 2 + np.uint8(96) * (below < 112)  # dark on bright, bright on dark


def to_rgb8(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Bring an image, grey, RGB or RGBA, of 8 or 16 bits, to (H, W, 3) uint8."""
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.ndim == 2:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), dtype=np.uint8)
    return np.ascontiguousarray(image[..., :3])


def _blend_heat(
    canvas: NDArray[np.uint8], result: Result, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Colour by the map, and the more opaque the higher it is: a normal board stays as it is."""
    small = _resized(result.need_map(), size)
    level = map_level(small, result.map_threshold)
    colours = hot_colours(level)
    alpha = np.float32(_HEAT_OPACITY) * np.clip((4 * level - 1) / 3, 0, 1)[..., None]
    return np.asarray(canvas + alpha * (colours.astype(np.float32) - canvas)).astype(np.uint8)


def _resized(anomaly_map: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    small = cv2.resize(anomaly_map, size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(small, np.float32)


def map_level(anomaly_map: NDArray[np.float32], threshold: float) -> NDArray[np.float32]:
    """Bring a map to 0..1: 1 at twice the threshold and above; 0 where nothing was scored."""
    level = np.nan_to_num(anomaly_map, nan=0.0) / np.float32(2 * threshold)
    return np.asarray(np.clip(level, 0, 1), np.float32)


def hot_colours(level: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colour 0..1 from black through red and yellow to white: OpenCV's ``COLORMAP_HOT``."""
    grey = (255 * level).astype(np.uint8)
    colours = cv2.applyColorMap(grey, cv2.COLORMAP_HOT)
    return np.asarray(cv2.cvtColor(colours, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _fitted(size: tuple[int, ...], max_side: int | None) -> tuple[int, int]:
    """Give (width, height) of an image of (height, width) scaled down to `max_side`."""
    if max_side is not None and max_side < 1:
        raise InvalidArgumentError(f"max_side: expected at least 1 px, got {max_side}")
    height, width = size
    scale = 1.0 if max_side is None else min(1.0, max_side / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def shrink_image(image: NDArray[Any], max_side: int | None) -> NDArray[np.uint8]:
    """Bring an image to (h, w, 3) uint8, its longer side to `max_side` px at most."""
    size = _fitted(image.shape[:2], max_side)
    return to_rgb8(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def shrink_map(anomaly_map: NDArray[np.float32], max_side: int | None) -> NDArray[np.float32]:
    """Scale a map (H, W) down as :func:`shrink_image` does an image.

    A pixel is the largest of the values that become one, so that small defects stay visible, and
    NaN where none of them is scored.
    """
    width, height = _fitted(anomaly_map.shape, max_side)
    small = anomaly_map
    for axis, n in ((1, width), (0, height)):
        if n < small.shape[axis]:
            begins = np.arange(n) * small.shape[axis] // n
            small = np.fmax.reduceat(small, begins, axis=axis)  # fmax: NaN counts for nothing
    return np.asarray(small, np.float32)


def render_map(result: Result, *, max_side: int | None = PICTURE_SIDE) -> NDArray[np.uint8]:
    """Colour a map from black through red and yellow to white (thesis, section 5.4.5).

    White is twice the map's threshold, so that maps of several boards can be compared; what was
    not scored is grey.

    Parameters
    ----------
    result
        A board's result, with its map.
    max_side
        As :func:`render_overlay` takes it; the largest value of what becomes one pixel is kept, so
        that small defects stay visible.

    Returns
    -------
    ndarray
        (h, w, 3) uint8 RGB, OpenCV's ``COLORMAP_HOT``.
    """
    small = shrink_map(result.need_map(), max_side)
    colours = hot_colours(map_level(small, result.map_threshold))
    colours[np.isnan(small)] = UNSCORED
    return colours


def _draw_region(
    canvas: NDArray[np.uint8], region: Region, result: Result, factor: tuple[float, float]
) -> None:
    line = max(1, round(max(canvas.shape[:2]) / 800))
    corner = np.array([region.x, region.y])
    outline = [
        np.rint((points + corner) * factor).astype(np.int32) for points in _contours(region, result)
    ]
    x0, y0 = int(region.x * factor[0]), int(region.y * factor[1])
    x1 = math.ceil((region.x + region.width) * factor[0])
    y1 = math.ceil((region.y + region.height) * factor[1])
    small = max(x1 - x0, y1 - y0) < 30 * line or not outline
    if small:  # a box around it, at a distance, so that it is found at a glance
        x0, y0, x1, y1 = x0 - 8 * line, y0 - 8 * line, x1 + 8 * line, y1 + 8 * line
    for colour, width in ((HALO, 3 * line), (OUTLINE, line)):
        cv2.polylines(canvas, outline, isClosed=True, color=colour, thickness=width)
        if small:
            cv2.rectangle(canvas, (x0, y0), (x1, y1), colour, width)
    _draw_label(canvas, f"{region.peak:.3g}", (x0, y0 - 3 * line, y1 + 3 * line), line)


def _contours(region: Region, result: Result) -> list[NDArray[np.int32]]:
    """Outline of the region inside its box: the component that holds the peak."""
    own = region_mask(region, result)
    found, _ = cv2.findContours(own.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [np.asarray(points, dtype=np.int32) for points in found]


def _draw_label(
    canvas: NDArray[np.uint8], text: str, place: tuple[int, int, int], line: int
) -> None:
    """Write above the box, or below it where the board ends."""
    x, top, bottom = place
    scale = 0.4 * max(1.0, line * 0.8)
    (width, height), baseline = cv2.getTextSize(text, _FONT, scale, line)
    y = top - baseline if top - baseline - height >= 0 else bottom + height + baseline
    at = (max(0, min(x, canvas.shape[1] - width)), y)
    for colour, thickness in ((HALO, 3 * line), (OUTLINE, line)):
        cv2.putText(canvas, text, at, _FONT, scale, colour, thickness, cv2.LINE_AA)


# Less than half of the default's time for a map of 19 megapixels, and a twentieth more bytes; for
# an overlay half of the time, and fewer bytes.
_PNG = [
    *(cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP),
]


def _png(pixels: NDArray[Any]) -> bytes:
    _, data = cv2.imencode(".png", pixels, _PNG)
    return bytes(data.tobytes())


def picture_png(picture: NDArray[np.uint8]) -> bytes:
    """Encode an RGB picture."""
    return _png(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def map_png(anomaly_map: NDArray[np.float32], *, high: float) -> bytes:
    """Encode a map as 16-bit PNG; the values mean what :func:`map_to_uint16` says."""
    return _png(map_to_uint16(anomaly_map, high))


def map_npy(anomaly_map: NDArray[np.float32]) -> bytes:
    """Encode a map's float32 values, NaN included, as .npy."""
    buffer = io.BytesIO()
    np.save(buffer, anomaly_map, allow_pickle=False)
    return buffer.getvalue()
