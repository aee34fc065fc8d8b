"""Running an RPN over the pictures of a data set."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from backbones.data.loader import testing_batches
from backbones.engine.acceleration import autocast
from backbones.engine.distributed import gather_objects, wait_for_all
from backbones.engine.fetch import fetch
from backbones.engine.prefetch import prefetch
from backbones.errors import RunFolderError
from backbones.progress import progress_bar
from detection.data.annotations import DetectionDataset
from detection.data.proposals import ProposalWriter, create_proposals
from detection.data.samples import make_sample
from detection.inference.viewing import Viewing
from detection.models import FasterRCNN
from detection.structures import Sample

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)


def store_proposals(
    detector: FasterRCNN, dataset: DetectionDataset, path: Path, *, to_train: bool, **viewing: Unpack[Viewing]
) -> None:
    """Writes the proposals in every picture to a file for `StoredProposals`, whole or not at all.

    Args:
        detector: in eval mode.
        path: the file, in a folder that all processes see; 16 bytes for each of N x P proposals.
        to_train: as many proposals as Fast R-CNN is trained on, or as few as it is tested on.

    Raises:
        RunFolderError: it can't be written.
    """
    options, world = detector.rpn.options, viewing["world"]
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        if world.is_main:
            create_proposals(temporary, len(dataset), options.post_nms_train if to_train else options.post_nms_test)
        wait_for_all()
        writer = ProposalWriter(temporary)
        for index, boxes, _ in _propose(detector, dataset, to_train, viewing):
            writer.write(index, boxes)
        writer.close()
        wait_for_all()
        if world.is_main:
            os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise RunFolderError(
            f"{path}: can't be written ({error.strerror or error}): mend that (make room), and go on with --resume"
        ) from error
    wait_for_all()


def measure_recall(
    detector: FasterRCNN, dataset: DetectionDataset, **viewing: Unpack[Viewing]
) -> dict[str, float | None]:
    """How many of the objects are covered by a proposal, as many as in testing; the same in every process.

    Args:
        detector: in eval mode.

    Returns:
        In percent: "recall50" and "recall70", objects that some proposal overlaps by an IoU of 0.5 and 0.7, and
        "average_recall", the mean over 0.5, 0.55 ... 0.95. Ignored objects do not count; None without others.
    """
    best: list[np.ndarray] = []
    for _, boxes, objects in _propose(detector, dataset, False, viewing):
        best.append(box_iou(objects, boxes.float()).amax(dim=1).numpy())
    overlaps = np.concatenate([each for part in gather_objects(best) for each in part])
    if not len(overlaps):
        return {"recall50": None, "recall70": None, "average_recall": None}
    recalls = 100 * (overlaps >= IOU_THRESHOLDS[:, None]).mean(axis=1)
    return {"recall50": float(recalls[0]), "recall70": float(recalls[4]), "average_recall": float(recalls.mean())}


@torch.inference_mode()
def _propose(
    detector: FasterRCNN, dataset: DetectionDataset, to_train: bool, viewing: Viewing
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """This process's share of the pictures: the index of each, the proposals in it, and its objects, on the CPU.

    A GPU is given the next picture before the proposals in the last are back. Ignored objects are left out.
    """
    world, device = viewing["world"], viewing["world"].device

    def load(index: int) -> Sample:
        return make_sample(dataset, index, shorter=viewing["shorter"], longest=viewing["longest"])

    def look(batches: Iterable[list[Sample]]) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
        for (sample,) in batches:
            with autocast(viewing["precision"], device):
                boxes = detector.propose(sample.image, to_train=to_train)
            yield sample.index, (boxes, sample.target.boxes, sample.target.ignore)

    indices = range(world.rank, len(dataset), world.size)
    batches = testing_batches(
        load, indices, batch_size=1, workers=viewing["workers"], collate=list, pin_memory=device.type == "cuda"
    )
    bar = progress_bar(total=len(indices), unit="picture", description="proposals", shown=world.is_main, stays=False)
    with bar:
        for index, (boxes, objects, ignore) in fetch(look(prefetch(batches, device)), device):
            yield index, boxes, objects[~ignore]
            bar.update()
