"""Faster R-CNN."""

from detection.models.faster_rcnn import FasterRCNN, Part, describe_parameters, get_detector
from detection.models.postprocessing import postprocess
from detection.models.roi_heads import RoIOptions
from detection.models.rpn import RPNOptions

__all__ = ["FasterRCNN", "Part", "RPNOptions", "RoIOptions", "describe_parameters", "get_detector", "postprocess"]
