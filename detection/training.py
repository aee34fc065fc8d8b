"""One training of a detector, or of a part of it: what the joint and the alternating scheme have in common."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from backbones.data.loader import training_batches
from backbones.data.sampler import LikeShapes, SampleKey, like_shapes_order
from backbones.engine.acceleration import parameter_dtype
from backbones.engine.distributed import World
from backbones.training import fit
from backbones.weights import WeightsMetadata
from detection.config import DetectorConfig
from detection.data.annotations import DetectionDataset
from detection.data.proposals import StoredProposals
from detection.data.readers import fingerprint
from detection.data.samples import make_sample
from detection.evaluate.evaluate import evaluate_detections, format_results, metrics_of
from detection.inference.detect import detect_in_dataset
from detection.inference.ensemble import Ensemble, Member
from detection.inference.viewing import Viewing
from detection.models import FasterRCNN, Part, describe_parameters, get_detector
from detection.start import Start
from detection.structures import Sample
from detection.weights import detector_arguments, of_a_part, save_detector


@dataclass(frozen=True)
class DetectorTask:
    """What is to be trained, and on what.

    Args:
        config: of the whole run.
        world: this process among all.
        metadata: of the detector.
        start: the weights that it starts from.
        train_set, test_set: the pictures; None: not tested.
    """

    config: DetectorConfig
    world: World
    metadata: WeightsMetadata
    start: Start
    train_set: DetectionDataset
    test_set: DetectionDataset | None

    def build(self) -> FasterRCNN:
        """The detector as it is before training: the weights it starts from, and new ones that the seed decides."""
        torch.manual_seed(self.config.seed)
        detector = get_detector(**detector_arguments(self.metadata))
        self.start.load(detector, self.metadata.classes)
        return detector.move_to(self.world.device, parameter_dtype(self.config.precision))

    def class_origins(self) -> dict[str, str | None] | None:
        """See `Start.class_origins`; for the run's record."""
        return self.start.class_origins(self.metadata.classes)

    def viewing(self) -> Viewing:
        """How pictures are shown to a network that is tested."""
        return {
            "shorter": self.config.data.shorter_side,
            "longest": self.config.data.longest_side,
            "world": self.world,
            "precision": self.config.precision,
            "workers": self.config.train.workers,
        }


def fit_detector(
    task: DetectorTask,
    config: DetectorConfig,
    detector: FasterRCNN,
    *,
    title: str,
    part: Part = "all",
    proposals: StoredProposals | None = None,
    whole: bool = True,
    test: Callable[[], dict[str, Any]],
) -> dict[str, Any] | None:
    """Trains a part of `detector` into the run folder `config.output`, and tests it.

    Args:
        config: of this training.
        title: what this is, to print.
        proposals: of the training pictures, for the part "regions".
        whole: whether this gives a whole detector; else its weights file says which part of one it is.
        test: the results of the detector as it is, the same in every process.

    Returns:
        The results, in the main process.
    """
    train_set, data = task.train_set, config.data
    detector.train_only(part)
    detector.pad_to = data.pad_to
    metadata = task.metadata if whole else of_a_part(task.metadata, part)

    def load(key: SampleKey) -> Sample:
        return make_sample(
            train_set,
            key.index,
            shorter=data.shorter_side,
            longest=data.longest_side,
            flip=data.flip,
            seed=key.seed,
            proposals=None if proposals is None else proposals(key.index),
        )

    sizes = torch.from_numpy(train_set.annotations.sizes)
    return fit(
        config,
        task.world,
        detector,
        description=f"{title}\n{describe_parameters(detector)}",
        samples=len(train_set),
        fingerprint=fingerprint(train_set),
        batches=lambda sampler: training_batches(
            lambda keys: list(map(load, keys)),
            sampler,
            workers=config.train.workers,
            pin_memory=task.world.device.type == "cuda",
        ),
        compute_loss=partial(detection_loss, part=part),
        test=test,
        curve_values=curve_values,
        save=lambda path: save_detector(path, detector, metadata),
        format_results=_format,
        name_sample=lambda index: f"picture {train_set.annotations.image_ids[index]}",
        facts={"class_origins": task.class_origins()},
        compile_network=_compile,
        order=like_shapes_order(LikeShapes(sizes[:, 1] / sizes[:, 0], data.like_shapes), config.seed)
        if data.like_shapes > 1
        else None,
    )


def _compile(detector: nn.Module) -> nn.Module:
    """Compiles the layers that all regions share: regions differ in number."""
    cast(FasterRCNN, detector).compile_layers()
    return detector


def detection_loss(model: nn.Module, samples: Sequence[Sample], part: Part = "all") -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of the losses (4.3, Faster R-CNN) over a micro-batch, and each of them: four, or two of a part."""
    losses = model(
        [sample.image for sample in samples],
        [sample.target for sample in samples],
        [sample.seed for sample in samples],
        [sample.proposals for sample in samples] if part == "regions" else None,
        part,
    )
    return torch.stack(list(losses.values())).sum(), losses


def score_on_test_set(
    task: DetectorTask, detector: FasterRCNN, proposals: StoredProposals | None = None
) -> dict[str, Any]:
    """All metrics on the test set; none where there is none.

    Args:
        proposals: of the test pictures, in the place of the detector's own.
    """
    if task.test_set is None:
        return {}
    config = task.config
    ensemble = Ensemble([Member(detector, config.data.shorter_side, config.data.longest_side)], config.inference)
    detections = detect_in_dataset(
        ensemble,
        task.test_set,
        world=task.world,
        precision=config.precision,
        workers=config.train.workers,
        proposals=proposals,
    )
    return evaluate_detections(task.test_set.annotations, detections, metrics_of(config.data.name))


def curve_values(results: dict[str, Any]) -> dict[str, float]:
    """The numbers among the results that are worth a curve."""
    values = {**results.get("coco", {}), **results.get("proposals", {})}
    values |= {f"{metric}_mAP": results[metric]["mAP"] for metric in ("voc07", "voc12", "det") if metric in results}
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def _format(results: dict[str, Any]) -> str:
    if "proposals" in results:
        numbers = {name: "-" if value is None else f"{value:.2f}" for name, value in results["proposals"].items()}
        return (
            f"recall of proposals in %: {numbers['recall50']} at an IoU of 0.5, {numbers['recall70']} at 0.7, "
            f"{numbers['average_recall']} on average from 0.5 to 0.95"
        )
    return format_results(results) if results else "no test set: nothing is tested"
