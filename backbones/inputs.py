"""From the configuration to a network's input: which pictures, how they are varied, and what happens on the device."""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from backbones.config import ClassificationData
from backbones.data.augment import Augmentation, Flip, PadCropFlip, RandomResizedCrop, ScaleCropFlip
from backbones.data.datasets import ClassificationDataset
from backbones.data.loader import training_batches
from backbones.data.normalization import IMAGENET_MEAN, IMAGENET_STD
from backbones.data.resident import ResidentPictures, resident_batches
from backbones.data.sampler import SampleKey, StepSampler
from backbones.data.shards.storage import copy_file, is_url, join
from backbones.data.statistics import PixelStatistics, compute_statistics, load_statistics, statistics_path
from backbones.data.transforms import NamedTransforms
from backbones.engine.randomness import derive_seed
from backbones.errors import ConfigError, DataError
from backbones.scores import normalize
from backbones.weights import WeightsMetadata

_COLOR_DEVIATION = 0.1  # of the draws along the colour components (AlexNet)


class Batch(NamedTuple):
    """A micro-batch on its way to the device.

    Args:
        images: (B, H, W, 3) uint8.
        labels: (B,) int64.
        color_shifts: (B, 3) float32, added to the pixel values of each picture; in 0..255.
    """

    images: Tensor
    labels: Tensor
    color_shifts: Tensor


