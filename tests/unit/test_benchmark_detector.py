"""The part `detector` compares like with like: torchvision's detector is a copy of ours."""

import pytest
import torch

from backbones.errors import ConfigError
from detection.benchmark.detector_part import (
    DetectorPartOptions,
    check_detector,
    count_regions,
    least_cost,
    make_detector,
    random_batch,
)
from detection.benchmark.their_detector import torchvision_detector

OPTIONS = DetectorPartOptions(height=64, width=64, batch_size=1, pre_nms=40, post_nms_train=10, post_nms_test=4)


def test_torchvisions_copy_sees_the_same_features() -> None:
    ours = make_detector(OPTIONS, "roi_align").eval()
    theirs = torchvision_detector(ours, (64, 64)).eval()
    images, _ = random_batch(OPTIONS)
    with torch.inference_mode():
        pictures = theirs.transform([image / 255 for image in images])[0].tensors
        torch.testing.assert_close(theirs.backbone(pictures), ours.features(images), rtol=1e-3, atol=1e-3)
    learning = [sum(p.numel() for p in d.backbone.parameters() if p.requires_grad) for d in (ours, theirs)]
    conv5 = sum(p.numel() for p in theirs.roi_heads.box_head.parameters())
    assert learning[0] == learning[1] + conv5


def test_a_training_step_costs_at_least_what_its_inference_does() -> None:
    ours = make_detector(OPTIONS, "roi_align")
    training, inference = (least_cost(ours, work, "fp32", OPTIONS, 4) for work in ("training", "inference"))
    assert training.operations > 2 * inference.operations > 0


def test_the_regions_that_are_there_are_counted() -> None:
    ours = make_detector(OPTIONS, "roi_align").eval()
    images, _ = random_batch(OPTIONS)
    with torch.inference_mode():
        expected = sum(len(ours.propose(image, to_train=False)) for image in images)
        assert count_regions(ours, lambda: ours(images)) == expected > 0


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="poolings"):
        check_detector(DetectorPartOptions(poolings=[]))
    with pytest.raises(ConfigError, match="height 8"):
        check_detector(DetectorPartOptions(height=8))
