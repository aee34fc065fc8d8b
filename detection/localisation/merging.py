"""From many scored boxes of one class in one picture to the box that is the answer, or to proposals."""

import torch
from torch import Tensor
from torchvision.ops import nms

from detection.models import postprocessing

SMALLEST = 1.0
"""Proposals have at least this width and height, in pixels of the picture."""


def best_box(scores: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The box with the best score: scores (n,) and boxes (n, 4) to a score () and a box (4,)."""
    index = scores.argmax()
    return scores[index], boxes[index]


def vote(scores: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The best box, moved to the mean of all boxes that overlap it by half or more, weighted by their scores.

    This is the box voting of Appendix B (Gidaris and Komodakis), here over scales, mirror images and regions.

    Args:
        scores: (n,), 0 or more.
        boxes: (n, 4).

    Returns:
        The best score () and the box (4,).
    """
    best, weights = scores.argmax(), scores.clamp(min=torch.finfo(scores.dtype).tiny)
    one_class = torch.zeros_like(best).expand(len(scores))
    return scores[best], postprocessing.vote(best[None], boxes, weights, one_class)[0]


def propose(scores: Tensor, boxes: Tensor, picture: Tensor, *, nms_iou: float, most: int) -> Tensor:
    """The best boxes (R, 4), best first, none of which overlaps a better one more than `nms_iou`.

    Boxes smaller than SMALLEST are left out; where all are, the whole picture is the only proposal.

    Args:
        scores: (n,).
        boxes: (n, 4), in the pixels of the picture.
        picture: (3, H, W).
        most: R is at most this.
    """
    large = ((boxes[:, 2:] - boxes[:, :2]) >= SMALLEST).all(dim=1)
    if not large.any():
        return boxes.new_tensor([[0, 0, picture.shape[2], picture.shape[1]]])
    scores, boxes = scores[large], boxes[large]
    return boxes[nms(boxes, scores, nms_iou)[:most]]
