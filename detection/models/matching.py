"""Which object a box (anchor or proposal) stands for, and which boxes of a picture are trained on.

All shapes depend on the number of boxes alone, never on what the tensors hold, so that a GPU is not waited for.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from detection.models.boxes import coverage
from detection.structures import Target


@dataclass
class Matches:
    """What each of n boxes has to do with the N objects of its picture. Ignored objects match nothing.

    Args:
        iou: (N + 1, n), IoU with every object; 0 for ignored ones and for the last row, which stands for no object.
        best_iou: (n,), the largest.
        boxes: (n, 4), the object with the largest.
        labels: (n,) int64, that object's.
        ignored: (n,) bool: at least half of the box's own area lies in an ignored object, so it is no background.
    """

    iou: Tensor
    best_iou: Tensor
    boxes: Tensor
    labels: Tensor
    ignored: Tensor


def match(boxes: Tensor, target: Target) -> Matches:
    """Compares boxes (n, 4) with the objects of their picture."""
    # An empty, ignored object at the end: a picture without objects is then no special case.
    objects = F.pad(target.boxes.to(boxes.dtype), (0, 0, 0, 1))
    labels = F.pad(target.labels, (0, 1))
    ignore = F.pad(target.ignore, (0, 1), value=True)[:, None]
    iou = box_iou(objects, boxes).masked_fill(ignore, 0)
    best_iou, index = iou.max(dim=0)
    ignored = ((coverage(boxes, objects) >= 0.5) & ignore).any(dim=0)
    return Matches(iou, best_iou, objects[index], labels[index], ignored)


def best_for_an_object(iou: Tensor, allowed: Tensor) -> Tensor:
    """The boxes that overlap some object more than all other allowed boxes do; all of them where several tie.

    Args:
        iou: (N, n).
        allowed: (n,) bool.

    Returns:
        (n,) bool.
    """
    iou = iou.masked_fill(~allowed, 0)
    best = iou.amax(dim=1, keepdim=True)
    return ((iou == best) & (best > 0)).any(dim=0)


@dataclass
class Selection:
    """The S boxes of a picture that a loss is computed on.

    Args:
        index: (S,) int64, places among the picture's boxes.
        positive: (S,) bool.
        selected: (S,) bool: false for boxes that only fill up S where too few could be selected.
    """

    index: Tensor
    positive: Tensor
    selected: Tensor

    def weight(self, dtype: torch.dtype) -> Tensor:
        """(S,), 1 / count of the selected, 0 for the others: the weights of a mean."""
        return self.selected.to(dtype) / self.selected.sum().clamp(min=1)


def select(positive: Tensor, negative: Tensor, *, count: int, max_positives: int, seed: int) -> Selection:
    """Draws at most `max_positives` positives, then negatives up to `count` in all.

    Args:
        positive: (n,) bool.
        negative: (n,) bool; no box is both.
        count: S is this or n, whichever is less.
        max_positives: how many of the S at most.
        seed: decides everything.
    """
    generator = torch.Generator(positive.device).manual_seed(seed)
    key = torch.rand(len(positive), generator=generator, device=positive.device)
    # Boxes go by rank: chosen positives in [1, 2], negatives in [0, 1), all others -1.
    rank = torch.where(negative, key, -1.0)
    best, index = torch.where(positive, key, -1.0).topk(min(max_positives, len(key)))
    rank = rank.scatter(0, index, torch.where(best >= 0, 1 + best, rank[index]))
    rank, index = rank.topk(min(count, len(key)))
    return Selection(index, rank >= 1, rank >= 0)
