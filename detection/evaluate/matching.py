"""What the rules of COCO, VOC and TIDE have in common: overlaps, the choice of objects, precision at recalls.

A choice depends on those before it only within a group (one class of one picture). So all groups advance together, a
detection of each at a time: some dozens of steps on arrays in the place of millions in Python.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection.evaluate.arrays import (
    Floats,
    Indices,
    box_areas,
    intersections,
    pair_up,
    position_in_run,
    run_starts,
)

# What becomes of a detection.
MISSED, IGNORED, FOUND = 0, 1, 2
_CHUNK = 2**16  # detections at a time, so that pairs of boxes that have nothing in common take no lasting memory


@dataclass
class Pairs:
    """P detections and objects that overlap. `overlapping_pairs` has both ascend, objects among those of a detection.

    Args:
        detections, objects: (P,) which they are.
        iou: (P,).
    """

    detections: Indices
    objects: Indices
    iou: Floats

    def where(self, chosen: NDArray[np.bool_] | Indices) -> "Pairs":
        """The pairs that a mask (P,) or indices choose, in that order."""
        return Pairs(self.detections[chosen], self.objects[chosen], self.iou[chosen])


def overlapping_pairs(
    groups: Indices,
    boxes: Floats,
    object_groups: Indices,
    object_boxes: Floats,
    crowd: NDArray[np.bool_],
    least: float = 0.0,
) -> Pairs:
    """The pairs of one group that have something in common and an IoU of at least `least`.

    A crowd has no outline worth the name: its "IoU" is the share of the detection that lies in it.

    Args:
        groups, boxes: (D,) and (D, 4) of detections, in any order.
        object_groups, object_boxes, crowd: (M,), (M, 4) and (M,) of objects, groups ascending.
    """
    areas, object_areas = box_areas(boxes), box_areas(object_boxes)
    parts = [(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))]
    for start in range(0, len(groups), _CHUNK):
        detection, item = pair_up(groups[start : start + _CHUNK], object_groups)
        detection += start
        common = intersections(boxes[detection], object_boxes[item])
        union = np.where(crowd[item], areas[detection], areas[detection] + object_areas[item] - common)
        iou = np.divide(common, union, out=np.zeros_like(common), where=common > 0)
        near = (common > 0) & (iou >= least)
        parts.append((detection[near], item[near], iou[near]))
    return Pairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def best_overlaps(pairs: Pairs, count: int) -> tuple[Indices, Floats]:
    """The object (-1: none) that each of `count` detections overlaps most, the first among equals, and the IoU."""
    best, best_iou = np.full(count, -1), np.zeros(count)
    if len(pairs.iou):
        starts = run_starts(pairs.detections)
        best_iou[pairs.detections[starts]] = np.maximum.reduceat(pairs.iou, starts)
        top = pairs.where(pairs.iou == best_iou[pairs.detections])
        first = run_starts(top.detections)
        best[top.detections[first]] = top.objects[first]
    return best, best_iou


def rounds_of(pairs: Pairs, groups: Indices) -> Indices:
    """(P,) how many detections of its group that are in `pairs` come before that of each pair.

    Args:
        groups: (D,) of all detections.
    """
    candidates = pairs.detections[run_starts(pairs.detections)]
    by_group = candidates[np.argsort(groups[candidates], kind="stable")]
    rounds = np.zeros(len(groups), dtype=np.int64)
    rounds[by_group] = position_in_run(groups[by_group])
    return rounds[pairs.detections]


def choose_objects(
    pairs: Pairs, rounds: Indices, near: NDArray[np.bool_], crowd: NDArray[np.bool_]
) -> Iterator[tuple[Indices, Indices, Indices]]:
    """Lets the best detection of each group choose first among the objects that are still free, as a crowd always is.

    Args:
        pairs: of one round after the other, in a round of one detection after the other, and of a detection such that
            it chooses the last object that it can have.
        rounds: (P,) of `pairs`.
        near: (T, P) whether it can have the object, by each of T rules; a rule knows nothing of the others.
        crowd: (M,) of all objects.

    Yields:
        Of each round the rule, detection and object of all choices.
    """
    taken = np.zeros((len(near), len(crowd)), dtype=bool)
    bounds = [*run_starts(rounds).tolist(), len(rounds)]
    for start, end in itertools.pairwise(bounds):
        detections, objects = pairs.detections[start:end], pairs.objects[start:end]
        free = near[:, start:end] & (crowd[objects] | ~taken[:, objects])
        runs = run_starts(detections)
        choice = np.maximum.reduceat(np.where(free, np.arange(end - start), -1), runs, axis=1)
        rule, chooser = np.nonzero(choice >= 0)
        chosen = objects[choice[rule, chooser]]
        taken[rule, chosen] = True
        yield rule, detections[runs][chooser], chosen


def precision_at(recalls: Floats, places: Indices, count: int) -> Floats:
    """The best precision at each recall or a higher one; 0 at a recall that is not reached.

    Args:
        places: of the right detections among all that count, best score first, from 0. Precision has its peaks there.
        count: how many objects there are.
    """
    right = np.arange(1, len(places) + 1)
    best = np.maximum.accumulate((right / (places + 1))[::-1])[::-1]
    return np.append(best, 0)[np.searchsorted(right / count, recalls)]
