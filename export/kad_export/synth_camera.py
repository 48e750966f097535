"""The line-scan camera of a synthetic set: optics, trilinear sensor, column pattern, noise.

A line-scan camera sees each image column with the same pixel, so that pixel's gain and offset make
a line down the whole image. Every colour has its own line of pixels; where the lines' distance and
the conveyor's speed do not match exactly, edges across the travel get coloured fringes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from kad_export.synth_paint import noise

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Camera", "make_camera"]

_BAND = 384  # rows rendered at a time
_REACH = 3  # px that the optics spread a point
_SHIFT = (-0.35, 0.0, 0.3)  # px along the travel, R, G, B
_SIGMA_X, _SIGMA_Y = (
    0.62,
    0.72,
)  # px; more along the travel: the conveyor moves while a line is taken
_SHOT, _READ = 5.5e-5, 1.6e-6  # variance of noise for each unit of signal, and without light


@dataclass(frozen=True)
class Camera:
    """Fixed pattern of one camera; `gain` and `offset` are (2, 3, W), slowly mixed by row."""

    gain: np.ndarray
    offset: np.ndarray

    def expose(
        self,
        rng: np.random.Generator,
        render: Callable[[int, int], np.ndarray],
        size: tuple[int, int],
    ) -> np.ndarray:
        """Take a picture.

        Parameters
        ----------
        rng : Generator
            For noise and drift.
        render : callable
            (start, stop) to the light from these rows, (3, n, W) float32.
        size : (height, width)

        Returns
        -------
        ndarray
            (H, W, 3) RGB uint8.
        """
        height, width = size
        image = np.empty((height, width, 3), np.uint8)
        drift = np.clip(0.5 + 0.4 * noise(rng, height, 9, height / 5)[:, 4], 0, 1)
        for start in range(0, height, _BAND):
            stop = min(start + _BAND, height)
            first, last = max(start - _REACH, 0), min(stop + _REACH, height)
            band = _optics(render(first, last))[:, start - first : stop - first]
            mix = drift[start:stop, None].astype(np.float32)
            band *= _mixed(self.gain, mix)
            band += _mixed(self.offset, mix)
            grain = rng.standard_normal(band.shape, dtype=np.float32)
            grain *= np.sqrt(_SHOT * np.maximum(band, 0) + _READ)
            band += grain
            np.clip(band * 255 + 0.5, 0, 255, out=band)
            image[start:stop] = cv2.merge(list(band.astype(np.uint8)))
        return image


def make_camera(rng: np.random.Generator, width: int) -> Camera:
    """Draw the fixed pattern of a camera with `width` pixels a line."""
    gain = 1 + 0.0075 * rng.standard_normal((2, 3, width))
    gain[1] = gain[0] + 0.45 * (gain[1] - gain[0])  # the pattern drifts, it does not change
    tap = np.arange(width) * 4 // width % 2  # the sensor is read out by four amplifiers
    gain += 0.0025 * tap * rng.choice([-1, 1], (3, 1))
    dusty = rng.random(width) < 0.008  # dust before a pixel: a line that is seen at once
    gain -= dusty * rng.uniform(0.02, 0.09, width) * rng.dirichlet([1, 1, 1], width).T
    offset = 0.0035 * np.abs(rng.standard_normal((2, 3, width)))
    hot = rng.random((3, width)) < 0.012
    offset += hot * rng.uniform(0.006, 0.03, (3, width))
    return Camera(gain.astype(np.float32), offset.astype(np.float32))


def _mixed(pattern: np.ndarray, mix: np.ndarray) -> np.ndarray:
    """Give the pattern (2, 3, W) on rows whose share of its second state is `mix` (n, 1)."""
    first, second = pattern[:, :, None]
    return first + mix * (second - first)  # (3, n, W)


def _optics(scene: np.ndarray) -> np.ndarray:
    """Blur by lens and motion, each colour shifted along the travel."""
    taps = np.arange(-_REACH, _REACH + 1)
    across = _kernel(taps, _SIGMA_X)
    planes = [
        cv2.sepFilter2D(plane, cv2.CV_32F, across, _kernel(taps - shift, _SIGMA_Y))
        for plane, shift in zip(scene, _SHIFT, strict=True)
    ]
    return np.stack(planes)


def _kernel(at: np.ndarray, sigma: float) -> np.ndarray:
    weights = np.exp(-(at**2) / (2 * sigma**2))
    return (weights / weights.sum()).astype(np.float32)
