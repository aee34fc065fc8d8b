"""Faster R-CNN."""

from detection.models.faster_rcnn import FasterRCNN, Part, describe_parameters, get_detector
from detection.models.roi_heads import RoIOptions, postprocess
from detection.models.rpn import RPNOptions

__all__ = ["FasterRCNN", "Part", "RPNOptions", "RoIOptions", "describe_parameters", "get_detector", "postprocess"]
