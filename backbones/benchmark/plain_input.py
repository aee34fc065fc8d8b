"""Training pictures from files the usual ways: the references that our input is measured beside.

Both do what Section 3.4 says: the shorter side uniform in a range, a random crop, perhaps mirrored, AlexNet's colours,
normalisation; both with torchvision's classes and a DataLoader. Neither is slowed down: colours and normalisation work
in place, and the tensor path resizes uint8 in the layout that the decoder leaves (SIMD), then goes on in the layout in
which normalising is fastest.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms import functional, v2

from backbones.data.normalization import IMAGENET_MEAN, IMAGENET_STD

MEAN, STD = ([value / 255 for value in values] for values in (IMAGENET_MEAN, IMAGENET_STD))


class RandomShorterSide:
    """Resizes a PIL picture so that its shorter side is uniform in [low, high]."""

    def __init__(self, low: int, high: int):
        self.low, self.high = low, high

    def __call__(self, picture: Image.Image) -> Image.Image:
        return functional.resize(picture, int(torch.randint(self.low, self.high + 1, ())))


class VaryColors:
    """AlexNet's: adds to a picture, in place, a random multiple of each direction (a column of (3, 3))."""

    def __init__(self, directions: Tensor):
        self.directions = directions

    def __call__(self, image: Tensor) -> Tensor:
        return image.add_((self.directions @ torch.empty(3).normal_(0, 0.1))[:, None, None])


def pil_folder(root: Path, size: int, scales: tuple[int, int], directions: Tensor) -> ImageFolder:
    """torchvision's ImageFolder with its transforms of PIL pictures."""
    return ImageFolder(
        str(root),
        transforms.Compose(
            [
                RandomShorterSide(*scales),
                transforms.RandomCrop(size),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                VaryColors(directions),
                transforms.Normalize(MEAN, STD, inplace=True),
            ]
        ),
    )


def tensor_folder(root: Path, size: int, scales: tuple[int, int], directions: Tensor) -> ImageFolder:
    """torchvision's tensor path: its own decoder and its transforms v2, on uint8 for as long as possible."""
    return ImageFolder(
        str(root),
        v2.Compose(
            [
                v2.RandomShortestSize(list(range(scales[0], scales[1] + 1)), antialias=True),
                v2.RandomCrop(size),
                v2.RandomHorizontalFlip(),
                contiguous,
                v2.ToDtype(torch.float32, scale=True),
                VaryColors(directions),
                v2.Normalize(MEAN, STD, inplace=True),
            ]
        ),
        loader=decode_file,
    )


def decode_file(path: str) -> Tensor:
    """(3, H, W) uint8 of a JPEG file."""
    return decode_jpeg(read_file(path), mode=ImageReadMode.RGB)


def contiguous(image: Tensor) -> Tensor:
    """Colour by colour: normalising is several times as fast as pixel by pixel, which decoder and resizing prefer."""
    return image.contiguous()


def endless_batches(folder: ImageFolder, batch_size: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Epoch after epoch, shuffled; loading processes do not wait where one ends."""
    loader: DataLoader = DataLoader(
        folder,
        batch_size=batch_size,
        sampler=EndlessShuffle(len(folder)),
        num_workers=workers,
        pin_memory=workers > 0 and torch.cuda.is_available(),
    )
    return iter(loader)


class EndlessShuffle(Sampler[int]):
    """Shuffle after shuffle of so many numbers."""

    def __init__(self, size: int):
        self.size = size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(0)
        while True:
            yield from torch.randperm(self.size, generator=generator).tolist()
