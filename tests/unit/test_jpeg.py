"""JPEG files decoded in part: the same pixels as PIL's of the whole file, and nothing that is no such file."""

import io
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from backbones.data.augment import ScaleCropFlip, Whole
from backbones.data.cut import cut_file, resize_part, resize_part_on_device
from backbones.data.jpeg import decode_part, read_jpeg_header
from backbones.errors import DataError

NOISE = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def jpeg(width: int, height: int, mode: str = "RGB", **options: Any) -> bytes:
    """A file of smooth colours."""
    picture = Image.fromarray(NOISE).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    file = io.BytesIO()
    picture.save(file, "JPEG", **{"quality": 90} | options)
    return file.getvalue()


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["RGB", "L"]),
    st.data(),
)
def test_a_part_has_the_pixels_of_the_whole(
    width: int, height: int, subsampling: str, progressive: bool, restarts: bool, mode: str, data: st.DataObject
) -> None:
    options = {"restart_marker_rows": 1} if restarts else {}
    file = jpeg(width, height, mode, subsampling=subsampling, progressive=progressive, exif=b"Exif\0\0" * 9, **options)
    x1, y1 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x2, y2 = data.draw(st.integers(x1 + 1, width)), data.draw(st.integers(y1 + 1, height))
    header = read_jpeg_header(file)
    assert header is not None
    assert (header.width, header.height, header.sequential) == (width, height, not progressive)
    part = decode_part(file, header, (x1, y1, x2, y2), (y2 - y1, x2 - x1))
    assert part is not None
    pixels, box = part
    assert box == (x1, y1, x2, y2)
    assert np.array_equal(pixels[y1:y2, x1:x2], pixels_of(file)[y1:y2, x1:x2])
    if not progressive:
        assert len(pixels) <= y2 + 2


@pytest.mark.parametrize(("factor", "wanted"), [(1, 130), (2, 120), (4, 60), (8, 30), (8, 7)])
def test_a_picture_far_too_large_is_decoded_smaller(factor: int, wanted: int) -> None:
    file = jpeg(640, 480)
    header = read_jpeg_header(file)
    assert header is not None
    box = (80, 0, 560, 480)
    part = decode_part(file, header, box, (wanted, wanted))
    assert part is not None
    pixels, smaller = part
    assert pixels.shape == (480 // factor, 640 // factor, 3)
    assert smaller == tuple(side // factor for side in box)
    ours = resize_part(pixels, smaller, (wanted, wanted)).astype(int)
    reference = Image.fromarray(pixels_of(file)).crop(box).resize((wanted, wanted), Image.Resampling.BILINEAR)
    assert np.abs(ours - np.asarray(reference)).mean() < 1.5


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 70), st.integers(1, 70), st.integers(0, 9))
def test_resizing_is_that_of_pil(width: int, height: int, to_width: int, to_height: int, seed: int) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    ours = resize_part(picture, (0, 0, width, height), (to_height, to_width))
    plain = np.asarray(Image.fromarray(picture).resize((to_width, to_height), Image.Resampling.BILINEAR))
    assert np.abs(ours.astype(int) - plain).max() <= 2  # PIL works with 8 bits less
    if min(width, to_width) > 1:  # of a single column PyTorch's resizing of floating-point numbers is wrong
        whole = torch.from_numpy(picture).permute(2, 0, 1).contiguous(), (0, 0, width, height)
        on_device = resize_part_on_device(*whole, (to_height, to_width))
        assert np.abs(on_device.numpy().astype(int) - plain).max() <= 2


def test_what_reaches_beyond_a_picture_is_black() -> None:
    part = resize_part(NOISE, (-2, -1, 5, 3), (4, 7))
    assert not part[:1].any()
    assert not part[:, :2].any()
    assert np.array_equal(part[1:, 2:], NOISE[:3, :5])


