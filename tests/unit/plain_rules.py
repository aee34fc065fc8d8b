"""The papers' rules for training targets, written a second time: plain loops over exact fractions, no tensors.

Boxes are tuples of whole numbers, so that an overlap of exactly 0.7, 0.5, 0.3 or 0.1 and ties are what they are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from hypothesis import strategies as st

from detection.structures import Target

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Thing:
    """An object of a picture."""

    box: Box
    label: int = 1
    ignore: bool = False


@st.composite
def boxes(draw: st.DrawFn, low: int, high: int) -> Box:
    x1, y1 = draw(st.integers(low, high - 1)), draw(st.integers(low, high - 1))
    return x1, y1, draw(st.integers(x1 + 1, high)), draw(st.integers(y1 + 1, high))


def things(high: int) -> st.SearchStrategy[list[Thing]]:
    """Up to four objects, some of them ignored, in a picture of `high` x `high` pixels."""
    return st.lists(
        st.builds(Thing, boxes(0, high), st.integers(1, 3), st.sampled_from([False, False, True])), max_size=4
    )


def target(objects: Sequence[Thing]) -> Target:
    return Target(
        torch.tensor([each.box for each in objects], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([each.label for each in objects], dtype=torch.int64),
        torch.tensor([each.ignore for each in objects], dtype=torch.bool),
    )


def area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def shared(a: Box, b: Box) -> int:
    """The area that both cover."""
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def iou(a: Box, b: Box) -> Fraction:
    return Fraction(shared(a, b), area(a) + area(b) - shared(a, b))


def best_iou(box: Box, objects: Sequence[Thing]) -> Fraction:
    """With an object that is not ignored; 0 if there is none."""
    return max((iou(box, each.box) for each in objects if not each.ignore), default=Fraction(0))


def nearest(box: Box, objects: Sequence[Thing]) -> list[Thing]:
    """The objects that it overlaps most: several where they tie."""
    return [each for each in objects if not each.ignore and iou(box, each.box) == best_iou(box, objects) > 0]


def hidden(box: Box, objects: Sequence[Thing]) -> bool:
    """At least half of it lies in a crowd or a difficult object: ours, see DEVIATIONS.md."""
    return any(each.ignore and 2 * shared(box, each.box) >= area(box) for each in objects)


def coding(box: Box, reference: Box) -> list[float]:
    """Faster R-CNN's equation 2, each of its four lines."""
    x, y, w, h = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]
    xa, ya = (reference[0] + reference[2]) / 2, (reference[1] + reference[3]) / 2
    wa, ha = reference[2] - reference[0], reference[3] - reference[1]
    return [(x - xa) / wa, (y - ya) / ha, math.log(w / wa), math.log(h / ha)]


def smooth_l1(x: float, sigma: float) -> float:
    """Fast R-CNN's equation 3 with the sigma of its released code."""
    return sigma**2 * x**2 / 2 if abs(x) < 1 / sigma**2 else abs(x) - 0.5 / sigma**2


def smooth_l1_slope(x: float, sigma: float) -> float:
    return max(-1.0, min(1.0, sigma**2 * x))


def anchor_labels(anchors: Sequence[Box], height: int, width: int, objects: Sequence[Thing]) -> list[int]:
    """Faster R-CNN, 3.1.2: 1 positive, 0 negative, -1 neither."""
    inside = [a[0] >= 0 and a[1] >= 0 and a[2] <= width and a[3] <= height for a in anchors]
    if not any(inside):  # ours, see DEVIATIONS.md
        inside = [True] * len(anchors)
    labels = []
    for anchor, allowed in zip(anchors, inside, strict=True):
        overlap = best_iou(anchor, objects)
        label = 1 if overlap >= Fraction(7, 10) else 0 if overlap < Fraction(3, 10) else -1
        labels.append(-1 if not allowed or (label == 0 and hidden(anchor, objects)) else label)
    for each in objects:
        if not each.ignore:
            overlaps = [
                iou(anchor, each.box) if ok else Fraction(0) for anchor, ok in zip(anchors, inside, strict=True)
            ]
            for i, overlap in enumerate(overlaps):
                if overlap == max(overlaps) > 0:
                    labels[i] = 1
    return labels


def region_label(region: Box, objects: Sequence[Thing], lowest: Fraction) -> int:
    """Fast R-CNN, 2.3: the class, 0 for background, -1 for neither."""
    overlap = best_iou(region, objects)
    if overlap >= Fraction(1, 2):
        return nearest(region, objects)[0].label
    return 0 if overlap >= lowest and not hidden(region, objects) else -1
