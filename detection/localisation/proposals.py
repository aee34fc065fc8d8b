"""The boxes of the per-class RPN that the R-CNN step starts from."""

import os
from pathlib import Path

from torch import Tensor

from backbones.engine.distributed import wait_for_all
from backbones.errors import RunFolderError
from detection.data.annotations import DetectionDataset
from detection.data.proposals import ProposalWriter, create_proposals
from detection.localisation.merging import propose
from detection.localisation.model import Localiser
from detection.localisation.regions import RegionOptions
from detection.localisation.testing import Running, Showing, candidates


def store_class_proposals(
    localiser: Localiser,
    dataset: DetectionDataset,
    path: Path,
    labels: Tensor,
    showing: Showing,
    running: Running,
    options: RegionOptions,
) -> None:
    """Writes the proposals for each picture's class to a file for `StoredProposals`, whole or not at all.

    They are in the pixels of the pictures themselves.

    Args:
        localiser: in eval mode.
        path: the file, in a folder that all processes see; 16 bytes for each of N x P proposals.
        labels: (N, 1) in 1..K.
        options: how many proposals, and by which rule.

    Raises:
        RunFolderError: it can't be written.
    """
    world = running.world
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        if world.is_main:
            create_proposals(temporary, len(dataset), options.proposals)
        wait_for_all()
        writer = ProposalWriter(temporary)
        for shown, scores, boxes in candidates(localiser, dataset, labels, showing, running, description="proposals"):
            found = propose(scores[0], boxes[0], shown.picture, nms_iou=options.nms_iou, most=options.proposals)
            writer.write(shown.index, found.cpu())
        writer.close()
        wait_for_all()
        if world.is_main:
            os.replace(temporary, path)
    except OSError as error:
        raise RunFolderError(f"{path}: can't be written ({error.strerror or error})") from error
    wait_for_all()
