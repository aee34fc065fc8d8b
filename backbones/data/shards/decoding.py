"""Pictures whose files lie in memory."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image

from backbones.data import pictures
from backbones.errors import DataError


def decode_picture(data: bytes, name: Callable[[int], str], number: int) -> Image.Image:
    """One picture, decoded, as RGB; as `backbones.data.pictures.read_image` of a file. Raises DataError."""
    try:
        with Image.open(BytesIO(data), formats=pictures.FORMATS) as image:
            if image.width * image.height > pictures.MAX_PIXELS:
                raise DataError(f"{name(number)}: picture too large ({image.width}x{image.height})")
            if image.mode.startswith("I"):  # 16 bits a pixel: PIL would cut off all above 255
                return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
            if image.mode == "F":  # of unknown range
                raise DataError(f"{name(number)}: a picture of floating-point numbers: write it anew with 8 bits")
            return image.convert("RGB")
    except DataError:
        raise
    except Exception as error:  # decoders raise all kinds of errors on corrupt data
        raise DataError(f"{name(number)}: truncated or corrupt picture ({error})") from error
