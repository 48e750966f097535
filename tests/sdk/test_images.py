"""Images: every pixel format is read as it is, or refused by name."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from PIL import Image

from kad_sdk.containers import check_container
from kad_sdk.errors import ImageReadError, UnsupportedImageError
from kad_sdk.images import full_scale, is_image_file, read_image

if TYPE_CHECKING:
    from pathlib import Path


def smooth_rgb(height: int = 48, width: int = 64, dtype: type = np.uint8) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    image = np.stack([rows * 5, columns * 4, 255 - rows - columns], axis=-1).clip(0, 255)
    return (image * (np.iinfo(dtype).max // 255)).astype(dtype)


def pil_bytes(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def stored(tmp_path: Path, data: bytes, name: str = "board.bin") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP"])
def test_rgb_comes_in_that_order(tmp_path: Path, form: str) -> None:
    expected = smooth_rgb()
    image = read_image(stored(tmp_path, pil_bytes(Image.fromarray(expected), form)))
    np.testing.assert_array_equal(image, expected)
    assert image.flags.c_contiguous


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bit_stays_16_bit_and_is_never_stretched(tmp_path: Path, suffix: str) -> None:
    expected = smooth_rgb(dtype=np.uint16) // 100
    path = tmp_path / f"board{suffix}"
    cv2.imwrite(str(path), expected[..., ::-1])
    image = read_image(path)
    np.testing.assert_array_equal(image, expected)
    assert full_scale(image) == 65535
    assert full_scale(smooth_rgb()) == 255


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_has_two_axes(tmp_path: Path, dtype: type) -> None:
    expected = smooth_rgb(dtype=dtype)[..., 0]
    path = tmp_path / "board.png"
    cv2.imwrite(str(path), expected)
    np.testing.assert_array_equal(read_image(path), expected)


def test_alpha_is_ignored_also_where_it_is_zero(tmp_path: Path) -> None:
    expected = smooth_rgb()
    rgba = np.dstack([expected, np.zeros(expected.shape[:2], np.uint8)])
    image = read_image(stored(tmp_path, pil_bytes(Image.fromarray(rgba), "PNG")))
    np.testing.assert_array_equal(image, expected)


def test_palette_is_looked_up(tmp_path: Path) -> None:
    palette = Image.fromarray(smooth_rgb()).convert("P")
    image = read_image(stored(tmp_path, pil_bytes(palette, "PNG")))
    np.testing.assert_array_equal(image, np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_orientation_is_applied_as_in_a_viewer(tmp_path: Path, form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    expected = np.rot90(smooth_rgb(), k=-1)
    image = read_image(stored(tmp_path, pil_bytes(Image.fromarray(smooth_rgb()), form, exif=exif)))
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_is_refused_by_name(tmp_path: Path, form: str) -> None:
    data = pil_bytes(Image.fromarray(smooth_rgb()).convert("CMYK"), form)
    with pytest.raises(UnsupportedImageError, match=r"board\.bin: .*CMYK.*convert it to RGB"):
        read_image(stored(tmp_path, data))


@pytest.mark.parametrize(("mode", "dtype"), [("F", "float32"), ("I", "int32")])
def test_other_numbers_are_refused_by_name(tmp_path: Path, mode: str, dtype: str) -> None:
    data = pil_bytes(Image.fromarray(smooth_rgb()).convert(mode), "TIFF")
    with pytest.raises(UnsupportedImageError, match=f"pixels are {dtype}"):
        read_image(stored(tmp_path, data))


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(
    ("form", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("TIFF", {}), ("WEBP", {})],
)
def test_a_file_cut_short_is_an_error(
    tmp_path: Path, form: str, options: dict[str, object], kept: float
) -> None:
    noise = np.random.default_rng(7).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    data = pil_bytes(Image.fromarray(noise), form, **options)
    with pytest.raises(ImageReadError, match=r"board\.bin: "):
        read_image(stored(tmp_path, data[: int(len(data) * kept)]))


@pytest.mark.parametrize("kept", range(2, 64))
def test_a_jpeg_cut_anywhere_in_its_last_bytes_is_truncated(kept: int) -> None:
    data = pil_bytes(Image.fromarray(smooth_rgb()), "JPEG")
    check_container(data, "board.jpg")
    with pytest.raises(ImageReadError, match="truncated JPEG"):
        check_container(data[:-kept], "board.jpg")


def test_the_end_marker_of_an_embedded_preview_is_not_the_files_own() -> None:
    preview = pil_bytes(Image.fromarray(smooth_rgb(16, 16)), "JPEG")
    data = pil_bytes(Image.fromarray(smooth_rgb()), "JPEG")
    application = b"\xff\xe1" + struct.pack(">H", len(preview) + 2) + preview
    with_preview = data[:2] + application + data[2:]
    check_container(with_preview, "board.jpg")
    with pytest.raises(ImageReadError, match="truncated JPEG"):
        check_container(with_preview[: len(application) + 400], "board.jpg")


def test_bytes_after_the_jpegs_end_do_no_harm() -> None:
    data = pil_bytes(Image.fromarray(smooth_rgb()), "JPEG", restart_marker_blocks=1)
    check_container(data + b"trailing bytes", "board.jpg")


def test_a_flipped_bit_in_a_png_is_damage() -> None:
    data = bytearray(pil_bytes(Image.fromarray(smooth_rgb()), "PNG"))
    data[len(data) // 2] ^= 1
    with pytest.raises(ImageReadError, match="damaged PNG: the checksum of chunk b'IDAT'"):
        check_container(bytes(data), "board.png")


def test_a_png_whose_pixels_are_nonsense_is_an_error(tmp_path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")
    )
    with pytest.raises(ImageReadError, match="cannot be decoded"):
        read_image(stored(tmp_path, data))


def test_what_is_no_image_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match="no such image file"):
        read_image(tmp_path / "board.png")
    with pytest.raises(ImageReadError, match="is empty"):
        read_image(stored(tmp_path, b""))
    with pytest.raises(ImageReadError, match="cannot be decoded; expected an intact JPEG"):
        read_image(stored(tmp_path, b"not an image"))
    with pytest.raises(ImageReadError, match="cannot be read"):
        read_image(tmp_path)


def test_image_files_are_told_by_their_names(tmp_path: Path) -> None:
    names = ["a.jpg", "b.PNG", "c.TiF", ".d.jpg", "e.txt", "f"]
    assert [is_image_file(tmp_path / name) for name in names] == [True] * 3 + [False] * 3
