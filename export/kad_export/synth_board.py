"""The surface of a synthetic board: its outline, décor, mouldings and the light on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kad_export.synth_paint import noise, smoothstep
from kad_sdk.annotations import Rect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kad_export.synth_paint import Stamp

__all__ = ["CATEGORIES", "Board", "Frame", "make_board"]

# Reflectance (RGB) under the middle of the lamp, chosen so that the tiles of a set come close to
# the published channel statistics (thesis 5.2).
CATEGORIES: dict[str, tuple[float, float, float]] = {
    "white": (0.624, 0.630, 0.548),
    "white-with-edges": (0.688, 0.697, 0.605),
}

_BORDER_INSET = 12  # px between the board's soft edge and the active area
_BELT = np.array([0.040, 0.042, 0.032], np.float32)
# Bevels of a moulding, from the raised frame down to the panel: (start, width, steepness), px.
_BEVELS = ((0.0, 7.0, 0.8), (16.0, 13.0, 1.0))
_MOULDING = 34.0  # px from the frame's lip to the panel


@dataclass(frozen=True)
class Frame:
    """Lip of a raised frame, in coordinates aligned with the board, px."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Board:
    """Everything that makes one board's surface, ready to be rendered row by row.

    `left`, `top`, `right`, `bottom` are its edges in coordinates (u, v) that are turned by `skew`
    against the image about its centre.
    """

    height: int
    width: int
    skew: float
    left: float
    top: float
    right: float
    bottom: float
    border: Rect
    albedo: np.ndarray  # (3,)
    texture: np.ndarray  # (H, W) float32, about 0
    across: np.ndarray  # (3, W) light along the line
    along: np.ndarray  # (H,) light along the travel
    wobble: tuple[np.ndarray, ...]  # (max(H, W),) for each side: unevenness of the cut, px
    weave: np.ndarray  # (32, W) surface of the conveyor
    frames: tuple[Frame, ...]
    light: tuple[float, float]

    def render(self, start: int, stop: int, stamps: Sequence[Stamp] = ()) -> np.ndarray:
        """Light that reaches the lens from rows `start` to `stop`, (3, n, W) float32.

        `stamps` lie on the surface and are lit with it.
        """
        rows = np.arange(start, stop, dtype=np.float32)[:, None]
        columns = np.arange(self.width, dtype=np.float32)[None, :]
        u = columns - self.skew * (rows - self.height / 2)  # (n, W)
        v = rows + self.skew * (columns - self.width / 2)
        west, east = u - self.left, self.right - u
        north, south = v - self.top, self.bottom - v
        cut = self.wobble
        inside = np.minimum(west + cut[0][start:stop, None], east + cut[1][start:stop, None])
        inside = np.minimum(inside, north + cut[2][: self.width])
        inside = np.minimum(inside, south + cut[3][: self.width])  # distance to the edge, px
        shade = 1 + self.texture[start:stop]
        shade *= _edge_profile(inside, (west, east, north, south))
        for frame in self.frames:
            _mould(shade, u, v, frame, self.light)
        scene = shade * self.albedo[:, None, None]
        for stamp in stamps:
            stamp.apply(scene, start)
        coverage = smoothstep(-2.4, 2.4, inside)
        scene *= coverage * self.along[start:stop, None]
        scene *= self.across[:, None]
        dark = (1 - coverage) * self.weave[np.arange(start, stop) % len(self.weave)]
        dark *= 1 + 2.0 * np.exp(np.minimum(inside, 0) / 22)  # the board lights the belt beside it
        scene += dark * _BELT[:, None, None]
        return scene


