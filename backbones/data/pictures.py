"""Picture files, which are nothing to be trusted."""

import os
import stat
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from backbones.errors import DataError

# PIL guesses the format from the content, and some of its formats hand the file to other programs (EPS: Ghostscript).
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}  # of files that are taken for pictures
MAX_PIXELS = 2**27  # a file of a few kB can decode to gigabytes


def read_image(path: str | Path, *, upright: bool = False) -> Image.Image:
    """One picture, decoded, as RGB.

    Args:
        upright: turn it as the orientation tag of its camera says. Not for annotated pictures: annotations are in
            stored pixels.

    Raises:
        DataError: `path` is missing, no picture, truncated, corrupt or too large.
    """
    with _open(path) as opened:
        try:
            image = ImageOps.exif_transpose(opened) if upright else opened
            if image.mode.startswith("I"):  # 16 bits a pixel: PIL would cut off all above 255
                return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
            if image.mode == "F":  # of unknown range
                raise DataError(f"{path}: a picture of floating-point numbers: write it anew with 8 bits a colour")
            return image.convert("RGB")
        except DataError:
            raise
        except Exception as error:  # decoders raise all kinds of errors on corrupt data
            raise DataError(f"{path}: truncated or corrupt picture ({error})") from error


def read_image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) from the header of a picture file. Raises DataError as `read_image` does."""
    with _open(path) as image:
        return image.height, image.width


def _open(path: str | Path) -> Image.Image:
    try:
        pipe = not stat.S_ISREG(os.stat(path).st_mode)  # which would be waited for
        image = None if pipe else Image.open(path, formats=FORMATS)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such picture") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: picture too large ({error})") from error
    except Exception as error:
        raise DataError(f"{path}: not a picture that can be read ({error})") from error
    if image is None:
        raise DataError(f"{path}: not a picture that can be read (it is no file)")
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise DataError(f"{path}: picture too large ({image.width}x{image.height}, at most {MAX_PIXELS} pixels)")
    return image
