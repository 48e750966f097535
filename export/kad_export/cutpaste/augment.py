"""Augmentations: a defect drawn into a normal tile, as a function of the tile and a generator.

The scenarios are those of the thesis, section 5.4.1; CutPaste and CutPaste-Scar come from the paper
(arXiv 2104.04015, sections 2.2 and 2.3). What they leave open is settled here:

- ``transparency`` is what shows through, in percent: at 15 a mark covers the board to 85 %. Dots
  and arcs besides fade out to their edge, over the share ``fade`` of their radius or half width.
- A mark always lies in the tile as a whole; in a tile too small for it, it is made smaller.
- A mark can be seen: on average it differs from what it covers by at least ``min_contrast`` grey
  levels in one channel. A crop of a plain surface pasted on a plain surface would else teach the
  network that a normal tile is anomalous. Other places are tried first; when none will do, as on an
  image of one colour, the mark is made lighter or darker.
- Dots are near black, or near white inside a near black border; an arc is one or the other.

Each function leaves its input as it is and returns ``(image, mask)``: a new tile, and where the
mark lies; outside the mask no pixel differs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from kad_sdk.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Marked = tuple[NDArray[np.uint8], NDArray[np.bool_]]

__all__ = [
    "MIN_SIDE",
    "SCENARIOS",
    "VARIANTS",
    "AugmentationSettings",
    "arc_scar",
    "augment",
    "black_dot",
    "cutpaste",
    "scar",
    "white_dot",
]

MIN_SIDE = 8
"""Smallest height and width of a tile that a mark is drawn into, px."""
PIXEL_RANGES = (
    "scar_width",
    "scar_length",
    "black_dot_diameter",
    "white_dot_diameter",
    "arc_radius",
)
ATTEMPTS = 10  # places tried before a mark is made lighter or darker
FORCED_CONTRAST = 64.0  # grey levels, of a mark that can be seen nowhere


@dataclass(frozen=True)
class AugmentationSettings:
    """Sizes and blending of the augmentations; lengths in px, inclusive ranges, angles in degrees.

    Attributes
    ----------
    transparency : float
        What shows through a mark, percent (thesis, section 6.3).
    scar_width, scar_length, scar_angle : (low, high)
        Of the crop that is rotated and pasted (thesis, section 5.4.1).
    black_dot_diameter : (low, high)
        Thesis, section 5.4.1.
    white_dot_diameter : (low, high)
        With its border (thesis, section 5.4.1).
    white_dot_border : float
        Thickness of the border as a share of the radius: the thesis has it scale with the size, and
        gives no number.
    arc_radius, arc_thickness, arc_span : (low, high), float, float
        Thesis, section 5.4.1.
    fade : float
        Share of a dot's radius or an arc's half width over which it fades out, above 0 to 1; the
        thesis speaks of transparency gradients without a number.
    cutpaste_area, cutpaste_aspect : (low, high)
        Share of the tile's area, and width over height, of plain CutPaste (paper, section 2.2 and
        appendix A).
    jitter : float
        A pasted crop's brightness and each of its channels are multiplied by up to 1 +/- jitter
        (paper, appendix A).
    min_contrast : float
        See the module's text; grey levels of 255.

    Raises
    ------
    InvalidArgumentError
        A value of the wrong kind or beyond its limits.
    """

    transparency: float = 15.0
    scar_width: tuple[int, int] = (2, 12)
    scar_length: tuple[int, int] = (20, 50)
    scar_angle: tuple[float, float] = (-45.0, 45.0)
    black_dot_diameter: tuple[int, int] = (6, 10)
    white_dot_diameter: tuple[int, int] = (6, 12)
    white_dot_border: float = 0.35
    arc_radius: tuple[int, int] = (35, 90)
    arc_thickness: float = 5.0
    arc_span: float = 60.0
    fade: float = 0.5
    cutpaste_area: tuple[float, float] = (0.02, 0.15)
    cutpaste_aspect: tuple[float, float] = (0.3, 3.3)
    jitter: float = 0.1
    min_contrast: float = 8.0

    def __post_init__(self) -> None:
        for field in fields(self):
            self._check_kind(field.name, field.default)
        for name in (*PIXEL_RANGES, "cutpaste_area", "cutpaste_aspect"):
            low, high = getattr(self, name)
            self._check(name, 0 < low <= high, "two numbers above 0, the smaller first")
        self._check("scar_angle", self.scar_angle[0] <= self.scar_angle[1], "the smaller first")
        self._check("cutpaste_area", self.cutpaste_area[1] <= 0.5, "shares of at most 0.5")
        self._check("transparency", 0 <= self.transparency <= 90, "0 to 90 percent")
        self._check("white_dot_border", 0 < self.white_dot_border < 1, "a share between 0 and 1")
        self._check("arc_thickness", 0 < self.arc_thickness <= 64, "above 0, at most 64 px")
        self._check("arc_span", 0 < self.arc_span <= 180, "above 0, at most 180 degrees")
        self._check("fade", 0 < self.fade <= 1, "a share above 0, at most 1")
        self._check("jitter", 0 <= self.jitter < 1, "0 or more, below 1")
        self._check("min_contrast", 0 < self.min_contrast <= 32, "above 0, at most 32 grey levels")

    def _check_kind(self, name: str, default: float | tuple[float, float]) -> None:
        """Hold a value to its default's kind: a number, or two of them; whole ones where drawn."""
        value = getattr(self, name)
        number = int if name in PIXEL_RANGES else (int, float)
        kind = "whole number" if name in PIXEL_RANGES else "number"
        if isinstance(default, tuple):
            pair = isinstance(value, tuple) and len(value) == 2
            good = pair and all(isinstance(one, number) for one in value)
            self._check(name, good, f"two {kind}s (low, high)")
        else:
            self._check(name, isinstance(value, number), f"one {kind}")

    def _check(self, name: str, good: bool, expected: str) -> None:
        if not good:
            raise InvalidArgumentError(f"{name}: expected {expected}, got {getattr(self, name)!r}")

    @property
    def opacity(self) -> float:
        """How much of the board a mark covers, 0.1 to 1."""
        return 1 - self.transparency / 100


