"""Micro-batches of training pictures: made in loading processes, finished on the device."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from backbones.data.augment import Augmentation, Rng
from backbones.data.cut import cut_file, cut_picture, resize_part_on_device
from backbones.data.datasets import ClassificationDataset
from backbones.data.jpeg import read_jpeg_header
from backbones.data.loader import shared_empty
from backbones.data.sampler import SampleKey
from backbones.data.transforms import NamedTransforms
from backbones.engine.randomness import derive_seed
from backbones.errors import DataError

_COLOR_DEVIATION = 0.1  # of the draws along the colour components (AlexNet)


class Batch(NamedTuple):
    """A micro-batch on its way to the device.

    Args:
        images: (B, H, W, 3) uint8.
        mirrored: (B,) bool: of which pictures the mirror image is shown.
        labels: (B,) int64.
        color_shifts: (B, 3) float32, added to the pixel values of each picture; in 0..255.
    """

    images: Tensor
    mirrored: Tensor
    labels: Tensor
    color_shifts: Tensor

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """The same micro-batch on `device`."""
        return Batch(*(tensor.to(device, non_blocking=non_blocking) for tensor in self))


class EncodedBatch(NamedTuple):
    """A micro-batch whose pictures are decoded on the device (by nvJPEG on a GPU).

    Args:
        files: uint8, the JPEG files one after another; pictures of other formats as pixels (size, size, 3), cut out
            already.
        ends: (B,) int64: where each of them ends.
        boxes: (B, 4) int64: what is cut out of each, in its own pixels; zeros where that is done.
        places: (B,) int64: in the data set.
        size: side of the cut pictures.
        mirrored, labels, color_shifts: as of `Batch`.
    """

    files: Tensor
    ends: Tensor
    boxes: Tensor
    places: Tensor
    size: int
    mirrored: Tensor
    labels: Tensor
    color_shifts: Tensor

    def to(self, device: torch.device, non_blocking: bool = False) -> Batch:
        """Decodes and cuts the pictures there.

        Raises:
            DataError: a file can't be decoded.
        """
        parts = self.files.tensor_split(self.ends[:-1])
        encoded = self.boxes.any(1).nonzero().flatten().tolist()
        decoded = dict(
            zip(encoded, self._decode([parts[i] for i in encoded], self.places[encoded].tolist(), device), strict=True)
        )
        size = (self.size, self.size)
        images = torch.stack(
            [
                resize_part_on_device(decoded[i], (x1, y1, x2, y2), size)
                if i in decoded
                else parts[i].view(*size, 3).to(device, non_blocking=non_blocking)
                for i, (x1, y1, x2, y2) in enumerate(self.boxes.tolist())
            ]
        )
        rest = (tensor.to(device, non_blocking=non_blocking) for tensor in self[5:])
        return Batch(images, *rest)

    def _decode(self, files: list[Tensor], places: list[int], device: torch.device) -> list[Tensor]:
        if not files:
            return []
        try:
            return _decode_apart(files, device) if device.type == "cuda" else decode_jpeg(files, mode=ImageReadMode.RGB)
        except RuntimeError as error:
            broken = [place for place, file in zip(places, files, strict=True) if not _can_be_decoded(file, device)]
            raise DataError(
                f"training picture(s) {', '.join(map(str, broken or places))}, by number: {device.type} can't decode "
                f"them ({' '.join(str(error).split())[:150]}): set --data.decode cpu, which says what they are called"
            ) from error


def _decode_apart(files: list[Tensor], device: torch.device) -> list[Tensor]:
    """Decodes on a GPU, into memory that nothing else is kept in.

    torchvision's decoder works on a stream of its own, which does not wait for the caller's: in memory taken anew from
    the caller's stream it would write while kernels still read what was there before.
    """
    caller, decoding = torch.cuda.current_stream(device), _decoding_stream(device)
    with torch.cuda.stream(decoding):
        pictures = decode_jpeg(files, mode=ImageReadMode.RGB, device=device)
    caller.wait_stream(decoding)
    for picture in pictures:
        picture.record_stream(caller)
    return pictures


@cache
def _decoding_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _can_be_decoded(file: Tensor, device: torch.device) -> bool:
    try:
        decode_jpeg(file, mode=ImageReadMode.RGB, device=device)
    except RuntimeError:
        return False
    return True


def pixel_loader(
    dataset: ClassificationDataset,
    augment: Augmentation,
    transform: NamedTransforms,
    color_directions: np.ndarray | None,
    *,
    size: int,
) -> Callable[[Sequence[SampleKey]], Batch]:
    """Makes a micro-batch of its keys.

    Each picture is written into its place in the batch, which in a loading process lies in memory that the training
    process sees.

    Args:
        transform: sees each picture as it is shown.
        color_directions: (3, 3), see `PixelStatistics`; None: colours are not varied.
        size: side of the pictures.
    """

    def load(keys: Sequence[SampleKey]) -> Batch:
        images = shared_empty((len(keys), size, size, 3), torch.uint8)
        places = images.numpy()
        mirrored = np.zeros(len(keys), dtype=bool)
        rngs = [np.random.default_rng(key.seed) for key in keys]
        for place, (key, rng) in enumerate(zip(keys, rngs, strict=True)):
            pixels, mirrored[place] = _cut(dataset, key.index, augment, rng)
            if transform:
                pixels = transform(pixels[:, ::-1] if mirrored[place] else pixels, derive_seed(key.seed, 1))
                mirrored[place] = False
            _check_size(dataset, key.index, pixels, size)
            places[place] = pixels
        return Batch(images, torch.from_numpy(mirrored), _labels(dataset, keys), _color_shifts(rngs, color_directions))

    return load


def encoded_loader(
    dataset: ClassificationDataset,
    augment: Augmentation,
    transform: NamedTransforms,
    color_directions: np.ndarray | None,
    *,
    size: int,
) -> Callable[[Sequence[SampleKey]], EncodedBatch]:
    """As `pixel_loader`, for decoding on the device: without transforms, of parts that lie within the picture."""
    assert not transform
    assert dataset.encoded is not None
    encoded = dataset.encoded

    def parts(keys: Sequence[SampleKey], rngs: Sequence[Rng]) -> Iterator[tuple[bytes, tuple[int, ...], bool]]:
        for key, rng in zip(keys, rngs, strict=True):
            data = encoded(key.index)
            header = read_jpeg_header(data)
            if header is None:
                pixels, mirrored = _cut(dataset, key.index, augment, rng)
                yield pixels.tobytes(), (0, 0, 0, 0), mirrored
            else:
                cut = augment(header.width, header.height, rng)
                yield data, cut.box, cut.mirrored

    def load(keys: Sequence[SampleKey]) -> EncodedBatch:
        rngs = [np.random.default_rng(key.seed) for key in keys]
        files, boxes, mirrored = zip(*parts(keys, rngs), strict=True)
        data = shared_empty((sum(map(len, files)),), torch.uint8)
        data.numpy()[:] = np.frombuffer(b"".join(files), dtype=np.uint8)
        return EncodedBatch(
            data,
            torch.tensor([len(file) for file in files]).cumsum(0),
            torch.tensor(boxes),
            torch.tensor([key.index for key in keys]),
            size,
            torch.tensor(mirrored),
            _labels(dataset, keys),
            _color_shifts(rngs, color_directions),
        )

    return load


def _cut(dataset: ClassificationDataset, index: int, augment: Augmentation, rng: Rng) -> tuple[np.ndarray, bool]:
    """A picture's part, not mirrored, and whether its mirror image is to be shown."""
    try:
        if dataset.encoded is None:
            pixels, cut = cut_picture(dataset.picture(index), augment, rng)
        else:
            pixels, cut = cut_file(dataset.encoded(index), dataset.name(index), augment, rng)
    except DataError as error:
        raise error.about(dataset.name(index)) from error
    return pixels, cut.mirrored


def _check_size(dataset: ClassificationDataset, index: int, pixels: np.ndarray, size: int) -> None:
    height, width = pixels.shape[:2]
    if (height, width) != (size, size):
        raise DataError(
            f"{dataset.name(index)}: a picture of {width}x{height}, data.input_size is {size}: "
            "choose a data.augmentation that crops, and data.transforms that keep the size"
        )


def _labels(dataset: ClassificationDataset, keys: Sequence[SampleKey]) -> Tensor:
    return torch.from_numpy(dataset.labels[[key.index for key in keys]].astype(np.int64))


def _color_shifts(rngs: Sequence[Rng], directions: np.ndarray | None) -> Tensor:
    """(B, 3) float32: a draw along each colour component; zeros without directions."""
    if directions is None:
        return torch.zeros(len(rngs), 3)
    draws = np.stack([rng.normal(0, _COLOR_DEVIATION, 3) for rng in rngs])
    return torch.from_numpy(draws @ directions.T).float()
