"""Ways to load training pictures, a segment at a time: ours as `pretrain` uses it, and the usual ones."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backbones.benchmark.drawn_files import SPLIT
from backbones.benchmark.measure import Segment, Stopwatch
from backbones.benchmark.plain_input import endless_batches, pil_folder, tensor_folder
from backbones.config import ClassificationData
from backbones.data.folder import read_folder
from backbones.data.normalization import IMAGENET_MEAN, IMAGENET_STD
from backbones.data.sampler import StepSampler
from backbones.data.statistics import PixelStatistics
from backbones.inputs import TrainingInput, training_input
from backbones.weights import WeightsMetadata

_ENDLESS = 2**31  # steps
_AHEAD = 2  # batches that each loading process makes before they are asked for (PyTorch's default)


@dataclass(frozen=True)
class Crop:
    """What the network is shown of pictures of one kind.

    Args:
        size: side of the crop.
        scales: range of the shorter side after resizing.
    """

    size: int
    scales: tuple[int, int]


class Feed:
    """Batches that nothing is done with.

    Args:
        batches: endless.
        batch_size: pictures of each.
        workers: loading processes; as many batches as they have ready after a pause are not timed.
        device: where the batches end.
    """

    def __init__(self, batches: Iterator[Any], batch_size: int, *, workers: int, device: torch.device):
        self._batches, self._batch_size, self._device = batches, batch_size, device
        self._ahead = workers * _AHEAD

    def segment(self, steps: int, discard: int) -> Segment:
        """Takes `discard` batches, then `steps` that are timed."""
        for _ in range(max(discard, self._ahead)):
            next(self._batches)
        watch = Stopwatch(self._device)
        watch.start()
        for _ in range(steps):
            next(self._batches)
        return Segment(steps * self._batch_size, watch.stop())


def our_source(
    root: Path, crop: Crop, *, workers: int, device: torch.device, dtype: torch.dtype, decode_on_gpu: bool = False
) -> tuple[TrainingInput, int]:
    """Our input as `pretrain` makes it from a folder, with the augmentation of 3.4; and how many pictures there are."""
    dataset = read_folder(root, SPLIT)
    settings: dict[str, Any] = {"decode": "gpu"} if decode_on_gpu else {}
    data = ClassificationData(
        root=str(root), input_size=crop.size, scale_range=crop.scales, color="pca", mean="channel", **settings
    )
    metadata = WeightsMetadata(
        task="classification",
        architecture="resnet50",
        options={},
        classes=dataset.class_names,
        mean=list(IMAGENET_MEAN),
        std=list(IMAGENET_STD),
        input_size=crop.size,
        test_resize=None,
    )
    source = training_input(dataset, data, some_colors(), metadata, workers=workers, device=device, dtype=dtype)
    return source, len(dataset)


def our_feed(
    root: Path,
    crop: Crop,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    seed: int,
    prepared: bool,
    decode_on_gpu: bool = False,
) -> Feed:
    """Ours: batches as they are handed to the device, or as `prepared` there for the network."""
    source, size = our_source(
        root, crop, workers=workers, device=device, dtype=torch.float32, decode_on_gpu=decode_on_gpu
    )
    sampler = endless_sampler(size, batch_size, seed)

    def batches() -> Iterator[Any]:
        for batch in source.batches(sampler):
            yield source.prepare(to_device(batch, device)) if prepared else batch

    return Feed(batches(), batch_size, workers=workers, device=device)


def plain_feed(kind: str, root: Path, crop: Crop, *, batch_size: int, workers: int, device: torch.device) -> Feed:
    """The usual way: `kind` is "pil" or "tensor"; its batches, ready for the network, are moved to the device."""
    make: Callable = pil_folder if kind == "pil" else tensor_folder
    directions = torch.from_numpy(some_colors().color_directions).float() / 255  # its pixels are in 0..1
    folder = make(root / SPLIT, crop.size, crop.scales, directions)

    def batches() -> Iterator[Any]:
        for images, labels in endless_batches(folder, batch_size, workers):
            yield to_device(images, device), to_device(labels, device)

    return Feed(batches(), batch_size, workers=workers, device=device)


def endless_sampler(size: int, batch_size: int, seed: int) -> StepSampler:
    """Epoch after epoch, as one process of one."""
    return StepSampler(
        size, batch_size=batch_size, accumulate=1, start_step=0, steps=_ENDLESS, seed=seed, rank=0, world_size=1
    )


def to_device(batch: Any, device: torch.device) -> Any:
    """As the training loop moves a batch."""
    return batch.to(device, non_blocking=True) if hasattr(batch, "to") else batch


def some_colors() -> PixelStatistics:
    """Colour components like those of photographs; what they are makes no difference to speed."""
    vectors = np.linalg.qr(np.array([[1.0, 1.0, 0.5], [1.0, 0.0, -1.0], [1.0, -1.0, 0.5]]))[0]
    values = np.array([14_000.0, 1_200.0, 300.0])
    return PixelStatistics(
        np.broadcast_to(np.array(IMAGENET_MEAN)[:, None, None], (3, 1, 1)),
        np.array(IMAGENET_MEAN),
        vectors @ np.diag(values) @ vectors.T,
        values,
        vectors,
        count=1,
        shorter=None,
        fingerprint="",
    )