class _Mark(NamedTuple):
    """What is drawn: (h, w, 3) float32 colours, (h, w) float32 cover of 0 to 1, and its place."""

    colour: NDArray[np.float32]
    cover: NDArray[np.float32]
    x: int
    y: int


def scar(
    image: NDArray[np.uint8], rng: np.random.Generator, settings: AugmentationSettings
) -> Marked:
    """Paste a narrow rotated crop of the tile elsewhere (CutPaste-Scar).

    Parameters
    ----------
    image : (H, W, 3) uint8
    rng : numpy.random.Generator
    settings : AugmentationSettings

    Returns
    -------
    image : (H, W, 3) uint8
    mask : (H, W) bool

    Raises
    ------
    InvalidArgumentError
        The tile is not (H, W, 3) uint8 with H and W of at least `MIN_SIDE`.
    """

    def draw() -> _Mark:
        side = min(image.shape[:2]) // 2  # the rotated crop's box fits at any angle
        width = min(_whole(rng, settings.scar_width), side)
        length = min(_whole(rng, settings.scar_length), side)
        crop = _crop(image, rng, length, width, settings.jitter)
        return _put(image, rng, *_rotated(crop, rng.uniform(*settings.scar_angle)))

    return _paste(image, draw, settings)


def black_dot(
    image: NDArray[np.uint8], rng: np.random.Generator, settings: AugmentationSettings
) -> Marked:
    """Draw a small dark dot that fades out; parameters and results as for `scar`."""

    def draw() -> _Mark:
        radius = _radius(image, rng, settings.black_dot_diameter)
        distance = _distances(rng, radius)
        cover = _faded(radius - distance, settings.fade * radius)
        return _put(image, rng, _plain(_dark(rng), cover.shape), cover)

    return _paste(image, draw, settings)


def white_dot(
    image: NDArray[np.uint8], rng: np.random.Generator, settings: AugmentationSettings
) -> Marked:
    """Draw a light dot with a dark border that fades out; otherwise as `scar`."""

    def draw() -> _Mark:
        radius = _radius(image, rng, settings.white_dot_diameter)
        distance = _distances(rng, radius)
        border = settings.white_dot_border * radius
        light = _faded(radius - border - distance, 1.0)[..., None]  # (h, w, 1)
        colour = light * _light(rng) + (1 - light) * _dark(rng)
        cover = _faded(radius - distance, settings.fade * border)
        return _put(image, rng, _plain(colour, cover.shape), cover)

    return _paste(image, draw, settings)


def arc_scar(
    image: NDArray[np.uint8], rng: np.random.Generator, settings: AugmentationSettings
) -> Marked:
    """Draw an arc of a circle, dark or light, that fades out; otherwise as `scar`."""

    def draw() -> _Mark:
        largest = min(image.shape[:2])
        thickness = min(settings.arc_thickness, largest / 4)
        radius = min(_whole(rng, settings.arc_radius), (largest - thickness) / 2)
        cover = _arc(rng, radius, thickness, settings)
        grey = _dark(rng) if rng.random() < 0.5 else _light(rng)
        return _put(image, rng, _plain(grey, cover.shape), cover)

    return _paste(image, draw, settings)


