"""COCO's twelve numbers (cocodataset.org/#detection-eval), as pycocotools gives them, for all pictures at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.data.annotations import MEDIUM, SMALL, Annotations
from detection.evaluate.arrays import DetectionTable, Floats, Indices, box_areas, position_in_run
from detection.evaluate.matching import (
    FOUND,
    IGNORED,
    MISSED,
    Pairs,
    choose_objects,
    overlapping_pairs,
    precision_at,
    rounds_of,
)
from detection.structures import Detections

COCO_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
PER_CLASS_METRICS = COCO_METRICS[:6]

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREAS = {"": (0, 1e10), "s": (0, SMALL), "m": (SMALL, MEDIUM), "l": (MEDIUM, 1e10)}  # both ends belong to it
MAX_DETECTIONS = 100  # of a class in a picture


def coco_metrics(annotations: Annotations, detections: Sequence[Detections] | DetectionTable) -> dict[str, Any]:
    """COCO's average precision and recall, in percent; ignored objects count as crowds.

    Args:
        annotations: the objects of N pictures.
        detections: N, in the order of `annotations`, or a table. Equal scores are taken in the order of picture ids.

    Returns:
        AP, AP50, AP75, AP of small, medium and large objects, AR with 1, 10 and 100 detections a picture, AR of small,
        medium and large objects; and "per_class": {name: the six APs}. None where there is no such object.
    """
    objects, found = _objects(annotations), _found(annotations, detections)
    pairs = overlapping_pairs(
        found.groups, found.boxes, objects.groups, objects.boxes, objects.crowd, least=IOU_THRESHOLDS[0]
    )
    rounds = rounds_of(pairs, found.groups)
    precisions: dict[str, _ByClass] = {}
    recalls: dict[str, _ByClass] = {}
    for suffix, (low, high) in AREAS.items():
        ignored = objects.crowd | (objects.areas < low) | (objects.areas > high)
        outcome = _match(pairs, rounds, objects.crowd, ignored, len(found.labels))
        outcome[(outcome == MISSED) & ((found.areas < low) | (found.areas > high))] = IGNORED
        counts = np.bincount(objects.labels[~ignored], minlength=len(annotations.class_names) + 1)[1:]
        classes = np.flatnonzero(counts)
        precision = _precision(outcome, found.labels, counts)
        precisions[f"AP{suffix}"] = _ByClass(classes, precision)
        if suffix:
            recalls[f"AR{suffix}"] = _ByClass(classes, _recall(outcome, found.labels, counts))
            continue
        precisions["AP50"] = _ByClass(classes, precision[:, :1])
        precisions["AP75"] = _ByClass(classes, precision[:, 5:6])
        for most in (1, 10, MAX_DETECTIONS):
            few = found.ranks < most
            recalls[f"AR{most}"] = _ByClass(classes, _recall(outcome[:, few], found.labels[few], counts))
    numbers = precisions | recalls
    per_class = {
        name: {metric: precisions[metric].of_class(k) for metric in PER_CLASS_METRICS}
        for k, name in enumerate(annotations.class_names)
    }
    return {metric: numbers[metric].mean() for metric in COCO_METRICS} | {"per_class": per_class}


@dataclass
class _ByClass:
    """Precisions or recalls of the C classes that have objects.

    Args:
        classes: (C,) which these are, from 0.
        values: (C, thresholds, ...) in 0..1.
    """

    classes: Indices
    values: Floats

    def mean(self) -> float | None:
        """In percent, of all classes alike."""
        return 100 * float(self.values.mean()) if self.values.size else None

    def of_class(self, label: int) -> float | None:
        """In percent."""
        place = int(np.searchsorted(self.classes, label))
        if place == len(self.classes) or self.classes[place] != label:
            return None
        return 100 * float(self.values[place].mean())


@dataclass
class _Objects:
    """Objects by class and picture. `groups` numbers these."""

    groups: Indices
    labels: Indices
    boxes: Floats
    areas: Floats
    crowd: NDArray[np.bool_]


@dataclass
class _Found:
    """Detections by class and score, best first. `ranks`: the place of each in its group, from 0."""

    groups: Indices
    labels: Indices
    boxes: Floats
    areas: Floats
    ranks: Indices


def _objects(annotations: Annotations) -> _Objects:
    groups = annotations.labels * len(annotations) + annotations.images
    order = np.argsort(groups, kind="stable")
    return _Objects(
        groups=groups[order],
        labels=annotations.labels[order],
        boxes=annotations.boxes[order],
        areas=annotations.areas[order],
        crowd=annotations.ignore[order],
    )


def _found(annotations: Annotations, detections: Sequence[Detections] | DetectionTable) -> _Found:
    table = DetectionTable.of(detections, len(annotations))
    places = np.empty(len(annotations), dtype=np.int64)
    places[sorted(range(len(annotations)), key=annotations.image_ids.__getitem__)] = np.arange(len(annotations))
    table = table.where(np.lexsort((places[table.images], -table.scores, table.labels)))
    groups = table.labels * len(annotations) + table.images
    by_group = np.argsort(groups, kind="stable")
    ranks = np.empty_like(by_group)
    ranks[by_group] = position_in_run(groups[by_group])
    kept = ranks < MAX_DETECTIONS
    table = table.where(kept)
    return _Found(groups[kept], table.labels, table.boxes, box_areas(table.boxes), ranks[kept])


def _match(
    pairs: Pairs, rounds: Indices, crowd: NDArray[np.bool_], ignored: NDArray[np.bool_], count: int
) -> NDArray[np.int8]:
    """(10, count) what becomes of each detection at each threshold: FOUND, IGNORED or MISSED.

    A detection chooses an object that counts before one that is ignored, then that of the highest IoU, then the last.
    """
    thresholds = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)[:, None]
    order = np.lexsort((pairs.objects, pairs.iou, ~ignored[pairs.objects], pairs.detections, rounds))
    pairs = pairs.where(order)
    outcome = np.full((len(thresholds), count), MISSED, dtype=np.int8)
    for threshold, detection, item in choose_objects(pairs, rounds[order], pairs.iou >= thresholds, crowd):
        outcome[threshold, detection] = np.where(ignored[item], IGNORED, FOUND)
    return outcome


def _recall(outcome: NDArray[np.int8], labels: Indices, counts: Indices) -> Floats:
    """(classes with objects, 10) the share of the objects that are found."""
    found = np.stack([np.bincount(labels[row == FOUND], minlength=len(counts) + 1)[1:] for row in outcome])
    return (found[:, counts > 0] / counts[counts > 0]).T


def _precision(outcome: NDArray[np.int8], labels: Indices, counts: Indices) -> Floats:
    """(classes with objects, 10, 101) the best precision at each recall or a higher one; 0 at a recall not reached."""
    classes = np.flatnonzero(counts)
    precision = np.zeros((len(classes), len(outcome), len(RECALLS)))
    starts, ends = (np.searchsorted(labels, classes + 1, side=side) for side in ("left", "right"))
    for place, (k, start, end) in enumerate(zip(classes, starts, ends, strict=True)):
        for threshold, row in enumerate(outcome[:, start:end]):
            places = np.flatnonzero(row[row != IGNORED] == FOUND)
            precision[place, threshold] = precision_at(RECALLS, places, counts[k])
    return precision
