"""Running a detector over the pictures of a data set."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from backbones.data.loader import testing_batches
from backbones.engine.acceleration import Precision, autocast
from backbones.engine.distributed import World, gather_objects
from backbones.progress import progress_bar
from detection.data.annotations import DetectionDataset
from detection.data.samples import make_sample
from detection.models import FasterRCNN
from detection.structures import Detections, Sample


@torch.inference_mode()
def detect_in_dataset(
    detector: FasterRCNN,
    dataset: DetectionDataset,
    *,
    shorter: int,
    longest: int,
    world: World,
    precision: Precision = "fp32",
    batch_size: int = 1,
    workers: int = 0,
    proposals: Callable[[int], Tensor] | None = None,
) -> list[Detections]:
    """The detections in every picture, in the data set's order and its pixels, on the CPU; the same in every process.

    Each picture goes through the detector once, in one of the processes; the main one shows its own share's progress.

    Args:
        detector: in eval mode.
        shorter, longest: the size at which pictures are shown to it.
        proposals: gives those of a picture, in the pixels of its resized copy, in the place of the detector's own.
    """

    def load(index: int) -> Sample:
        given = None if proposals is None else proposals(index)
        return make_sample(dataset, index, shorter=shorter, longest=longest, proposals=given)

    indices = range(world.rank, len(dataset), world.size)
    found: list[tuple[int, Detections]] = []
    bar = progress_bar(total=len(indices), unit="picture", description="detecting", stays=False, shown=world.is_main)
    with bar:
        for samples in testing_batches(load, indices, batch_size=batch_size, workers=workers, collate=list):
            given = None if proposals is None else [sample.proposals for sample in samples]
            with autocast(precision, world.device):
                detections = detector([sample.image for sample in samples], proposals=given)
            for sample, each in zip(samples, detections, strict=True):
                found.append((sample.index, in_original_pixels(each.to("cpu"), sample.image, sample.original_size)))
            bar.update(len(samples))
    everything: dict[int, Detections] = dict(pair for part in gather_objects(found) for pair in part)
    return [everything[index] for index in range(len(dataset))]


def in_original_pixels(detections: Detections, image: Tensor, original_size: Sequence[int]) -> Detections:
    """Detections in the resized `image` (3, h, w), in the pixels of the original (height, width)."""
    height, width = original_size[0] / image.shape[1], original_size[1] / image.shape[2]
    boxes = detections.boxes * detections.boxes.new_tensor([width, height, width, height])
    return Detections(boxes, detections.scores, detections.labels)