def cutpaste(
    image: NDArray[np.uint8], rng: np.random.Generator, settings: AugmentationSettings
) -> Marked:
    """Paste an upright rectangular crop of the tile elsewhere (plain CutPaste); as `scar`."""

    def draw() -> _Mark:
        height, width = image.shape[:2]
        area = rng.uniform(*settings.cutpaste_area) * height * width
        aspect = np.exp(rng.uniform(*np.log(settings.cutpaste_aspect)))
        rows = int(np.clip(round(np.sqrt(area / aspect)), 1, height))
        columns = int(np.clip(round(np.sqrt(area * aspect)), 1, width))
        crop = _crop(image, rng, rows, columns, settings.jitter)
        return _put(image, rng, crop, np.ones(crop.shape[:2], np.float32))

    return _paste(image, draw, settings)


SCENARIOS: dict[
    str, Callable[[NDArray[np.uint8], np.random.Generator, AugmentationSettings], Marked]
] = {
    "scar": scar,
    "black-dot": black_dot,
    "white-dot": white_dot,
    "arc-scar": arc_scar,
    "cutpaste": cutpaste,
}

VARIANTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "thesis": (("scar", "black-dot", "white-dot", "arc-scar"),),
    "cutpaste": (("cutpaste",),),
    "3-way": (("cutpaste",), ("scar",)),
}
"""Variant to the scenarios of class 1 and, where there is one, of class 2; class 0 is normal.

3-way is the paper's (section 2.3): CutPaste and CutPaste-Scar are classes of their own.
"""


def augment(
    image: NDArray[np.uint8],
    rng: np.random.Generator,
    settings: AugmentationSettings,
    scenarios: Sequence[str] = VARIANTS["thesis"][0],
) -> Marked:
    """Draw one of the scenarios into a tile, each as likely as the others.

    Parameters
    ----------
    image : (H, W, 3) uint8
    rng : numpy.random.Generator
    settings : AugmentationSettings
    scenarios : sequence of str
        Keys of `SCENARIOS`.

    Returns
    -------
    image : (H, W, 3) uint8
    mask : (H, W) bool

    Raises
    ------
    InvalidArgumentError
        As `scar`, or no such scenario.
    """
    name = scenarios[int(rng.integers(len(scenarios)))]
    if name not in SCENARIOS:
        known = ", ".join(SCENARIOS)
        raise InvalidArgumentError(f"unknown augmentation {name!r}: expected one of {known}")
    return SCENARIOS[name](image, rng, settings)


def _paste(
    image: NDArray[np.uint8], draw: Callable[[], _Mark], settings: AugmentationSettings
) -> Marked:
    """Blend the first mark drawn that can be seen; the last one is made to be seen."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InvalidArgumentError(
            f"a tile must be uint8 (H, W, 3), got {image.dtype} {image.shape}"
        )
    if min(image.shape[:2]) < MIN_SIDE:
        raise InvalidArgumentError(
            f"a tile of {image.shape[0]} x {image.shape[1]} px is too small to be augmented: at "
            f"least {MIN_SIDE} x {MIN_SIDE} px are needed"
        )
    for _ in range(ATTEMPTS):
        mark = draw()
        if _contrast(image, mark) >= settings.min_contrast:
            break
    else:
        mark = _forced(image, mark)
    return _blend(image, mark, settings.opacity)


def _under(image: NDArray[np.uint8], mark: _Mark) -> NDArray[np.uint8]:
    height, width = mark.cover.shape
    return image[mark.y : mark.y + height, mark.x : mark.x + width]


def _blend(image: NDArray[np.uint8], mark: _Mark, opacity: float) -> Marked:
    cover = opacity * mark.cover[..., None]
    blended = (1 - cover) * _under(image, mark) + cover * mark.colour
    out, mask = image.copy(), np.zeros(image.shape[:2], np.bool_)
    _under(out, mark)[:] = np.clip(np.rint(blended), 0, 255).astype(np.uint8)
    _under(mask, mark)[:] = mark.cover > 0
    return out, mask


def _contrast(image: NDArray[np.uint8], mark: _Mark) -> float:
    """Mean difference of a mark from what it covers, grey levels, in the channel with most."""
    difference = np.abs(mark.colour - _under(image, mark)) * mark.cover[..., None]
    return float(difference.sum(axis=(0, 1)).max() / mark.cover.sum())


def _forced(image: NDArray[np.uint8], mark: _Mark) -> _Mark:
    """Shift a mark's colours until its mean lies clear of the mean of what it covers."""
    weight = mark.cover[..., None] / mark.cover.sum()
    below = float((weight * _under(image, mark)).sum() / 3)
    own = float((weight * mark.colour).sum() / 3)
    wanted = below + (FORCED_CONTRAST if below < 128 else -FORCED_CONTRAST)
    return mark._replace(colour=np.clip(mark.colour + (wanted - own), 0, 255).astype(np.float32))


