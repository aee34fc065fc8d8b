"""Training detectors (4.3). Also the command `train_detector`."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from backbones.cli import run_command
from backbones.engine.distributed import join_world
from backbones.errors import ConfigError
from backbones.training import prepare
from detection.alternating import check_stages, train_alternating
from detection.config import DetectionData, DetectorConfig, check_data, detector_options
from detection.data.annotations import BadBoxes, DetectionDataset
from detection.data.readers import for_testing, read_split
from detection.start import Start, describe_classes, read_start
from detection.training import DetectorTask, fit_detector, score_on_test_set
from detection.weights import detector_metadata


def train_detector(config: DetectorConfig) -> dict[str, Any] | None:
    """Trains and tests a detector; leaves a run folder.

    Returns:
        The results, in the main process.

    Raises:
        UserError: configuration, data, weights or output can't be used.
    """
    with join_world(config.device, config.timeout_minutes) as world:
        prepare(config, world, one_size=False)
        data = config.data
        check_data(data)
        check_stages(config, world.size)
        _check_training(config, on_gpu=world.device.type == "cuda")
        start = read_start(config)
        train_set = _read(data, data.train_split, data.train_size, None, data.bad_boxes)
        classes = train_set.annotations.class_names
        test_set = None
        if data.test_split is not None:
            test_set = _read(data, data.test_split, data.test_size, classes, for_testing(data.bad_boxes))
        metadata = detector_metadata(
            start.network,
            classes,
            train_set.annotations.category_ids,
            **detector_options(config),
            shorter_side=data.shorter_side,
            longest_side=data.longest_side,
        )
        task = DetectorTask(config, world, metadata, start, train_set, test_set)
        title = _describe(config, start, train_set, test_set)
        if config.scheme == "alternating":
            return train_alternating(task, title)
        detector = task.build()
        return fit_detector(task, config, detector, title=title, test=partial(score_on_test_set, task, detector))


def _check_training(config: DetectorConfig, *, on_gpu: bool) -> None:
    """Refuses options of training that suit classifiers only, or can't be had here."""
    if config.deterministic and on_gpu and config.roi.pooling == "roi_pool":
        raise ConfigError("deterministic: RoI pooling can't be so on a GPU; set --roi.pooling roi_align")
    if config.train.capture:
        raise ConfigError("train.capture: not for detectors, whose pictures and regions differ in number and size")
    if config.schedule.warmup == "error":
        raise ConfigError("schedule.warmup error: is about a classifier's training error; give linear or constant")


def _read(
    data: DetectionData, split: str, drawn: int, class_names: list[str] | None, bad_boxes: BadBoxes
) -> DetectionDataset:
    return read_split(
        data.name,
        data.root,
        split,
        class_names,
        bad_boxes=bad_boxes,
        drawn_size=data.shorter_side,
        drawn_count=drawn,
    )


def _describe(
    config: DetectorConfig, start: Start, train_set: DetectionDataset, test_set: DetectionDataset | None
) -> str:
    network, classes = start.network, train_set.annotations.class_names
    test = f"{len(test_set):,} test" if test_set else "no test"
    lines = [
        f"Faster R-CNN on {network.architecture} ({start.source or 'new weights'}, batch norm {config.backbone.norm}); "
        f"{len(train_set):,} training and {test} pictures of {len(classes)} classes"
    ]
    origins = start.class_origins(classes)
    if origins is not None:
        lines.append(describe_classes(origins, len(network.classes)))
    has_batch_norm = any("running_mean" in name for name in start.state or {})
    if has_batch_norm and origins is None and config.backbone.norm == "frozen" and network.batch_norm != "exact":
        lines.append(
            "batch norm is fixed with the moving averages of pretraining; the paper's are averages over the training "
            "set (pretrain.py --exact_bn true)"
        )
    if train_set.repaired or train_set.dropped:
        lines.append(f"bad boxes: {train_set.repaired} clipped, {train_set.dropped} dropped")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """The command `train_detector`."""
    run_command(DetectorConfig, train_detector, argv=argv)


if __name__ == "__main__":
    main()
