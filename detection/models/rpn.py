"""The region proposal network (Faster R-CNN, section 3.1).

Shapes and names:
    N       pictures of the batch; `sizes` are their own (height, width) in pixels, without padding
    C, H, W channels, height and width of the shared feature map, one cell per `stride` pixels
    h, w    the cells of the map that belong to one picture: its size / stride, rounded up
    A       anchors of a cell
    n       anchors of one picture, h * w * A, in this order: boxes are indexed row by row, then by anchor
    logits  (n,) objectness before the sigmoid
    deltas  (n, 4) box regression, see `boxes.encode`
    S       anchors of one picture that the loss is computed on

Cells that are padding have no anchors, and borders are the picture's own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import nms

from backbones.engine.randomness import derive_seed
from detection.models.anchors import anchor_grid, anchor_shapes
from detection.models.boxes import decode, encode
from detection.models.checks import require, require_types
from detection.models.features import full_precision
from detection.models.matching import best_for_an_object, match, select
from detection.structures import Size, Target

SEED_STREAM = 1
"""Keeps this module's random choices apart from those of the RoI heads."""


@dataclass(frozen=True)
class RPNOptions:
    """How the region proposal network is built, trained and tested; defaults are the paper's (4.3, Faster R-CNN).

    Args:
        channels: of the 3x3 convolution.
        anchors_per_image: how many anchors of an image the loss is computed on.
        positive_fraction: part of these that may be positive.
        positive_iou: anchors that overlap an object this much are positive (as are the best for an object).
        negative_iou: anchors that overlap every object less than this are negative.
        ignore_border_anchors: in training, ignore anchors that cross the picture's border.
        smooth_l1_sigma: the box loss is quadratic below 1 / sigma^2.
        min_size: proposals have at least this width and height, in pixels of the resized picture.
        pre_nms_train: how many of the best boxes go into non-maximum suppression (NMS) in training.
        pre_nms_test: likewise in testing.
        nms_iou: NMS drops boxes that overlap a better one more than this.
        post_nms_train: how many proposals are left in training.
        post_nms_test: likewise in testing.
    """

    channels: int = 512
    anchors_per_image: int = 256
    positive_fraction: float = 0.5
    positive_iou: float = 0.7
    negative_iou: float = 0.3
    ignore_border_anchors: bool = True
    smooth_l1_sigma: float = 3.0
    min_size: float = 16.0
    pre_nms_train: int = 12000
    pre_nms_test: int = 6000
    nms_iou: float = 0.7
    post_nms_train: int = 2000
    post_nms_test: int = 300

    def __post_init__(self) -> None:
        require_types(self, "rpn")
        counts = ("channels", "anchors_per_image", "pre_nms_train", "pre_nms_test", "post_nms_train", "post_nms_test")
        for key in counts:
            require(getattr(self, key) >= 1, f"rpn.{key}", getattr(self, key), "1 or more")
        for key in ("positive_fraction", "positive_iou", "negative_iou", "nms_iou"):
            require(0 <= getattr(self, key) <= 1, f"rpn.{key}", getattr(self, key), "in [0, 1]")
        require(self.negative_iou <= self.positive_iou, "rpn.negative_iou", self.negative_iou, "at most positive_iou")
        require(1e-3 <= self.smooth_l1_sigma <= 1e3, "rpn.smooth_l1_sigma", self.smooth_l1_sigma, "in [0.001, 1000]")
        require(self.min_size >= 0, "rpn.min_size", self.min_size, "0 or more")


@dataclass
class Predictions:
    """What the RPN says about the n anchors of one picture: anchors (n, 4), logits (n,), deltas (n, 4)."""

    anchors: Tensor
    logits: Tensor
    deltas: Tensor