def make_board(
    rng: np.random.Generator, size: tuple[int, int], category: str, light: tuple[float, float]
) -> Board:
    """Draw a board of a category for an image of `size` (height, width)."""
    height, width = size
    skew = float(np.tan(np.radians(np.clip(rng.normal(0, 0.22), -0.5, 0.5))))
    slack = abs(skew) * max(size) / 2
    left = width * rng.uniform(0.05, 0.16) + slack
    right = width * (1 - rng.uniform(0.03, 0.09)) - slack
    top = height * rng.uniform(0.03, 0.13) + slack
    bottom = height * (1 - rng.uniform(0.03, 0.13)) - slack
    border = _border(slack, (left, top, right, bottom))
    return Board(
        height=height,
        width=width,
        skew=skew,
        left=left,
        top=top,
        right=right,
        bottom=bottom,
        border=border,
        albedo=_albedo(rng, category),
        texture=_texture(rng, height, width),
        across=_light_across(rng, width),
        along=(
            1 + 0.012 * noise(rng, height, 9, 180.0)[:, 4] + 0.0015 * rng.standard_normal(height)
        ).astype(np.float32),
        wobble=tuple(_wobble(rng, max(size)) for _ in range(4)),
        weave=_weave(rng, width),
        frames=_frames(rng, (left, top, right, bottom)) if category == "white-with-edges" else (),
        light=light,
    )


def _border(slack: float, edges: tuple[float, float, float, float]) -> Rect:
    left, top, right, bottom = edges
    inset = slack + _BORDER_INSET
    x0, y0 = int(np.ceil(left + inset)), int(np.ceil(top + inset))
    return Rect(x0, y0, int(right - inset) - x0, int(bottom - inset) - y0)


