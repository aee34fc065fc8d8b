"""How much AP each type of error costs: TIDE (Bolya et al., ECCV 2020, sections 2.2 and 2.3).

An oracle mends all errors of one type, and no others; dAP is the AP that this gains. The numbers are those of the
authors' package `tidecv` 1.0.1. dAPs do not add up to what is missing from 100: mending two types together gains more
than mending each alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection.analysis.outcomes import Kind, Outcomes, find_outcomes
from detection.data.annotations import Annotations
from detection.evaluate.arrays import DetectionTable, Floats, Indices
from detection.evaluate.matching import precision_at
from detection.structures import Detections

ERROR_TYPES = ("classification", "localisation", "both", "duplicate", "background", "missed")
SPECIAL_TYPES = ("false positives", "false negatives")
# COCO's 101 recalls; its own array of them (linspace) has some of these a rounding error higher.
RECALLS = np.arange(101) / 100


@dataclass
class Errors:
    """AP at an IoU of 0.5, and the AP that each type of error costs (dAP), in percent.

    Args:
        ap: with 101 recalls, as COCO's.
        lost: dAP by the names of ERROR_TYPES, never below 0.
        special: dAP of `false positives` (all of them moved below the right detections) and of `false negatives` (no
            object that was not found counts).
    """

    ap: float
    lost: dict[str, float]
    special: dict[str, float]


@dataclass
class ErrorAnalysis:
    """The errors of one run.

    Args:
        overall: means over the classes that have objects; None where no class has.
        per_class: by name; None for a class without objects that count.
        counts: how many objects are `missed`, how many detections are `found` and of each type of error. Detections in
            ignored objects are not in it.
    """

    overall: Errors | None
    per_class: dict[str, Errors | None]
    counts: dict[str, int]


def find_errors(annotations: Annotations, detections: Sequence[Detections] | DetectionTable) -> ErrorAnalysis:
    """AP at an IoU of 0.5 and what each type of error takes from it, of all classes and of each.

    Args:
        annotations: the objects of N pictures; ignored ones (crowd, difficult) as in `find_outcomes`.
        detections: N, in the order of `annotations`, or a table. Of equal scores the earlier counts as higher.

    A class whose objects were all missed and that has no detection drops out of the mean once misses are mended; its
    own dAP is then all that it lacks.
    """
    outcomes = find_outcomes(annotations, detections)
    objects = _per_class(annotations, ~annotations.ignore)
    before, *mended = _curves(outcomes, annotations, objects)
    present = np.flatnonzero(objects)
    per_class: dict[str, Errors | None] = dict.fromkeys(annotations.class_names)
    for k in present.tolist():
        per_class[annotations.class_names[k]] = _errors(before[k], [after[k] for after in mended])
    overall = _errors(before[present].mean(), [_mean(after[present]) for after in mended]) if len(present) else None
    counted = np.bincount(outcomes.kinds[~outcomes.ignored], minlength=len(Kind)).tolist()
    counts = {kind.name.lower(): counted[kind] for kind in Kind} | {"missed": int(outcomes.missed.sum())}
    return ErrorAnalysis(overall, per_class, counts)


def _errors(before: float, after: Sequence[float]) -> Errors:
    gains = [float((100 if np.isnan(ap) else ap) - before) for ap in after]
    lost = [max(gain, 0.0) for gain in gains[: len(ERROR_TYPES)]]
    return Errors(
        ap=float(before),
        lost=dict(zip(ERROR_TYPES, lost, strict=True)),
        special=dict(zip(SPECIAL_TYPES, gains[len(ERROR_TYPES) :], strict=True)),
    )


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else np.nan


def _per_class(annotations: Annotations, chosen: NDArray[np.bool_]) -> Indices:
    """(K,) how many of the chosen objects each class has."""
    return np.bincount(annotations.labels[chosen], minlength=len(annotations.class_names) + 1)[1:]


def _curves(outcomes: Outcomes, annotations: Annotations, objects: Indices) -> Iterator[Floats]:
    """(K,) APs: as detected, then with each of ERROR_TYPES mended, then each of SPECIAL_TYPES."""
    by_score = np.argsort(-outcomes.scores, kind="stable")
    labels, kinds, mends = outcomes.labels[by_score], outcomes.kinds[by_score], outcomes.mends[by_score]
    counts = ~outcomes.ignored[by_score]
    right = kinds == Kind.FOUND
    yield _average_precisions(labels[counts], right[counts], objects)
    # Of the detections with that error, the best of each object becomes right and the others go.
    true_labels = labels.copy()
    true_labels[mends] = annotations.labels[outcomes.objects[by_score][mends]]
    for kind in (Kind.CLASSIFICATION, Kind.LOCALISATION, Kind.BOTH, Kind.DUPLICATE, Kind.BACKGROUND):
        wrong = kinds == kind
        left = np.where(wrong, mends, counts)
        mended_labels = np.where(wrong, true_labels, labels)
        yield _average_precisions(mended_labels[left], (right | (wrong & mends))[left], objects)
    missed = _per_class(annotations, outcomes.missed)
    yield _average_precisions(labels[counts], right[counts], objects - missed)
    first = np.argsort(~right[counts], kind="stable")
    yield _average_precisions(labels[counts][first], right[counts][first], objects)
    yield _average_precisions(labels[counts], right[counts], _per_class(annotations, outcomes.found))


def _average_precisions(labels: Indices, right: NDArray[np.bool_], objects: Indices) -> Floats:
    """(K,) AP of each class in percent; 0 with detections but no objects, NaN with neither.

    Args:
        labels, right: (D,) of detections, best score first.
        objects: (K,) how many there are.
    """
    order = np.argsort(labels, kind="stable")
    labels, right = labels[order], right[order]
    classes = np.arange(1, len(objects) + 1)
    starts, ends = (np.searchsorted(labels, classes, side=side) for side in ("left", "right"))
    ap = np.zeros(len(objects))
    for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if not objects[k]:
            ap[k] = np.nan if start == end else 0
            continue
        ap[k] = 100 * precision_at(RECALLS, np.flatnonzero(right[start:end]), objects[k]).mean()
    return ap