class RPN(nn.Module):
    """A 3x3 convolution and two sibling 1x1 convolutions, for objectness and boxes.

    Objectness is one logit with a sigmoid, where Faster R-CNN has two with a softmax: the same family of functions.

    Args:
        in_channels: C.
        stride: pixels per cell of the map.
        anchor_scales: square roots of the anchors' areas, in pixels.
        anchor_ratios: height / width of the anchors.
        options: see `RPNOptions`.
    """

    shapes: Tensor

    def __init__(
        self,
        in_channels: int,
        stride: int,
        *,
        anchor_scales: Sequence[float],
        anchor_ratios: Sequence[float],
        options: RPNOptions,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.options = options
        shapes = anchor_shapes(anchor_scales, anchor_ratios)
        self.register_buffer("shapes", shapes.to(torch.get_default_dtype()), persistent=False)
        self.conv = nn.Conv2d(in_channels, options.channels, 3, padding=1)
        self.objectness = nn.Conv2d(options.channels, len(shapes), 1)
        self.box = nn.Conv2d(options.channels, 4 * len(shapes), 1)
        for parameter in self.parameters():
            if parameter.ndim == 1:
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=0.01)

    def predict(self, features: Tensor, sizes: Sequence[Size]) -> list[Predictions]:
        """Runs the network on the map (N, C, H, W) of N pictures."""
        x = F.relu(self.conv(features), inplace=True)
        with torch.autocast(x.device.type, enabled=False):
            x = full_precision(x)
            logits = self.objectness(x).permute(0, 2, 3, 1)
            deltas = self.box(x).permute(0, 2, 3, 1).unflatten(3, (-1, 4))
        anchors = anchor_grid(self.shapes, features.shape[2], features.shape[3], self.stride)
        predictions = []
        for i, (height, width) in enumerate(sizes):
            h, w = (-(-side // self.stride) for side in (height, width))
            predictions.append(
                Predictions(
                    anchors[:h, :w].reshape(-1, 4), logits[i, :h, :w].reshape(-1), deltas[i, :h, :w].reshape(-1, 4)
                )
            )
        return predictions

    @torch.no_grad()
    def propose(self, predictions: Sequence[Predictions], sizes: Sequence[Size], *, to_train: bool) -> list[Tensor]:
        """The proposals of each picture, (P, 4), best first, P from 1 to `post_nms`; no gradient flows through them.

        Args:
            to_train: as many as a detector is trained on, or as few as it is tested on.
        """
        o = self.options
        before, after = (o.pre_nms_train, o.post_nms_train) if to_train else (o.pre_nms_test, o.post_nms_test)
        proposals = []
        for scores, boxes in self._best_boxes(predictions, sizes, before):
            # A GPU is waited for here alone, once a picture: how many boxes are left decides about shapes.
            proposals.append(boxes[nms(boxes, scores, o.nms_iou)[:after]])
        return proposals

    def _best_boxes(
        self, predictions: Sequence[Predictions], sizes: Sequence[Size], count: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The scores (k,) and boxes (k, 4), within the picture, of each picture's best anchors, best first."""
        if len({len(each.logits) for each in predictions}) > 1:
            for each, size in zip(predictions, sizes, strict=True):
                yield from self._best_boxes([each], [size], count)
            return
        logits, deltas, anchors = (
            torch.stack([getattr(each, name) for each in predictions]) for name in ("logits", "deltas", "anchors")
        )
        scores, index = logits.topk(min(count, logits.shape[1]))
        deltas, anchors = (each.gather(1, index[:, :, None].expand(-1, -1, 4)) for each in (deltas, anchors))
        # Of a diverging network too: RoI align crashes on boxes that are no numbers, before anyone sees the loss.
        boxes = decode(deltas, anchors).nan_to_num(0.0).clamp_(min=0)
        for each, (height, width) in zip(boxes, sizes, strict=True):  # a tensor of the sizes would wait for a GPU
            each[:, 0::2].clamp_(max=width)
            each[:, 1::2].clamp_(max=height)
        large = ((boxes[..., 2:] - boxes[..., :2]) >= self.options.min_size).all(dim=2)
        large |= ~large.any(dim=1, keepdim=True)  # a picture in which no box can be that large keeps the small ones
        # Boxes too small become copies of the best other one: NMS removes them and nobody has to count them.
        best = large.int().argmax(dim=1)
        boxes = torch.where(large[..., None], boxes, boxes[torch.arange(len(boxes), device=boxes.device), best, None])
        yield from zip(scores, boxes, strict=True)

    def loss(
        self, predictions: Sequence[Predictions], sizes: Sequence[Size], targets: Sequence[Target], seeds: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """The losses of objectness and boxes, each a mean over pictures of the picture's own loss.

        With S anchors selected in a picture, objectness is the mean of their cross-entropies, and the box loss is the
        positives' smooth L1 divided by S. This is Faster R-CNN's balance as released: its equation 1 has
        lambda / N_reg = 10 / 2400 in the place of 1 / 256. A picture where no anchor can be selected has loss 0.
        """
        losses = [self._loss(*each) for each in zip(predictions, sizes, targets, seeds, strict=True)]
        objectness, box = (torch.stack(each).mean() for each in zip(*losses, strict=True))
        return objectness, box

    def _loss(self, predictions: Predictions, size: Size, target: Target, seed: int) -> tuple[Tensor, Tensor]:
        o = self.options
        matches = match(predictions.anchors, target)
        allowed = self._allowed(predictions.anchors, size)
        positive = (matches.best_iou >= o.positive_iou) | best_for_an_object(matches.iou, allowed)
        negative = (matches.best_iou < o.negative_iou) & ~positive & ~matches.ignored
        selection = select(
            positive & allowed,
            negative & allowed,
            count=o.anchors_per_image,
            max_positives=int(o.positive_fraction * o.anchors_per_image),
            seed=derive_seed(seed, SEED_STREAM),
        )
        index = selection.index
        logits, deltas = predictions.logits[index], predictions.deltas[index]
        goals = encode(matches.boxes[index], predictions.anchors[index]).where(selection.positive[:, None], 0)
        objectness = F.binary_cross_entropy_with_logits(logits, selection.positive.to(logits.dtype), reduction="none")
        box = F.smooth_l1_loss(deltas, goals, reduction="none", beta=o.smooth_l1_sigma**-2).sum(dim=1)
        weight = selection.weight(logits.dtype)
        return (objectness * weight).sum(), (box * weight * selection.positive).sum()

    def _allowed(self, anchors: Tensor, size: Size) -> Tensor:
        """(n,) bool: anchors that may be trained on; all of them in a picture so small that none lies within it."""
        height, width = size
        if not self.options.ignore_border_anchors:
            return torch.ones_like(anchors[:, 0], dtype=torch.bool)
        x1, y1, x2, y2 = anchors.unbind(dim=1)
        inside = (x1 >= 0) & (y1 >= 0) & (x2 <= width) & (y2 <= height)
        return inside | ~inside.any()
