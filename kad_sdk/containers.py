"""Look into an image file before it is decoded: whether it is whole, and RGB or grey.

Decoders fill what a cut-off file lacks with grey, and read CMYK numbers as if they were colours.
Both would be scored as if they were a board. So the structure of JPEG, PNG and TIFF files is
walked first, without decoding any pixel.
"""

from __future__ import annotations

import re
import struct
import zlib

from kad_sdk.errors import ImageReadError, UnsupportedImageError

__all__ = ["check_container"]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TIFF_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}

# JPEG markers (ITU-T T.81, table B.1)
_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_RST = range(0xD0, 0xD8)
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# In entropy-coded data FF is followed by 00 (a stuffed byte), a restart number, or fill bytes FF.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")

_TIFF_PHOTOMETRIC, _TIFF_SHORT = 262, 3
_TIFF_READABLE = {1: "grey", 2: "RGB", 3: "palette", 6: "YCbCr"}
_TIFF_REFUSED = {0: "grey with white as zero", 5: "CMYK", 8: "CIE Lab", 9: "ICC Lab", 10: "ITU Lab"}


def check_container(data: bytes, name: str) -> None:
    """Check that an image file is complete and holds grey or RGB colours.

    Parameters
    ----------
    data : bytes
        The whole file. Formats other than JPEG, PNG and TIFF are left to the decoder.
    name : str
        What to call the file in an error.

    Raises
    ------
    ImageReadError
        The file ends before its image does, or a part of it is damaged.
    UnsupportedImageError
        The file holds CMYK or Lab colours.
    """
    if data.startswith(b"\xff\xd8"):
        _check_jpeg(data, name)
    elif data.startswith(_PNG_SIGNATURE):
        _check_png(data, name)
    elif data[:4] in _TIFF_BYTE_ORDERS:
        _check_tiff(data, name)


def _truncated(name: str, kind: str, data: bytes, missing: str) -> ImageReadError:
    return ImageReadError(
        f"{name}: truncated {kind}: the file ends after {len(data)} bytes without {missing}; "
        "copy it again from its source"
    )


def _check_jpeg(data: bytes, name: str) -> None:
    """Walk the segments of ITU-T T.81, annex B, up to the end-of-image marker."""
    end = len(data)
    at = 2
    while at + 4 <= end:
        if data[at] != 0xFF:
            raise ImageReadError(f"{name}: damaged JPEG: no marker at byte {at}; copy it again")
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == _EOI:
            return
        if marker == _TEM or marker in _RST:
            at += 2
            continue
        if marker in _SOF and at + 10 <= end and data[at + 9] == 4:
            raise _unsupported(name, "CMYK")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _SOS:
            found = _NEXT_MARKER.search(data, at)
            at = found.start() if found else end
    if data[at : at + 2] != bytes((0xFF, _EOI)):
        raise _truncated(name, "JPEG", data, "an end-of-image marker")


def _check_png(data: bytes, name: str) -> None:
    """Walk the chunks (length, type, data, CRC) up to IEND, checking each CRC."""
    view = memoryview(data)
    at = len(_PNG_SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        stop = at + 8 + length
        if stop + 4 > len(data):
            break
        kind = data[at + 4 : at + 8]
        if struct.unpack_from(">I", data, stop)[0] != zlib.crc32(view[at + 4 : stop]):
            raise ImageReadError(
                f"{name}: damaged PNG: the checksum of chunk {kind!r} at byte {at} does not match; "
                "copy it again from its source"
            )
        if kind == b"IEND":
            return
        at = stop + 4
    raise _truncated(name, "PNG", data, "its last chunk (IEND)")


def _check_tiff(data: bytes, name: str) -> None:
    """Find the tag PhotometricInterpretation in the first image file directory."""
    order = _TIFF_BYTE_ORDERS[data[:4]]
    try:
        (directory,) = struct.unpack_from(order + "I", data, 4)
        (n_entries,) = struct.unpack_from(order + "H", data, directory)
        for entry in range(n_entries):
            tag, kind, _, value = struct.unpack_from(
                order + "HHIH", data, directory + 2 + 12 * entry
            )
            if tag == _TIFF_PHOTOMETRIC and kind == _TIFF_SHORT and value not in _TIFF_READABLE:
                raise _unsupported(name, _TIFF_REFUSED.get(value, f"photometric type {value}"))
    except struct.error:
        raise _truncated(name, "TIFF", data, "a complete image directory") from None


def _unsupported(name: str, colours: str) -> UnsupportedImageError:
    return UnsupportedImageError(
        f"{name}: the image's colours are {colours}, expected grey or RGB; "
        "convert it to RGB with the colour profile it was made with"
    )
