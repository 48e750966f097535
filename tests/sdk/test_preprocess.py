"""Pixels to network input, and resizing, against NumPy, Pillow and torchvision."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch
import torchvision.transforms.v2.functional as tvf

from kad_sdk._native import preprocess, resize_image
from kad_sdk.errors import ImageTooSmallError, InvalidArgumentError, NotFiniteError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TILES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65)
FORMATS = {
    "grey8": (np.uint8, None, (0, 0, 0)),
    "rgb8": (np.uint8, 3, (0, 1, 2)),
    "bgr8": (np.uint8, 3, (2, 1, 0)),
    "rgba8": (np.uint8, 4, (0, 1, 2)),
    "bgra8": (np.uint8, 4, (2, 1, 0)),
    "grey16": (np.uint16, None, (0, 0, 0)),
    "rgb16": (np.uint16, 3, (0, 1, 2)),
    "bgr16": (np.uint16, 3, (2, 1, 0)),
}


def random_image(name: str, height: int, width: int, seed: int = 0) -> np.ndarray:
    dtype, channels, _ = FORMATS[name]
    shape = (height, width) if channels is None else (height, width, channels)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def to_rgb(image: np.ndarray, name: str) -> np.ndarray:
    pixels = image[..., None] if image.ndim == 2 else image
    return pixels[..., FORMATS[name][2]]


def reference(image: np.ndarray, name: str, xy: np.ndarray, tile: int) -> np.ndarray:
    scale = np.float32(np.iinfo(image.dtype).max)
    rgb = to_rgb(image, name).astype(np.float32) / scale
    normalised = (rgb - np.float32(MEAN)) / np.float32(STD)
    tiles = [normalised[y : y + tile, x : x + tile].transpose(2, 0, 1) for x, y in xy]
    return np.array(tiles, np.float32).reshape(-1, 3, tile, tile)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("tile", TILES)
def test_every_format_and_tile_side_is_bitwise_the_formula(name, tile):
    image = random_image(name, 80, 90)
    xy = np.array([[0, 0], [90 - tile, 80 - tile], [5, 11]], np.int32)
    expected = reference(image, name, xy, tile)
    for threads in (1, 2):
        got = preprocess(
            image, xy, tile=tile, mean=MEAN, std=STD, pixel_format=name, threads=threads
        )
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("name", ["grey8", "rgb8", "rgba8", "grey16", "rgb16"])
def test_format_is_inferred(name):
    image = random_image(name, 20, 20)
    xy = np.array([[3, 4]], np.int32)
    got = preprocess(image, xy, tile=8, mean=MEAN, std=STD)
    np.testing.assert_array_equal(got, reference(image, name, xy, 8))


@pytest.mark.parametrize("name", ["grey8", "bgr8", "rgb16"])
def test_any_strides_give_the_same(name):
    whole = random_image(name, 60, 70)
    xy = np.array([[0, 0], [7, 9]], np.int32)
    views = [whole[3:43, 5:55], whole[::2, :50], whole[::-1], whole[:, ::-1], whole[:, ::2]]
    views.append(np.asfortranarray(whole))
    views.append(np.broadcast_to(whole[:1], whole.shape))
    views.append(whole.astype(whole.dtype.newbyteorder(">")))
    for view in views:
        arguments = {"tile": 16, "mean": MEAN, "std": STD, "pixel_format": name}
        got = preprocess(view, xy, **arguments)
        np.testing.assert_array_equal(got, preprocess(np.array(view, whole.dtype), xy, **arguments))


def test_values_at_an_odd_address():
    image = random_image("rgb16", 9, 9)
    raw = np.zeros(image.nbytes + 1, np.uint8)
    raw[1:] = image.view(np.uint8).reshape(-1)
    xy = np.zeros((1, 2), np.int32)
    got = preprocess(raw[1:].view(np.uint16).reshape(image.shape), xy, tile=9, mean=MEAN, std=STD)
    np.testing.assert_array_equal(got, reference(image, "rgb16", xy, 9))


def test_matches_torchvision():
    image = random_image("rgb8", 64, 64)
    got = preprocess(image, np.zeros((1, 2), np.int32), tile=64, mean=MEAN, std=STD)
    tensor = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    np.testing.assert_allclose(got[0], tvf.normalize(tensor, MEAN, STD), rtol=1e-6, atol=1e-6)


def test_no_tiles():
    image = random_image("grey8", 9, 9)
    empty = np.empty((0, 2), np.int32)
    assert preprocess(image, empty, tile=4, mean=MEAN, std=STD).shape == (0, 3, 4, 4)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"xy": [[0, 0], [13, 0]]}, InvalidArgumentError, "tile 1 at x 13"),
        ({"xy": [[0, -1]]}, InvalidArgumentError, "y -1"),
        ({"tile": 21}, ImageTooSmallError, "20 x 20"),
        ({"tile": 0}, InvalidArgumentError, "tile"),
        ({"std": (1.0, 0.0, 1.0)}, InvalidArgumentError, r"std\[1\]"),
        ({"std": (1.0, 1.0, np.inf)}, NotFiniteError, r"std\[2\]"),
        ({"mean": (np.nan, 0.0, 0.0)}, NotFiniteError, r"mean\[0\]"),
        ({"mean": (0.0, 0.0)}, InvalidArgumentError, "three numbers"),
        ({"threads": 0}, InvalidArgumentError, "n_threads"),
        ({"pixel_format": "bgr16"}, InvalidArgumentError, "bgr16 needs uint16"),
        ({"pixel_format": "yuv"}, InvalidArgumentError, "yuv"),
        ({"image": np.zeros((20, 20, 2), np.uint8)}, InvalidArgumentError, "channels"),
        ({"image": np.zeros((20, 20, 4), np.uint16)}, InvalidArgumentError, "channels"),
        ({"image": np.zeros((20, 20, 3), np.float32)}, InvalidArgumentError, "float32"),
        ({"image": np.zeros((20,), np.uint8)}, InvalidArgumentError, "shape"),
        ({"image": np.zeros((0, 20), np.uint8)}, InvalidArgumentError, "at least 1 x 1"),
    ],
)
def test_bad_arguments_are_refused(change, error, message):
    arguments = {
        "image": random_image("rgb8", 20, 20),
        "xy": [[0, 0]],
        "tile": 8,
        "mean": MEAN,
        "std": STD,
        **change,
    }
    xy = np.array(arguments.pop("xy"), np.int32)
    with pytest.raises(error, match=message):
        preprocess(arguments.pop("image"), xy, **arguments)


SIZES = [(50, 70, 20, 30), (50, 70, 50, 70), (31, 17, 97, 33), (64, 64, 1, 1), (1, 9, 3, 4)]


@pytest.mark.parametrize("name", ["grey8", "rgb8", "bgra8"])
@pytest.mark.parametrize(("height", "width", "out_height", "out_width"), SIZES)
def test_resize_is_pillows_within_one_grey_level(name, height, width, out_height, out_width):
    image = random_image(name, height, width)
    rgb = to_rgb(image, name)
    got = resize_image(image, out_height, out_width, pixel_format=name)
    pillow = PIL.Image.fromarray(np.ascontiguousarray(rgb))
    expected = np.asarray(pillow.resize((out_width, out_height), PIL.Image.Resampling.BILINEAR))
    assert got.dtype == np.uint8
    assert np.abs(got.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("height", "width", "out_height", "out_width"), SIZES)
def test_resize_is_torchs_antialiased_bilinear(name, height, width, out_height, out_width):
    image = random_image(name, height, width, seed=1)
    tensor = torch.from_numpy(to_rgb(image, name).astype(np.float64)).permute(2, 0, 1)[None]
    exact = torch.nn.functional.interpolate(
        tensor, (out_height, out_width), mode="bilinear", antialias=True
    )
    expected = exact[0].permute(1, 2, 0).numpy()
    got = resize_image(image, out_height, out_width, pixel_format=name)
    assert got.dtype == image.dtype
    assert np.abs(got - expected).max() <= 0.5 + 0.02  # rounding, and float32 sums of 16-bit values


def test_resize_to_the_same_size_changes_nothing():
    image = random_image("rgb16", 33, 21)
    np.testing.assert_array_equal(resize_image(image, 33, 21), image)


def test_resize_keeps_the_extremes():
    for dtype in (np.uint8, np.uint16):
        white = np.full((40, 30, 3), np.iinfo(dtype).max, dtype)
        np.testing.assert_array_equal(resize_image(white, 17, 23), white[:17, :23])


def test_resize_does_not_depend_on_threads():
    image = random_image("rgb8", 120, 90)[3:, 4:80]
    one = resize_image(image, 41, 37, threads=1)
    np.testing.assert_array_equal(resize_image(image, 41, 37, threads=2), one)
    np.testing.assert_array_equal(resize_image(image, 41, 37, threads=9), one)


def test_resize_to_nothing_is_refused():
    with pytest.raises(InvalidArgumentError, match="0 x 4"):
        resize_image(random_image("rgb8", 9, 9), 0, 4)
