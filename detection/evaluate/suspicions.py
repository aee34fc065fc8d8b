"""What looks odd about detections that can be scored all the same: mistakes that would only show as a low AP."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from backbones.text import printable
from detection.data.annotations import Annotations
from detection.evaluate.arrays import DetectionTable, Floats, Indices
from detection.evaluate.coco import MAX_DETECTIONS
from detection.evaluate.files import ONE_BASED

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
    sizes = annotations.sizes[images][:, ::-1]
    lines += _fractions(sizes, boxes, form) or _boxes_outside(sizes, boxes, form)
    if twice := _count_repeated(detections):
        lines.append(f"{twice:,} detections are there twice: the same picture, class, box and score")
    lines += _more_than_counted(annotations, images, labels)
    if scores.min() < 0 or scores.max() > 1:
        lines.append(f"scores go from {scores.min():g} to {scores.max():g}: only their order counts")
    return lines


def _classes_without_detections(annotations: Annotations, labels: Indices) -> list[str]:
    objects = np.unique(annotations.labels[~annotations.ignore])
    names = [annotations.class_names[label - 1] for label in np.setdiff1d(objects, labels)]
    if not names:
        return []
    return [
        f"{len(names):,} of {len(objects):,} classes with objects have no detection, so an AP of 0: {_named(names)}"
    ]


def _fractions(sizes: Indices, boxes: Floats, form: Literal["coco", "voc"]) -> list[str]:
    numbers = boxes + ONE_BASED if form == "voc" else boxes  # as a file of this form has the corners
    if sizes.min() > 2 and numbers.min() >= 0 and numbers.max() <= 1:
        return ["all boxes lie in 0..1: are they fractions of their pictures? Boxes have to be in pixels"]
    return []


def _count_repeated(detections: DetectionTable) -> int:
    """How many detections are the same as one before them."""
    by_score = np.argsort(detections.scores)
    same = np.diff(detections.scores[by_score]) == 0
    tied = detections.where(by_score[np.append(same, False) | np.insert(same, 0, False)])  # few: the rest is slow
    columns = (tied.images, tied.labels, tied.scores, *tied.boxes.T)
    order = np.lexsort(columns)
    return int(np.logical_and.reduce([np.diff(column[order]) == 0 for column in columns]).sum())


def _more_than_counted(annotations: Annotations, images: Indices, labels: Indices) -> list[str]:
    groups, counts = np.unique(images * (len(annotations.class_names) + 1) + labels, return_counts=True)
    owners, classes = np.divmod(groups[counts > MAX_DETECTIONS], len(annotations.class_names) + 1)
    if not len(owners):
        return []
    names = [annotations.class_names[label - 1] for label in np.unique(classes)]
    return [
        f"{len(np.unique(owners)):,} pictures have more than {MAX_DETECTIONS} detections of {_named(names)}; "
        f"COCO counts the best {MAX_DETECTIONS} of a class"
    ]


def _named(names: list[str]) -> str:
    return ", ".join(map(printable, names[:NAMED])) + (", ..." if len(names) > NAMED else "")


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
