"""The R-CNN step's network (Appendix C): each proposal, cut out of the picture, goes through the whole network.

Shapes and names:
    R       regions, of any pictures; K classes; labels are in 1..K
    S       side of a warped region in pixels
    logits  (R,) before the sigmoid: whether the region shows an object of its class
    deltas  (R, 4) box regression of its class, see `boxes.encode`, divided by REGRESSION_STD
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from backbones.engine.randomness import derive_seed
from backbones.models import StagedNetwork
from backbones.weights import LARGEST_SIDE
from detection.data.annotations import DetectionDataset
from detection.localisation.layers import PerClassLayer
from detection.localisation.model import Normalize
from detection.models.boxes import decode, encode
from detection.models.checks import require, require_types
from detection.models.features import full_precision
from detection.models.matching import match
from detection.models.roi_heads import REGRESSION_STD

SEED_STREAM = 5
"""Keeps this module's random choices apart from those of other modules."""

PORTION = 256
"""Regions that go through the network at a time in testing."""


@dataclass(frozen=True)
class RegionOptions:
    """Which regions the R-CNN step is trained and tested on.

    Args:
        size: S, the side in pixels to which regions are warped.
        proposals: how many of the RPN's best boxes it takes for each class.
        nms_iou: of these, those that overlap a better one more than this are dropped before.
        positive_iou: regions that overlap an object this much show it.
        negative_iou: regions that overlap every object less than this show none.
        positive_fraction: how often a region is drawn that shows an object.
    """

    size: int = 224
    proposals: int = 200
    nms_iou: float = 0.7
    positive_iou: float = 0.5
    negative_iou: float = 0.5
    positive_fraction: float = 0.25

    def __post_init__(self) -> None:
        require_types(self, "regions")
        require(1 <= self.size <= LARGEST_SIDE, "regions.size", self.size, f"in [1, {LARGEST_SIDE}]")
        require(self.proposals >= 1, "regions.proposals", self.proposals, "1 or more")
        for key in ("nms_iou", "positive_iou", "negative_iou", "positive_fraction"):
            require(0 <= getattr(self, key) <= 1, f"regions.{key}", getattr(self, key), "in [0, 1]")
        low, high = self.negative_iou, self.positive_iou
        require(low <= high, "regions.negative_iou", low, "at most positive_iou")


class RegionNetwork(nn.Module):
    """A classification network whose last layer made room for two, both with outputs for each class.

    Args:
        backbone: a network without its classifying layer.
        num_classes: K.
        mean, std: see `Normalize`.
    """

    regression_std: Tensor

    def __init__(
        self, backbone: StagedNetwork, num_classes: int, *, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        require(num_classes >= 1, "num_classes", num_classes, "1 or more")
        super().__init__()
        self.backbone = backbone
        self.normalize = Normalize(mean, std)
        self.register_buffer("regression_std", torch.tensor(REGRESSION_STD), persistent=False)
        self.classification = PerClassLayer(backbone.num_features, 1, num_classes, std=0.01)
        self.box = PerClassLayer(backbone.num_features, 4, num_classes, std=0.001)

    def predict(self, regions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (R,) and deltas (R, 4) of warped regions (R, 3, S, S) uint8, for a class (R,) of each."""
        features = self.backbone(self.normalize(regions))
        labels = labels.to(features.device, non_blocking=True)[:, None]
        with torch.autocast(features.device.type, enabled=False):
            x = full_precision(features)[:, :, None]
            return self.classification(x, labels)[:, 0, 0, 0], self.box(x, labels)[:, 0, :, 0]

    def forward(self, regions: Tensor, labels: Tensor, shows: Tensor, goals: Tensor) -> dict[str, Tensor]:
        """The losses: the mean cross-entropy, and the smooth L1 (sigma 1) of regions with an object, divided by R.

        Args:
            shows: (R,) bool, whether there is an object of the class.
            goals: (R, 4), the deltas of its box, as `encode` gives them.
        """
        logits, deltas = self.predict(regions, labels)
        shows, goals = (each.to(logits.device, non_blocking=True) for each in (shows, goals))
        classification = F.binary_cross_entropy_with_logits(logits, shows.to(logits.dtype))
        box = F.smooth_l1_loss(deltas, goals.to(deltas.dtype) / self.regression_std, reduction="none").sum(dim=1)
        return {"classification": classification, "box": (box * shows).mean()}

    @torch.no_grad()
    def rescore(self, picture: Tensor, proposals: Tensor, labels: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """New scores (R,) in [0, 1] and boxes (R, 4) of proposals (R, 4) for classes (R,) in a picture (3, H, W) uint8.

        Args:
            size: S.
        """
        picture = picture.to(proposals.device)
        portions = zip(proposals.split(PORTION), labels.split(PORTION), strict=True)
        found = [self.predict(warp(picture, some, size), some_labels) for some, some_labels in portions]
        logits, deltas = (torch.cat(each) for each in zip(*found, strict=True))
        boxes = decode(deltas * self.regression_std, proposals.to(deltas.dtype))
        height, width = picture.shape[1:]
        limits = boxes.new_tensor([width, height, width, height])
        return logits.sigmoid().nan_to_num(0.0), boxes.nan_to_num(0.0).clamp(min=0).minimum(limits)


def warp(picture: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Cuts boxes (R, 4) out of a picture (3, H, W) uint8: (R, 3, size, size) uint8, whatever their shapes.

    Each pixel is the mean of bilinear samples, about one for each of the picture's own that it covers (RoI align).
    """
    cut = roi_align(picture[None].float(), [boxes.float()], size, sampling_ratio=-1, aligned=True)
    return cut.round().clamp(0, 255).to(torch.uint8)


@dataclass
class RegionSample:
    """A region on its way into training.

    Args:
        image: (3, S, S) uint8.
        index: its picture's place in the data set.
        shows: whether there is an object.
        goal: (4,), see `RegionNetwork.forward`; 0 where there is none.
    """

    image: Tensor
    index: int
    shows: bool
    goal: Tensor


def region_sample(
    dataset: DetectionDataset,
    index: int,
    proposals: Tensor,
    options: RegionOptions,
    *,
    flip: bool,
    seed: int,
) -> RegionSample:
    """One region of a picture, or its mirror image: of its proposals and its objects' own boxes.

    The picture has an object that is not to be ignored. A mini-batch holds a region each of as many pictures
    (RoI-centric: nothing ties it to few pictures).

    Args:
        proposals: (P, 4), in the pixels of the picture.
        flip: take the mirror image in half of all cases.
        seed: decides everything.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, SEED_STREAM))
    wants_object, turned = (
        torch.rand(2, generator=generator) < torch.tensor([options.positive_fraction, 0.5])
    ).tolist()
    target = dataset.target(index)
    boxes = torch.cat([proposals.to(target.boxes.dtype), target.boxes])
    matches = match(boxes, target)
    positive, negative = matches.best_iou >= options.positive_iou, matches.best_iou < options.negative_iou
    shows = bool(positive.any()) and (wants_object or not negative.any())
    places = (positive if shows else negative).nonzero()[:, 0]
    place = int(places[torch.randint(len(places), (), generator=generator)])
    image = warp(dataset.load_image(index), boxes[place : place + 1], options.size)[0]
    goal = encode(matches.boxes[place], boxes[place]) if shows else torch.zeros(4)
    if flip and turned:
        image, goal = image.flip(2), goal * goal.new_tensor([-1, 1, 1, 1])
    return RegionSample(image, index, shows, goal)
