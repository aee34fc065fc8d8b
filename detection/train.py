"""Training detectors (4.3, approximate joint training). Also the command `train_detector`."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from backbones.cli import run_command
from backbones.config import check_options
from backbones.data.loader import training_batches
from backbones.data.normalization import IMAGENET_MEAN, IMAGENET_STD
from backbones.data.sampler import SampleKey
from backbones.engine.acceleration import parameter_dtype
from backbones.engine.distributed import join_world
from backbones.errors import ConfigError
from backbones.training import fit, prepare
from backbones.weights import WeightsMetadata, check_same_network, load_classifier
from detection.config import DetectionData, DetectorConfig, check_data
from detection.data.annotations import BadBoxes, DetectionDataset
from detection.data.readers import fingerprint, for_testing, read_split
from detection.data.samples import make_sample
from detection.evaluate.evaluate import evaluate_detections, format_results
from detection.inference.detect import detect_in_dataset
from detection.models import FasterRCNN, describe_parameters, get_detector
from detection.structures import Sample
from detection.weights import detector_arguments, detector_metadata, save_detector


def train_detector(config: DetectorConfig) -> dict[str, Any] | None:
    """Trains and tests a detector; leaves a run folder.

    Returns:
        The results, in the main process.

    Raises:
        UserError: configuration, data, weights or output can't be used.
    """
    with join_world(config.device) as world:
        prepare(config, world)
        data = config.data
        check_data(data)
        _check_training(config, on_gpu=world.device.type == "cuda")
        backbone, state = _backbone(config)
        train_set = _read(data, data.train_split, data.train_size, None, data.bad_boxes)
        classes = train_set.annotations.class_names
        test_set = _read(data, data.test_split, data.test_size, classes, for_testing(data.bad_boxes))
        metadata = detector_metadata(
            backbone,
            classes,
            train_set.annotations.category_ids,
            norm=config.backbone.norm,
            freeze_stages=config.backbone.freeze_stages,
            anchor_scales=config.anchors.scales,
            anchor_ratios=config.anchors.ratios,
            rpn=config.rpn,
            roi=config.roi,
            shorter_side=data.shorter_side,
            longest_side=data.longest_side,
        )
        detector = get_detector(**detector_arguments(metadata))
        if state is not None:
            detector.load_backbone(state)
        detector.to(world.device, parameter_dtype(config.precision))

        def load(key: SampleKey) -> Sample:
            return make_sample(
                train_set,
                key.index,
                shorter=data.shorter_side,
                longest=data.longest_side,
                flip=data.flip,
                seed=key.seed,
            )

        def test() -> dict[str, Any]:
            detections = detect_in_dataset(
                detector,
                test_set,
                shorter=data.shorter_side,
                longest=data.longest_side,
                world=world,
                precision=config.precision,
                workers=config.train.workers,
            )
            return evaluate_detections(test_set.annotations, detections, ["coco", "voc07", "voc12"])

        return fit(
            config,
            world,
            detector,
            description=_describe(config, metadata, detector, train_set, test_set),
            samples=len(train_set),
            fingerprint=fingerprint(train_set),
            batches=lambda sampler: training_batches(
                load,
                sampler,
                workers=config.train.workers,
                collate=list,
                pin_memory=world.device.type == "cuda",
            ),
            compute_loss=detection_loss,
            test=test,
            curve_values=_curve_values,
            save=lambda path: save_detector(path, detector, metadata),
            format_results=format_results,
            name_sample=lambda index: f"picture {train_set.annotations.image_ids[index]}",
        )


def _check_training(config: DetectorConfig, *, on_gpu: bool) -> None:
    """Refuses options of training that suit classifiers only, or can't be had here."""
    if config.deterministic and on_gpu and config.roi.pooling == "roi_pool":
        raise ConfigError("deterministic: RoI pooling can't be so on a GPU; set --roi.pooling roi_align")
    for name in ("capture", "compile"):
        if getattr(config.train, name):
            raise ConfigError(f"train.{name}: not for detectors, whose pictures and regions differ in number and size")
    if config.schedule.warmup == "error":
        raise ConfigError("schedule.warmup error: is about a classifier's training error; give linear or constant")


def detection_loss(model: nn.Module, samples: Sequence[Sample]) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of the four losses (4.3, Faster R-CNN) over a micro-batch, and each of them."""
    losses = model(
        [sample.image for sample in samples], [sample.target for sample in samples], [sample.seed for sample in samples]
    )
    return torch.stack(list(losses.values())).sum(), losses


def _backbone(config: DetectorConfig) -> tuple[WeightsMetadata, dict[str, Tensor] | None]:
    """What the network under the detector is, and its weights."""
    wanted = config.backbone
    check_options(wanted.options, "backbone.options")
    if wanted.weights:
        network, metadata = load_classifier(wanted.weights)
        check_same_network(wanted.weights, metadata, wanted.name, wanted.options, "backbone")
        return metadata, network.state_dict()
    if wanted.name is None:
        raise ConfigError(
            "backbone.weights is missing: name a run of pretrain.py; or start from nothing, with backbone.name"
        )
    has_batch_norm = wanted.name not in ("vgg16", "vgg19")
    if (wanted.norm == "frozen" and has_batch_norm) or wanted.freeze_stages:
        raise ConfigError(
            "backbone.weights is missing: a network with new weights can't be frozen; "
            "name weights, or set --backbone.norm batch --backbone.freeze_stages []"
        )
    metadata = WeightsMetadata(
        task="classification",
        architecture=wanted.name,
        options=dict(wanted.options),
        classes=[],
        mean=list(IMAGENET_MEAN),
        std=list(IMAGENET_STD),
        input_size=config.data.shorter_side,
    )
    return metadata, None


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
    config: DetectorConfig,
    metadata: WeightsMetadata,
    detector: FasterRCNN,
    train_set: DetectionDataset,
    test_set: DetectionDataset,
) -> str:
    origin = config.backbone.weights or "new weights"
    lines = [
        f"Faster R-CNN on {metadata.architecture} ({origin}, batch norm {config.backbone.norm}); {len(train_set):,} "
        f"training and {len(test_set):,} test pictures of {len(metadata.classes)} classes"
    ]
    if train_set.repaired or train_set.dropped:
        lines.append(f"bad boxes: {train_set.repaired} clipped, {train_set.dropped} dropped")
    return "\n".join([*lines, describe_parameters(detector)])


def _curve_values(results: dict[str, Any]) -> dict[str, float]:
    values = {**results["coco"], "voc07_mAP": results["voc07"]["mAP"], "voc12_mAP": results["voc12"]["mAP"]}
    return {name: value for name, value in values.items() if value is not None}


def main(argv: Sequence[str] | None = None) -> None:
    """The command `train_detector`."""
    run_command(DetectorConfig, train_detector, argv=argv)


if __name__ == "__main__":
    main()
