"""Every trainable parameter of a detector gets a gradient in every step: many processes wait for each of them."""

from typing import Literal

import pytest
import torch

from detection import get_detector
from detection.data.samples import Target
from detection.models import RoIOptions, RPNOptions


@pytest.mark.parametrize("pooling", ["roi_align", "roi_pool"])
def test_a_picture_without_objects_reaches_every_parameter(pooling: Literal["roi_align", "roi_pool"]) -> None:
    detector = get_detector(
        "resnet18",
        3,
        backbone_options={"width": 8},
        anchor_scales=(16, 32),
        rpn=RPNOptions(channels=16, min_size=4),
        roi=RoIOptions(pooling=pooling),
    ).train()
    nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool))
    losses = detector([torch.rand(3, 96, 96)], [nothing], [1])
    sum(losses.values()).backward()
    assert [name for name, p in detector.named_parameters() if p.requires_grad and p.grad is None] == []
