"""Label stickers of synthetic boards: paper with print and codes, a little askew, with a shadow."""

from __future__ import annotations

import string

import cv2
import numpy as np

from kad_export.synth_paint import Stamp, noise

__all__ = ["sticker"]

_PAPER = np.array([0.855, 0.86, 0.835], np.float32)
_INK = np.array([0.13, 0.12, 0.13], np.float32)
_SCALE = 2  # print is drawn at twice the size and averaged down


def sticker(rng: np.random.Generator, size: tuple[int, int], light: tuple[float, float]) -> Stamp:
    """Paint a label of (height, width) px, turned by up to 4 degrees.

    The stamp is the box that holds the turned label; its margin of a few px holds the shadow.
    """
    height, width = size
    ink = _print(rng, height * _SCALE, width * _SCALE)
    angle = float(np.clip(rng.normal(0, 1.6), -4, 4))
    box_height, box_width = _box(height, width, angle)
    turn = cv2.getRotationMatrix2D((width * _SCALE / 2, height * _SCALE / 2), angle, 1 / _SCALE)
    turn[:, 2] += (box_width - width * _SCALE) / 2, (box_height - height * _SCALE) / 2
    canvas = (box_width, box_height)
    ink = cv2.warpAffine(cv2.GaussianBlur(ink, (0, 0), 0.7), turn, canvas)
    paper = cv2.warpAffine(np.ones((height * _SCALE, width * _SCALE), np.float32), turn, canvas)
    paper = cv2.GaussianBlur(paper, (0, 0), 0.6)
    tone = 1 + 0.012 * noise(rng, box_height, box_width, 1.2)
    tone += 0.015 * noise(rng, box_height, box_width, min(size) / 4)
    rim = np.clip(paper - cv2.GaussianBlur(paper, (0, 0), 2.0), 0, None)
    tone += 0.18 * rim
    colour = (_PAPER * tone[..., None]) * (1 - ink[..., None]) + _INK * ink[..., None]
    shift = np.array([[1, 0, -2.5 * light[0]], [0, 1, -2.5 * light[1]]])
    shadow = cv2.GaussianBlur(cv2.warpAffine(paper, shift, canvas), (0, 0), 2.2)
    return Stamp.cover(paper, colour, shade=1 - 0.30 * shadow)


def _box(height: int, width: int, angle: float) -> tuple[int, int]:
    cos, sin = abs(np.cos(np.radians(angle))), abs(np.sin(np.radians(angle)))
    margin = 16
    return (
        int(np.ceil(height * cos + width * sin)) + margin,
        int(np.ceil(width * cos + height * sin)) + margin,
    )


def _print(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw lines of text, a barcode and a square code; 1 is ink, (height, width) float32."""
    ink = np.zeros((height, width), np.uint8)
    margin = max(6, min(height, width) // 14)
    top = _text_block(rng, ink[: int(0.30 * height)], margin, margin)
    bars = slice(top + margin // 2, top + margin // 2 + int(0.26 * height))
    code_side = min(bars.stop - bars.start, int(0.3 * width))
    _barcode(rng, ink[bars, margin : width - 2 * margin - code_side])
    _square_code(
        rng, ink[bars.start : bars.start + code_side, width - margin - code_side : width - margin]
    )
    _text_block(rng, ink[: height - margin], margin, bars.stop + margin // 2)
    frame = max(1, margin // 8)
    if rng.random() < 0.6:
        corner = margin // 2
        cv2.rectangle(ink, (corner, corner), (width - corner, height - corner), 255, frame)
    speckle = np.clip(1.04 - 0.10 * np.abs(noise(rng, height, width, 1.0)), 0, 1)
    return (ink * speckle * (rng.uniform(0.82, 0.97) / 255)).astype(np.float32)


def _text_block(rng: np.random.Generator, ink: np.ndarray, margin: int, top: int) -> int:
    """Fill `ink` from row `top` on with lines of text; returns the row below the last."""
    alphabet = list(string.ascii_uppercase + string.digits * 2 + " -.")
    bottom, room = ink.shape[0], ink.shape[1] - 2 * margin
    line_height = int(max(13, min(0.34 * (bottom - top), 0.085 * ink.shape[1] + 10)))
    row, large = top, True
    while row + line_height <= bottom:
        tall = int(line_height * (1.0 if large else 0.62))
        scale, weight = tall / 34, max(1, round(tall / 13))
        text = "".join(rng.choice(alphabet, int(rng.integers(6, 26))))
        while cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, weight)[0][0] > room:
            text = text[:-1]
        base = (margin, row + int(0.8 * tall))
        cv2.putText(ink, text, base, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, weight, cv2.LINE_AA)
        row += int(tall * 1.25)
        large = bool(rng.random() < 0.2)
    return row


def _barcode(rng: np.random.Generator, area: np.ndarray) -> None:
    height, width = area.shape
    module = max(2, width // 110)
    widths = rng.choice([1, 2, 3, 4], size=max(2, width // module), p=[0.45, 0.3, 0.15, 0.1])
    edges = np.concatenate([[0], np.cumsum(widths)]) * module
    for start, stop in zip(edges[:-1:2], edges[1::2], strict=False):
        if stop <= width:
            area[: int(0.86 * height), start:stop] = 255


def _square_code(rng: np.random.Generator, area: np.ndarray) -> None:
    """Fill a square with a two-dimensional code: solid left and lower border, as in Data Matrix."""
    side = min(area.shape)
    if side < 24:
        return
    modules = np.where(rng.random((18, 18)) < 0.5, 255, 0).astype(np.uint8)
    modules[:, 0] = modules[-1, :] = 255
    modules[0, ::2] = modules[1::2, -1] = 255
    area[:side, :side] = cv2.resize(modules, (side, side), interpolation=cv2.INTER_NEAREST)
