"""Detections of a whole data set in flat arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from detection.structures import Detections

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass
class DetectionTable:
    """D detections of a whole data set in the order of a file, by which VOC and COCO rank equal scores.

    Args:
        images: (D,) the index of the picture of each.
        boxes: (D, 4) x1, y1, x2, y2.
        scores: (D,).
        labels: (D,) in 1..K.
    """

    images: Indices
    boxes: Floats
    scores: Floats
    labels: Indices

    def __len__(self) -> int:
        return len(self.scores)


def flatten(detections: Sequence[Detections] | DetectionTable, count: int) -> tuple[Indices, Floats, Floats, Indices]:
    """The detections of all pictures, in order.

    Args:
        detections: one item a picture, or a table.
        count: how many pictures there are.

    Returns:
        The index of the picture (D,), boxes (D, 4), scores (D,) and labels (D,) of each detection.

    Raises:
        ValueError: there are not `count` items.
    """
    if isinstance(detections, DetectionTable):
        return detections.images, detections.boxes, detections.scores, detections.labels
    if len(detections) != count:
        raise ValueError(f"detections of {len(detections)} pictures for annotations of {count}")
    if not count:
        return np.zeros(0, dtype=np.int64), np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=np.int64)
    images = np.repeat(np.arange(count), [len(d) for d in detections])
    boxes = torch.cat([d.boxes.reshape(-1, 4).double() for d in detections]).cpu().numpy()
    scores = torch.cat([d.scores.double() for d in detections]).cpu().numpy()
    labels = torch.cat([d.labels.long() for d in detections]).cpu().numpy()
    return images, boxes, scores, labels


def split(table: DetectionTable, count: int) -> list[Detections]:
    """The detections of each of `count` pictures, best score first, equal ones in the order of the table."""
    order = np.lexsort((-table.scores, table.images))
    ends = np.searchsorted(table.images[order], np.arange(1, count))
    columns = (np.split(values[order], ends) for values in (table.boxes, table.scores, table.labels))
    return [Detections(*(torch.from_numpy(v) for v in row)) for row in zip(*columns, strict=True)][:count]


def pair_up(detection_groups: Indices, object_groups: Indices) -> tuple[Indices, Indices]:
    """All pairs of a detection and an object of its group (its picture, or its picture and class).

    Args:
        detection_groups: (D,) in any order.
        object_groups: (M,) ascending.

    Returns:
        (P,) detections, ascending, and (P,) objects, ascending among those of one detection.
    """
    start = np.searchsorted(object_groups, detection_groups, side="left")
    count = np.searchsorted(object_groups, detection_groups, side="right") - start
    detection = np.repeat(np.arange(len(detection_groups)), count)
    return detection, np.arange(len(detection)) - np.repeat(np.cumsum(count) - count - start, count)


def intersections(a: Floats, b: Floats) -> Floats:
    """The area that the boxes in the same rows of (P, 4) and (P, 4) have in common."""
    sides = (np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])).clip(min=0)
    return sides[:, 0] * sides[:, 1]


def box_areas(boxes: Floats) -> Floats:
    """The areas of (N, 4) boxes."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def run_starts(values: Indices) -> Indices:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])[: len(values)])


def position_in_run(values: Indices) -> Indices:
    """How many of its equals stand right before each value: 0 where a run begins."""
    starts = run_starts(values)
    return np.arange(len(values)) - np.repeat(starts, np.diff(starts, append=len(values)))
