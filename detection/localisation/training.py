"""What training the per-class RPN and training the R-CNN step have in common."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from backbones.data.loader import training_batches
from backbones.data.sampler import SampleKey, StepSampler
from backbones.engine.acceleration import parameter_dtype
from backbones.engine.distributed import World
from backbones.engine.step import ComputeLoss
from backbones.models import StagedNetwork
from backbones.training import fit
from backbones.weights import WeightsMetadata, save_weights
from detection.data.annotations import DetectionDataset
from detection.data.readers import fingerprint
from detection.localisation.config import LocaliserConfig, default_scales
from detection.localisation.model import Localiser, describe_parameters
from detection.localisation.scoring import PICTURE_BOX, format_errors, score_localiser
from detection.localisation.testing import Protocol, Rescoring, Running, Showing

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
        return sorted(self.classifier[1].classes) == sorted(self.train_set.annotations.class_names)

    def running(self) -> Running:
        """How networks are tested."""
        return Running(self.world, self.config.precision, self.config.train.workers)

    def to_device(self, network: nn.Module) -> nn.Module:
        """Moves a network to where, and into the numbers in which, this run computes."""
        return network.to(self.world.device, parameter_dtype(self.config.precision))

    def batches(self, load: Callable[[SampleKey], Any], sampler: StepSampler) -> Iterable[Any]:
        """This process's micro-batches, lists of what `load` makes."""
        pin = self.world.device.type == "cuda"
        workers = self.config.train.workers
        return training_batches(lambda keys: list(map(load, keys)), sampler, workers=workers, pin_memory=pin)

    def score(
        self, localiser: Localiser, sizes: tuple[int, int], protocols: Sequence[Protocol], rescoring: Rescoring | None
    ) -> dict[str, Any]:
        """The results on the test set, the same in every process; none where there is none.

        Args:
            sizes: the side of the central crop, and the shorter side before it is cut.
        """
        if self.test_set is None:
            return {}
        scales = self.config.data.test_scales or default_scales(sizes[0])
        showings = [Showing(protocol, *sizes, scales) for protocol in dict.fromkeys(protocols)]
        classifier = None
        if self.predicts:
            network, metadata = self.classifier
            self.to_device(network)
            classifier = network, metadata
        return score_localiser(localiser, self.test_set, showings, self.running(), classifier, rescoring).results


def fit_network(
    task: LocalisationTask,
    network: nn.Module,
    backbone: StagedNetwork,
    metadata: WeightsMetadata,
    *,
    title: str,
    batches: Callable[[StepSampler], Iterable[Any]],
    compute_loss: ComputeLoss,
    score: Callable[[Sequence[Protocol]], dict[str, Any]],
    finish: Callable[[], None] = lambda: None,
) -> dict[str, Any] | None:
    """Trains `network` into the run folder `config.output`, and tests it.

    Args:
        backbone: the part of it that comes from the classifier.
        title: what this is, to print.
        score: the results of the network as it is, the same in every process.
        finish: called when the last step is done.

    Returns:
        The results, in the main process.
    """
    config, train_set = task.config, task.train_set
    return fit(
        config,
        task.world,
        network,
        description=f"{_describe(task, title)}\n{describe_parameters(network, backbone)}",
        samples=len(train_set),
        fingerprint=fingerprint(train_set),
        batches=batches,
        compute_loss=compute_loss,
        test=lambda: score(["center", *config.protocol]),
        monitor=lambda: score(["center"]),
        curve_values=curve_values,
        save=lambda path: save_weights(path, network.state_dict(), metadata),
        format_results=lambda results: format_errors(results) if results else "no test set: nothing is tested",
        name_sample=lambda index: f"picture {train_set.annotations.image_ids[index]}",
        finish=finish,
    )


def sum_of(losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss to minimise and its parts, as `ComputeLoss` has them."""
    return torch.stack(list(losses.values())).sum(), losses


def curve_values(results: dict[str, Any]) -> dict[str, float]:
    """The numbers of the results that training changes, by way of testing and error: center_own_class_error."""
    return {
        f"{way}_{name}": value
        for way, errors in results.items()
        for name, value in errors.items()
        if value is not None and way != PICTURE_BOX and name not in ("top1_error", "top5_error")
    }


def _describe(task: LocalisationTask, title: str) -> str:
    config, (_, metadata), train_set = task.config, task.classifier, task.train_set
    test = f"{len(task.test_set):,} test" if task.test_set else "no test"
    lines = [
        f"{title} on {metadata.architecture} ({config.backbone.weights}, batch norm {config.backbone.norm}); "
        f"{len(train_set):,} training and {test} pictures of {len(train_set.annotations.class_names)} classes"
    ]
    if task.test_set and not task.predicts:
        lines.append("the classifier has other classes: tested with each picture's own class alone")
    if train_set.without_boxes:
        lines.append(f"{train_set.without_boxes:,} training pictures have no boxes and are left out")
    if train_set.repaired or train_set.dropped:
        lines.append(f"bad boxes: {train_set.repaired} clipped, {train_set.dropped} dropped")
    return "\n".join(lines)
