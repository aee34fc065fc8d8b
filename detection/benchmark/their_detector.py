"""torchvision's Faster R-CNN with the backbone, weights, anchors and numbers of a detector of ours, to compare."""

import torch
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign, roi_pool
from torchvision.ops.misc import FrozenBatchNorm2d

from detection.models import FasterRCNN
from detection.models.roi_heads import ALIGN_SAMPLES, REGRESSION_STD

ANCHOR_SCALES, ANCHOR_RATIOS = (128.0, 256.0, 512.0), (0.5, 1.0, 2.0)


class _PlainRoIPool(nn.Module):
    """RoI pooling in the place of `MultiScaleRoIAlign`, which torchvision's constructor wants."""

    def __init__(self, size: int, stride: int) -> None:
        super().__init__()
        self.size, self.stride = size, stride

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], shapes: object) -> Tensor:
        (only,) = features.values()
        return roi_pool(only, boxes, self.size, 1 / self.stride)


class _Conv5(nn.Module):
    """conv5 and the mean over its output, as torchvision's box head."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, pooled: Tensor) -> Tensor:
        return self.layers(pooled).mean(dim=(2, 3))


def torchvision_detector(ours: FasterRCNN, size: tuple[int, int]) -> nn.Module:
    """A copy of `ours` (ResNet-50, bottlenecks with the stride in the 3x3), made of torchvision's parts alone.

    Args:
        size: (height, width) of the pictures, which are not resized.
    """
    network = resnet50(norm_layer=FrozenBatchNorm2d)
    network.load_state_dict(ours.backbone.state_dict(), strict=False)
    stem = network.conv1, network.bn1, network.relu, network.maxpool
    backbone = nn.Sequential(*stem, network.layer1, network.layer2, network.layer3)
    backbone.out_channels = ours.split.channels  # type: ignore[assignment]
    for module in (*stem, network.layer1):
        module.requires_grad_(False)
    rpn, roi, pool_size = ours.rpn.options, ours.roi_heads.options, ours.roi_heads.pool_size
    classes = ours.roi_heads.classification.out_features
    detector = TorchvisionFasterRCNN(
        backbone,
        box_head=_Conv5(network.layer4),
        box_predictor=_Predictor(ours.split.region_channels, classes),
        box_roi_pool=MultiScaleRoIAlign(["0"], pool_size, ALIGN_SAMPLES),
        rpn_anchor_generator=AnchorGenerator((tuple(map(int, ANCHOR_SCALES)),), (ANCHOR_RATIOS,)),
        rpn_pre_nms_top_n_train=rpn.pre_nms_train,
        rpn_pre_nms_top_n_test=rpn.pre_nms_test,
        rpn_post_nms_top_n_train=rpn.post_nms_train,
        rpn_post_nms_top_n_test=rpn.post_nms_test,
        rpn_nms_thresh=rpn.nms_iou,
        rpn_batch_size_per_image=rpn.anchors_per_image,
        box_batch_size_per_image=roi.rois_per_image,
        box_positive_fraction=roi.foreground_fraction,
        box_score_thresh=roi.score_threshold,
        box_nms_thresh=roi.nms_iou,
        box_detections_per_img=roi.detections_per_image,
        bbox_reg_weights=tuple(1 / std for std in REGRESSION_STD),
        min_size=min(size),
        max_size=max(size),
        size_divisible=ours.split.stride,
        _skip_resize=True,  # resizing by a factor of 1 would take time in vain
    )
    if roi.pooling == "roi_pool":
        detector.roi_heads.box_roi_pool = _PlainRoIPool(pool_size, ours.split.stride)
    head = detector.rpn.head
    for theirs, own in ((head.conv[0][0], ours.rpn.conv), (head.cls_logits, ours.rpn.objectness)):
        theirs.load_state_dict(own.state_dict())
    head.bbox_pred.load_state_dict(ours.rpn.box.state_dict())
    predictor = detector.roi_heads.box_predictor
    predictor.classification.load_state_dict(ours.roi_heads.classification.state_dict())
    with torch.no_grad():  # theirs regresses the background too
        predictor.box.weight.zero_()[4:] = ours.roi_heads.box.weight
        predictor.box.bias.zero_()[4:] = ours.roi_heads.box.bias
    return detector


class _Predictor(nn.Module):
    """Two sibling layers, as torchvision's `FastRCNNPredictor`."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.classification = nn.Linear(channels, classes)
        self.box = nn.Linear(channels, 4 * classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.classification(x), self.box(x)
