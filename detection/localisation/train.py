"""Training localisers (Appendix C). Also the command `train_localiser`."""

from collections.abc import Sequence
from typing import Any

from backbones.cli import run_command
from backbones.config import check_options
from backbones.engine.distributed import join_world
from backbones.errors import ConfigError
from backbones.training import prepare
from backbones.weights import check_same_network, load_classifier
from detection.data.cls_loc import read_cls_loc
from detection.data.readers import for_testing
from detection.localisation.config import LocaliserConfig, check_data
from detection.localisation.subset import evenly_spaced, trainable
from detection.localisation.train_rcnn import read_rpn, train_rcnn
from detection.localisation.train_rpn import train_rpn
from detection.localisation.training import Classifier, LocalisationTask


def train_localiser(config: LocaliserConfig) -> dict[str, Any] | None:
    """Trains and tests a localiser; leaves a run folder.

    Returns:
        The results, in the main process.

    Raises:
        UserError: configuration, data, weights or output can't be used.
    """
    with join_world(config.device, config.timeout_minutes) as world:
        prepare(config, world, one_size=False)
        check_data(config.data)
        _check_training(config)
        classifier = _classifier(config)
        rpn = read_rpn(config.proposals_from) if config.part == "rcnn" else None
        data = config.data
        train_set = trainable(read_cls_loc(str(data.root), data.train_split, bad_boxes=data.bad_boxes))
        test_set = None
        if data.test_split is not None:
            classes = train_set.annotations.class_names
            test_set = read_cls_loc(str(data.root), data.test_split, classes, bad_boxes=for_testing(data.bad_boxes))
            test_set = evenly_spaced(test_set, data.test_count)
        task = LocalisationTask(config, world, classifier, train_set, test_set)
        return train_rpn(task) if rpn is None else train_rcnn(task, rpn)


def _check_training(config: LocaliserConfig) -> None:
    """Refuses options of training that suit classifiers, or the other part, only."""
    for name in ("capture", "compile"):
        if getattr(config.train, name):
            raise ConfigError(f"train.{name}: not for localisers, whose objects differ in number")
    if config.schedule.warmup == "error":
        raise ConfigError("schedule.warmup error: is about a classifier's training error; give linear or constant")
    if config.part == "rpn" and config.proposals_from:
        raise ConfigError("proposals_from: is of --part rcnn; the RPN makes its own")


def _classifier(config: LocaliserConfig) -> Classifier:
    """The network that training starts from."""
    wanted = config.backbone
    check_options(wanted.options, "backbone.options")
    if not wanted.weights:
        raise ConfigError("backbone.weights is missing: name a run of pretrain.py")
    network, metadata = load_classifier(wanted.weights)
    check_same_network(wanted.weights, metadata, wanted.name, wanted.options, "backbone")
    return network, metadata


def main(argv: Sequence[str] | None = None) -> None:
    """The command `train_localiser`."""
    run_command(LocaliserConfig, train_localiser, argv=argv)


if __name__ == "__main__":
    main()
