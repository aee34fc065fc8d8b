"""COCO's twelve numbers (cocodataset.org/#detection-eval), as pycocotools gives them, for all pictures at once.

Matching is a chain of decisions only within one class of one picture. So all of these chains advance together, a
detection of each at a time, at all IoU thresholds: some dozens of steps on arrays in the place of millions in Python.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.data.annotations import Annotations
from detection.evaluate.arrays import (
    DetectionTable,
    Floats,
    Indices,
    box_areas,
    intersections,
    pair_up,
    position_in_run,
    run_starts,
)
from detection.structures import Detections

COCO_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
PER_CLASS_METRICS = COCO_METRICS[:6]

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREAS = {"": (0, 1e10), "s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e10)}  # both ends belong to it
MAX_DETECTIONS = 100  # of a class in a picture

# What becomes of a detection, at an IoU threshold and in a range of areas.
MISSED, IGNORED, FOUND = 0, 1, 2


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
    pairs = _overlapping_pairs(objects, found)
    precisions: dict[str, _ByClass] = {}
    recalls: dict[str, _ByClass] = {}
    for suffix, (low, high) in AREAS.items():
        ignored = objects.crowd | (objects.areas < low) | (objects.areas > high)
        outcome = _match(pairs, objects.crowd, ignored, len(found.labels))
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


@dataclass
class _Pairs:
    """Detections with objects that they might match. `rounds`: how many such detections of the group come before."""

    rounds: Indices
    detections: Indices
    objects: Indices
    iou: Floats


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


def _overlapping_pairs(objects: _Objects, found: _Found) -> _Pairs:
    """The pairs that reach the lowest threshold."""
    detection, item = pair_up(found.groups, objects.groups)
    common = intersections(found.boxes[detection], objects.boxes[item])
    areas = found.areas[detection]
    # A crowd has no outline worth the name: what counts is how much of the detection lies in it.
    union = np.where(objects.crowd[item], areas, areas + box_areas(objects.boxes)[item] - common)
    iou = np.divide(common, union, out=np.zeros_like(common), where=common > 0)
    near = iou >= IOU_THRESHOLDS[0]
    detection, item, iou = detection[near], item[near], iou[near]
    candidates = detection[run_starts(detection)]
    by_group = candidates[np.argsort(found.groups[candidates], kind="stable")]
    rounds = np.zeros(len(found.groups), dtype=np.int64)
    rounds[by_group] = position_in_run(found.groups[by_group])
    return _Pairs(rounds[detection], detection, item, iou)


def _match(pairs: _Pairs, crowd: NDArray[np.bool_], ignored: NDArray[np.bool_], count: int) -> NDArray[np.int8]:
    """(10, count) what becomes of each detection at each threshold: FOUND, IGNORED or MISSED.

    The best detection chooses first, among the objects that are still free (a crowd always is) and near enough:
    one that counts before one that is ignored, then that of the highest IoU, then the last one.
    """
    thresholds = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)[:, None]
    # In this order, the object to choose is the last of its detection's run that can be had.
    order = np.lexsort((pairs.objects, pairs.iou, ~ignored[pairs.objects], pairs.detections, pairs.rounds))
    rounds, detections, objects = pairs.rounds[order], pairs.detections[order], pairs.objects[order]
    near = pairs.iou[order] >= thresholds
    taken = np.zeros((len(thresholds), len(crowd)), dtype=bool)
    outcome = np.full((len(thresholds), count), MISSED, dtype=np.int8)
    bounds = [*run_starts(rounds).tolist(), len(rounds)]
    for start, end in itertools.pairwise(bounds):
        items = objects[start:end]
        free = near[:, start:end] & (crowd[items] | ~taken[:, items])
        runs = run_starts(detections[start:end])
        choice = np.maximum.reduceat(np.where(free, np.arange(end - start), -1), runs, axis=1)
        threshold, chooser = np.nonzero(choice >= 0)
        chosen = items[choice[threshold, chooser]]
        taken[threshold, chosen] = True
        outcome[threshold, detections[start:end][runs][chooser]] = np.where(ignored[chosen], IGNORED, FOUND)
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
            # Precision has its peaks where an object is found: only these matter.
            places = np.flatnonzero(row[row != IGNORED] == FOUND)
            right = np.arange(1, len(places) + 1)
            best = np.maximum.accumulate((right / (places + 1 + np.spacing(1)))[::-1])[::-1]
            reached = np.searchsorted(right / counts[k], RECALLS, side="left")
            precision[place, threshold] = np.append(best, 0)[reached]
    return precision
