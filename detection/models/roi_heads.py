"""What is in each region: RoI pooling, the backbone's last layers, classification and box regression (4.3, Fast R-CNN).

Shapes and names:
    N         pictures of the batch; K classes, without background
    features  (N, C, H, W), the shared feature map
    rois      one (R_i, 4) a picture: regions (proposals, or any boxes) in pixels; R is the sum of R_i
    S         regions of one picture that the loss is computed on
    region features  (R, D), what the backbone's last layers make of each region
    context   (N, D), what the same layers make of each whole picture, as one region (Appendix B, global context)
    described (R, D), or (R, 2 D) with context: region features, beside each the context of its picture
    logits    (R, K + 1) before the softmax, background first
    deltas    (R, K, 4) box regression for each class, see `boxes.encode`, divided by REGRESSION_STD
    scores    (R, K + 1), probabilities, background first
    boxes     (R, K, 4), what each region becomes if it holds an object of this class; not clipped to the picture
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align, roi_pool

from backbones.engine.randomness import derive_seed
from detection.models.boxes import decode, encode
from detection.models.checks import require, require_types
from detection.models.features import SplitBackbone, full_precision
from detection.models.matching import match, select
from detection.structures import Size, Target

Pooling = Literal["roi_pool", "roi_align"]

REGRESSION_STD = (0.1, 0.1, 0.2, 0.2)
"""Deltas are predicted in these units, so that they have a variance of about 1 (Faster R-CNN's released settings)."""

ALIGN_SAMPLES = 2
"""RoI align samples this many points a side in each bin."""

SEED_STREAM = 2
"""Keeps this module's random choices apart from those of the RPN."""


@dataclass(frozen=True)
class RoIOptions:
    """How regions are pooled, trained on and tested; defaults are the paper's (4.3, Faster R-CNN).

    Args:
        pooling: "roi_pool" as in the paper, or "roi_align".
        pool_size: height and width of pooled features; by default 14 for ResNets (conv5 halves it), 7 for VGGs.
        context: classify and regress by the features of the whole picture too, beside the region's own (Appendix B).
        rois_per_image: how many regions of an image the loss is computed on.
        foreground_fraction: part of these that may be foreground.
        foreground_iou: regions that overlap an object this much are foreground.
        background_iou_low: background overlaps its nearest object at least this much: 0.1 for VOC, 0 for COCO.
        background_iou_high: and less than this.
        score_threshold: detections have a score above this.
        nms_iou: detections of one class that overlap a better one more than this are dropped.
        detections_per_image: at most so many, the best ones.
    """

    pooling: Pooling = "roi_pool"
    pool_size: int | None = None
    context: bool = False
    rois_per_image: int = 64
    foreground_fraction: float = 0.25
    foreground_iou: float = 0.5
    background_iou_low: float = 0.1
    background_iou_high: float = 0.5
    score_threshold: float = 0.05
    nms_iou: float = 0.3
    detections_per_image: int = 100

    def __post_init__(self) -> None:
        require_types(self, "roi")
        require(self.pooling in ("roi_pool", "roi_align"), "roi.pooling", self.pooling, "roi_pool or roi_align")
        require(self.pool_size is None or 1 <= self.pool_size <= 64, "roi.pool_size", self.pool_size, "in [1, 64]")
        for key in ("rois_per_image", "detections_per_image"):
            require(getattr(self, key) >= 1, f"roi.{key}", getattr(self, key), "1 or more")
        fractions = ("foreground_fraction", "foreground_iou", "background_iou_low", "background_iou_high")
        for key in (*fractions, "score_threshold", "nms_iou"):
            require(0 <= getattr(self, key) <= 1, f"roi.{key}", getattr(self, key), "in [0, 1]")
        low, high = self.background_iou_low, self.background_iou_high
        require(low <= high, "roi.background_iou_low", low, "at most background_iou_high")
        require(high <= self.foreground_iou, "roi.background_iou_high", high, "at most foreground_iou")


@dataclass
class TrainingRegions:
    """The S regions of a picture that the loss is computed on.

    Args:
        rois: (S, 4).
        labels: (S,) int64, 0 for background.
        deltas: (S, 4), the right answers of box regression; 0 for background.
        weight: (S,), see `Selection.weight`.
    """

    rois: Tensor
    labels: Tensor
    deltas: Tensor
    weight: Tensor


class RoIHeads(nn.Module):
    """Two sibling layers, classification and class-wise box regression, on the backbone's features of each region.

    Args:
        split: gives region features; the network stays its owner's.
        num_classes: K.
        options: see `RoIOptions`.

    Raises:
        ConfigError: a `pool_size` other than the one that the backbone's first fully connected layer takes.
    """

    regression_std: Tensor

    def __init__(self, split: SplitBackbone, num_classes: int, *, options: RoIOptions) -> None:
        super().__init__()
        self.split = split
        self.options = options
        self.pool_size = options.pool_size or split.pool_size
        fits = split.any_pool_size or self.pool_size == split.pool_size
        require(fits, "roi.pool_size", self.pool_size, f"{split.pool_size} for this backbone")
        self.register_buffer("regression_std", torch.tensor(REGRESSION_STD), persistent=False)
        channels = split.region_channels * (2 if options.context else 1)
        self.classification = nn.Linear(channels, num_classes + 1)
        self.box = nn.Linear(channels, 4 * num_classes)
        for layer, std in ((self.classification, 0.01), (self.box, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def pool(self, features: Tensor, rois: Sequence[Tensor]) -> Tensor:
        """The part (R, C, pool_size, pool_size) of the map under each region."""
        features = full_precision(features)
        rois = [each.to(features.dtype) for each in rois]
        scale = 1 / self.split.stride
        if self.options.pooling == "roi_pool":
            return roi_pool(features, rois, self.pool_size, scale)
        return roi_align(features, rois, self.pool_size, scale, sampling_ratio=ALIGN_SAMPLES, aligned=True)

    def region_features(self, features: Tensor, rois: Sequence[Tensor]) -> Tensor:
        """The features (R, D) of regions."""
        return self.split.region(self.pool(features, rois))

    def context(self, features: Tensor, size: Size) -> Tensor | None:
        """The context (1, D) of one picture of this size with the map (1, C, H, W); None for a detector without."""
        return self.region_features(features, [_whole(features, size)]) if self.options.context else None

    def describe(self, features: Tensor, rois: Sequence[Tensor], sizes: Sequence[Size]) -> Tensor:
        """The described regions of pictures of these sizes."""
        if not self.options.context:
            return self.region_features(features, rois)
        # Regions and whole pictures in one pass: live batch norm has to see them together.
        wholes = (_whole(features, size) for size in sizes)
        everything = self.region_features(features, [torch.cat(each) for each in zip(rois, wholes, strict=True)])
        parts = everything.split([len(each) + 1 for each in rois])
        return torch.cat([with_context(part[:-1], part[-1:]) for part in parts])

    def predict(self, described: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (R, K + 1) and deltas (R, K, 4) of described regions."""
        with torch.autocast(described.device.type, enabled=False):
            x = full_precision(described)
            return self.classification(x), self.box(x).unflatten(1, (-1, 4))

    def score_regions(self, features: Tensor, rois: Sequence[Tensor], sizes: Sequence[Size]) -> tuple[Tensor, Tensor]:
        """Scores (R, K + 1) and boxes (R, K, 4) of any regions, those of the first picture first."""
        logits, deltas = self.predict(self.describe(features, rois, sizes))
        return logits.softmax(dim=1), self.regress(deltas, torch.cat(list(rois)))

    def regress(self, deltas: Tensor, rois: Tensor) -> Tensor:
        """The boxes (R, K, 4) that the deltas (R, K, 4) make of regions (R, 4)."""
        return decode(deltas * self.regression_std, rois[:, None])

    def select(self, proposals: Tensor, target: Target, seed: int) -> TrainingRegions:
        """Chooses regions to train on, from the proposals (P, 4) of a picture and its objects' own boxes."""
        o = self.options
        rois = torch.cat([proposals, target.boxes.to(proposals.dtype)])
        allowed = torch.cat([torch.ones_like(proposals[:, 0], dtype=torch.bool), ~target.ignore])
        matches = match(rois, target)
        iou = matches.best_iou
        background = (iou >= o.background_iou_low) & (iou < o.background_iou_high) & ~matches.ignored
        selection = select(
            (iou >= o.foreground_iou) & allowed,
            background & allowed,
            count=o.rois_per_image,
            max_positives=int(o.foreground_fraction * o.rois_per_image),
            seed=derive_seed(seed, SEED_STREAM),
        )
        rois, boxes, labels = (each[selection.index] for each in (rois, matches.boxes, matches.labels))
        deltas = (encode(boxes, rois) / self.regression_std).where(selection.positive[:, None], 0)
        return TrainingRegions(rois, labels.where(selection.positive, 0), deltas, selection.weight(rois.dtype))

    def loss(
        self,
        features: Tensor,
        proposals: Sequence[Tensor],
        sizes: Sequence[Size],
        targets: Sequence[Target],
        seeds: Sequence[int],
    ) -> tuple[Tensor, Tensor]:
        """The losses of classification and boxes, each a mean over pictures of the picture's own loss.

        With S regions selected in a picture, classification is the mean of their cross-entropies and the box loss is
        the foreground's smooth L1 (sigma 1) of its own class, divided by S. Where no region of a picture can be
        selected (no objects, and a background that has to overlap one), its loss is 0.
        """
        regions = [self.select(*each) for each in zip(proposals, targets, seeds, strict=True)]
        logits, deltas = self.predict(self.describe(features, [each.rois for each in regions], sizes))
        labels = torch.cat([each.labels for each in regions])
        goals = torch.cat([each.deltas for each in regions])
        weight = torch.cat([each.weight for each in regions]) / len(regions)
        classification = F.cross_entropy(logits, labels, reduction="none")
        own_class = deltas[torch.arange(len(labels), device=labels.device), (labels - 1).clamp(min=0)]
        box = F.smooth_l1_loss(own_class, goals, reduction="none").sum(dim=1)
        return (classification * weight).sum(), (box * weight * (labels > 0)).sum()


def with_context(own: Tensor, context: Tensor | None) -> Tensor:
    """Described regions of one picture, from their own features (R, D) and its context (1, D), if there is any."""
    return own if context is None else torch.cat([own, context.expand(len(own), -1)], dim=1)


def _whole(features: Tensor, size: Size) -> Tensor:
    """The whole picture as a region (1, 4); float32 at least, since bfloat16 has no 603."""
    exact = torch.promote_types(features.dtype, torch.float32)
    whole = features.new_zeros(1, 4, dtype=exact)
    for corner, side in ((2, size[1]), (3, size[0])):  # filled there: numbers from the host would wait for a GPU
        whole[:, corner].fill_(side)
    return whole
