"""ImageNet detection's mean average precision by the rules of ILSVRC's development kit (eval_detection.m)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.data.annotations import Annotations
from detection.evaluate.arrays import DetectionTable, Floats, Indices
from detection.evaluate.matching import FOUND, MISSED, Pairs, choose_objects, overlapping_pairs, rounds_of
from detection.evaluate.voc import area_ap, precision_recall
from detection.structures import Detections

IOU_THRESHOLD = 0.5
TOLERANCE = 10  # pixels: so much wider and higher than its object may a box be


def det_metrics(annotations: Annotations, detections: Sequence[Detections] | DetectionTable) -> dict[str, Any]:
    """DET's AP of each class and their mean, in percent.

    The best detection of a class in a picture chooses first: of the objects that are still free, and that it overlaps
    enough, the one that it overlaps most. Enough is an IoU of 0.5, or less for an object below about 25x25 pixels:
    w h / ((w + 10) (h + 10)). AP is the area under the curve, as VOC's of 2010.

    Args:
        annotations: the objects of N pictures. Where one of them is to be ignored, its class does not count in that
            picture, neither objects nor detections (the development kit's blacklist).
        detections: N, in the order of `annotations`, or a table. Equal scores are taken in the order of pictures, then
            of detections.

    Returns:
        {"mAP", "per_class": {name: AP}}. None for a class without objects that count, which the mean leaves out.
    """
    object_groups = _groups(annotations, annotations.images, annotations.labels)
    objects = np.argsort(object_groups, kind="stable")
    object_groups = object_groups[objects]
    left_out = object_groups[annotations.ignore[objects]]
    counts = ~np.isin(object_groups, left_out)
    objects, object_groups = objects[counts], object_groups[counts]

    table = DetectionTable.of(detections, len(annotations))
    table = table.where(np.lexsort((table.images, -table.scores)))
    groups = _groups(annotations, table.images, table.labels)
    counts = ~np.isin(groups, left_out)
    table, groups = table.where(counts), groups[counts]
    boxes = annotations.boxes[objects]
    crowd = np.zeros(len(objects), dtype=bool)
    outcome = _match(overlapping_pairs(groups, table.boxes, object_groups, boxes, crowd), groups, least_overlaps(boxes))

    per_class: dict[str, float | None] = {}
    for label, name in enumerate(annotations.class_names, 1):
        count = int((annotations.labels[objects] == label).sum())
        per_class[name] = 100 * area_ap(*precision_recall(outcome[table.labels == label], count)) if count else None
    known = [ap for ap in per_class.values() if ap is not None]
    return {"mAP": float(np.mean(known)) if known else None, "per_class": per_class}


def least_overlaps(boxes: Floats) -> Floats:
    """(M,) the IoU from which on a detection of each object (M, 4) is right."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return np.minimum(IOU_THRESHOLD, sides.prod(axis=1) / (sides + TOLERANCE).prod(axis=1))


def _groups(annotations: Annotations, images: Indices, labels: Indices) -> Indices:
    """Numbers of picture and class together."""
    return images * (len(annotations.class_names) + 1) + labels


def _match(pairs: Pairs, groups: Indices, least: Floats) -> Indices:
    """(D,) what becomes of each detection, FOUND or MISSED; the pairs' detections ascend, best score first."""
    rounds = rounds_of(pairs, groups)
    # A detection takes the last object that it can have: the one that it overlaps most, the first among equals.
    order = np.lexsort((-pairs.objects, pairs.iou, pairs.detections, rounds))
    pairs = pairs.where(order)
    near: NDArray[np.bool_] = (pairs.iou >= least[pairs.objects])[None]
    outcome = np.full(len(groups), MISSED)
    for _, detection, _ in choose_objects(pairs, rounds[order], near, np.zeros(len(least), dtype=bool)):
        outcome[detection] = FOUND
    return outcome
