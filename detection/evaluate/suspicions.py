"""What looks odd about detections that can be scored all the same: mistakes that would only show as a low AP."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from backbones.data.findings import printable
from detection.data.annotations import Annotations
from detection.evaluate.arrays import DetectionTable, Floats, Indices

NAMED = 5  # classes
MOST = 0.9  # of all boxes


def suspicions(annotations: Annotations, detections: DetectionTable, form: Literal["coco", "voc"]) -> list[str]:
    """A line for each thing that looks odd.

    Args:
        annotations: the objects of N pictures.
        detections: in any order.
        form: of the files that the detections come from.
    """
    images, boxes, scores, labels = detections.images, detections.boxes, detections.scores, detections.labels
    if not len(detections):
        return ["there are no detections at all"]
    lines = []
    empty = len(annotations) - len(np.unique(images))
    if empty:
        lines.append(f"{empty:,} of {len(annotations):,} pictures have no detection")
    lines += _classes_without_detections(annotations, labels)
    lines += _boxes_outside(annotations.sizes[images][:, ::-1], boxes, form)
    if scores.min() < 0 or scores.max() > 1:
        lines.append(f"scores go from {scores.min():g} to {scores.max():g}: only their order counts")
    return lines


def _classes_without_detections(annotations: Annotations, labels: Indices) -> list[str]:
    objects = np.unique(annotations.labels[~annotations.ignore])
    names = [annotations.class_names[label - 1] for label in np.setdiff1d(objects, labels)]
    if not names:
        return []
    named = ", ".join(map(printable, names[:NAMED])) + (", ..." if len(names) > NAMED else "")
    return [f"{len(names):,} of {len(objects):,} classes with objects have no detection, so an AP of 0: {named}"]


def _boxes_outside(sizes: Indices, boxes: Floats, form: Literal["coco", "voc"]) -> list[str]:
    """Of (D, 2) width and height of each detection's picture, and (D, 4) boxes."""
    outside = ~_inside(boxes, sizes)
    lines = []
    if outside.any():
        line = f"{outside.sum():,} of {len(boxes):,} boxes reach more than a pixel outside of their picture"
        as_corners = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        fit = _inside(as_corners, sizes) & (as_corners[:, 2:] >= as_corners[:, :2]).all(axis=1)
        if form == "coco" and fit.mean() >= MOST and outside.mean() > 1 - MOST:
            line += "; as x1, y1, x2, y2 nearly all would lie inside: COCO's boxes are x, y, width, height"
        lines.append(line)
    at_zero = (boxes[:, :2] == -1).any(axis=1)  # in a file of VOC's form: a corner of 0
    if form == "voc" and at_zero.any():
        lines.append(f"{at_zero.sum():,} of {len(boxes):,} boxes begin at pixel 0, but VOC's pixels count from 1")
    return lines


def _inside(boxes: Floats, sizes: Indices) -> NDArray[np.bool_]:
    return np.all((boxes[:, :2] >= -1) & (boxes[:, 2:] <= sizes + 1), axis=1)
