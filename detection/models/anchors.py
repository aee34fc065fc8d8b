"""Anchors: the reference boxes of the RPN, a few shapes at every cell of the feature map."""

from collections.abc import Sequence

import torch
from torch import Tensor


def anchor_shapes(scales: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """The anchors of one cell, around (0, 0). Faster R-CNN rounded their sides to whole pixels; these are exact.

    Args:
        scales: square roots of their areas, in pixels.
        ratios: height / width.

    Returns:
        (A, 4), A = ratios x scales, all scales of the first ratio first.
    """
    scale = torch.tensor(scales, dtype=torch.float64)[None, :]
    root = torch.tensor(ratios, dtype=torch.float64)[:, None].sqrt()
    half = torch.stack([scale / root, scale * root], dim=-1).reshape(-1, 2) / 2  # width, height
    return torch.cat([-half, half], dim=1)


def anchor_grid(shapes: Tensor, height: int, width: int, stride: int) -> Tensor:
    """The anchors of all cells, each centred on its cell.

    Args:
        shapes: (A, 4), see `anchor_shapes`.
        height: of the feature map, in cells.
        width: likewise.
        stride: pixels of the picture per cell.

    Returns:
        (height, width, A, 4), in pixels of the picture.
    """
    x, y = ((torch.arange(count, device=shapes.device, dtype=shapes.dtype) + 0.5) * stride for count in (width, height))
    centres = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)
    return centres.repeat(1, 1, 2)[:, :, None] + shapes