def _crop(
    image: NDArray[np.uint8], rng: np.random.Generator, height: int, width: int, jitter: float
) -> NDArray[np.float32]:
    y = int(rng.integers(image.shape[0] - height + 1))
    x = int(rng.integers(image.shape[1] - width + 1))
    gain = rng.uniform(1 - jitter, 1 + jitter) * rng.uniform(1 - jitter, 1 + jitter, 3)
    return np.clip(image[y : y + height, x : x + width] * gain, 0, 255).astype(np.float32)


def _rotated(
    crop: NDArray[np.float32], degrees: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rotate a crop about its centre; returns its colours and its cover in the box around it."""
    height, width = crop.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    cos, sin = abs(turn[0, 0]), abs(turn[0, 1])
    box = (int(np.ceil(width * cos + height * sin)), int(np.ceil(width * sin + height * cos)))
    turn[:, 2] += (box[0] - width) / 2, (box[1] - height) / 2
    cover = cv2.warpAffine(np.ones((height, width), np.float32), turn, box)
    colour = cv2.warpAffine(crop, turn, box, borderMode=cv2.BORDER_REPLICATE)
    return colour, cover


def _put(
    image: NDArray[np.uint8],
    rng: np.random.Generator,
    colour: NDArray[np.float32],
    cover: NDArray[np.float32],
) -> _Mark:
    """Choose a place for a mark, all of it inside the tile."""
    height, width = cover.shape
    y = int(rng.integers(image.shape[0] - height + 1))
    x = int(rng.integers(image.shape[1] - width + 1))
    return _Mark(colour, cover, x, y)


def _arc(
    rng: np.random.Generator, radius: float, thickness: float, settings: AugmentationSettings
) -> NDArray[np.float32]:
    """Cover of an arc at a random angle, cut to the box around it."""
    size = int(np.ceil(2 * radius + thickness))
    offset = np.arange(size, dtype=np.float32) - (size - 1) / 2
    dx, dy = offset[None, :], offset[:, None]
    half = thickness / 2
    across = _faded(half - np.abs(np.hypot(dx, dy) - radius), settings.fade * half)
    middle, reach = rng.uniform(-np.pi, np.pi), np.radians(settings.arc_span) / 2
    turned = np.abs((np.arctan2(dy, dx) - middle + np.pi) % (2 * np.pi) - np.pi)  # rad from middle
    along = _faded((reach - turned) * radius, thickness)
    cover = (across * along).astype(np.float32)
    rows, columns = np.flatnonzero(cover.any(axis=1)), np.flatnonzero(cover.any(axis=0))
    return cover[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _distances(rng: np.random.Generator, radius: float) -> NDArray[np.float32]:
    """Distance of each pixel of a dot's box from its centre, which lies between pixels."""
    size = int(np.ceil(2 * radius))
    x, y = (size - 1) / 2 + rng.uniform(-0.5, 0.5, 2)
    offset = np.arange(size, dtype=np.float32)
    return np.hypot(offset[None, :] - x, offset[:, None] - y)


def _faded(inside: NDArray[np.float32], width: float) -> NDArray[np.float32]:
    """Cover that rises from 0 at the edge to 1, `width` px further in; at least a pixel's width."""
    return np.clip((inside + 0.5) / max(width, 1.0), 0, 1).astype(np.float32)


def _radius(image: NDArray[np.uint8], rng: np.random.Generator, diameter: tuple[int, int]) -> float:
    return min(_whole(rng, diameter), *image.shape[:2]) / 2


def _whole(rng: np.random.Generator, limits: tuple[int, int]) -> int:
    return int(rng.integers(limits[0], limits[1], endpoint=True))


def _dark(rng: np.random.Generator) -> float:
    return rng.uniform(0, 40)


def _light(rng: np.random.Generator) -> float:
    return rng.uniform(225, 255)


def _plain(colour: float | NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.broadcast_to(np.float32(colour), (*shape, 3))