def test_other_files_are_left_to_pil() -> None:
    good = jpeg(20, 10)
    assert read_jpeg_header(good) is not None
    others = [b"", b"\xff\xd8", good[:-1], good[:100], good[:100] + b"\xff\xd9", b"\x89PNG" + good, good + b"\0"]
    others += [jpeg(20, 10, "CMYK"), b"\xff\xd8\xff\xe0\0\0\xff\xd9", b"\xff\xd8\xff\xda\0\x04\xff\xd9"]
    place = read_jpeg_header(good).place  # type: ignore[union-attr]
    others += [good[:place] + b"\0\0" + good[place + 2 :]]  # a height of 0
    others += [good[:place] + b"\xff\xff\xff\xff" + good[place + 4 :]]  # of 4 thousand million pixels
    assert [read_jpeg_header(other) for other in others] == [None] * len(others)


def test_every_format_is_cut() -> None:
    png = io.BytesIO()
    Image.fromarray(NOISE).save(png, "PNG")
    for file in (png.getvalue(), jpeg(16, 12, "CMYK"), jpeg(16, 12) + b"\0\0"):
        pixels, cut = cut_file(file, "it", Whole(flip=False), np.random.default_rng(0))
        assert np.array_equal(pixels, pixels_of(file))
        assert cut.box == (0, 0, 16, 12)


def test_a_damaged_file_is_named_and_never_crashes() -> None:
    file = jpeg(200, 150)
    augment = ScaleCropFlip(32, 40, 60)
    for data in (file[: len(file) // 2], b"no picture", b"", file[:30]):
        with pytest.raises(DataError, match="it: "):
            cut_file(data, "it", augment, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(file)
        for place in rng.integers(2, len(file), 4):
            damaged[place] = rng.integers(256)
        with suppress(DataError):
            pixels, _ = cut_file(bytes(damaged), "it", augment, np.random.default_rng(1))
            assert pixels.shape == (32, 32, 3)


def test_a_header_that_can_be_read_in_two_ways_is_left_to_pil() -> None:
    """A restart marker has no length; who reads one jumps over the true header, here to one of a small picture."""
    true, claimed = jpeg(60, 50), jpeg(8, 8)
    frame = claimed.index(b"\xff\xc0")
    comment = b"\xff\xfe" + (2 + 300).to_bytes(2, "big") + claimed[frame : frame + 19] + bytes(281)
    jump = b"\xff\xd0"
    two_ways = b"\xff\xd8" + jump + comment + true[2:]
    assert read_jpeg_header(two_ways) is None
    header = read_jpeg_header(true)
    assert header is not None
    # And what was decoded is as large as the header said.
    assert decode_part(true, replace(header, width=400, height=400, sequential=False), (0, 0, 9, 9), (9, 9)) is None


def test_colours_that_are_not_ycbcr_are_left_to_pil() -> None:
    file = jpeg(20, 20, keep_rgb=True)
    assert read_jpeg_header(file) is None
    pixels, _ = cut_file(file, "rgb.jpg", Whole(flip=False), np.random.default_rng(0))
    assert np.array_equal(pixels, pixels_of(file))

    plain = jpeg(20, 20)
    for transform in (0, 1):  # Adobe's marker says which colours: 1 is YCbCr
        marker = b"\xff\xee\x00\x0eAdobe" + bytes([0, 100, 0, 0, 0, 0, transform])
        assert (read_jpeg_header(plain[:2] + marker + plain[2:]) is None) == (transform == 0)
    components = bytearray(plain)
    first = plain.index(b"\xff\xc0") + 10
    components[first : first + 9 : 3] = b"RGB"  # and without that marker the names of the components
    assert read_jpeg_header(bytes(components)) is None


@pytest.mark.filterwarnings("error")
def test_pixels_of_pil_are_cut_without_a_warning() -> None:
    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, "PNG")
    pixels, _ = cut_file(file.getvalue(), "a.png", ScaleCropFlip(12, 12, 12), np.random.default_rng(0))
    assert pixels.shape == (12, 12, 3)
    resize_part(np.asarray(Image.fromarray(NOISE)), (0, 0, 16, 12), (6, 8))
