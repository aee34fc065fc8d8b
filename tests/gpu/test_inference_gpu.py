"""Appendix B's parts find on a GPU what they find on a CPU."""

import copy

import pytest
import torch
from torch import nn

from detection import get_detector
from detection.data.samples import scale_picture
from detection.inference.ensemble import Ensemble, Member
from detection.inference.options import InferenceOptions
from detection.models import RoIOptions, RPNOptions

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no usable GPU"),
]


@pytest.mark.parametrize("merge", ["pooled", "features", "scores"])
def test_everything_together_finds_what_it_finds_on_a_cpu(merge: str) -> None:
    torch.manual_seed(0)
    members = []
    for name, shorter in (("resnet18", 96), ("vgg16_bn", 120)):
        detector = get_detector(
            name,
            3,
            backbone_options={"width": 8},
            norm="batch",
            freeze_stages=(),
            anchor_scales=(16, 32, 64),
            rpn=RPNOptions(channels=16, min_size=4, post_nms_test=40),
            roi=RoIOptions(context=True),
        )
        nn.init.normal_(detector.roi_heads.classification.weight, std=0.5)
        # In float64 no detection is gained or lost by rounding.
        members.append(Member(detector.double().eval(), shorter, 2 * shorter))
    options = InferenceOptions(refine=True, vote=True, scales=[48, 96, 144], region_side=40, merge=merge)
    on_cpu = Ensemble(members, options)
    on_gpu = Ensemble([Member(copy.deepcopy(m.detector).cuda(), m.shorter, m.longest) for m in members], options)
    picture = torch.randint(0, 256, (3, 120, 160), dtype=torch.uint8)
    images = scale_picture(picture, 0, on_cpu.views).images
    expected, found = on_cpu(images), on_gpu(images).to("cpu")
    assert len(found) == len(expected) > 0
    torch.testing.assert_close(found.scores, expected.scores)
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=1e-6, atol=1e-4)
