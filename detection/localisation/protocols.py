"""Testing a localiser by all ways that are asked for: protocols, the picture's own class and predicted ones."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from backbones.models import StagedNetwork
from backbones.weights import WeightsMetadata
from detection.data.annotations import DetectionDataset
from detection.localisation.model import Localiser
from detection.localisation.scoring import localisation_results, own_class, predict_classes, whole_pictures
from detection.localisation.testing import Located, Protocol, Rescoring, Running, Showing, localise

PICTURE_BOX = "picture_box"
"""The name of what every localiser must beat: the box of the whole picture."""


@dataclass
class Tested:
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
) -> Tested:
    """Tests a localiser; the same in every process.

    Args:
        localiser: in eval mode.
        showings: how pictures are shown, one after the other.
        classifier: in eval mode, on the same device; None where only the picture's own class is asked for.
        rescoring: see `localise`.
    """
    tested, annotations = Tested(), dataset.annotations
    own = own_class(annotations)
    for showing in showings:
        name = showing.protocol
        predicted = None if classifier is None else predict_classes(*classifier, dataset, name, running)
        labels = own if predicted is None else torch.cat([own, predicted], dim=1)
        for way, found in localise(localiser, dataset, labels, showing, running, rescoring).items():
            tested.labels[way], tested.found[way] = labels, found
            tested.results[way] = _results(dataset, labels, found.boxes)
    labels = tested.labels[showings[0].protocol]
    tested.results[PICTURE_BOX] = _results(dataset, labels, whole_pictures(annotations, labels.shape[1]))
    return tested


def _results(dataset: DetectionDataset, labels: Tensor, boxes: Tensor) -> dict[str, float | None]:
    predicted = (labels[:, 1:], boxes[:, 1:]) if labels.shape[1] > 1 else None
    return localisation_results(dataset.annotations, boxes[:, :1], predicted)


def showings_of(protocols: Sequence[Protocol], metadata: WeightsMetadata, scales: Sequence[int]) -> list[Showing]:
    """How the pictures are shown, at the sizes that a localiser's weights file says.

    Args:
        scales: of the dense test.
    """
    shorter = metadata.test_resize or metadata.input_size
    return [Showing(protocol, metadata.input_size, shorter, scales) for protocol in dict.fromkeys(protocols)]
