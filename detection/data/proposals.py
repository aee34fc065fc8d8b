"""Proposals of all pictures of a data set, in a file: for Fast R-CNN where the RPN is another network."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backbones.errors import DataError


class StoredProposals:
    """Gives the proposals of a picture by its place in the data set; an object that worker processes can receive.

    Args:
        path: a file (N, P, 4) float32 that `numpy.load` reads: the boxes of N pictures, in the pixels of their resized
            copies, best first; NaN where a picture has fewer than P.
        count: N.

    Raises:
        DataError: the file is none, or of other pictures.
    """

    def __init__(self, path: Path, count: int) -> None:
        self.path = path
        shape = self._open().shape
        if len(shape) != 3 or shape[0] != count or shape[2] != 4:
            raise DataError(f"{path}: holds no proposals of {count} pictures: remove it to have it made anew")

    def __call__(self, index: int) -> Tensor:
        boxes = np.array(self._open()[index])  # read from the file anew: nothing is kept in memory
        return torch.from_numpy(boxes[~np.isnan(boxes[:, 0])])

    def _open(self) -> np.ndarray:
        try:
            return np.load(self.path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path}: not a file of proposals ({error})") from error


def create_proposals(path: Path, count: int, most: int) -> None:
    """Makes a file for `count` pictures of at most `most` proposals, without any so far."""
    np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, most, 4))


def open_to_fill(path: Path) -> np.memmap:
    """The boxes (N, P, 4) of a file that `create_proposals` made, to write into."""
    return np.lib.format.open_memmap(path, mode="r+")
