"""From the configuration to a network's input: which pictures, how they are varied, and what happens on the device."""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backbones.config import ClassificationData
from backbones.data.augment import Augmentation, PadCropFlip, RandomResizedCrop, ScaleCropFlip, Whole
from backbones.data.batches import Batch, encoded_loader, pixel_loader
from backbones.data.datasets import ClassificationDataset
from backbones.data.loader import training_batches
from backbones.data.normalization import IMAGENET_MEAN, IMAGENET_STD
from backbones.data.resident import ResidentPictures, resident_batches
from backbones.data.sampler import StepSampler
from backbones.data.shards.storage import copy_file, is_url, join
from backbones.data.statistics import PixelStatistics, compute_statistics, load_statistics, statistics_path
from backbones.data.transforms import NamedTransforms
from backbones.errors import ConfigError, DataError
from backbones.scores import normalize
from backbones.weights import WeightsMetadata

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
    size = data.input_size
    if not data.resident:
        colors = statistics.color_directions if statistics and data.color == "pca" else None
        make_loader = encoded_loader if _decodes_on_gpu(dataset, data, device) else pixel_loader
        load = make_loader(dataset, augmentation(data), NamedTransforms(data.transforms, size), colors, size=size)

        def load_batches(sampler: StepSampler) -> Iterable[Any]:
            return training_batches(load, sampler, workers=workers, pin_memory=device.type == "cuda")

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


def input_maker(metadata: WeightsMetadata, device: torch.device, dtype: torch.dtype) -> PrepareInput:
    """Makes the network's input of a batch on the device: mirror images, normalisation and colours."""
    mean, std = _normalization(metadata, device, dtype)

    def prepare(batch: Batch) -> tuple[Tensor, Tensor]:
        images, mirrored, labels, shifts = batch.to(device, non_blocking=True)
        pictures = normalize(mirror_some(images, mirrored), mean, std, shifts.to(dtype))
        return pictures, labels

    return prepare


def _decodes_on_gpu(dataset: ClassificationDataset, data: ClassificationData, device: torch.device) -> bool:
    """Whether JPEG files are decoded there, as asked for; says why not, where they can't be."""
    if data.decode == "cpu":
        return False
    if device.type != "cuda":
        reason = f"this runs on {device.type}"
    elif dataset.encoded is None:
        reason = f"the pictures of data.name {data.name} are no files"
    elif data.augmentation not in ("scale_crop_flip", "random_resized_crop") or data.transforms:
        reason = "only with scale_crop_flip or random_resized_crop, and without data.transforms"
    else:
        return True
    print(f"data.decode gpu: goes on with the CPU: {reason}", flush=True)
    return False


def mirror_some(images: Tensor, mirrored: Tensor) -> Tensor:
    """Pictures (B, H, W, 3), of those where `mirrored` (B,) is true the mirror image."""
    if images.device.type == "cpu":  # on a GPU, which may not be waited for, it is faster to mirror all
        images = images.clone()
        for place in mirrored.nonzero().flatten().tolist():
            images[place] = images[place].flip(1)
        return images
    return torch.where(mirrored[:, None, None, None], images.flip(2), images)


def _normalization(metadata: WeightsMetadata, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return tuple(torch.tensor(value, dtype=dtype, device=device) for value in (metadata.mean, metadata.std))  # type: ignore[return-value]


def augmentation(data: ClassificationData) -> Augmentation:
    """What the configuration does to training pictures."""
    match data.augmentation:
        case "scale_crop_flip":
            return ScaleCropFlip(data.input_size, *data.scale_range)
        case "random_resized_crop":
            return RandomResizedCrop(data.input_size, *data.area_range)
        case "pad_crop_flip":
            return PadCropFlip(data.input_size, data.padding)
        case "flip" | "none":
            return Whole(flip=data.augmentation == "flip")


def training_statistics(
    data: ClassificationData, train_set: ClassificationDataset, *, shown: bool
) -> PixelStatistics | None:
    """The training set's, where the configuration wants them: from its file for folders, computed for small sets."""
    if not (isinstance(data.mean, str) or data.color == "pca"):
        return None
    if data.name not in ("folder", "shards"):
        return compute_statistics(train_set, size=data.input_size, shorter=data.test_resize, workers=0, progress=shown)
    root = str(data.root)
    place = join(root, statistics_path("", data.input_size).name)
    path = _statistics_file(data, place)
    name = "" if data.name == "folder" else f"--name {data.name} "
    command = (
        f"python tools/prepare_data.py statistics {name}--root {'COPY' if is_url(root) else root} --split "
        f"{data.train_split} --input_size {data.input_size} "
        f"--resize {'null' if data.test_resize is None else data.test_resize}"
    )
    then = ", where COPY is a copy of the shards on disk, and put it beside the shards" if is_url(root) else ""
    if not path.is_file():
        raise DataError(f"{place}: no such file (data.mean, data.color want it); make it with {command}{then}")
    try:
        statistics = load_statistics(path)
    except DataError as error:
        raise DataError(str(error).replace(str(path), place)) from error
    made = {"input_size": statistics.mean_picture.shape[-1], "resize": statistics.shorter}
    if made != {"input_size": data.input_size, "resize": data.test_resize}:
        raise DataError(f"{place}: was made with {made}; make it anew with {command} --overwrite{then}")
    if statistics.fingerprint != train_set.fingerprint():
        raise DataError(
            f"{place}: is of other pictures than {data.train_split} holds now; make it anew with {command} "
            f"--overwrite{then}"
        )
    return statistics


def _statistics_file(data: ClassificationData, place: str) -> Path:
    """That beside the pictures; of a URL a copy in the cache, which is missing where the URL's is."""
    if not is_url(place):
        return Path(place)
    path = Path(str(data.cache)) / f"statistics_{hashlib.sha256(place.encode()).hexdigest()[:16]}.safetensors"
    own = path.with_suffix(f".{os.getpid()}")  # all processes of a machine come here at once
    try:
        copy_file(place, own)
        os.replace(own, path)
    except OSError as error:
        raise DataError(f"{data.cache}: data.cache can't be used ({error.strerror})") from error
    except DataError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        path.unlink(missing_ok=True)
    finally:
        own.unlink(missing_ok=True)
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
