"""From a picture to the network's input: what training and testing do to it (Sections 3.4 and 4.2).

Training functions take (picture, rng) and are functions of them alone; test functions give the views whose scores are
averaged. All return uint8 arrays (height, width, 3); mean and std are dealt with on the device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from backbones.data.pictures import MAX_PIXELS
from backbones.errors import DataError

Rng = np.random.Generator
Augmentation = Callable[[Image.Image, Rng], np.ndarray]

LARGEST_VIEW = 2**24  # pixels that a network is shown at once: VGG's first layer makes 4 GB of them


def resize_shorter(picture: Image.Image, shorter: int) -> Image.Image:
    """Resizes so that the shorter side is `shorter` pixels, keeping the aspect ratio (bilinear, antialiased).

    Raises:
        DataError: the result would be huge.
    """
    width, height = picture.size
    if min(width, height) == shorter:
        return picture
    scale = shorter / min(width, height)
    width, height = max(shorter, round(width * scale)), max(shorter, round(height * scale))
    if width * height > MAX_PIXELS:
        raise DataError(f"a picture so long and narrow that it would be resized to {width}x{height}: remove it")
    return picture.resize((width, height), Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class Flip:
    """The picture or its mirror image."""

    def __call__(self, picture: Image.Image, rng: Rng) -> np.ndarray:
        return _maybe_flip(np.asarray(picture), rng)


@dataclass(frozen=True)
class ScaleCropFlip:
    """Section 3.4: shorter side uniform in [low, high], a random crop of the picture or its mirror image."""

    size: int
    low: int
    high: int

    def __call__(self, picture: Image.Image, rng: Rng) -> np.ndarray:
        pixels = np.asarray(resize_shorter(picture, int(rng.integers(self.low, self.high + 1))))
        return _maybe_flip(_random_crop(pixels, self.size, rng), rng)


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

    def __call__(self, picture: Image.Image, rng: Rng) -> np.ndarray:
        part = picture.crop(self.draw_box(*picture.size, rng))
        part = part.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return _maybe_flip(np.asarray(part), rng)

    def draw_box(self, width: int, height: int, rng: Rng) -> tuple[int, int, int, int]:
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

    def __call__(self, picture: Image.Image, rng: Rng) -> np.ndarray:
        p = self.padding
        return _maybe_flip(_random_crop(np.pad(np.asarray(picture), ((p, p), (p, p), (0, 0))), self.size, rng), rng)


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


def _random_crop(pixels: np.ndarray, size: int, rng: Rng) -> np.ndarray:
    height, width = pixels.shape[:2]
    if min(height, width) < size:
        raise DataError(f"a picture of {width}x{height} is smaller than the crop of {size}: set data.input_size")
    top, left = rng.integers(0, height - size + 1), rng.integers(0, width - size + 1)
    return pixels[top : top + size, left : left + size]


def _maybe_flip(pixels: np.ndarray, rng: Rng) -> np.ndarray:
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels
