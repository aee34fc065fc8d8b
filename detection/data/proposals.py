"""Proposals of all pictures of a data set, in a file: for Fast R-CNN where the RPN is another network."""

import os
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
        boxes = self._open()
        if boxes.dtype != np.float32 or boxes.ndim != 3 or len(boxes) != count or boxes.shape[2] != 4:
            raise DataError(f"{path}: holds no proposals of {count} pictures: remove it to have it made anew")

    def __call__(self, index: int) -> Tensor:
        boxes = np.array(self._open()[index])  # read from the file anew: nothing is kept in memory
        return torch.from_numpy(boxes[~np.isnan(boxes[:, 0])])

    def _open(self) -> np.ndarray:
        try:
            boxes = np.load(self.path, mmap_mode="r")
        except Exception as error:  # its header is read as Python's literals, which fail in many ways
            raise DataError(f"{self.path}: not a file of proposals ({' '.join(str(error).split())[:150]})") from error
        if not isinstance(boxes, np.ndarray):
            raise DataError(f"{self.path}: not a file of proposals (several arrays)")
        return boxes


def create_proposals(path: Path, count: int, most: int) -> None:
    """Makes a file for `count` pictures of at most `most` proposals, to be filled by `ProposalWriter`."""
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (count, most, 4)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 16 * count * most)


class ProposalWriter:
    """Fills a file that `create_proposals` made; many processes may, on several machines.

    Each picture is written by itself: memory that is mapped to a file has whole pages, which two processes may share,
    and ends the process where the disk is full.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            (_, self._most, _), _, _ = np.lib.format.read_array_header_1_0(file)
            self._start = file.tell()
        self._file = path.open("r+b", buffering=0)

    def write(self, index: int, boxes: Tensor) -> None:
        """Writes the proposals (P, 4) of picture `index`. Raises OSError."""
        row = np.full((self._most, 4), np.nan, dtype="<f4")
        row[: len(boxes)] = boxes.float().numpy()
        self._file.seek(self._start + index * row.nbytes)
        if self._file.write(row.tobytes()) != row.nbytes:
            raise OSError(f"no room for the proposals of picture {index}")

    def close(self) -> None:
        """Flushes all of it to disk."""
        os.fsync(self._file.fileno())
        self._file.close()