def _albedo(rng: np.random.Generator, category: str) -> np.ndarray:
    """Colour of a board; batches of décor and the exposure differ a little."""
    exposure = np.clip(rng.normal(1, 0.07), 0.85, 1.15)
    return (np.array(CATEGORIES[category]) * exposure * rng.normal(1, 0.003, 3)).astype(np.float32)


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Embossed décor under a raking light: fine grain, orange peel, mottling, clouds."""
    relief = noise(rng, height + 1, width, 1.15)
    texture = 0.0105 * np.diff(relief, axis=0)
    texture += 0.0055 * noise(rng, height, width, 1.0)
    peel = noise(rng, height + 2, width, 4.5, 4.0)
    texture += 0.011 * (peel[2:] - peel[:-2])
    texture += 0.0035 * noise(rng, height, width, 24.0)
    texture += 0.006 * noise(rng, height, width, 170.0)
    return texture


def _light_across(rng: np.random.Generator, width: int) -> np.ndarray:
    """Line lamp: brightest left of the middle, falling off to the ends, a little warmer there."""
    x = np.linspace(-1, 1, width)
    centre = rng.normal(-0.38, 0.06)
    profile = 1.16 - rng.uniform(0.30, 0.38) * (x - centre) ** 2
    ripple = noise(rng, 9, width, width / 14)[4]
    profile += 0.008 * ripple
    warmth = np.array([[0.010], [0.0], [-0.022]]) * (x - centre) ** 2
    return (profile * (1 + warmth)).astype(np.float32)  # (3, W)


def _wobble(rng: np.random.Generator, n: int) -> np.ndarray:
    """Unevenness of the saw cut: waves, fine tear-out, a few chips."""
    wobble = 0.8 * noise(rng, 9, n, 300.0)[4] + 0.16 * noise(rng, 9, n, 3.0)[4]
    chips = (rng.random(n) < 1.5e-3) * rng.exponential(2.0, n)
    return (wobble - np.convolve(chips, [0.4, 0.8, 1.0, 0.7, 0.3], mode="same")).astype(np.float32)


def _weave(rng: np.random.Generator, width: int) -> np.ndarray:
    """Conveyor: a fabric of fine ribs in belts of uneven darkness."""
    x, y = np.arange(width)[None, :], np.arange(32)[:, None]
    ribs = 1 + 0.22 * np.sin(2 * np.pi * (x / 8 + y / 16)) * np.sin(2 * np.pi * (y / 8))
    belts = 1 + 0.25 * noise(rng, 9, width, 60.0)[4]
    return (ribs * np.clip(belts, 0.3, 2) * (1 + 0.15 * noise(rng, 32, width, 1.0))).astype(
        np.float32
    )


def _edge_profile(inside: np.ndarray, sides: tuple[np.ndarray, ...]) -> np.ndarray:
    """Shade the rounded, banded edge: bright where it faces the light, else dark; and its joint."""
    profile = np.ones_like(inside)
    rim = np.nonzero((inside > -4) & (inside < 40))
    west, east, north, south = (side[rim] for side in sides)
    level, upright = np.where(west < east, 0.04, -0.20), np.where(north < south, 0.10, -0.28)
    facing = np.where(np.minimum(west, east) < np.minimum(north, south), level, upright)
    near = np.clip(inside[rim], 0, None)
    profile[rim] += np.exp(-near / 3.5) * facing - 0.07 * np.exp(-(((near - 7.5) / 1.1) ** 2))
    return profile


def _frames(
    rng: np.random.Generator, edges: tuple[float, float, float, float]
) -> tuple[Frame, ...]:
    """Lay out one panel, or two or four on boards that are large enough for them."""
    left, top, right, bottom = edges
    rim = rng.uniform(0.085, 0.12) * min(right - left, bottom - top)
    n_columns = int(rng.integers(1, 3)) if right - left > 1800 else 1
    n_rows = int(rng.integers(1, 3)) if bottom - top > 1800 else 1
    pitch_x, pitch_y = (right - left - rim) / n_columns, (bottom - top - rim) / n_rows
    return tuple(
        Frame(
            left + rim + i * pitch_x,
            top + rim + j * pitch_y,
            left + (i + 1) * pitch_x,
            top + (j + 1) * pitch_y,
        )
        for j in range(n_rows)
        for i in range(n_columns)
    )


def _mould(
    shade: np.ndarray, u: np.ndarray, v: np.ndarray, frame: Frame, light: tuple[float, float]
) -> None:
    """Shade the mouldings of one frame on the rows at hand, strip by strip along its sides."""
    reach = _MOULDING + 110  # px inside the lip, where the frame's shadow has ended
    rows = np.flatnonzero((v.max(axis=1) > frame.top - 4) & (v.min(axis=1) < frame.bottom + 4))
    if not len(rows):
        return
    top, bottom = rows[0], rows[-1] + 1
    first = max(int(np.searchsorted(u.max(axis=0), frame.left - 4)), 0)
    last = int(np.searchsorted(u.min(axis=0), frame.right + 4))
    spans = [(first, last)]
    if v[top].min() > frame.top + reach and v[bottom - 1].max() < frame.bottom - reach:
        inner = np.searchsorted(u[top], (frame.left + reach + 8, frame.right - reach - 8))
        spans = [(first, int(inner[0])), (int(inner[1]), last)]
    for start, stop in spans:
        part = np.s_[top:bottom, start:stop]
        shade[part] *= _moulding(u[part], v[part], frame, light)


def _moulding(u: np.ndarray, v: np.ndarray, frame: Frame, light: tuple[float, float]) -> np.ndarray:
    """Shading of a moulding that leads from a raised frame down to its panel.

    Bevels that face the light are bright, the opposite ones dark; they meet in mitres. The panel
    lies in the shadow of the frame along its rim, and most of all in its corners.
    """
    from_x = np.minimum(u - frame.left, frame.right - u)
    from_y = np.minimum(v - frame.top, frame.bottom - v)
    depth = np.minimum(from_x, from_y)  # px inside the lip
    across = np.where(u < (frame.left + frame.right) / 2, light[0], -light[0])
    down = np.where(v < (frame.top + frame.bottom) / 2, light[1], -light[1])
    facing = np.where(from_x < from_y, across, down).astype(np.float32)
    gain = 1 + 0.05 * np.exp(-(((depth + 1.5) / 1.4) ** 2))  # the lip catches light all around
    for start, width, steep in _BEVELS:
        slope = smoothstep(start - 1, start + 2, depth)
        slope *= smoothstep(start + width + 1, start + width - 2, depth)
        gain += steep * slope * (0.20 * facing - 0.05)
    inner_x, inner_y = np.maximum(from_x - _MOULDING, 0), np.maximum(from_y - _MOULDING, 0)
    panel = smoothstep(_MOULDING - 6, _MOULDING, depth)
    rim = np.exp(-np.minimum(inner_x, inner_y) / 16) * (0.09 - 0.06 * facing)
    corner = 0.22 * np.exp(-np.hypot(inner_x, inner_y) / 26)
    return gain - panel * (rim + corner)
