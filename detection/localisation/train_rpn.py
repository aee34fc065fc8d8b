"""Training the per-class RPN: from the classifier, on random crops."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from backbones.data.sampler import SampleKey
from detection.evaluate.localisation import picture_labels
from detection.localisation.crops import training_crop
from detection.localisation.model import load_backbone
from detection.localisation.training import LocalisationTask, fit_network, sum_of
from detection.localisation.weights import build_localiser, localiser_metadata
from detection.structures import Sample


def train_rpn(task: LocalisationTask) -> dict[str, Any] | None:
    """Trains a per-class RPN into the run folder of the task. Returns the results, in the main process."""
    config, data, train_set = task.config, task.config.data, task.train_set
    state, origin = task.classifier[0].state_dict(), task.classifier[1]
    metadata = localiser_metadata(
        origin,
        train_set.annotations.class_names,
        norm=config.backbone.norm,
        freeze_stages=config.backbone.freeze_stages,
        anchor_scales=config.anchors.scales,
        anchor_ratios=config.anchors.ratios,
        options=config.rpn,
        crop_size=data.crop_size,
        shorter=data.test_resize,
    )
    torch.manual_seed(config.seed)
    localiser = build_localiser(metadata)
    load_backbone(localiser.backbone, state, str(config.backbone.weights))
    task.to_device(localiser)
    labels = torch.from_numpy(picture_labels(train_set.annotations))

    def load(key: SampleKey) -> Sample:
        return training_crop(
            train_set,
            key.index,
            size=data.crop_size,
            scale_range=data.scale_range,
            flip=data.flip,
            min_visible=data.min_visible,
            seed=key.seed,
        )

    return fit_network(
        task,
        localiser,
        localiser.backbone,
        metadata,
        title="per-class RPN",
        batches=partial(task.batches, load),
        compute_loss=lambda model, samples: rpn_loss(model, samples, labels),
        score=lambda protocols: task.score(localiser, (data.crop_size, data.test_resize), protocols, None),
    )


def rpn_loss(model: nn.Module, samples: Sequence[Sample], labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of the losses over a micro-batch, and each of them.

    Args:
        labels: (N,), the class of every picture of the data set.
    """
    return sum_of(
        model(
            torch.stack([sample.image for sample in samples]),
            labels[[sample.index for sample in samples]],
            [sample.target for sample in samples],
            [sample.seed for sample in samples],
        )
    )
