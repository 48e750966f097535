"""Brushes for synthetic boards: noise of a given grain, soft edges, blobs, strokes, stamps.

Everything is float32 in units of full scale and draws from the generator it is given, so a picture
depends on its seed alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

__all__ = ["Stamp", "axes", "blob", "noise", "smoothstep", "stroke", "unit"]


@dataclass(frozen=True)
class Stamp:
    """Something on a board: ``scene = scene * gain + add`` on the pixels from (x, y) on.

    Attributes
    ----------
    x, y : int
        Top-left corner, px.
    gain : ndarray
        (h, w, 1) or (h, w, 3) float32.
    add : ndarray
        (h, w, 3) float32.
    truth : ndarray or None
        (h, w) bool, what counts as defect; None for what belongs on a normal board.
    """

    x: int
    y: int
    gain: np.ndarray
    add: np.ndarray
    truth: np.ndarray | None = None

    @classmethod
    def cover(
        cls, alpha: np.ndarray, colour: np.ndarray, *, shade: np.ndarray | float = 1.0
    ) -> Stamp:
        """Paint `colour` (3,) or (h, w, 3) with opacity `alpha` (h, w) over a shaded ground."""
        opaque = alpha[..., None].astype(np.float32)
        ground = np.broadcast_to(np.asarray(shade, np.float32), alpha.shape)[..., None]
        paint = np.broadcast_to(np.asarray(colour, np.float32), (*alpha.shape, 3))
        return cls(0, 0, (1 - opaque) * ground, opaque * paint)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, px."""
        return self.add.shape[0], self.add.shape[1]

    def at(self, x: int, y: int) -> Stamp:
        """Give the same stamp with its corner at (x, y)."""
        return replace(self, x=x, y=y)

    def apply(self, band: np.ndarray, first_row: int) -> None:
        """Paint the part that falls into `band` (3, n, W), rows from `first_row` on."""
        height, width = self.shape
        top, bottom = max(self.y, first_row), min(self.y + height, first_row + band.shape[1])
        left, right = max(self.x, 0), min(self.x + width, band.shape[2])
        if top >= bottom or left >= right:
            return
        own = np.s_[top - self.y : bottom - self.y, left - self.x : right - self.x]
        part = band[:, top - first_row : bottom - first_row, left:right]
        part *= np.moveaxis(self.gain[own], 2, 0)
        part += np.moveaxis(self.add[own], 2, 0)


def smoothstep(low: float, high: float, value: np.ndarray) -> np.ndarray:
    """Rise from 0 at `low` to 1 at `high`, without corners; falls when `low` is above `high`."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def unit(field: np.ndarray) -> np.ndarray:
    """Scale a field to mean 0 and standard deviation 1."""
    return (field - field.mean()) / max(float(field.std()), 1e-9)


def noise(
    rng: np.random.Generator, height: int, width: int, sigma: float, sigma_y: float | None = None
) -> np.ndarray:
    """Gaussian noise of a given grain, (height, width) float32, mean 0 and deviation about 1.

    Coarse grain is computed at low resolution and enlarged.
    """
    tall = sigma if sigma_y is None else sigma_y
    step = max(1, int(min(sigma, tall) / 2))
    rows, columns = height // step + 4, width // step + 4
    field = rng.standard_normal((rows, columns), dtype=np.float32)
    field = cv2.GaussianBlur(field, (0, 0), sigma / step, sigmaY=tall / step)
    field *= 1 / max(float(field.std()), 1e-9)
    if step > 1:
        field = cv2.resize(field, (width + step, height + step), interpolation=cv2.INTER_CUBIC)
    return field[:height, :width]


def axes(radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (x, y) of a square canvas of side ``2 * radius + 1`` about its centre, px."""
    line = np.arange(-radius, radius + 1, dtype=np.float32)
    return line[None, :], line[:, None]


def blob(
    rng: np.random.Generator, canvas: int, radius: float, *, roughness: float, stretch: float = 1
) -> np.ndarray:
    """Distance from the centre in units of an irregular outline: 1 on the outline, (side, side)."""
    x, y = axes(canvas)
    turn = rng.uniform(0, np.pi)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    angle = np.arctan2(across, along / stretch)
    outline = np.ones_like(angle)
    for harmonic in range(2, 8):
        size = roughness * rng.normal() / harmonic
        outline += size * np.cos(harmonic * angle + rng.uniform(0, 2 * np.pi))
    distance = np.hypot(along / stretch, across)
    return (distance / (radius * np.maximum(outline, 0.3))).astype(np.float32)


def stroke(
    rng: np.random.Generator, length: float, *, bend: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a curved line on a canvas that just holds it.

    Parameters
    ----------
    rng : Generator
    length : float
        px.
    bend : float
        Radians that the heading turns by, about, from one end to the other.

    Returns
    -------
    distance : ndarray
        (h, w) signed distance to the line, px; positive on its left.
    place : ndarray
        (h, w) where along the line the nearest point is, 0 to 1.
    normal : ndarray
        (h, w, 2) unit vector (x, y) across the line.
    """
    n = max(8, int(length))
    turns = np.cumsum(rng.normal(0, 1, n)) / np.sqrt(n)
    heading = rng.uniform(0, 2 * np.pi) + bend * (rng.normal() * np.linspace(0, 1, n) + turns / 2)
    points = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0)  # (n, 2)
    border = 12
    points -= points.min(axis=0) - border
    width, height = np.ceil(points.max(axis=0) + border).astype(int)
    seeds = np.ones((height, width), np.uint8)
    cells = points.round().astype(int)
    seeds[cells[:, 1], cells[:, 0]] = 0
    _, labels = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    nearest = np.zeros(labels.max() + 1, np.int64)
    nearest[labels[cells[:, 1], cells[:, 0]]] = np.arange(n)
    index = nearest[labels]  # (h, w)
    rows, columns = np.mgrid[0:height, 0:width]
    dx, dy = columns - points[index, 0], rows - points[index, 1]
    normal = np.stack([-np.sin(heading), np.cos(heading)], axis=1)[index]  # (h, w, 2)
    side = np.where(dx * normal[..., 0] + dy * normal[..., 1] < 0, -1.0, 1.0)
    distance = (side * np.hypot(dx, dy)).astype(np.float32)
    return distance, (index / (n - 1)).astype(np.float32), normal.astype(np.float32)
