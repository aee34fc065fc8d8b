"""Pictures of a detection data set as tensors."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backbones.data import pictures
from backbones.data.paths import PackedPaths

MISSING = "is missing: put it there or take it off the list"  # of a picture that a list names


def read_image(path: str | Path, *, upright: bool = False) -> Tensor:
    """One picture file, (3, H, W) uint8 RGB; see `backbones.data.pictures.read_image`."""
    pixels = np.array(pictures.read_image(path, upright=upright))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


class PictureFiles:
    """Loads the pictures of a data set by index; an object that worker processes can receive.

    Args:
        paths: of the pictures, in the order of the data set.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = PackedPaths(paths)

    def path(self, index: int) -> str:
        """The file of picture `index`."""
        return self._paths[index]

    @property
    def paths(self) -> list[str]:
        """All of them."""
        return [self.path(index) for index in range(len(self._paths))]

    def __call__(self, index: int) -> Tensor:
        return read_image(self.path(index))
