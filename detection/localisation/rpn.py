"""The per-class RPN (Appendix C): for each class its own objectness, and its own box regression, of each anchor.

Shapes and names:
    N       pictures of the batch, all of one size
    K       classes; labels are in 1..K
    P       classes of a picture that are asked for: its own in training, the predicted ones in testing
    D, H, W channels, height and width of the backbone's map, one cell per `stride` pixels
    A       anchors of a cell
    n       anchors of a picture, H * W * A: row by row, then by anchor (as in `detection.models.rpn`)
    S       anchors of a picture that the loss is computed on
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.engine.randomness import derive_seed
from detection.localisation.layers import PerClassLayer
from detection.models.anchors import anchor_grid, anchor_shapes
from detection.models.boxes import encode
from detection.models.checks import require, require_types
from detection.models.features import full_precision
from detection.models.matching import best_for_an_object, match, select
from detection.structures import Target

SEED_STREAM = 3
"""Keeps this module's random choices apart from those of other modules."""


@dataclass(frozen=True)
class ClassRPNOptions:
    """How the per-class RPN is built and trained.

    Args:
        stage: of the backbone, on whose map it stands: conv5 (the whole network is fine-tuned) or an earlier one.
        channels: of the 3x3 convolution.
        anchors_per_image: how many anchors of a picture the loss is computed on.
        positive_fraction: part of these that may be positive; negatives fill the rest.
        positive_iou: anchors that overlap an object this much are positive (as are the best for an object).
        negative_iou: anchors that overlap every object less than this are negative.
        smooth_l1_sigma: the box loss is quadratic below 1 / sigma^2.
    """

    stage: str = "conv5"
    channels: int = 512
    anchors_per_image: int = 8
    positive_fraction: float = 0.5
    positive_iou: float = 0.7
    negative_iou: float = 0.3
    smooth_l1_sigma: float = 3.0

    def __post_init__(self) -> None:
        require_types(self, "rpn")
        for key in ("channels", "anchors_per_image"):
            require(getattr(self, key) >= 1, f"rpn.{key}", getattr(self, key), "1 or more")
        for key in ("positive_fraction", "positive_iou", "negative_iou"):
            require(0 <= getattr(self, key) <= 1, f"rpn.{key}", getattr(self, key), "in [0, 1]")
        require(self.negative_iou <= self.positive_iou, "rpn.negative_iou", self.negative_iou, "at most positive_iou")
        require(1e-3 <= self.smooth_l1_sigma <= 1e3, "rpn.smooth_l1_sigma", self.smooth_l1_sigma, "in [0.001, 1000]")


@dataclass
class ClassPredictions:
    """What the RPN says for P classes of each of N pictures: anchors (n, 4), logits (N, P, n), deltas (N, P, n, 4)."""

    anchors: Tensor
    logits: Tensor
    deltas: Tensor


class PerClassRPN(nn.Module):
    """A 3x3 convolution and two sibling 1x1 layers, both with outputs for each class.

    Args:
        in_channels: D.
        stride: pixels per cell of the map.
        num_classes: K.
        anchor_scales: square roots of the anchors' areas, in pixels.
        anchor_ratios: height / width of the anchors.
        options: see `ClassRPNOptions`.
    """

    shapes: Tensor

    def __init__(
        self,
        in_channels: int,
        stride: int,
        num_classes: int,
        *,
        anchor_scales: Sequence[float],
        anchor_ratios: Sequence[float],
        options: ClassRPNOptions,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.options = options
        shapes = anchor_shapes(anchor_scales, anchor_ratios)
        self.register_buffer("shapes", shapes.to(torch.get_default_dtype()), persistent=False)
        self.conv = nn.Conv2d(in_channels, options.channels, 3, padding=1)
        nn.init.normal_(self.conv.weight, std=0.01)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        self.objectness = PerClassLayer(options.channels, len(shapes), num_classes, std=0.01)
        self.box = PerClassLayer(options.channels, 4 * len(shapes), num_classes, std=0.01)

    def predict(self, features: Tensor, labels: Tensor) -> ClassPredictions:
        """Runs the network on maps (N, D, H, W), for the classes (N, P)."""
        x = F.relu(self.conv(features), inplace=True)
        with torch.autocast(x.device.type, enabled=False):
            x = full_precision(x).flatten(2)
            logits = self.objectness(x, labels).transpose(2, 3).flatten(2)
            deltas = self.box(x, labels).unflatten(2, (-1, 4)).permute(0, 1, 4, 2, 3).flatten(2, 3)
        anchors = anchor_grid(self.shapes, features.shape[2], features.shape[3], self.stride)
        return ClassPredictions(anchors.reshape(-1, 4), logits, deltas)

    def loss(
        self, predictions: ClassPredictions, targets: Sequence[Target], seeds: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """The losses of objectness and boxes, of each picture's first class; means over pictures of their own losses.

        With S anchors drawn in a picture, objectness is the mean of their cross-entropies, and the box loss is the
        positives' smooth L1 divided by S, as in the detector's RPN. Other classes learn nothing from a picture:
        neither from its objects nor from what surrounds them.

        Args:
            targets: the objects of each picture, all of its class.
            seeds: decide which anchors are drawn.
        """
        rows = zip(predictions.logits[:, 0], predictions.deltas[:, 0], targets, seeds, strict=True)
        losses = [self._loss(predictions.anchors, *row) for row in rows]
        objectness, box = (torch.stack(each).mean() for each in zip(*losses, strict=True))
        return objectness, box

    def _loss(
        self, anchors: Tensor, logits: Tensor, deltas: Tensor, target: Target, seed: int
    ) -> tuple[Tensor, Tensor]:
        o = self.options
        matches = match(anchors, target)
        # Crops are hardly larger than the largest anchors, so those that cross the border are trained on too.
        allowed = torch.ones_like(matches.ignored)
        positive = (matches.best_iou >= o.positive_iou) | best_for_an_object(matches.iou, allowed)
        negative = (matches.best_iou < o.negative_iou) & ~positive & ~matches.ignored
        selection = select(
            positive,
            negative,
            count=o.anchors_per_image,
            max_positives=int(o.positive_fraction * o.anchors_per_image),
            seed=derive_seed(seed, SEED_STREAM),
        )
        index = selection.index
        wanted = selection.positive.to(logits.dtype)
        objectness = F.binary_cross_entropy_with_logits(logits[index], wanted, reduction="none")
        goals = encode(matches.boxes[index], anchors[index]).where(selection.positive[:, None], 0)
        box = F.smooth_l1_loss(deltas[index], goals, reduction="none", beta=o.smooth_l1_sigma**-2).sum(dim=1)
        weight = selection.weight(logits.dtype)
        return (objectness * weight).sum(), (box * weight * selection.positive).sum()