# A micro-batch -> the network's input (B, 3, H, W) and the labels (B,), on the device.
PrepareInput = Callable[[Any], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class TrainingInput:
    """How training pictures come to the network.

    Args:
        batches: makes this process's micro-batches in the order of a sampler.
        prepare: makes the network's input of one.
    """

    batches: Callable[[StepSampler], Iterable[Any]]
    prepare: PrepareInput


def training_input(
    dataset: ClassificationDataset,
    data: ClassificationData,
    statistics: PixelStatistics | None,
    metadata: WeightsMetadata,
    *,
    workers: int,
    device: torch.device,
    dtype: torch.dtype,
) -> TrainingInput:
    """Pictures that processes load one by one, or that live on the device (`data.resident`).

    Raises:
        ConfigError: the pictures can't live on the device.
    """
    if not data.resident:
        load = sample_loader(dataset, data, statistics if data.color == "pca" else None)

        def load_batches(sampler: StepSampler) -> Iterable[Any]:
            pin = device.type == "cuda"
            return training_batches(load, sampler, workers=workers, collate=collate, pin_memory=pin)

        return TrainingInput(load_batches, input_maker(metadata, device, dtype))

    padding, flip = _resident_augmentation(dataset, data)
    pictures = ResidentPictures(dataset.pixels, dataset.labels, padding=padding, device=device)  # type: ignore[arg-type]
    mean, std = _normalization(metadata, device, dtype)

    def make_batches(sampler: StepSampler) -> Iterable[Any]:
        return resident_batches(sampler, padding=padding, flip=flip, device=device)

    def prepare(rows: Tensor) -> tuple[Tensor, Tensor]:
        return normalize(pictures.cut(rows), mean, std), pictures.labels(rows)

    return TrainingInput(make_batches, prepare)


def _resident_augmentation(dataset: ClassificationDataset, data: ClassificationData) -> tuple[int, bool]:
    """Padding and flip. Raises ConfigError: pictures or augmentation are none that can live on the device."""
    reason = None
    if dataset.pixels is None:
        reason = f"only with CIFAR-10's pictures, not those of data.name {data.name}"
    elif data.input_size != dataset.pixels.shape[1]:
        reason = f"data.input_size {data.input_size} is not the pictures' {dataset.pixels.shape[1]}"
    elif data.augmentation not in ("pad_crop_flip", "flip", "none"):
        reason = f"data.augmentation {data.augmentation} is none of pad_crop_flip, flip, none"
    elif data.color != "none" or data.transforms:
        reason = "not with data.color or data.transforms"
    if reason:
        raise ConfigError(f"data.resident: {reason}; or load pictures one by one with --data.resident false")
    return (data.padding if data.augmentation == "pad_crop_flip" else 0), data.augmentation != "none"


def sample_loader(
    dataset: ClassificationDataset, data: ClassificationData, colors: PixelStatistics | None
) -> Callable[[SampleKey], tuple[Tensor, int, Tensor]]:
    """Makes a training sample of its key: picture, label and colour shift (zero without `colors`)."""
    augment = _augmentation(data)
    transform = NamedTransforms(data.transforms, data.input_size)
    directions = np.zeros((3, 3)) if colors is None else colors.color_directions
    size = data.input_size

    def load(key: SampleKey) -> tuple[Tensor, int, Tensor]:
        picture = dataset.picture(key.index)
        rng = np.random.default_rng(key.seed)
        try:
            pixels = augment(picture, rng)
        except DataError as error:
            raise error.about(dataset.name(key.index)) from error
        shift = directions @ rng.normal(0, _COLOR_DEVIATION, 3)
        pixels = transform(pixels, derive_seed(key.seed, 1))
        height, width = pixels.shape[:2]
        if (height, width) != (size, size):
            raise DataError(
                f"{dataset.name(key.index)}: a picture of {width}x{height}, data.input_size is {size}: "
                "choose a data.augmentation that crops, and data.transforms that keep the size"
            )
        return torch.from_numpy(np.array(pixels)), int(dataset.labels[key.index]), torch.from_numpy(shift).float()

    return load


def collate(samples: list[tuple[Tensor, int, Tensor]]) -> Batch:
    """Makes a micro-batch of samples."""
    images, labels, shifts = zip(*samples, strict=True)
    return Batch(torch.stack(images), torch.tensor(labels), torch.stack(shifts))


def input_maker(metadata: WeightsMetadata, device: torch.device, dtype: torch.dtype) -> PrepareInput:
    """Moves a batch to the device and makes the network's input there: colours and normalisation."""
    mean, std = _normalization(metadata, device, dtype)

    def prepare(batch: Batch) -> tuple[Tensor, Tensor]:
        shifts = batch.color_shifts.to(device, non_blocking=True).to(dtype) / std
        pictures = normalize(batch.images.to(device, non_blocking=True), mean, std) + shifts[:, :, None, None]
        return pictures, batch.labels.to(device, non_blocking=True)

    return prepare


def _normalization(metadata: WeightsMetadata, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return tuple(torch.tensor(value, dtype=dtype, device=device) for value in (metadata.mean, metadata.std))  # type: ignore[return-value]


def _augmentation(data: ClassificationData) -> Augmentation:
    match data.augmentation:
        case "scale_crop_flip":
            return ScaleCropFlip(data.input_size, *data.scale_range)
        case "random_resized_crop":
            return RandomResizedCrop(data.input_size, *data.area_range)
        case "pad_crop_flip":
            return PadCropFlip(data.input_size, data.padding)
        case "flip":
            return Flip()
        case "none":
            return lambda picture, rng: np.asarray(picture)


def training_statistics(
    data: ClassificationData, train_set: ClassificationDataset, *, shown: bool
) -> PixelStatistics | None:
    """The training set's, where the configuration wants them: from its file for folders, computed for small sets."""
    if not (isinstance(data.mean, str) or data.color == "pca"):
        return None
    if data.name not in ("folder", "shards"):
        return compute_statistics(train_set, size=data.input_size, shorter=data.test_resize, workers=0, progress=shown)
    path = _statistics_file(data)
    name = "" if data.name == "folder" else f"--name {data.name} "
    command = (
        f"python tools/prepare_data.py statistics {name}--root {data.root} --split {data.train_split} "
        f"--input_size {data.input_size} --resize {'null' if data.test_resize is None else data.test_resize}"
    )
    if not path.is_file():
        raise DataError(f"{path}: no such file (data.mean, data.color want it); make it with {command}")
    statistics = load_statistics(path)
    made = {"input_size": statistics.mean_picture.shape[-1], "resize": statistics.shorter}
    if made != {"input_size": data.input_size, "resize": data.test_resize}:
        raise DataError(f"{path}: was made with {made}; make it anew with {command} --overwrite")
    if statistics.fingerprint != train_set.fingerprint():
        raise DataError(
            f"{path}: is of other pictures than {data.train_split} holds now; make it anew with {command} --overwrite"
        )
    return statistics


def _statistics_file(data: ClassificationData) -> Path:
    """Beside the pictures; of shards behind a URL a copy in the cache."""
    root = str(data.root)
    if not is_url(root):
        return statistics_path(root, data.input_size)
    place = join(root, statistics_path("", data.input_size).name)
    path = Path(str(data.cache)) / f"statistics_{hashlib.sha256(place.encode()).hexdigest()[:16]}.safetensors"
    own = path.with_suffix(f".{os.getpid()}")  # all processes of a machine come here at once
    copy_file(place, own)
    os.replace(own, path)
    return path


def input_fingerprint(dataset: ClassificationDataset, statistics: PixelStatistics | None, mean: list, std: list) -> str:
    """A short digest of a training set and of what its pictures are normalised and coloured with."""
    directions = [] if statistics is None else statistics.color_directions.tolist()
    digest = hashlib.sha256(repr((mean, std, directions)).encode()).hexdigest()
    return f"{dataset.fingerprint()}-{digest[:8]}"


def choose_normalization(
    data: ClassificationData, statistics: PixelStatistics | None, origin: WeightsMetadata | None
) -> tuple[list, list[float]]:
    """Mean and deviation of the input: what the configuration says, else the given weights' own, else ImageNet's."""
    std = data.std or (origin.std if origin else list(IMAGENET_STD))
    if isinstance(data.mean, list):
        return data.mean, std
    if data.mean is None:
        mean = origin.mean if origin else list(IMAGENET_MEAN)
        if isinstance(mean[0], list) and len(mean[0]) != data.input_size:  # per pixel, of another size
            mean = np.array(mean).mean((1, 2)).tolist()
        return mean, std
    assert statistics is not None
    values = statistics.mean_picture if data.mean == "pixel" else statistics.mean
    return values.round(3).tolist(), std
