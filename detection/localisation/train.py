"""Training localisers (Appendix C). Also the command `train_localiser`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from backbones.cli import run_command
from backbones.config import check_options
from backbones.data.loader import training_batches
from backbones.data.sampler import SampleKey
from backbones.engine.acceleration import parameter_dtype
from backbones.engine.distributed import World, join_world
from backbones.errors import ConfigError
from backbones.models import StagedNetwork
from backbones.training import fit, prepare
from backbones.weights import WeightsMetadata, check_same_network, load_classifier
from detection.data.annotations import DetectionDataset
from detection.data.cls_loc import read_cls_loc
from detection.data.readers import fingerprint, for_testing
from detection.evaluate.localisation import picture_labels
from detection.localisation.config import LocaliserConfig, check_data, default_scales
from detection.localisation.crops import training_crop
from detection.localisation.model import describe_parameters, load_backbone
from detection.localisation.protocols import score_localiser, showings_of
from detection.localisation.scoring import format_errors
from detection.localisation.testing import Protocol, Running
from detection.localisation.weights import build_localiser, localiser_metadata, save_localiser
from detection.structures import Sample

Classifier = tuple[StagedNetwork, WeightsMetadata]


@dataclass(frozen=True)
class LocalisationTask:
    """What is to be trained, and on what.

    Args:
        config: of the run.
        world: this process among all.
        classifier: what the network starts from.
        train_set, test_set: the pictures; None: not tested.
    """

    config: LocaliserConfig
    world: World
    classifier: Classifier
    train_set: DetectionDataset
    test_set: DetectionDataset | None

    @property
    def predicts(self) -> bool:
        """Whether the classifier knows the classes of the data, and so can say which a picture shows."""
        return self.classifier[1].classes == self.train_set.annotations.class_names

    def running(self) -> Running:
        """How networks are tested."""
        return Running(self.world, self.config.precision, self.config.train.workers)


def train_localiser(config: LocaliserConfig) -> dict[str, Any] | None:
    """Trains and tests a localiser; leaves a run folder.

    Returns:
        The results, in the main process.

    Raises:
        UserError: configuration, data, weights or output can't be used.
    """
    with join_world(config.device) as world:
        prepare(config, world, one_size=False)
        check_data(config.data)
        _check_training(config)
        classifier = _classifier(config)
        data = config.data
        train_set = read_cls_loc(str(data.root), data.train_split, bad_boxes=data.bad_boxes)
        test_set = None
        if data.test_split is not None:
            classes = train_set.annotations.class_names
            test_set = read_cls_loc(str(data.root), data.test_split, classes, bad_boxes=for_testing(data.bad_boxes))
        return _train_rpn(LocalisationTask(config, world, classifier, train_set, test_set))


def _train_rpn(task: LocalisationTask) -> dict[str, Any] | None:
    config, data = task.config, task.config.data
    metadata = localiser_metadata(
        task.classifier[1],
        task.train_set.annotations.class_names,
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
    load_backbone(localiser.backbone, task.classifier[0].state_dict(), str(config.backbone.weights))
    localiser.to(task.world.device, parameter_dtype(config.precision))
    labels = torch.from_numpy(picture_labels(task.train_set.annotations))

    def load(key: SampleKey) -> Sample:
        return training_crop(
            task.train_set,
            key.index,
            size=data.crop_size,
            scale_range=data.scale_range,
            flip=data.flip,
            min_visible=data.min_visible,
            seed=key.seed,
        )

    def test(protocols: Sequence[Protocol]) -> dict[str, Any]:
        if task.test_set is None:
            return {}
        scales = data.test_scales or default_scales(data.crop_size)
        classifier = _ready(task) if task.predicts else None
        showings = showings_of(protocols, metadata, scales)
        return score_localiser(localiser, task.test_set, showings, task.running(), classifier).results

    return fit(
        config,
        task.world,
        localiser,
        description=_describe(task, "per-class RPN", localiser, localiser.backbone),
        samples=len(task.train_set),
        fingerprint=fingerprint(task.train_set),
        batches=lambda sampler: training_batches(
            load,
            sampler,
            workers=config.train.workers,
            collate=list,
            pin_memory=task.world.device.type == "cuda",
        ),
        compute_loss=lambda model, samples: localisation_loss(model, samples, labels),
        test=lambda: test(["center", *config.protocol]),
        monitor=lambda: test(["center"]),
        curve_values=curve_values,
        save=lambda path: save_localiser(path, localiser, metadata),
        format_results=lambda results: format_errors(results) if results else "no test set: nothing is tested",
        name_sample=lambda index: f"picture {task.train_set.annotations.image_ids[index]}",
    )


def localisation_loss(model: nn.Module, samples: Sequence[Sample], labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of the losses over a micro-batch, and each of them.

    Args:
        labels: (N,), the class of every picture of the data set.
    """
    losses = model(
        torch.stack([sample.image for sample in samples]),
        labels[[sample.index for sample in samples]],
        [sample.target for sample in samples],
        [sample.seed for sample in samples],
    )
    return torch.stack(list(losses.values())).sum(), losses


def curve_values(results: dict[str, Any]) -> dict[str, float]:
    """The numbers of the results that training changes, by way of testing and error: center_own_class_error."""
    return {
        f"{way}_{name}": value
        for way, errors in results.items()
        for name, value in errors.items()
        if value is not None and way != "picture_box" and name not in ("top1_error", "top5_error")
    }


def _ready(task: LocalisationTask) -> Classifier:
    network, metadata = task.classifier
    return network.to(task.world.device, parameter_dtype(task.config.precision)), metadata


def _check_training(config: LocaliserConfig) -> None:
    """Refuses options of training that suit classifiers only."""
    for name in ("capture", "compile"):
        if getattr(config.train, name):
            raise ConfigError(f"train.{name}: not for localisers, whose objects differ in number")
    if config.schedule.warmup == "error":
        raise ConfigError("schedule.warmup error: is about a classifier's training error; give linear or constant")


def _classifier(config: LocaliserConfig) -> Classifier:
    """The network that training starts from."""
    wanted = config.backbone
    check_options(wanted.options, "backbone.options")
    if not wanted.weights:
        raise ConfigError("backbone.weights is missing: name a run of pretrain.py")
    network, metadata = load_classifier(wanted.weights)
    check_same_network(wanted.weights, metadata, wanted.name, wanted.options, "backbone")
    return network, metadata


def _describe(task: LocalisationTask, what: str, network: nn.Module, backbone: StagedNetwork) -> str:
    config, (_, metadata), train_set = task.config, task.classifier, task.train_set
    test = f"{len(task.test_set):,} test" if task.test_set else "no test"
    lines = [
        f"{what} on {metadata.architecture} ({config.backbone.weights}, batch norm {config.backbone.norm}); "
        f"{len(train_set):,} training and {test} pictures of {len(train_set.annotations.class_names)} classes"
    ]
    if task.test_set and not task.predicts:
        lines.append("the classifier has other classes: tested with each picture's own class alone")
    if train_set.repaired or train_set.dropped:
        lines.append(f"bad boxes: {train_set.repaired} clipped, {train_set.dropped} dropped")
    return "\n".join([*lines, describe_parameters(network, backbone)])


def main(argv: Sequence[str] | None = None) -> None:
    """The command `train_localiser`."""
    run_command(LocaliserConfig, train_localiser, argv=argv)


if __name__ == "__main__":
    main()
