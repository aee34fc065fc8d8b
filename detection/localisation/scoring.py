"""Error rates of localisation: by the picture's own class, and by the classes that a classifier predicts."""

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
from detection.evaluate.localisation import localisation_errors, picture_labels
from detection.localisation.testing import Protocol, Running

TOP = 5
"""As many classes are predicted for a picture."""

CLASSIFIER_PROTOCOLS: dict[Protocol, ClassifierProtocol] = {"center": "center", "dense": "multiscale"}
"""How the classifier sees the pictures where the localiser sees them so."""


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


def whole_pictures(annotations: Annotations, classes: int) -> Tensor:
    """The boxes (N, P, 4) of whole pictures, for each of so many classes: what every localiser must beat."""
    height, width = torch.from_numpy(annotations.sizes).double().unbind(1)
    boxes = torch.stack([0 * width, 0 * height, width, height], dim=1)
    return boxes[:, None].repeat(1, classes, 1)


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
