"""What becomes of each detection and each object by TIDE's definitions (Bolya et al., ECCV 2020, section 2.2).

Where the paper leaves something open (ties, ignored objects, which of two errors comes first) the rule is that of the
authors' package `tidecv` 1.0.1.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

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

FOREGROUND_IOU = 0.5  # t_f
BACKGROUND_IOU = 0.1  # t_b
MAX_DETECTIONS = 100  # of a picture, all classes together
_CHUNK = 2**16  # detections at a time, so that pairs of boxes that have nothing in common take no lasting memory


class Kind(IntEnum):
    """What a detection is: right, or one of five errors (the sixth, a miss, is of objects)."""

    FOUND = 0
    CLASSIFICATION = 1  # IoU of t_f or more with an object of another class
    LOCALISATION = 2  # IoU from t_b to t_f with an object of its class
    BOTH = 3  # IoU from t_b to t_f with an object of another class
    DUPLICATE = 4  # would be right, had a better detection not found the object
    BACKGROUND = 5  # IoU of t_b or less with every object


@dataclass
class Outcomes:
    """Detections, picture by picture and best score first, at most 100 a picture; and the objects of `Annotations`.

    Args:
        images: (D,) index of the picture.
        boxes, scores, labels: (D, 4), (D,), (D,).
        kinds: (D,) of `Kind`.
        ignored: (D,) bool: not found, but in an ignored object of its class: neither right nor wrong.
        objects: (D,) the object that it found, or that it would have found with the right class or place; else -1.
        mends: (D,) bool: a classification or localisation error that is the best claim to an object nobody found.
        found: (M,) bool.
        missed: (M,) bool: neither ignored nor found nor claimed by an error that `mends`.
    """

    images: Indices
    boxes: Floats
    scores: Floats
    labels: Indices
    kinds: Indices
    ignored: NDArray[np.bool_]
    objects: Indices
    mends: NDArray[np.bool_]
    found: NDArray[np.bool_]
    missed: NDArray[np.bool_]


def find_outcomes(annotations: Annotations, detections: Sequence[Detections] | DetectionTable) -> Outcomes:
    """Says of every detection whether it is right, and what is wrong if not.

    Args:
        annotations: the objects of N pictures; ignored ones (crowd, difficult) can't be found, and a detection of
            which more than half lies in one of its class is ignored unless it found something.
        detections: N, in the order of `annotations`, or a table.
    """
    table = DetectionTable.of(detections, len(annotations))
    table = table.where(np.lexsort((-table.scores, table.images)))
    table = table.where(position_in_run(table.images) < MAX_DETECTIONS)
    images, labels = table.images, table.labels

    pairs = _overlapping_pairs(images, table.boxes, annotations)
    same = labels[pairs.detections] == annotations.labels[pairs.objects]
    crowd = annotations.ignore[pairs.objects]
    matched = _match(pairs.where(same & ~crowd & (pairs.iou >= FOREGROUND_IOU)), images, labels)
    ignored = np.zeros(len(images), dtype=bool)
    ignored[pairs.detections[same & crowd & (pairs.iou > FOREGROUND_IOU)]] = True

    own, own_iou = _best(pairs.where(same & ~crowd), len(images))
    other, other_iou = _best(pairs.where(~same & ~crowd), len(images))
    cases = {
        Kind.FOUND: matched >= 0,
        Kind.LOCALISATION: (own_iou >= BACKGROUND_IOU) & (own_iou <= FOREGROUND_IOU),
        Kind.CLASSIFICATION: other_iou >= FOREGROUND_IOU,
        Kind.DUPLICATE: own_iou > FOREGROUND_IOU,
        Kind.BACKGROUND: np.maximum(own_iou, other_iou) <= BACKGROUND_IOU,
    }
    kinds = np.select(list(cases.values()), list(cases), default=Kind.BOTH)  # the first that holds
    objects = np.select(
        [kinds == Kind.FOUND, kinds == Kind.LOCALISATION, kinds == Kind.CLASSIFICATION], [matched, own, other], -1
    )
    found = np.zeros(len(annotations.labels), dtype=bool)
    found[matched[matched >= 0]] = True
    claims = np.flatnonzero((kinds != Kind.FOUND) & (objects >= 0))
    claims = claims[~found[objects[claims]]]
    claimed, first = np.unique(objects[claims], return_index=True)
    mends = np.zeros(len(images), dtype=bool)
    mends[claims[first]] = True
    missed = ~found & ~annotations.ignore
    missed[claimed] = False
    ignored &= kinds != Kind.FOUND
    return Outcomes(images, table.boxes, table.scores, labels, kinds, ignored, objects, mends, found, missed)


@dataclass
class _Pairs:
    """Detections and objects that overlap; detections ascend, and so do the objects of each."""

    detections: Indices
    objects: Indices
    iou: Floats

    def where(self, chosen: NDArray[np.bool_]) -> "_Pairs":
        return _Pairs(self.detections[chosen], self.objects[chosen], self.iou[chosen])


def _overlapping_pairs(images: Indices, boxes: Floats, annotations: Annotations) -> _Pairs:
    """All pairs in a picture; the "IoU" with an ignored object is the share of the detection that lies in it."""
    owners, object_areas, areas = annotations.images, box_areas(annotations.boxes), box_areas(boxes)
    parts = []
    for start in range(0, len(images), _CHUNK):
        detection, item = pair_up(images[start : start + _CHUNK], owners)
        detection += start
        common = intersections(boxes[detection], annotations.boxes[item])
        near = common > 0
        detection, item, common = detection[near], item[near], common[near]
        union = areas[detection] + np.where(annotations.ignore[item], 0, object_areas[item] - common)
        parts.append((detection, item, common / union))
    if not parts:
        return _Pairs(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))
    return _Pairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _best(pairs: _Pairs, count: int) -> tuple[Indices, Floats]:
    """The object (-1: none) that each of `count` detections overlaps most, the first among equals, and the IoU."""
    best, best_iou = np.full(count, -1), np.zeros(count)
    if len(pairs.iou):
        starts = run_starts(pairs.detections)
        best_iou[pairs.detections[starts]] = np.maximum.reduceat(pairs.iou, starts)
        top = pairs.where(pairs.iou == best_iou[pairs.detections])
        first = run_starts(top.detections)
        best[top.detections[first]] = top.objects[first]
    return best, best_iou


def _match(pairs: _Pairs, images: Indices, labels: Indices) -> Indices:
    """The object (-1: none) that each detection finds, out of pairs of one class that are near enough.

    The best detection chooses first, among the objects still free: that of the highest IoU, the first among equals.
    All pictures and classes advance together, a detection of each at a time, as in COCO's evaluation.
    """
    candidates = pairs.detections[run_starts(pairs.detections)]
    by_group = candidates[np.lexsort((candidates, labels[candidates], images[candidates]))]
    rounds = np.zeros(len(images), dtype=np.int64)
    rounds[by_group] = position_in_run(images[by_group] * (labels.max(initial=0) + 1) + labels[by_group])
    order = np.lexsort((-pairs.objects, pairs.iou, pairs.detections, rounds[pairs.detections]))
    detections, objects = pairs.detections[order], pairs.objects[order]
    matched = np.full(len(images), -1)
    free = np.ones(pairs.objects.max(initial=-1) + 1, dtype=bool)
    bounds = [*run_starts(rounds[detections]).tolist(), len(detections)]
    for start, end in itertools.pairwise(bounds):
        places = np.where(free[objects[start:end]], np.arange(start, end), -1)
        choice = np.maximum.reduceat(places, run_starts(detections[start:end]))
        choice = choice[choice >= 0]
        free[objects[choice]] = False
        matched[detections[choice]] = objects[choice]
    return matched
