"""ILSVRC's localisation error by the rules of its development kit (eval_clsloc.m, compute_overlap.m).

A guess is a class and a box. It is right if the class is the picture's and the box has an IoU of 0.5 or more with any
object of that class; five guesses are right if one of them is.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detection.data.annotations import Annotations
from detection.evaluate.arrays import box_areas, intersections, pair_up

GUESSES = 5
IOU_THRESHOLD = 0.5


def localisation_errors(annotations: Annotations, classes: Tensor, boxes: Tensor) -> dict[str, float | None]:
    """How many pictures are not localised, and not classified, by one guess and by five; in percent.

    Args:
        annotations: of N pictures; each has one object or more, all of one class. Pictures whose objects are to be
            ignored (the development kit's blacklist) count in the errors of classification alone, as they do there.
        classes: (N, k) int64 labels 1..K, best guess first; those after the fifth do not count.
        boxes: (N, k, 4) x1, y1, x2, y2, in the pixels of the picture file.

    Returns:
        {"top1_localisation_error", "top5_localisation_error", "top1_error", "top5_error"}; None for the first two where
        all pictures are to be ignored.

    Raises:
        ValueError: shapes that do not fit, or pictures without an object or with objects of two classes.
    """
    labels = picture_labels(annotations)
    guesses = classes.shape[1] if classes.ndim == 2 else 0
    if not guesses or len(classes) != len(labels) or boxes.shape != (*classes.shape, 4):
        raise ValueError(f"classes {tuple(classes.shape)} and boxes {tuple(boxes.shape)} for {len(labels)} pictures")
    same_class = classes[:, :GUESSES].cpu().numpy() == labels[:, None]
    located = same_class & _overlaps(annotations, boxes[:, :GUESSES].double().cpu().numpy())
    counted = ~_is_ignored(annotations)
    return {
        "top1_localisation_error": _error(located[counted, :1]),
        "top5_localisation_error": _error(located[counted]),
        "top1_error": _error(same_class[:, :1]),
        "top5_error": _error(same_class),
    }


def picture_labels(annotations: Annotations) -> NDArray[np.int64]:
    """(N,) the class of each picture: that of its objects. Raises ValueError where that is none, or two."""
    if not len(annotations) or not np.diff(annotations.offsets).all():
        raise ValueError("localisation wants pictures that have objects")
    labels = annotations.labels[annotations.offsets[:-1]]
    if (annotations.labels != labels[annotations.images]).any():
        raise ValueError("localisation wants objects of one class in each picture")
    return labels


def picture_sized(annotations: Annotations) -> tuple[Tensor, Tensor]:
    """The least that can be guessed: the class itself, and a box as large as the picture; (N, 1) and (N, 1, 4)."""
    height, width = torch.from_numpy(annotations.sizes).double().unbind(1)
    corner = torch.zeros_like(width)
    classes = torch.from_numpy(picture_labels(annotations))[:, None]
    return classes, torch.stack([corner, corner, width, height], dim=1)[:, None]


def _overlaps(annotations: Annotations, boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N, k) whether each box (N, k, 4) has the IoU with any object of its picture."""
    flat = boxes.reshape(-1, 4)
    guess, item = pair_up(np.repeat(np.arange(len(boxes)), boxes.shape[1]), annotations.images)
    common = intersections(flat[guess], annotations.boxes[item])
    union = box_areas(flat)[guess] + box_areas(annotations.boxes)[item] - common
    near = (common > 0) & (common >= IOU_THRESHOLD * union)
    found = np.zeros(len(flat), dtype=bool)
    found[guess[near]] = True
    return found.reshape(boxes.shape[:2])


def _is_ignored(annotations: Annotations) -> NDArray[np.bool_]:
    """(N,) whether all objects of a picture are."""
    return np.logical_and.reduceat(annotations.ignore, annotations.offsets[:-1])


def _error(right: NDArray[np.bool_]) -> float | None:
    """The percentage of rows in which none is right."""
    return 100 * float(1 - right.any(axis=1).mean()) if len(right) else None
