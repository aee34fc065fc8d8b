"""A detector of which nothing is said but its network is the paper's for VOC (4.3; Faster R-CNN's own settings)."""

from dataclasses import asdict

import torch

from detection import get_detector
from detection.config import DetectorConfig
from detection.models import RoIOptions, RPNOptions

RPN = {
    "channels": 512,
    "anchors_per_image": 256,
    "positive_fraction": 0.5,
    "positive_iou": 0.7,
    "negative_iou": 0.3,
    "ignore_border_anchors": True,
    "smooth_l1_sigma": 3,
    "min_size": 16,
    "pre_nms_train": 12000,
    "pre_nms_test": 6000,
    "nms_iou": 0.7,
    "post_nms_train": 2000,
    "post_nms_test": 300,
}
ROI = {
    "pooling": "roi_pool",
    "rois_per_image": 64,
    "foreground_fraction": 0.25,
    "foreground_iou": 0.5,
    "background_iou_low": 0.1,
    "background_iou_high": 0.5,
    "score_threshold": 0.05,
    "nms_iou": 0.3,
    "detections_per_image": 100,
}


def test_options_of_the_network() -> None:
    assert asdict(RPNOptions()) | RPN == asdict(RPNOptions())
    assert asdict(RoIOptions()) | ROI == asdict(RoIOptions())
    detectors = [get_detector(name, 20, backbone_options={"width": 4}) for name in ("resnet18", "vgg16")]
    assert [each.roi_heads.pool_size for each in detectors] == [14, 7]


def test_the_configuration() -> None:
    config = DetectorConfig()
    assert (config.rpn, config.roi) == (RPNOptions(), RoIOptions())
    assert (config.anchors.scales, config.anchors.ratios) == ([128, 256, 512], [0.5, 1, 2])
    assert (config.data.shorter_side, config.data.longest_side, config.data.flip) == (600, 1000, True)
    assert (config.backbone.norm, config.backbone.freeze_stages) == ("frozen", ["conv1", "conv2"])
    assert (config.train.batch_size, config.optimizer.lr, config.optimizer.momentum) == (2, 0.001, 0.9)
    assert config.optimizer.weight_decay == 5e-4


def test_a_detector_built_without_options_is_that_of_the_configuration() -> None:
    config = DetectorConfig()
    detector = get_detector("resnet18", 20, backbone_options={"width": 4})
    assert (detector.rpn.options, detector.roi_heads.options) == (config.rpn, config.roi)
    assert list(detector.freeze_stages) == config.backbone.freeze_stages
    sides = (detector.rpn.shapes[:, 2:] - detector.rpn.shapes[:, :2]).double()
    assert sorted(sides.prod(1).round().tolist()) == sorted(s * s for s in (128, 256, 512) for _ in range(3))


def test_whole_numbers_do_as_mean_and_deviation() -> None:
    detector = get_detector("resnet18", 2, backbone_options={"width": 4}, mean=(104, 117, 123), std=(1, 1, 1)).eval()
    assert detector.mean.flatten().tolist() == [104, 117, 123]
    assert detector.mean.dtype == detector.std.dtype == torch.float32
    with torch.no_grad():
        assert len(detector([torch.zeros(3, 40, 50, dtype=torch.uint8)])) == 1
