"""How a picture is shown to a network that is tested, and where boxes in such a view lie in the picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backbones.errors import DataError
from backbones.weights import LARGEST_SIDE
from detection.data.samples import resize_scale, scale_image


@dataclass
class View:
    """A part of a resized picture, or of its mirror image.

    Args:
        image: (3, h, w) uint8.
        original: (height, width) of the picture.
        resized: (height, width) of its resized copy.
        left, top: of the view in that copy, before it is mirrored.
        mirrored: whether `image` is the mirror image of that part.
    """

    image: Tensor
    original: tuple[int, int]
    resized: tuple[int, int]
    left: int = 0
    top: int = 0
    mirrored: bool = False

    def to_picture(self, boxes: Tensor) -> Tensor:
        """Boxes (..., 4) in the pixels of the view, in those of the picture."""
        x1, y1, x2, y2 = boxes.unbind(-1)
        if self.mirrored:
            x1, x2 = self.image.shape[2] - x2, self.image.shape[2] - x1
        across, down = self.original[1] / self.resized[1], self.original[0] / self.resized[0]
        x1, x2 = ((x + self.left) * across for x in (x1, x2))
        y1, y2 = ((y + self.top) * down for y in (y1, y2))
        return torch.stack([x1, y1, x2, y2], dim=-1)


def center_view(picture: Tensor, size: int, shorter: int) -> list[View]:
    """One view of a picture (3, H, W) uint8: the central crop, after resizing the shorter side to `shorter`.

    Raises:
        DataError: the picture is so long and narrow that no crop fits.
    """
    (view,) = whole_views(picture, [shorter], mirror=False)
    height, width = view.resized
    if min(height, width) < size:
        raise DataError(f"a picture of {picture.shape[2]}x{picture.shape[1]} is too long and narrow: remove it")
    top, left = (height - size + 1) // 2, (width - size + 1) // 2  # as in classification
    crop = view.image[:, top : top + size, left : left + size].contiguous()
    return [View(crop, view.original, view.resized, left, top)]


def whole_views(picture: Tensor, scales: Sequence[int], *, mirror: bool) -> list[View]:
    """The whole picture (3, H, W) uint8 with its shorter side resized to each of `scales`, and its mirror images."""
    height, width = picture.shape[1:]
    views = []
    for shorter in scales:
        image = scale_image(picture, resize_scale(height, width, shorter, LARGEST_SIDE))
        size = (image.shape[1], image.shape[2])
        views.append(View(image, (height, width), size))
        if mirror:
            views.append(View(image.flip(2), (height, width), size, mirrored=True))
    return views
