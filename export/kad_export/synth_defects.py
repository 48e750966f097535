"""The seven defect kinds of the thesis (figure 6.5), and the small dots that are none.

Each painter gives a :class:`~kad_export.synth_paint.Stamp` at (0, 0) whose ``truth`` marks the
pixels where the defect is as good as visible: where the very opacity, height or contrast it was
painted with exceeds a tenth or so of its peak. Sizes are in px and do not depend on the board.
`light` is the direction (x, y) that the light comes from.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from kad_export.synth_paint import Stamp, axes, blob, noise, smoothstep, stroke, unit

if TYPE_CHECKING:
    from collections.abc import Callable

    Light = tuple[float, float]
    Painter = Callable[[np.random.Generator, Light], Stamp]

__all__ = ["DEFECTS", "dot"]


def black_hole(rng: np.random.Generator, light: Light) -> Stamp:
    """Paint a pit: near black, its far wall catching some light, its chipped rim raised."""
    radius = rng.uniform(4, 12)
    canvas = int(2.2 * radius) + 6
    rho = blob(rng, canvas, radius, roughness=0.14, stretch=rng.uniform(1, 1.35))
    x, y = axes(canvas)
    away = -(x * light[0] + y * light[1]) / np.maximum(np.hypot(x, y), 1)  # 1: facing the light
    edge = 0.7 / radius
    alpha = 0.97 * smoothstep(1 + edge, 1 - 2 * edge, rho)
    wall = 0.05 + 0.20 * np.clip(away, 0, 1) * smoothstep(0.35, 1.0, rho)
    wall += 0.03 * noise(rng, *rho.shape, 1.2)
    lip = np.exp(-(((rho - 1.15) / 0.16) ** 2)) * (0.16 * away + 0.03)
    halo = 1 - 0.10 * np.exp(-np.clip(rho - 1, 0, None) * 2.2)
    shade = np.where(rho > 1, halo + lip, halo)
    colour = wall[..., None] * np.array([1.0, 0.93, 0.80], np.float32)
    return replace(Stamp.cover(alpha, colour, shade=shade), truth=rho < 1.35)


def bump(rng: np.random.Generator, light: Light) -> Stamp:
    """Paint a blister: bright on the side of the light, shaded on the other, dull on its top."""
    radius = rng.uniform(9, 26)
    canvas = int(2.6 * radius) + 8
    rho = blob(rng, canvas, radius, roughness=0.15, stretch=rng.uniform(1, 1.5))
    height = smoothstep(1.45, 0.1, rho)
    height *= 1 + 0.10 * noise(rng, *rho.shape, radius / 4)
    grad_y, grad_x = np.gradient(height)
    slope = -(grad_x * light[0] + grad_y * light[1]) * radius  # above 0: tilted to the light
    slope = cv2.GaussianBlur(slope, (0, 0), 1.0)
    depth = rng.uniform(0.16, 0.30)
    gain = 1 + depth * np.clip(slope, -1.3, 1.0) * 0.8
    x, y = axes(canvas)
    cast = smoothstep(1.9, 0.7, np.hypot(x + light[0] * radius, y + light[1] * radius) / radius)
    gain *= 1 - 0.35 * depth * cast * (1 - height)
    glint = np.clip(slope - 0.55, 0, None) * rng.uniform(0.05, 0.25)
    add = np.repeat(glint[..., None], 3, axis=2).astype(np.float32)
    truth = (height > 0.1) | (np.abs(gain - 1) > 0.05)
    return Stamp(0, 0, gain[..., None].astype(np.float32), add, truth)


def splash(rng: np.random.Generator, light: Light) -> Stamp:
    """Paint dried droplets thrown one way: translucent, with a denser rim and a wet glint."""
    reach = int(rng.uniform(45, 110))
    x, y = axes(reach)
    alpha, glint = np.zeros((2, 2 * reach + 1, 2 * reach + 1), np.float32)
    turn = rng.uniform(0, 2 * np.pi)
    for index in range(int(rng.integers(22, 60))):
        far = 0.0 if index == 0 else min(rng.exponential(0.30), 0.86) * reach
        spread = rng.normal(0, 0.42)
        radius = rng.uniform(6, 11) if index == 0 else min(0.8 + rng.exponential(1.7), 7.0)
        dx, dy = far * np.cos(turn + spread), far * np.sin(turn + spread)
        along = (x - dx) * np.cos(turn + spread) + (y - dy) * np.sin(turn + spread)
        across = (y - dy) * np.cos(turn + spread) - (x - dx) * np.sin(turn + spread)
        rho = np.hypot(along / (1 + 0.9 * far / reach), across) / radius
        film = 0.66 * smoothstep(1 + 1.3 / radius, 1 - 1.3 / radius, rho)
        film *= 0.80 + 0.34 * np.exp(-(((rho - 0.82) / 0.22) ** 2))
        alpha = np.maximum(alpha, film * rng.uniform(0.7, 1.0))
        peak = np.hypot(x - dx - 0.4 * radius * light[0], y - dy - 0.4 * radius * light[1])
        glint += 0.30 * np.exp(-((peak / max(0.22 * radius, 0.6)) ** 2)) * (radius > 2.5)
    colour = _pick(
        rng, [(0.42, 0.36, 0.27), (0.36, 0.36, 0.35), (0.93, 0.93, 0.88), (0.50, 0.44, 0.35)]
    )
    alpha = np.clip(alpha * rng.uniform(0.55, 0.95), 0, 1)
    stamp = Stamp.cover(alpha, colour)
    return replace(stamp, add=stamp.add + glint[..., None] * 0.6, truth=alpha > 0.06)


def white_scar(rng: np.random.Generator, light: Light) -> Stamp:
    """Paint a scratch that went through the décor: pale, thin, with a faint shaded flank."""
    return _scar(rng, light, colour=(0.93, 0.94, 0.90), depth=(0.45, 0.85), width=(0.9, 2.4))


def black_scar(rng: np.random.Generator, light: Light) -> Stamp:
    """Paint a dark score, as from a knife or a dragged splinter."""
    colour = _pick(rng, [(0.12, 0.11, 0.10), (0.20, 0.16, 0.12), (0.16, 0.16, 0.17)])
    return _scar(rng, light, colour=colour, depth=(0.65, 0.95), width=(0.8, 2.6))


def irregular(rng: np.random.Generator, light: Light) -> Stamp:
    """Paint a patch where the surface cured badly: other gloss, mottled, with an uneven border."""
    radius = rng.uniform(26, 70)
    canvas = int(1.7 * radius)
    rho = blob(rng, canvas, radius, roughness=0.45, stretch=rng.uniform(1, 1.3))
    rho = rho + 0.16 * noise(rng, *rho.shape, radius / 7) + 0.07 * noise(rng, *rho.shape, 2.5)
    strength = smoothstep(1.12, 0.86, rho) * smoothstep(
        1.69, 1.5, np.maximum(*map(np.abs, axes(canvas))) / radius
    )
    islands = smoothstep(-1.0, 0.7, noise(rng, *rho.shape, radius / 6))
    strength = strength * (0.35 + 0.65 * islands)
    relief = noise(rng, *rho.shape, 2.2)
    grain = np.gradient(relief, axis=0) * light[1] + np.gradient(relief, axis=1) * light[0]
    tone = rng.choice([-1, 1]) * rng.uniform(0.06, 0.13)
    rim = np.exp(-(((rho - 0.98) / 0.07) ** 2)) * strength
    change = strength * (tone + 0.05 * unit(grain)) - 0.09 * rim
    tint = 1 + strength[..., None] * rng.normal(0, 0.006, 3)
    gain = (1 + change[..., None]) * tint
    return Stamp(
        0, 0, gain.astype(np.float32), np.zeros_like(gain, np.float32), truth=strength > 0.1
    )


def dirt(rng: np.random.Generator, light: Light) -> Stamp:  # noqa: ARG001 - dirt casts no shadow
    """Paint a wiped smear: streaks along the wipe, thin at its ends, with grit in it."""
    reach = int(rng.uniform(34, 90))
    x, y = axes(reach)
    side = 2 * reach + 1
    streaks = noise(rng, side, side, reach / 4, 1.3) + 0.7 * noise(rng, side, side, 8, 4)
    envelope = np.exp(-((x / (0.5 * reach)) ** 2) - (y / (rng.uniform(0.18, 0.36) * reach)) ** 2)
    wander = 0.55 + 0.45 * noise(rng, side, side, reach / 5)
    smear = envelope * np.clip(0.6 + 0.4 * streaks, 0.05, None) * np.clip(wander, 0.1, 1.4)
    turn = cv2.getRotationMatrix2D((reach, reach), rng.uniform(0, 360), 1)
    smear = cv2.warpAffine(smear.astype(np.float32), turn, (side, side), flags=cv2.INTER_LINEAR)
    grit = (rng.random((side, side)) < 0.03 * smear).astype(np.float32)
    grit = cv2.GaussianBlur(grit, (0, 0), 0.9) * 3.0
    alpha = np.clip(rng.uniform(0.55, 0.85) * smear + 0.7 * grit, 0, 0.85)
    edge = smoothstep(1.0, 0.85, np.hypot(x, y) / reach)
    alpha = alpha * edge
    colour = _pick(rng, [(0.30, 0.25, 0.19), (0.22, 0.21, 0.20), (0.38, 0.31, 0.22)])
    return replace(Stamp.cover(alpha, colour), truth=cv2.GaussianBlur(alpha, (0, 0), 1.5) > 0.05)


def dot(rng: np.random.Generator) -> Stamp:
    """Paint a speck of a px or two that the manufacturer does not count as a defect."""
    radius = rng.uniform(0.7, 2.0)
    rho = blob(rng, 6, radius, roughness=0.2)
    alpha = rng.uniform(0.35, 0.85) * smoothstep(1 + 0.7 / radius, 1 - 0.7 / radius, rho)
    return Stamp.cover(alpha, np.array((0.16, 0.14, 0.12)) * rng.uniform(0.7, 1.5))


DEFECTS: dict[str, Painter] = {
    "black hole": black_hole,
    "bump": bump,
    "splash": splash,
    "white scar": white_scar,
    "irregular": irregular,
    "black scar": black_scar,
    "dirt": dirt,
}


def _scar(
    rng: np.random.Generator,
    light: Light,
    *,
    colour: tuple[float, float, float],
    depth: tuple[float, float],
    width: tuple[float, float],
) -> Stamp:
    distance, place, normal = stroke(rng, rng.uniform(50, 190), bend=rng.uniform(0.1, 1.1))
    knots = np.linspace(0, 1, 24)
    taper = np.interp(
        place, [0, rng.uniform(0.08, 0.4), rng.uniform(0.6, 0.92), 1], [0.15, 1, 1, 0.1]
    )
    press = np.interp(place, knots, np.clip(1 + 0.35 * rng.normal(size=24), 0.15, 1.6))
    half = rng.uniform(*width) * taper * np.sqrt(press) + 0.25
    torn = 0.35 * noise(rng, *distance.shape, 1.3)
    core = smoothstep(0.9, -0.7, np.abs(distance) + torn - half)
    core *= smoothstep(11, 9, np.abs(distance))
    alpha = np.clip(rng.uniform(*depth) * core * np.clip(0.35 + 0.65 * press, 0, 1.1), 0, 1)
    facing = np.sign(distance) * (normal[..., 0] * light[0] + normal[..., 1] * light[1])
    flank = np.exp(-(((np.abs(distance) - half - 1.3) / 1.1) ** 2)) * taper
    return replace(
        Stamp.cover(alpha, np.array(colour), shade=1 - 0.11 * flank * facing), truth=alpha > 0.1
    )


def _pick(
    rng: np.random.Generator, colours: list[tuple[float, float, float]]
) -> tuple[float, float, float]:
    return colours[int(rng.integers(len(colours)))]
