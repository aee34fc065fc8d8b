"""Detections of a whole data set in flat arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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

    @classmethod
    def of(cls, detections: "Sequence[Detections] | DetectionTable", count: int) -> "DetectionTable":
        """The detections of `count` pictures, one item a picture, as a table; a table as it is.

        Raises:
            ValueError: there are not `count` items.
        """
        if isinstance(detections, DetectionTable):
            return detections
        if len(detections) != count:
            raise ValueError(f"detections of {len(detections)} pictures for annotations of {count}")
        return cls(
            images=np.repeat(np.arange(count), [len(d) for d in detections]),
            boxes=_joined([d.boxes.reshape(-1, 4).double() for d in detections], np.zeros((0, 4))),
            scores=_joined([d.scores.double() for d in detections], np.zeros(0)),
            labels=_joined([d.labels.long() for d in detections], np.zeros(0, dtype=np.int64)),
        )

    def where(self, chosen: NDArray[np.bool_] | Indices) -> "DetectionTable":
        """The detections that a mask (D,) or indices choose, in that order."""
        return DetectionTable(self.images[chosen], self.boxes[chosen], self.scores[chosen], self.labels[chosen])


def _joined(parts: list[Tensor], nothing: NDArray) -> NDArray:
    return torch.cat(parts).cpu().numpy() if parts else nothing


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
