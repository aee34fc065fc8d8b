"""Training the R-CNN step: from the classifier, on a trained RPN's proposals in the training pictures."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.data.sampler import SampleKey, StepSampler
from backbones.engine.distributed import gather_objects
from backbones.errors import CheckpointError, ConfigError
from backbones.weights import WeightsMetadata
from detection.data.proposals import StoredProposals
from detection.evaluate.localisation import picture_labels
from detection.localisation.model import Localiser, load_backbone
from detection.localisation.proposals import store_class_proposals
from detection.localisation.regions import RegionSample, region_sample
from detection.localisation.scoring import own_class
from detection.localisation.testing import Rescoring, Showing
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
        raise CheckpointError(f"{config.proposals_from}: its classes are not those of {data.root}, {data.train_split}")
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
