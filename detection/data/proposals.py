"""Proposals of all pictures of a data set, in a file: for Fast R-CNN where the RPN is another network."""

import os
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backbones.errors import DataError

_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '<f4', 'fortran_order': False, 'shape': \((\d{1,9}), (\d{1,9}), 4\), \} *\n",
    re.DOTALL,
)
_REMOVE = "remove it to have it made anew"
_LONGEST_HEADER = 256  # bytes


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
        if len(self._open()) != count:
            raise DataError(f"{path}: holds no proposals of {count} pictures: {_REMOVE}")

    def __call__(self, index: int) -> Tensor:
        boxes = np.array(self._open()[index])  # read from the file anew: nothing is kept in memory
        return torch.from_numpy(boxes[~np.isnan(boxes[:, 0])])

    def _open(self) -> np.ndarray:
        # NumPy's own reader evaluates a header as Python's literals, and some of them end the process.
        try:
            with self.path.open("rb") as file:
                header = _HEADER.match(file.read(_LONGEST_HEADER))
            if header is None:
                raise ValueError("its header is of no float32 array (N, P, 4)")
            shape = (int(header[1]), int(header[2]), 4)
            return np.memmap(self.path, "<f4", "r", offset=header.end(), shape=shape)
        except (OSError, ValueError, OverflowError) as error:
            raise DataError(f"{self.path}: not a file of proposals ({error}): {_REMOVE}") from error


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
