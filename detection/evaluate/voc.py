"""Average precision by the rules of the PASCAL VOC devkit (VOCevaldet.m).

In two corners the devkit's arithmetic is not its rule, and the rule is followed here: MATLAB's 0:0.1:1 has a value a
bit above 0.3, so that a recall of exactly 3/10 does not reach it; and where all detections are of difficult objects,
the precision is 0/0, and the 11-point AP no number (here 0).
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from detection.data.annotations import Annotations
from detection.evaluate.arrays import DetectionTable, Floats, Indices
from detection.evaluate.matching import FOUND, IGNORED, MISSED, best_overlaps, overlapping_pairs
from detection.structures import Detections


def voc_metrics(
    annotations: Annotations,
    detections: Sequence[Detections] | DetectionTable,
    metric: Literal["voc07", "voc12"],
    iou_threshold: float = 0.5,
) -> dict[str, Any]:
    """VOC's AP of each class and their mean, in percent.

    Args:
        annotations: the objects of N pictures; those to ignore (difficult) neither count nor make a detection wrong.
        detections: N, in the order of `annotations`, or a table. Equal scores are taken in the order of detections (of
            a results file: of its lines).
        metric: "voc07": mean precision at 11 recalls (VOC 2007); "voc12": area under the curve (VOC 2010 to 2012).
        iou_threshold: the overlap from which on a detection is right.

    Returns:
        {"mAP", "per_class": {name: AP}}. 0 for a class of which nothing is detected; None for one without objects that
        count, which the mean leaves out.
    """
    table = DetectionTable.of(detections, len(annotations))
    average = eleven_point_ap if metric == "voc07" else area_ap
    per_class: dict[str, float | None] = {}
    for label, name in enumerate(annotations.class_names, 1):
        count = int((~annotations.ignore[annotations.labels == label]).sum())
        rows = np.flatnonzero(table.labels == label)
        rows = rows[np.argsort(-table.scores[rows], kind="stable")]
        outcome = _match(annotations, label, table.where(rows), iou_threshold)
        per_class[name] = 100 * average(*precision_recall(outcome, count)) if count else None
    known = [ap for ap in per_class.values() if ap is not None]
    return {"mAP": float(np.mean(known)) if known else None, "per_class": per_class}


def _match(annotations: Annotations, label: int, found: DetectionTable, iou_threshold: float) -> Indices:
    """What becomes of each detection of one class, best score first: FOUND, MISSED or IGNORED."""
    objects = np.flatnonzero(annotations.labels == label)
    groups, boxes = annotations.images[objects], annotations.boxes[objects]
    # The devkit's +1 a side is in x2 and y2 already.
    pairs = overlapping_pairs(found.images, found.boxes, groups, boxes, crowd=np.zeros(len(objects), dtype=bool))
    best, best_iou = best_overlaps(pairs, len(found))
    outcome = np.full(len(found), MISSED)
    hits = np.flatnonzero((best >= 0) & (best_iou >= iou_threshold))
    ignored = annotations.ignore[objects[best[hits]]]
    outcome[hits[ignored]] = IGNORED
    hits = hits[~ignored]
    # The first detection of an object takes it; those after it are duplicates, hence wrong.
    _, first = np.unique(best[hits], return_index=True)
    outcome[hits[first]] = FOUND
    return outcome


def precision_recall(outcome: Indices, count: int) -> tuple[Floats, Floats]:
    """Precision and recall after each detection, for a class of `count` objects."""
    right, wrong = np.cumsum(outcome == FOUND), np.cumsum(outcome == MISSED)
    return right / np.maximum(right + wrong, 1), right / count


def eleven_point_ap(precision: Floats, recall: Floats) -> float:
    """The mean, over recalls 0, 0.1 ... 1, of the best precision at that recall or a higher one (VOC 2007)."""
    return float(np.mean([precision[recall >= r].max(initial=0) for r in np.arange(11) / 10]))


def area_ap(precision: Floats, recall: Floats) -> float:
    """The area under the curve whose precision is the best at that recall or a higher one (VOC 2010)."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0) * envelope))
