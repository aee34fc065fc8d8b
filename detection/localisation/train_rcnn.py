"""Training the R-CNN step: from the classifier, on a trained RPN's proposals in the training pictures."""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.data.sampler import SampleKey, StepSampler
from backbones.engine.distributed import gather_objects, wait_for_all
from backbones.errors import CheckpointError, ConfigError, RunFolderError
from backbones.weights import WeightsMetadata
from detection.data.annotations import DetectionDataset
from detection.data.proposals import ProposalWriter, StoredProposals, create_proposals
from detection.evaluate.localisation import picture_labels
from detection.localisation.merging import propose
from detection.localisation.model import Localiser, load_backbone
from detection.localisation.regions import RegionOptions, RegionSample, region_sample
from detection.localisation.scoring import own_class
from detection.localisation.testing import Rescoring, Running, Showing, candidates
from detection.localisation.training import LocalisationTask, fit_network, sum_of
from detection.localisation.weights import build_regions, load_localiser, region_metadata


def read_rpn(proposals_from: str | None) -> tuple[Localiser, WeightsMetadata]:
    """The RPN whose proposals are trained on. Raises UserError if there is none."""
    if not proposals_from:
        raise ConfigError("proposals_from is missing: name a run of train_localiser.py --part rpn")
    return load_localiser(proposals_from)


def train_rcnn(task: LocalisationTask, rpn: tuple[Localiser, WeightsMetadata]) -> dict[str, Any] | None:
    """Trains the network of the R-CNN step into the run folder of the task. Returns the results, in the main process.

    Raises:
        CheckpointError: the RPN has other classes than the data.
    """
    config, data, train_set = task.config, task.config.data, task.train_set
    localiser, origin = rpn
    classes = train_set.annotations.class_names
    if origin.classes != classes:
        raise CheckpointError(
            f"{config.proposals_from}: its classes are not those of {data.root}, {data.train_split}: "
            "name an RPN of these"
        )
    metadata = region_metadata(
        task.classifier[1],
        classes,
        norm=config.backbone.norm,
        freeze_stages=config.backbone.freeze_stages,
        options=config.regions,
    )
    torch.manual_seed(config.seed)
    network = build_regions(metadata)
    load_backbone(network.backbone, task.classifier[0].state_dict(), str(config.backbone.weights))
    for each in (network, localiser):
        task.to_device(each)
    rescoring = Rescoring(network, config.regions)
    path = Path(str(config.output)) / "proposals.npy"
    labels = torch.from_numpy(picture_labels(train_set.annotations))
    sizes = origin.input_size, origin.test_resize or origin.input_size

    def batches(sampler: StepSampler) -> Iterable[Any]:
        if sampler.start_step == sampler.steps:
            return iter(())
        if not gather_objects(path.exists())[0]:  # as the main process sees the disk
            whole = Showing("dense", *sizes, scales=sizes[1:], mirror=False)
            own = own_class(train_set.annotations)
            store_class_proposals(localiser, train_set, path, own, whole, task.running(), config.regions)
        stored = StoredProposals(path, len(train_set))

        def load(key: SampleKey) -> RegionSample:
            return region_sample(train_set, key.index, stored(key.index), config.regions, flip=data.flip, seed=key.seed)

        return task.batches(load, sampler)

    def clear_up() -> None:
        if task.world.is_main:
            path.unlink(missing_ok=True)

    return fit_network(
        task,
        network,
        network.backbone,
        metadata,
        title=f"R-CNN step on the proposals of {config.proposals_from},",
        batches=batches,
        compute_loss=lambda model, samples: region_loss(model, samples, labels),
        score=lambda protocols: task.score(localiser, sizes, protocols, rescoring),
        finish=clear_up,
    )


def region_loss(model: nn.Module, samples: Sequence[RegionSample], labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of the losses over a micro-batch, and each of them.

    Args:
        labels: (N,), the class of every picture of the data set.
    """
    return sum_of(
        model(
            torch.stack([sample.image for sample in samples]),
            labels[[sample.index for sample in samples]],
            torch.tensor([sample.shows for sample in samples]),
            torch.stack([sample.goal for sample in samples]),
        )
    )


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
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise RunFolderError(
            f"{path}: can't be written ({error.strerror or error}): mend that (make room), and go on with --resume"
        ) from error
    wait_for_all()
