"""Faster R-CNN on the networks of `backbones`, as in section 4.3 and the appendices of the paper."""

from detection.models import get_detector

__all__ = ["get_detector"]
