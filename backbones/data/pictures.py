"""Picture files, which are nothing to be trusted."""

import os
import stat
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from backbones.errors import DataError

# PIL guesses the format from the content, and some of its formats hand the file to other programs (EPS: Ghostscript).
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}  # of files that are taken for pictures
MAX_PIXELS = 2**27  # a file of a few kB can decode to gigabytes
MEND = "mend it or leave it out"  # what to do about a picture that can't be used
MISSING = "no such picture: put it there or leave it out"
_SMALLER = "make it smaller or leave it out"


def read_image(path: str | Path, *, upright: bool = False) -> Image.Image:
    """One picture, decoded, as RGB.

    Args:
        upright: turn it as the orientation tag of its camera says. Not for annotated pictures: annotations are in
            stored pixels.

    Raises:
        DataError: `path` is missing, no picture, truncated, corrupt or too large.
    """
    with _open(path) as opened:
        return _decode(opened, str(path), upright=upright)


def decode_image(data: bytes, name: str) -> Image.Image:
    """One picture from the bytes of its file, as `read_image` does; `name` is what to call it in messages."""
    with _check_size(_identify(BytesIO(data), name), name) as opened:
        return _decode(opened, name)


def read_image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) from the header of a picture file. Raises DataError as `read_image` does."""
    with _open(path) as image:
        return image.height, image.width


def _open(path: str | Path) -> Image.Image:
    try:
        is_file = stat.S_ISREG(os.stat(path).st_mode)  # a pipe would be waited for
    except FileNotFoundError as error:
        raise DataError(f"{path}: {MISSING}") from error
    except OSError as error:
        raise DataError(f"{path}: not a picture that can be read ({error}): {MEND}") from error
    if not is_file:
        raise DataError(f"{path}: not a picture that can be read (it is no file): {MEND}")
    return _check_size(_identify(path, str(path)), str(path))


def _identify(source: str | Path | BytesIO, name: str) -> Image.Image:
    try:
        return Image.open(source, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: picture too large ({error}): {_SMALLER}") from error
    except Exception as error:
        reason = "of no known format" if isinstance(source, BytesIO) else error
        raise DataError(f"{name}: not a picture that can be read ({reason}): {MEND}") from error


def _check_size(image: Image.Image, name: str) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise DataError(
            f"{name}: picture too large ({image.width}x{image.height}, at most {MAX_PIXELS} pixels): {_SMALLER}"
        )
    return image


def _decode(opened: Image.Image, name: str, *, upright: bool = False) -> Image.Image:
    try:
        image = ImageOps.exif_transpose(opened) if upright else opened
        if image.mode.startswith("I"):  # 16 bits a pixel: PIL would cut off all above 255
            return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
        if image.mode == "F":  # of unknown range
            raise DataError(f"{name}: a picture of floating-point numbers: write it anew with 8 bits a colour")
        return image.convert("RGB")
    except DataError:
        raise
    except Exception as error:  # decoders raise all kinds of errors on corrupt data
        raise DataError(f"{name}: truncated or corrupt picture ({error}): {MEND}") from error
