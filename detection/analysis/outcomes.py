"""What becomes of each detection and each object by TIDE's definitions (Bolya et al., ECCV 2020, section 2.2).

Where the paper leaves something open (ties, ignored objects, which of two errors comes first) the rule is that of the
authors' package `tidecv` 1.0.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from detection.data.annotations import Annotations
from detection.evaluate.arrays import DetectionTable, Floats, Indices, position_in_run
from detection.evaluate.matching import Pairs, best_overlaps, choose_objects, overlapping_pairs, rounds_of
from detection.structures import Detections

FOREGROUND_IOU = 0.5  # t_f
BACKGROUND_IOU = 0.1  # t_b
MAX_DETECTIONS = 100  # of a picture, all classes together


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

    pairs = overlapping_pairs(images, table.boxes, annotations.images, annotations.boxes, crowd=annotations.ignore)
    same = labels[pairs.detections] == annotations.labels[pairs.objects]
    crowd = annotations.ignore[pairs.objects]
    groups = images * (len(annotations.class_names) + 1) + labels
    matched = _match(pairs.where(same & ~crowd & (pairs.iou >= FOREGROUND_IOU)), groups)
    ignored = np.zeros(len(images), dtype=bool)
    ignored[pairs.detections[same & crowd & (pairs.iou > FOREGROUND_IOU)]] = True

    own, own_iou = best_overlaps(pairs.where(same & ~crowd), len(images))
    other, other_iou = best_overlaps(pairs.where(~same & ~crowd), len(images))
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


def _match(pairs: Pairs, groups: Indices) -> Indices:
    """The object (-1: none) that each detection finds, out of pairs of one class that are near enough.

    A detection chooses the object of the highest IoU, the first among equals.
    """
    rounds = rounds_of(pairs, groups)
    order = np.lexsort((-pairs.objects, pairs.iou, pairs.detections, rounds))
    near = np.ones((1, len(order)), dtype=bool)
    no_crowd = np.zeros(pairs.objects.max(initial=-1) + 1, dtype=bool)
    matched = np.full(len(groups), -1)
    for _, detection, item in choose_objects(pairs.where(order), rounds[order], near, no_crowd):
        matched[detection] = item
    return matched
