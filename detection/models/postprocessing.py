"""From scored regions to detections: a threshold, non-maximum suppression (NMS), and box voting (Appendix B)."""

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image

from detection.models.roi_heads import RoIOptions
from detection.structures import Detections, Size

VOTING_IOU = 0.5
"""Boxes that overlap a detection this much vote on its place."""


def postprocess(scores: Tensor, boxes: Tensor, size: Size, options: RoIOptions, *, voting: bool = False) -> Detections:
    """From scored regions of one picture to detections: threshold, NMS within each class, the best.

    Args:
        scores: (R, K + 1), background first.
        boxes: (R, K, 4).
        size: (height, width) of the picture, to which boxes are clipped.
        options: thresholds and the number of detections.
        voting: each detection's box becomes what all boxes vote for, see `vote`.
    """
    region, label = (scores[:, 1:] > options.score_threshold).nonzero(as_tuple=True)
    score = scores[region, label + 1]
    box = clip_boxes_to_image(boxes[region, label], size)
    keep = batched_nms(box, score, label, options.nms_iou)[: options.detections_per_image]
    kept = vote(keep, box, score, label) if voting else box[keep]
    return Detections(kept, score[keep], label[keep] + 1)


def vote(kept: Tensor, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """Box voting (Gidaris and Komodakis 2015): the mean of the boxes that mean the same object, by their scores.

    Args:
        kept: (M,) which of the boxes non-maximum suppression left.
        boxes: (N, 4), all boxes before it.
        scores: (N,), above 0.
        labels: (N,).

    Returns:
        (M, 4), for each kept box the mean over the boxes of its class that overlap it by VOTING_IOU or more, itself
        among them.
    """
    # Under autocast the product would be one of bfloat16, which has no 603.
    with torch.autocast(boxes.device.type, enabled=False):
        return _mean_of_voters(kept, boxes, scores, labels)


def _mean_of_voters(kept: Tensor, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    same = (labels[kept, None] == labels) & (box_iou(boxes[kept], boxes) >= VOTING_IOU)
    same[torch.arange(len(kept), device=kept.device), kept] = True  # a box without area has an IoU of 0 with itself
    weights = same * scores
    return (weights / weights.sum(dim=1, keepdim=True)) @ boxes
