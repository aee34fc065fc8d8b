"""JPEG files, decoded no further than a part of them needs.

The time goes into the bytes. A decoder reads a file's rows from the top, and cannot begin further down; but it stops
where the header says that the picture ends. So a file whose header is made to end below the wanted part is decoded in
less time, to the same pixels. What is wanted at a quarter of its size or less is decoded at a half, a quarter or an
eighth (of each block fewer frequencies).
"""

import struct
from dataclasses import dataclass

import numpy as np
import simplejpeg

from backbones.data.pictures import MAX_PIXELS

Box = tuple[int, int, int, int]
"""A part of a picture: x1, y1, x2, y2 in pixels, x2 and y2 exclusive."""

FractionalBox = tuple[float, float, float, float]
"""Likewise, with sides between pixels."""

_SEQUENTIAL = (0xC0, 0xC1)  # all of a row's data stand together, unlike in progressive files (0xC2)
_PASSED_OVER = (0xFFC4, *range(0xFFDB, 0xFFF0), 0xFFFE)  # segments of tables, applications' data and comments
_YCBCR = b"\x01\x02\x03"  # how its components are called; others may be RGB
_END = b"\xff\xd9"
_ROWS_BELOW = 2  # a row's colours, stored at half the size, are smoothed with those of the rows below
_GAP = 2  # how many times as large as wanted a picture stays that is decoded at less than its size


@dataclass(frozen=True)
class JpegHeader:
    """What the header of a file says.

    Args:
        width, height: of the picture, in pixels.
        place: of the two bytes that hold the height.
        sequential: whether rows can be left out at the end.
    """

    width: int
    height: int
    place: int
    sequential: bool


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """The header of a JPEG file; None of anything that `decode_part` should not be trusted with.

    That is what is no JPEG file, is cut off at its end, has other colours than grey and YCbCr, or more than 8 bits; and
    what could be read in two ways.
    """
    if data[:2] != b"\xff\xd8" or not data.endswith(_END):
        return None
    place = 2
    try:
        while True:
            marker, length = struct.unpack_from(">HH", data, place)
            if 0xFFC0 <= marker <= 0xFFC2:
                bits, height, width, channels = struct.unpack_from(">BHHB", data, place + 4)
                names = data[place + 10 : place + 10 + 3 * channels : 3]
                usable = bits == 8 and (channels == 1 or names == _YCBCR) and 0 < height * width <= MAX_PIXELS
                return JpegHeader(width, height, place + 5, marker & 0xFF in _SEQUENTIAL) if usable else None
            is_adobe = marker == 0xFFEE and data[place + 4 : place + 9] == b"Adobe"
            if marker not in _PASSED_OVER or length < 2 or (is_adobe and data[place + 15 : place + 16] != b"\x01"):
                return None
            place += 2 + length
    except struct.error:  # the file ends before its picture begins
        return None


def decode_part(
    data: bytes, header: JpegHeader, box: Box, size: tuple[int, int]
) -> tuple[np.ndarray, Box | FractionalBox] | None:
    """The rows of a picture down to the end of a part of it, and where the part lies in them.

    Args:
        data: the file.
        header: as `read_jpeg_header` gives it.
        box: the part, within the picture.
        size: (height, width) that the part is wanted at, in pixels.

    Returns:
        uint8 (rows, columns, 3) RGB and the part's box in it, of fractions where the file was decoded at less than its
        size; None where it can't be decoded.
    """
    height, width = header.height, header.width
    bottom = box[3] + _ROWS_BELOW
    if header.sequential and bottom < height:
        height = bottom
        data = b"".join((data[: header.place], height.to_bytes(2, "big"), data[header.place + 2 :]))
    reduction = _reduction(box, size)
    try:
        pixels = simplejpeg.decode_jpeg(
            data,
            min_height=-(-height // reduction),
            min_width=-(-width // reduction),
            min_factor=reduction,
            strict=False,  # as PIL: damage that a decoder can go on after is not seen
        )
    except ValueError:
        return None
    if pixels.shape[:2] != (-(-height // reduction), -(-header.width // reduction)):  # the decoder read it otherwise
        return None
    if reduction == 1:
        return pixels, box
    x1, y1, x2, y2 = (side / reduction for side in box)
    return pixels, (x1, y1, x2, y2)


def _reduction(box: Box, size: tuple[int, int]) -> int:
    """The largest of 1, 2, 4 and 8 that leaves the part a good deal larger than it is wanted."""
    room = min((box[3] - box[1]) / size[0], (box[2] - box[0]) / size[1]) / _GAP
    return next((factor for factor in (8, 4, 2) if factor <= room), 1)
