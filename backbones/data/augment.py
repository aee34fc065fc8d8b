"""From a picture to the network's input: what training and testing do to it (Sections 3.4 and 4.2).

Training's augmentations say which part of a picture is cut out; `backbones.data.cut` cuts it. They are functions of
(width, height, rng) alone. Test functions give the views whose scores are averaged, uint8 arrays (height, width, 3).
Mirror images, colours, mean and std are made on the device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from backbones.data.jpeg import Box
from backbones.data.pictures import MAX_PIXELS
from backbones.errors import DataError

Rng = np.random.Generator

LARGEST_VIEW = 2**24  # pixels that a network is shown at once: VGG's first layer makes 4 GB of them


@dataclass(frozen=True)
class Cut:
    """What is shown of a picture.

    Args:
        box: the part that is cut out; where it reaches beyond the picture there are zeros.
        size: (height, width) that the part is resized to, in pixels (bilinear, antialiased).
        mirrored: whether its mirror image is shown.
    """

    box: Box
    size: tuple[int, int]
    mirrored: bool


# (width, height) of a picture and random numbers -> what is shown of it
Augmentation = Callable[[int, int, Rng], Cut]


def scaled_size(width: int, height: int, shorter: int) -> tuple[int, int]:
    """(width, height) of a picture whose shorter side is resized to `shorter` pixels."""
    scale = shorter / min(width, height)
    return max(shorter, round(width * scale)), max(shorter, round(height * scale))


def resize_shorter(picture: Image.Image, shorter: int) -> Image.Image:
    """Resizes so that the shorter side is `shorter` pixels, keeping the aspect ratio (bilinear, antialiased).

    Raises:
        DataError: the result would be huge.
    """
    if min(picture.size) == shorter:
        return picture
    width, height = scaled_size(*picture.size, shorter)
    if width * height > MAX_PIXELS:
        raise DataError(f"a picture so long and narrow that it would be resized to {width}x{height}: remove it")
    return picture.resize((width, height), Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class Whole:
    """The picture as it is, or with `flip` it or its mirror image."""

    flip: bool

    def __call__(self, width: int, height: int, rng: Rng) -> Cut:
        return Cut((0, 0, width, height), (height, width), self.flip and _coin(rng))


@dataclass(frozen=True)
class ScaleCropFlip:
    """Section 3.4: shorter side uniform in [low, high], a random crop of the picture or its mirror image.

    The crop is cut out before it is resized: its place is a random one in the resized picture, and its sides in the
    picture's own pixels are rounded.
    """

    size: int
    low: int
    high: int

    def __call__(self, width: int, height: int, rng: Rng) -> Cut:
        scaled_width, scaled_height = scaled_size(width, height, int(rng.integers(self.low, self.high + 1)))
        y1, y2 = _side(height, scaled_height, self.size, rng)
        x1, x2 = _side(width, scaled_width, self.size, rng)
        return Cut((x1, y1, x2, y2), (self.size, self.size), _coin(rng))


@dataclass(frozen=True)
class RandomResizedCrop:
    """GoogLeNet's: a random part of the picture or its mirror image, resized to a square (bilinear, antialiased).

    Args:
        size: the side of the result.
        low, high: the part's share of the picture's area, uniform between them; its aspect ratio is log-uniform between
            3:4 and 4:3.
    """

    size: int
    low: float
    high: float

    def __call__(self, width: int, height: int, rng: Rng) -> Cut:
        return Cut(self.draw_box(width, height, rng), (self.size, self.size), _coin(rng))

    def draw_box(self, width: int, height: int, rng: Rng) -> Box:
        """(x1, y1, x2, y2) of the part. Where ten draws don't fit, the largest central part of an allowed shape."""
        for _ in range(10):
            area = width * height * rng.uniform(self.low, self.high)
            ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
            w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                left, top = (int(rng.integers(0, rest + 1)) for rest in (width - w, height - h))
                return left, top, left + w, top + h
        w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h


@dataclass(frozen=True)
class PadCropFlip:
    """Section 4.2: zeros on each side, a random crop of the padded picture or its mirror image."""

    size: int
    padding: int

    def __call__(self, width: int, height: int, rng: Rng) -> Cut:
        high, wide = height + 2 * self.padding, width + 2 * self.padding
        if min(high, wide) < self.size:
            raise DataError(f"a picture of {wide}x{high} is smaller than the crop of {self.size}: set data.input_size")
        top, left = (int(rng.integers(0, side - self.size + 1)) - self.padding for side in (high, wide))
        return Cut((left, top, left + self.size, top + self.size), (self.size, self.size), _coin(rng))


def center_crop(picture: Image.Image, size: int, shorter: int | None) -> list[np.ndarray]:
    """One view: the centre, after resizing the shorter side to `shorter` (None: no resizing)."""
    pixels = _resized(picture, size, shorter)
    top, left = ((side - size + 1) // 2 for side in pixels.shape[:2])
    return [pixels[top : top + size, left : left + size]]


def ten_crop(picture: Image.Image, size: int, shorter: int | None) -> list[np.ndarray]:
    """Ten views: four corners and the centre, and their mirror images (3.4, as in AlexNet)."""
    pixels = _resized(picture, size, shorter)
    bottom, right = (side - size for side in pixels.shape[:2])
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), ((bottom + 1) // 2, (right + 1) // 2)]
    crops = [pixels[top : top + size, left : left + size] for top, left in corners]
    return crops + [crop[:, ::-1] for crop in crops]


def whole_picture(picture: Image.Image, scales: Sequence[int]) -> list[np.ndarray]:
    """A view for each scale: the whole picture, its shorter side resized to that (3.4, multi-scale testing).

    Raises:
        DataError: a view would be huge.
    """
    proportion = max(picture.size) / min(picture.size)
    for scale in scales:
        if scale * scale * proportion > LARGEST_VIEW:
            width, height = picture.size
            raise DataError(
                f"a picture of {width}x{height} is too large with a shorter side of {scale} "
                f"(at most {LARGEST_VIEW} pixels): remove it or lower the scales"
            )
    return [np.asarray(resize_shorter(picture, scale)) for scale in scales]


def _resized(picture: Image.Image, size: int, shorter: int | None) -> np.ndarray:
    if shorter is not None:
        picture = resize_shorter(picture, shorter)
    if min(picture.size) < size:
        width, height = picture.size
        raise DataError(f"a picture of {width}x{height} is smaller than the crop of {size}: set data.test_resize")
    return np.asarray(picture)


def _side(side: int, scaled: int, size: int, rng: Rng) -> tuple[int, int]:
    """Where a random crop of `size` in a side that is resized to `scaled` begins and ends in the side itself."""
    start = int(rng.integers(0, scaled - size + 1))
    first = min(round(start * side / scaled), side - 1)
    return first, max(first + 1, round((start + size) * side / scaled))


def _coin(rng: Rng) -> bool:
    return bool(rng.random() < 0.5)
