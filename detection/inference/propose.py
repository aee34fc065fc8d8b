"""Running an RPN over the pictures of a data set."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from backbones.data.loader import testing_batches
from backbones.engine.acceleration import Precision, autocast
from backbones.engine.distributed import World, gather_objects, wait_for_all
from backbones.progress import progress_bar
from detection.data.annotations import DetectionDataset
from detection.data.proposals import create_proposals, open_to_fill
from detection.data.samples import make_sample
from detection.models import FasterRCNN
from detection.structures import Sample

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)


def store_proposals(
    detector: FasterRCNN,
    dataset: DetectionDataset,
    path: Path,
    *,
    to_train: bool,
    shorter: int,
    longest: int,
    world: World,
    precision: Precision,
    workers: int,
) -> None:
    """Writes the proposals in every picture to a file for `StoredProposals`, whole or not at all.

    Args:
        detector: in eval mode.
        path: the file, in a folder that all processes see; 16 bytes for each of N x P proposals.
        to_train: as many proposals as Fast R-CNN is trained on, or as few as it is tested on.
        shorter, longest: the size at which pictures are shown to the detector.
    """
    options = detector.rpn.options
    temporary = path.with_name(f".{path.name}.tmp")
    if world.is_main:
        create_proposals(temporary, len(dataset), options.post_nms_train if to_train else options.post_nms_test)
    wait_for_all()
    stored = open_to_fill(temporary)
    for sample, boxes in _propose(
        detector,
        dataset,
        to_train=to_train,
        shorter=shorter,
        longest=longest,
        world=world,
        precision=precision,
        workers=workers,
    ):
        stored[sample.index] = np.nan
        stored[sample.index, : len(boxes)] = boxes.float().numpy()
    stored.flush()
    wait_for_all()
    if world.is_main:
        os.replace(temporary, path)
    wait_for_all()


def measure_recall(
    detector: FasterRCNN,
    dataset: DetectionDataset,
    *,
    shorter: int,
    longest: int,
    world: World,
    precision: Precision,
    workers: int,
) -> dict[str, float | None]:
    """How many of the objects are covered by a proposal, as many as in testing; the same in every process.

    Args:
        detector: in eval mode.
        shorter, longest: the size at which pictures are shown to it.

    Returns:
        In percent: "recall50" and "recall70", objects that some proposal overlaps by an IoU of 0.5 and 0.7, and
        "average_recall", the mean over 0.5, 0.55 ... 0.95. Ignored objects do not count; None without others.
    """
    best: list[np.ndarray] = []
    for sample, boxes in _propose(
        detector,
        dataset,
        to_train=False,
        shorter=shorter,
        longest=longest,
        world=world,
        precision=precision,
        workers=workers,
    ):
        objects = sample.target.boxes[~sample.target.ignore]
        best.append(box_iou(objects, boxes.float()).amax(dim=1).numpy())
    overlaps = np.concatenate([each for part in gather_objects(best) for each in part])
    if not len(overlaps):
        return {"recall50": None, "recall70": None, "average_recall": None}
    recalls = 100 * (overlaps >= IOU_THRESHOLDS[:, None]).mean(axis=1)
    return {"recall50": float(recalls[0]), "recall70": float(recalls[4]), "average_recall": float(recalls.mean())}


@torch.inference_mode()
def _propose(
    detector: FasterRCNN,
    dataset: DetectionDataset,
    *,
    to_train: bool,
    shorter: int,
    longest: int,
    world: World,
    precision: Precision,
    workers: int,
) -> Iterator[tuple[Sample, Tensor]]:
    """This process's share of the pictures, and the proposals in each, on the CPU."""

    def load(index: int) -> Sample:
        return make_sample(dataset, index, shorter=shorter, longest=longest)

    indices = range(world.rank, len(dataset), world.size)
    batches = testing_batches(load, indices, batch_size=1, workers=workers, collate=list)
    with progress_bar(
        batches, total=len(indices), unit="picture", description="proposals", shown=world.is_main, stays=False
    ) as bar:
        for (sample,) in bar:
            with autocast(precision, world.device):
                boxes = detector.propose(sample.image, to_train=to_train)
            yield sample, boxes.cpu()
