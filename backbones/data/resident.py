"""Pictures that live on the device, cut and mirrored there a whole batch at a time (4.2).

What is done to a picture is a row of four whole numbers: its place in the data set, the top and the left of the crop in
the padded picture, and whether it is mirrored. The rows of an epoch are a function of seed and epoch, so any step's are
known without those before, and any number of processes sees the same batches.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.data.sampler import StepSampler, epoch_order
from backbones.engine.randomness import derive_seed


class ResidentPictures:
    """A data set on the device.

    Args:
        pixels: (N, S, S, 3) uint8.
        labels: (N,).
        padding: zeros on each side of a picture, of which crops of S x S are cut.
        device: where all of it is kept; (S + 2 * padding)^2 * 3 bytes a picture.
    """

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, *, padding: int, device: torch.device):
        self._size = pixels.shape[1]
        on_device = torch.from_numpy(pixels).to(device)
        self._side = self._size + 2 * padding
        # Pixel by pixel: a gather of single pixels is the fastest way to cut crops, on CPUs and GPUs.
        self._pixels = F.pad(on_device, (0, 0, *(padding,) * 4)).view(-1, 3)
        self._labels = torch.from_numpy(labels.astype(np.int64)).to(device)
        self._span = torch.arange(self._size, device=device)

    def cut(self, rows: Tensor) -> Tensor:
        """The pictures (B, S, S, 3) uint8 of rows (B, 4) int64: place, top, left, mirrored."""
        place, top, left, mirrored = rows.unsqueeze(2).unbind(1)  # (B, 1) each
        across = torch.where(mirrored.bool(), self._size - 1 - self._span, self._span)
        lines = (place * self._side + top + self._span) * self._side + left  # where each line of a crop starts
        pixels = self._pixels.index_select(0, (lines.unsqueeze(2) + across.unsqueeze(1)).flatten())
        return pixels.view(-1, self._size, self._size, 3)

    def labels(self, rows: Tensor) -> Tensor:
        """The labels (B,) int64 of rows (B, 4)."""
        return self._labels.index_select(0, rows[:, 0])


def resident_batches(sampler: StepSampler, *, padding: int, flip: bool, device: torch.device) -> Iterator[Tensor]:
    """The micro-batches of a training run as rows (B, 4) on the device, in `sampler`'s order.

    Args:
        padding: crops lie anywhere in a picture with so many zeros on each side.
        flip: half of the pictures are mirrored.
    """
    rows: dict[int, Tensor] = {}
    for positions in sampler.portions():
        epochs = range(positions[0] // sampler.size, positions[-1] // sampler.size + 1)
        for epoch in set(epochs) - rows.keys():
            made = epoch_rows(sampler.size, sampler.seed, epoch, padding=padding, flip=flip)
            if device.type == "cuda":  # only from pinned memory does the copy go on beside what the GPU does
                made = made.pin_memory()
            rows[epoch] = made.to(device, non_blocking=True)
        rows = {epoch: rows[epoch] for epoch in epochs}
        parts = [
            rows[epoch][max(positions.start - epoch * sampler.size, 0) : positions.stop - epoch * sampler.size]
            for epoch in epochs
        ]
        yield torch.cat(parts)


def epoch_rows(size: int, seed: int, epoch: int, *, padding: int, flip: bool) -> Tensor:
    """(size, 4) int64: the rows of an epoch, in its shuffled order."""
    generator = torch.Generator().manual_seed(derive_seed(seed, epoch, -2))
    corners = torch.randint(2 * padding + 1, (size, 2), generator=generator)
    mirrored = torch.randint(2, (size, 1), generator=generator) if flip else torch.zeros(size, 1, dtype=torch.int64)
    return torch.cat([epoch_order(size, seed, epoch)[:, None], corners, mirrored], dim=1)
