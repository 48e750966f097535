"""The rules of an inspector in NumPy and OpenCV: the oracle of the core's stages."""

from __future__ import annotations

import cv2
import numpy as np


def _slices(rect, size):
    x, y, width, height = rect
    return np.s_[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)]


def factors(size, *, ignored=(), zones=(), edge_margin=(0, 0), borders=()):
    """The reference: a factor for every pixel (H, W), 0 where it is not judged."""
    found = np.full(size, np.inf, np.float32)
    for rect, factor in zones:
        found[_slices(rect, size)] = np.minimum(found[_slices(rect, size)], np.float32(factor))
    found[np.isinf(found)] = 1
    if any(edge_margin):
        mx, my = edge_margin
        inside = np.zeros(size, bool)
        for x, y, width, height in borders or [(0, 0, size[1], size[0])]:
            inner = (x + mx, y + my, width - 2 * mx, height - 2 * my)
            if inner[2] > 0 and inner[3] > 0:
                inside[_slices(inner, size)] = True
        found[~inside] = 0
    for rect in ignored:
        found[_slices(rect, size)] = 0
    return found


def opened(board_map, area):
    """The reference: every value of the map as threshold, the highest that leaves a region."""
    for tau in np.unique(board_map[~np.isnan(board_map)])[::-1]:
        with np.errstate(invalid="ignore"):
            mask = (board_map >= tau).astype(np.uint8)
        stats = cv2.connectedComponentsWithStats(mask, connectivity=8)[2]
        if (stats[1:, cv2.CC_STAT_AREA] >= area).any():
            return float(tau)
    return 0.0
