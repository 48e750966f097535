"""Pictures of the report, as data URIs, and outlines, as SVG paths in px of the board."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from kad_sdk.regions import region_mask
from kad_sdk.render import hot_colours, map_level, shrink_image, shrink_map, to_rgb8

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from kad_sdk.result import Result

__all__ = [
    "Window",
    "heat_layer",
    "mask_path",
    "photo",
    "region_path",
    "spread_layer",
    "window_around",
]

_JPEG_QUALITY = 82
_HEAT_SIDE = 640  # px: the map is smooth
_SPREAD_RGB = np.array([40, 110, 255], np.uint8)
_CROP_SIDE = 280  # px of a thumbnail's picture
_CROP_LEAST = 160  # px of the board that a thumbnail shows at least
_ROOM = 2.2  # side of a thumbnail over that of what it shows


class Window(NamedTuple):
    """A square part of a board: left, top and side, px."""

    x: int
    y: int
    side: int

    @property
    def view_box(self) -> str:
        """As SVG has it."""
        return f"{self.x} {self.y} {self.side} {self.side}"

    def cut(self, image: NDArray[Any]) -> NDArray[np.uint8]:
        """Cut it out and bring it to a thumbnail's size; (h, w, 3), grey beyond the image."""
        part = image[max(0, self.y) : self.y + self.side, max(0, self.x) : self.x + self.side]
        whole = np.full((self.side, self.side, 3), 128, np.uint8)
        top, left = max(0, -self.y), max(0, -self.x)
        whole[top : top + part.shape[0], left : left + part.shape[1]] = to_rgb8(part)
        shrinks = self.side > _CROP_SIDE
        way = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(whole, (_CROP_SIDE, _CROP_SIDE), interpolation=way), np.uint8)


def window_around(box: tuple[int, int, int, int], size: tuple[int, int]) -> Window:
    """Give a window with `box` (x, y, width, height) in its middle, inside a board of `size`."""
    x, y, width, height = box
    side = min(max(_CROP_LEAST, round(_ROOM * max(width, height))), max(size))
    left = min(max(0, x + width // 2 - side // 2), max(0, size[1] - side))
    top = min(max(0, y + height // 2 - side // 2), max(0, size[0] - side))
    return Window(left, top, side)


def photo(image: NDArray[Any], max_side: int | None = None) -> str:
    """Encode an image as JPEG, its longer side at most `max_side` px."""
    bgr = cv2.cvtColor(shrink_image(image, max_side), cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return _uri("image/jpeg", data)


def heat_layer(anomaly_map: NDArray[np.float32], threshold: float, side: int = _HEAT_SIDE) -> str:
    """Draw a map as a layer: clear up to half its threshold, then red through yellow to white."""
    level = map_level(shrink_map(anomaly_map, side), threshold)
    alpha = np.clip((4 * level - 1) / 3, 0, 1)
    return _layer(hot_colours(level), alpha)


def spread_layer(spread: NDArray[np.float32], threshold: float) -> str:
    """Draw the tiles' disagreement as a layer: clear at 0, blue at the threshold and above."""
    alpha = np.clip(np.nan_to_num(spread) / threshold, 0, 1)
    return _layer(np.broadcast_to(_SPREAD_RGB, (*spread.shape, 3)), alpha)


def _layer(rgb: NDArray[np.uint8], alpha: NDArray[np.floating]) -> str:
    bgra = np.dstack([rgb[..., ::-1], np.rint(255 * alpha).astype(np.uint8)])
    bgra[bgra[..., 3] == 0] = 0  # what is not seen takes no bytes
    _, data = cv2.imencode(".png", bgra, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return _uri("image/png", data)


def _uri(kind: str, data: NDArray[np.uint8]) -> str:
    return f"data:{kind};base64,{base64.b64encode(data.tobytes()).decode('ascii')}"


def region_path(result: Result, which: Iterable[int]) -> str:
    """Give the outlines of some of a result's regions as an SVG path."""
    parts = []
    for i in which:
        region = result.regions[i]
        parts.append(mask_path(region_mask(region, result), region.x, region.y))
    return "".join(parts)


def mask_path(mask: NDArray[np.bool_], x: int = 0, y: int = 0) -> str:
    """Give the outline of a mask whose corner lies at (x, y) as an SVG path.

    A path runs through the middles of the mask's outermost pixels; one pixel becomes a point,
    which the round ends of the line make visible.
    """
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_L1)
    lines = []
    for contour in found:
        points = [f"{x + px + 0.5:g} {y + py + 0.5:g}" for px, py in contour[:, 0].tolist()]
        lines.append(f"M{'L'.join(points)}Z")
    return "".join(lines)
