"""Pictures to look at networks with."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from backbones.data.augment import center_crop
from backbones.data.datasets import ClassificationDataset
from backbones.errors import DataError


def view_loader(dataset: ClassificationDataset, size: int, shorter: int | None) -> Callable[[int], np.ndarray]:
    """A function that gives the centre crop of a picture of the data set, (size, size, 3) uint8, as in testing.

    Args:
        size: of the crop.
        shorter: what the shorter side is resized to before; None leaves pictures as they are.
    """

    def load(index: int) -> np.ndarray:
        picture = dataset.picture(index)
        try:
            return center_crop(picture, size, shorter)[0]
        except DataError as error:
            raise error.about(dataset.name(index)) from error

    return load


def evenly_spaced(total: int, count: int) -> list[int]:
    """`count` of the places 0 to total - 1, spread over all of them; all where there are fewer."""
    return sorted({round(place) for place in np.linspace(0, total - 1, min(count, total))})


def draw_sample(dataset: ClassificationDataset, count: int, size: int, shorter: int | None) -> tuple[Tensor, Tensor]:
    """`count` views spread over the whole data set, (B, size, size, 3) uint8, and their labels (B,) int64."""
    load = view_loader(dataset, size, shorter)
    indices = evenly_spaced(len(dataset), count)
    views = torch.from_numpy(np.stack([load(index) for index in indices]))
    return views, torch.from_numpy(dataset.labels[indices].astype(np.int64))


def standardise(views: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) with a mean of 0 and a variance of 1 in each channel of the batch."""
    pictures = views.permute(0, 3, 1, 2).double()
    variance, mean = torch.var_mean(pictures, dim=(0, 2, 3), correction=0, keepdim=True)
    return (pictures - mean) / variance.clamp(min=1).sqrt()
