"""RoI heads: which regions are trained on, the losses in closed form, scores, boxes and detections."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou, nms, roi_align, roi_pool

from backbones.errors import ConfigError
from backbones.models import get_model, run_stages
from detection.models.features import split_backbone
from detection.models.postprocessing import postprocess
from detection.models.roi_heads import RoIHeads, RoIOptions
from detection.structures import Target


def make_heads(num_classes: int = 3, backbone: str = "resnet18", **options: object) -> RoIHeads:
    torch.manual_seed(0)
    network = get_model(backbone, 0, width=4).eval()
    return RoIHeads(split_backbone(network), num_classes, options=RoIOptions(**options))


def make_target(boxes: list[list[float]], labels: list[int], ignore: list[bool] | None = None) -> Target:
    return Target(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(ignore or [False] * len(labels), dtype=torch.bool),
    )


def constant(layer: nn.Linear, values: Tensor) -> None:
    """Makes a layer answer `values` for every region."""
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.bias.copy_(values.flatten())


def jittered(box: list[float], count: int, spread: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.tensor(box) + spread * (torch.rand(count, 4, generator=generator) - 0.5)


def test_64_regions_of_which_at_most_a_quarter_are_foreground():
    target = make_target([[20, 20, 60, 60]], [2])
    proposals = torch.cat([jittered([20.0, 20, 60, 60], 50, 4), jittered([40.0, 40, 80, 80], 100, 4)])
    regions = make_heads().select(proposals, target, seed=5)
    assert len(regions.rois) == 64
    assert regions.labels.tolist().count(2) == 16
    assert regions.labels.tolist().count(0) == 48
    torch.testing.assert_close(regions.weight, torch.full((64,), 1 / 64))
    iou = box_iou(regions.rois, target.boxes)[:, 0]
    assert (iou[regions.labels == 2] >= 0.5).all()
    assert ((iou[regions.labels == 0] >= 0.1) & (iou[regions.labels == 0] < 0.5)).all()
    again = make_heads().select(proposals, target, seed=5)
    assert torch.equal(regions.rois, again.rois)
    assert not torch.equal(regions.rois, make_heads().select(proposals, target, seed=6).rois)


@pytest.mark.parametrize(("low", "expected"), [(0.1, [0.2]), (0.0, [0.0, 0.2])])
def test_background_lies_in_its_band(low: float, expected: list[float]):
    target = make_target([[0, 0, 10, 10]], [1])
    proposals = torch.tensor([[50.0, 50, 60, 60], [0, 0, 10, 2]])
    regions = make_heads(background_iou_low=low).select(proposals, target, seed=1)
    background = regions.rois[(regions.labels == 0) & (regions.weight > 0)]
    assert sorted(box_iou(background, target.boxes)[:, 0].tolist()) == pytest.approx(expected)


def test_objects_join_the_proposals_and_ignored_ones_do_not():
    target = make_target([[10, 10, 40, 40], [50, 50, 90, 90]], [3, 1], [False, True])
    proposals = torch.tensor([[50.0, 50, 90, 90], [52, 52, 88, 88], [100, 0, 120, 20]])
    regions = make_heads(background_iou_low=0.0).select(proposals, target, seed=1)
    chosen = regions.weight > 0
    assert sorted(zip(regions.labels[chosen].tolist(), regions.rois[chosen].tolist(), strict=True)) == [
        (0, [100, 0, 120, 20]),
        (3, [10, 10, 40, 40]),
    ]
    assert torch.equal(regions.deltas, torch.zeros_like(regions.deltas))


def test_an_ignored_object_that_overlaps_another_is_not_trained_on():
    target = make_target([[10, 10, 40, 40], [10, 10, 40, 36]], [3, 1], [False, True])
    regions = make_heads().select(torch.tensor([[100.0, 0, 120, 20]]), target, seed=1)
    assert regions.rois[regions.weight > 0].tolist() == [[10, 10, 40, 40]]


def test_deltas_are_in_units_of_their_deviation():
    target = make_target([[20, 20, 60, 60]], [1])
    regions = make_heads().select(torch.tensor([[20.0, 20, 60, 50]]), target, seed=1)
    moved = regions.deltas[(regions.rois[:, 3] == 50)]
    torch.testing.assert_close(moved, torch.tensor([[0, (1 / 6) / 0.1, 0, math.log(4 / 3) / 0.2]]))


def test_losses_in_closed_form_use_the_columns_of_the_own_class():
    heads = make_heads(background_iou_low=0.0)
    constant(heads.classification, torch.tensor([0.0, 1.0, 2.0, 3.0]))
    answers = torch.zeros(3, 4)
    answers[1] = torch.tensor([0.5, -2.0, 0.0, 0.25])  # class 2
    answers[[0, 2]] = 100.0
    constant(heads.box, answers)
    target = make_target([[20, 20, 60, 60]], [2])
    proposals = torch.tensor([[80.0, 80, 90, 90], [0, 0, 10, 10]])
    classification, box = heads.loss(torch.randn(1, 16, 6, 6), [proposals], [(96, 96)], [target], [0])
    total = math.log(sum(math.exp(x) for x in (0, 1, 2, 3)))
    assert classification.item() == pytest.approx((2 * total + (total - 2)) / 3)
    assert box.item() == pytest.approx((0.5 * 0.5**2 + 1.5 + 0.5 * 0.25**2) / 3)


def test_each_picture_counts_the_same():
    heads = make_heads(background_iou_low=0.0)
    features = torch.randn(2, 16, 6, 6, generator=torch.Generator().manual_seed(1))
    nn.init.normal_(heads.classification.weight)
    nn.init.normal_(heads.box.weight)
    proposals = [jittered([40.0, 40, 70, 70], 5, 30), jittered([20.0, 20, 60, 60], 40, 30)]
    targets = [make_target([[20, 20, 60, 60]], [1]), make_target([[30, 20, 60, 60], [5, 5, 40, 50]], [2, 3])]
    both = heads.loss(features, proposals, [(96, 96)] * 2, targets, [1, 2])
    single = [heads.loss(features[i : i + 1], [proposals[i]], [(96, 96)], [targets[i]], [i + 1]) for i in range(2)]
    for k in range(2):
        torch.testing.assert_close(both[k], (single[0][k] + single[1][k]) / 2)


@pytest.mark.parametrize("target", [make_target([], []), make_target([[0, 0, 96, 96]], [1], [True])])
def test_pictures_without_objects(target: Target):
    proposals = torch.tensor([[10.0, 10, 40, 40], [50, 50, 80, 80]])
    heads = make_heads()  # a background that has to overlap an object: there is none
    losses = heads.loss(torch.randn(1, 16, 6, 6), [proposals], [(96, 96)], [target], [0])
    assert [x.item() for x in losses] == [0, 0]
    regions = make_heads(background_iou_low=0.0).select(proposals, target, seed=0)
    assert (regions.weight > 0).sum() == (0 if target.ignore.any() else 2)


def test_region_features_are_conv5_and_a_mean_on_each_pooled_region():
    features = torch.randn(2, 16, 6, 6)
    rois = [torch.tensor([[0.0, 0, 50, 80], [16, 16, 96, 96]]), torch.tensor([[8.0, 20, 60, 60]])]
    indexed = torch.cat([torch.tensor([[0.0], [0.0], [1.0]]), torch.cat(rois)], dim=1)
    for pooling, pooled in (
        ("roi_pool", roi_pool(features, indexed, 14, 1 / 16)),
        ("roi_align", roi_align(features, indexed, 14, 1 / 16, 2, True)),
    ):
        heads = make_heads(pooling=pooling)
        conv5 = run_stages(heads.split.network, pooled, "conv5", "conv5")
        assert conv5.shape[2:] == (7, 7)
        torch.testing.assert_close(heads.region_features(features, rois), conv5.mean((2, 3)))
    vgg = make_heads(backbone="vgg16")
    features = torch.randn(2, 32, 6, 6)
    expected = vgg.split.network.classifier(roi_pool(features, indexed, 7, 1 / 16).flatten(1))
    torch.testing.assert_close(vgg.region_features(features, rois), expected)


def test_scores_and_boxes_of_given_regions():
    heads = make_heads(num_classes=2)
    logits = torch.tensor([0.5, -1.0, 2.0])
    constant(heads.classification, logits)
    constant(heads.box, torch.tensor([[0.0, 0, 0, 0], [5.0, 0, math.log(2) / 0.2, 0]]))
    rois = [torch.tensor([[10.0, 10, 30, 50]]), torch.zeros(0, 4)]
    scores, boxes = heads.score_regions(torch.randn(2, 16, 6, 6), rois, [(96, 96)] * 2)
    torch.testing.assert_close(scores, F.softmax(logits, 0)[None])
    # The second class: half a width to the right, twice as wide.
    torch.testing.assert_close(boxes, torch.tensor([[[10.0, 10, 30, 50], [10, 10, 50, 50]]]))


def test_detections_equal_a_plain_implementation():
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn(60, 4, generator=generator).mul(2).softmax(1)
    corners = torch.rand(60, 3, 2, generator=generator) * 90 - 10
    boxes = torch.cat([corners, corners + 10 + torch.rand(60, 3, 2, generator=generator) * 50], dim=2)
    options = RoIOptions(detections_per_image=25)
    ours = postprocess(scores, boxes, (80, 100), options)
    found = []
    for label in (1, 2, 3):
        good = scores[:, label] > 0.05
        score, box = scores[good, label], boxes[good, label - 1]
        box = torch.minimum(box.clamp(min=0), torch.tensor([100.0, 80, 100, 80]))
        found += [(score[k].item(), label, box[k].tolist()) for k in nms(box, score, 0.3)]
    found = sorted(found, reverse=True)
    assert len(found) > 25
    assert list(zip(ours.scores.tolist(), ours.labels.tolist(), ours.boxes.tolist(), strict=True)) == found[:25]
    nothing = postprocess(scores[:0], boxes[:0], (80, 100), options)
    assert (nothing.boxes.shape, len(nothing)) == ((0, 4), 0)


@pytest.mark.parametrize(
    ("key", "value"),
    [("pooling", "max"), ("background_iou_low", 0.6), ("rois_per_image", 0), ("nms_iou", 2.0), ("pool_size", 0)],
)
def test_options_that_make_no_sense_are_named(key: str, value: object):
    with pytest.raises(ConfigError, match=f"roi.{key} must be"):
        RoIOptions(**{key: value})


def test_vggs_layers_fix_the_pool_size():
    with pytest.raises(ConfigError, match=r"roi\.pool_size must be 7"):
        make_heads(backbone="vgg16", pool_size=14)
    assert make_heads(backbone="resnet18", pool_size=7).pool_size == 7
