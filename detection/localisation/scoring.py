"""Testing a localiser by all ways that are asked for, with each picture's own class and with predicted ones."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from backbones.config import Protocol as ClassifierProtocol
from backbones.data.datasets import ClassificationDataset
from backbones.engine.distributed import gather_objects
from backbones.models import StagedNetwork
from backbones.scores import class_scores
from backbones.weights import WeightsMetadata
from detection.data.annotations import Annotations, DetectionDataset
from detection.evaluate.localisation import localisation_errors, picture_labels, picture_sized
from detection.localisation.model import Localiser
from detection.localisation.testing import Located, Protocol, Rescoring, Running, Showing, localise

TOP = 5
"""As many classes are predicted for a picture."""

CLASSIFIER_PROTOCOLS: dict[Protocol, ClassifierProtocol] = {"center": "center", "dense": "multiscale"}
"""How the classifier sees the pictures where the localiser sees them so."""

PICTURE_BOX = "picture_box"
"""The name of what every localiser must beat: the box of the whole picture."""


@dataclass
class Outcome:
    """What came out.

    Args:
        results: error rates in percent by way of testing.
        labels: (N, 1 + k) by way of testing: each picture's own class, then the predicted ones, best first.
        found: what was found for these classes, by way of testing.
    """

    results: dict[str, dict[str, float | None]] = field(default_factory=dict)
    labels: dict[str, Tensor] = field(default_factory=dict)
    found: dict[str, Located] = field(default_factory=dict)


def score_localiser(
    localiser: Localiser,
    dataset: DetectionDataset,
    showings: Sequence[Showing],
    running: Running,
    classifier: tuple[StagedNetwork, WeightsMetadata] | None,
    rescoring: Rescoring | None = None,
) -> Outcome:
    """Tests a localiser; the same in every process.

    Args:
        localiser: in eval mode.
        showings: how pictures are shown, one after the other.
        classifier: in eval mode, on the same device; None where only the picture's own class is asked for.
        rescoring: see `localise`.
    """
    tested, annotations = Outcome(), dataset.annotations
    own = own_class(annotations)
    for showing in showings:
        name = showing.protocol
        predicted = None if classifier is None else predict_classes(*classifier, dataset, name, running)
        labels = own if predicted is None else torch.cat([own, predicted], dim=1)
        for way, found in localise(localiser, dataset, labels, showing, running, rescoring).items():
            tested.labels[way], tested.found[way] = labels, found
            tested.results[way] = _results(dataset, labels, found.boxes)
    labels = tested.labels[showings[0].protocol]
    _, whole = picture_sized(annotations)
    tested.results[PICTURE_BOX] = _results(dataset, labels, whole.repeat(1, labels.shape[1], 1))
    return tested


def _results(dataset: DetectionDataset, labels: Tensor, boxes: Tensor) -> dict[str, float | None]:
    predicted = (labels[:, 1:], boxes[:, 1:]) if labels.shape[1] > 1 else None
    return localisation_results(dataset.annotations, boxes[:, :1], predicted)


def predict_classes(
    classifier: StagedNetwork,
    metadata: WeightsMetadata,
    dataset: DetectionDataset,
    protocol: Protocol,
    running: Running,
) -> Tensor:
    """The best classes (N, 5) of each picture, best first, in 1..K (fewer where there are fewer classes).

    Args:
        classifier: of the data set's classes, in any order.
    """
    world = running.world
    indices = range(world.rank, len(dataset), world.size)
    scores = class_scores(
        classifier,
        metadata,
        as_classification(dataset),
        CLASSIFIER_PROTOCOLS[protocol],
        indices,
        device=world.device,
        batch_size=64,
        workers=running.workers,
        precision=running.precision,
    )
    place = {name: place for place, name in enumerate(dataset.annotations.class_names, 1)}
    labels = torch.tensor([place[name] for name in metadata.classes])
    best = labels[scores.topk(min(TOP, scores.shape[1]), dim=1).indices]
    rows = {i: row for part in gather_objects(list(zip(indices, best, strict=True))) for i, row in part}
    return torch.stack([rows[index] for index in range(len(dataset))])


def as_classification(dataset: DetectionDataset) -> ClassificationDataset:
    """The same pictures with their class, for a classifier."""
    annotations = dataset.annotations
    return ClassificationDataset(
        class_names=annotations.class_names,
        labels=picture_labels(annotations) - 1,
        picture=lambda index: Image.fromarray(dataset.load_image(index).permute(1, 2, 0).numpy()),
        name=lambda index: f"picture {annotations.image_ids[index]}",
        identity="localisation",
    )


def own_class(annotations: Annotations) -> Tensor:
    """The class (N, 1) of each picture, in 1..K: what an oracle says."""
    return torch.from_numpy(picture_labels(annotations))[:, None]


def localisation_results(
    annotations: Annotations, own: Tensor, predicted: tuple[Tensor, Tensor] | None
) -> dict[str, float | None]:
    """The error rates of one way of testing, in percent.

    Args:
        own: boxes (N, 1, 4) of each picture's own class, in its pixels.
        predicted: classes (N, k), best first, and their boxes (N, k, 4); None where no classifier predicts.

    Returns:
        "own_class_error", and with predicted classes what `localisation_errors` gives.
    """
    given = localisation_errors(annotations, own_class(annotations), own.double())
    results = {"own_class_error": given["top1_localisation_error"]}
    if predicted is not None:
        classes, boxes = predicted
        results |= localisation_errors(annotations, classes, boxes.double())
    return results


def format_errors(results: dict[str, dict[str, Any]]) -> str:
    """A table of localisation errors, a row for each way of testing."""
    columns = {
        "own class %": "own_class_error",
        "top-1 %": "top1_localisation_error",
        "top-5 %": "top5_localisation_error",
        "class top-1 %": "top1_error",
        "class top-5 %": "top5_error",
    }
    shown = {title: key for title, key in columns.items() if any(key in row for row in results.values())}
    width = max(map(len, results)) + 2
    lines = [f"{'boxes':<{width}}" + "".join(f"{title:>15}" for title in shown)]
    for name, row in results.items():
        values = (row.get(key) for key in shown.values())
        cells = (f"{'-':>15}" if value is None else f"{value:>15.2f}" for value in values)
        lines.append(f"{name:<{width}}{''.join(cells)}")
    return "\n".join(lines)
