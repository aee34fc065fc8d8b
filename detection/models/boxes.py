"""Arithmetic of boxes (x1, y1, x2, y2) in pixels: the coding of box regression, and overlaps."""

import math

import torch
from torch import Tensor

MAX_LOG_SCALE = math.log(1000 / 16)
"""Bound of dw and dh in `decode`, so that a wild prediction gives no infinite box."""


def encode(boxes: Tensor, references: Tensor) -> Tensor:
    """What regression has to predict to get `boxes` from `references` (Faster R-CNN, equation 2).

    Args:
        boxes: (..., 4).
        references: (..., 4), anchors or proposals.

    Returns:
        (..., 4): (dx, dy), shifts of the centre in widths and heights of the reference; (dw, dh), logarithms of scales.
    """
    centre, size = _centre_and_size(boxes)
    reference_centre, reference_size = _centre_and_size(references)
    return torch.cat([(centre - reference_centre) / reference_size, (size / reference_size).log()], dim=-1)


def decode(deltas: Tensor, references: Tensor) -> Tensor:
    """The inverse of `encode`: the boxes (..., 4) that `deltas` (..., 4) mean, with dw and dh at most MAX_LOG_SCALE."""
    reference_centre, reference_size = _centre_and_size(references)
    centre = reference_centre + deltas[..., :2] * reference_size
    half = reference_size * deltas[..., 2:].clamp(max=MAX_LOG_SCALE).exp() / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def coverage(boxes: Tensor, others: Tensor) -> Tensor:
    """How much of each of `boxes` lies in each of `others`.

    Args:
        boxes: (N, 4), with an area above 0.
        others: (M, 4).

    Returns:
        (M, N), parts of the area of `boxes`, in [0, 1].
    """
    top_left = torch.maximum(boxes[None, :, :2], others[:, None, :2])
    bottom_right = torch.minimum(boxes[None, :, 2:], others[:, None, 2:])
    intersection = (bottom_right - top_left).clamp(min=0).prod(dim=-1)
    return intersection / (boxes[:, 2:] - boxes[:, :2]).prod(dim=-1)


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + size / 2, size
