"""The RPN's labels, losses and proposals against closed forms and plain loops."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from backbones.errors import ConfigError
from detection.models.boxes import decode, encode
from detection.models.rpn import RPN, Predictions, RPNOptions
from detection.structures import Target

STRIDE = 16


def make_rpn(**options: object) -> RPN:
    torch.manual_seed(0)
    options = {"channels": 8} | options
    return RPN(4, STRIDE, anchor_scales=(16, 32, 64), anchor_ratios=(0.5, 1, 2), options=RPNOptions(**options)).double()


def make_target(boxes: list[list[float]], ignore: list[bool] | None = None) -> Target:
    return Target(
        torch.tensor(boxes).reshape(-1, 4),
        torch.ones(len(boxes), dtype=torch.int64),
        torch.tensor(ignore or [False] * len(boxes), dtype=torch.bool),
    )


def predictions_of(anchors: list[list[float]], logits: list[float], deltas: Tensor | None = None) -> Predictions:
    boxes = torch.tensor(anchors, dtype=torch.float64)
    zeros = torch.zeros_like(boxes)
    return Predictions(boxes, torch.tensor(logits, dtype=torch.float64), zeros if deltas is None else deltas)


def cross_entropy(logit: float, positive: bool) -> float:
    return math.log1p(math.exp(-logit if positive else logit))


def smooth_l1(x: float, sigma: float) -> float:
    return 0.5 * (sigma * x) ** 2 if abs(x) < 1 / sigma**2 else abs(x) - 0.5 / sigma**2


def slow_proposals(predictions: Predictions, size: tuple[int, int], before: int, after: int) -> Tensor:
    """Sorts, clips, drops the small ones, and keeps a box that overlaps no better kept one by more than 0.7."""
    boxes = decode(predictions.deltas, predictions.anchors).tolist()
    order = sorted(range(len(boxes)), key=lambda i: -predictions.logits[i].item())[:before]
    kept: list[list[float]] = []
    for i in order:
        height, width = size
        x1, y1, x2, y2 = boxes[i]
        b = [min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width), min(max(y2, 0), height)]
        if b[2] - b[0] < 16 or b[3] - b[1] < 16:
            continue
        if all(box_iou(torch.tensor([b]).double(), torch.tensor([k]).double()).item() <= 0.7 for k in kept):
            kept.append(b)
    return torch.tensor(kept[:after], dtype=torch.float64)


@pytest.mark.parametrize("training", [True, False])
def test_proposals_equal_a_plain_implementation(training: bool):
    rpn = make_rpn(pre_nms_train=150, post_nms_train=60, pre_nms_test=80, post_nms_test=12)
    sizes = [(70, 100), (96, 60)]
    generator = torch.Generator().manual_seed(1)
    predictions = rpn.predict(torch.randn(2, 4, 6, 7, generator=generator, dtype=torch.float64), sizes)
    assert [len(p.anchors) for p in predictions] == [5 * 7 * 9, 6 * 4 * 9]  # own cells, not the padding's
    for p in predictions:
        p.logits = torch.randn(p.logits.shape, generator=generator, dtype=torch.float64)
        p.deltas = torch.randn(p.deltas.shape, generator=generator, dtype=torch.float64) * 0.5
    proposals = rpn.propose(predictions, sizes, to_train=training)
    for p, size, ours in zip(predictions, sizes, proposals, strict=True):
        expected = slow_proposals(p, size, *((150, 60) if training else (80, 12)))
        assert not training or len(expected) > 12
        torch.testing.assert_close(ours, expected)
        assert not ours.requires_grad


def test_small_boxes_never_become_proposals_however_good():
    rpn = make_rpn().eval()
    predictions = predictions_of([[0, 0, 10, 30], [40, 40, 60, 60], [70, 70, 95, 95]], [9.0, 1.0, 2.0])
    (proposals,) = rpn.propose([predictions], [(100, 100)], to_train=False)
    assert proposals.tolist() == [[70, 70, 95, 95], [40, 40, 60, 60]]


def test_a_picture_smaller_than_the_minimum_keeps_its_boxes():
    rpn = make_rpn().eval()
    (proposals,) = rpn.propose(
        [predictions_of([[-5, -5, 20, 20], [0, 0, 5, 5]], [0.0, 1.0])], [(10, 12)], to_train=False
    )
    assert proposals.tolist() == [[0, 0, 5, 5], [0, 0, 12, 10]]


def test_losses_in_closed_form():
    # IoU with the object [20, 20, 60, 60]: 1, 0.75 (positive); 0.5 (neither); 0 (negative, twice); the last one
    # crosses the border.
    anchors = [
        [20, 20, 60, 60],
        [20, 20, 60, 50],
        [20, 20, 60, 40],
        [70, 70, 90, 90],
        [0, 70, 20, 90],
        [-1, 20, 60, 60],
    ]
    deltas = torch.zeros(6, 4, dtype=torch.float64)
    deltas[0] = torch.tensor([0.05, -0.2, 0.0, 1.0])
    logits = [0.3, -1.2, 5.0, 0.7, -0.4, 3.0]
    rpn = make_rpn()
    objectness, box = rpn.loss(
        [predictions_of(anchors, logits, deltas)], [(100, 100)], [make_target([[20, 20, 60, 60.0]])], [1]
    )
    labels = {0: True, 1: True, 3: False, 4: False}
    assert objectness.item() == pytest.approx(sum(cross_entropy(logits[i], p) for i, p in labels.items()) / 4)
    # The second: its centre has to move by 5 of 30 pixels and its height to grow by 4/3.
    errors = [0.05, -0.2, 0.0, 1.0, 0, 1 / 6, 0, math.log(4 / 3)]
    assert box.item() == pytest.approx(sum(smooth_l1(e, 3.0) for e in errors) / 4)


def test_the_best_anchor_of_an_object_is_positive_however_little_it_overlaps():
    # The object overlaps by 0.05 and 0.04; the other anchors are negative.
    anchors = [[0, 0, 40, 50], [0, 0, 50, 50], [60, 60, 90, 90]]
    logits = [0.5, 0.25, -1.0]
    objectness, _ = make_rpn().loss(
        [predictions_of(anchors, logits)], [(100, 100)], [make_target([[0, 0, 10, 10.0]])], [1]
    )
    expected = [cross_entropy(0.5, True), cross_entropy(0.25, False), cross_entropy(-1.0, False)]
    assert objectness.item() == pytest.approx(sum(expected) / 3)


def test_border_anchors_count_when_asked_for_or_when_there_are_no_others():
    anchors = [[-10, -10, 50, 50], [-5, 0, 30, 30]]
    logits = [1.0, 2.0]
    nothing = make_target([])
    both = (cross_entropy(1.0, False) + cross_entropy(2.0, False)) / 2
    objectness, box = make_rpn().loss([predictions_of(anchors, logits)], [(40, 40)], [nothing], [1])
    assert objectness.item() == pytest.approx(both)
    assert box.item() == 0
    inside = predictions_of([*anchors, [1, 1, 30, 30]], [*logits, 3.0])
    assert make_rpn().loss([inside], [(40, 40)], [nothing], [1])[0].item() == pytest.approx(cross_entropy(3.0, False))
    all_three = make_rpn(ignore_border_anchors=False).loss([inside], [(40, 40)], [nothing], [1])[0].item()
    assert all_three == pytest.approx((2 * both + cross_entropy(3.0, False)) / 3)


def test_a_border_anchor_is_not_positive_even_if_it_is_the_best():
    anchors = [[-2, 10, 40, 40], [0, 10, 40, 30], [60, 60, 90, 90]]  # IoU 0.95, 0.67 and 0
    predictions = predictions_of(anchors, [1.0, 2.0, 3.0])
    objectness, _ = make_rpn().loss([predictions], [(100, 100)], [make_target([[0, 10, 40, 40.0]])], [1])
    assert objectness.item() == pytest.approx((cross_entropy(2.0, True) + cross_entropy(3.0, False)) / 2)


def test_what_lies_in_an_ignored_object_is_no_background_and_no_object():
    anchors = [[10, 10, 40, 40], [60, 60, 90, 90]]
    crowd = make_target([[0, 0, 50, 50.0]], [True])
    rpn = make_rpn()
    objectness, box = rpn.loss([predictions_of(anchors, [1.0, 2.0])], [(100, 100)], [crowd], [1])
    assert objectness.item() == pytest.approx(cross_entropy(2.0, False))
    assert box.item() == 0
    nowhere = make_target([[0, 0, 100, 100.0]], [True])  # nothing is left to train on
    assert [x.item() for x in rpn.loss([predictions_of(anchors, [1.0, 2.0])], [(100, 100)], [nowhere], [1])] == [0, 0]


def test_256_anchors_of_which_at_most_half_are_positive():
    # 300 exact anchors and 400 far away; the logits tell them apart.
    anchors = [[10.0, 10, 40, 40]] * 300 + [[60.0, 60, 90, 90]] * 400
    predictions = predictions_of(anchors, [2.0] * 300 + [2.0] * 400)
    wanted = make_target([[10, 10, 40, 40.0]])
    objectness, _ = make_rpn().loss([predictions], [(100, 100)], [wanted], [3])
    assert objectness.item() == pytest.approx((cross_entropy(2.0, True) + cross_entropy(2.0, False)) / 2)
    few = predictions_of(anchors[260:], [2.0] * 440)
    objectness, _ = make_rpn().loss([few], [(100, 100)], [wanted], [3])
    expected = (40 * cross_entropy(2.0, True) + 216 * cross_entropy(2.0, False)) / 256
    assert objectness.item() == pytest.approx(expected)


def test_labels_equal_a_plain_implementation():
    """Every anchor's label, read off the gradient of its logit: negative for an object, positive for background."""
    rpn = make_rpn(anchors_per_image=100000, positive_fraction=1.0)
    size = (160, 192)
    (predictions,) = rpn.predict(torch.zeros(1, 4, 10, 12, dtype=torch.float64), [size])
    objects = [[20.0, 30, 60, 66], [100, 90, 160, 150], [64, 64, 80, 80], [3, 100, 40, 150]]
    predictions.logits = torch.zeros(len(predictions.anchors), dtype=torch.float64, requires_grad=True)
    rpn.loss([predictions], [size], [make_target(objects)], [0])[0].backward()
    iou = box_iou(predictions.anchors, torch.tensor(objects, dtype=torch.float64))
    labels = []
    for anchor, row in zip(predictions.anchors.tolist(), iou, strict=True):
        inside = anchor[0] >= 0 and anchor[1] >= 0 and anchor[2] <= 192 and anchor[3] <= 160
        labels.append((1 if row.max() >= 0.7 else -1 if row.max() < 0.3 else 0) if inside else 0)
        if not inside:
            row[:] = 0
    for j in range(len(objects)):
        for i in range(len(labels)):
            if iou[i, j] == iou[:, j].max():
                labels[i] = 1
    assert labels.count(1) >= 4
    assert torch.equal(-predictions.logits.grad.sign(), torch.tensor(labels, dtype=torch.float64))


def test_perfect_regression_has_no_loss_and_recovers_the_objects():
    rpn = make_rpn().eval()
    size = (96, 96)
    (predictions,) = rpn.predict(torch.zeros(1, 4, 6, 6, dtype=torch.float64), [size])
    wanted = torch.tensor([[20.0, 24, 60, 70]], dtype=torch.float64)
    predictions.deltas = encode(wanted.expand_as(predictions.anchors), predictions.anchors)
    _, box = rpn.loss([predictions], [size], [make_target(wanted.tolist())], [0])
    assert box.item() == pytest.approx(0, abs=1e-12)
    (proposals,) = rpn.propose([predictions], [size], to_train=False)
    torch.testing.assert_close(proposals, wanted)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("positive_fraction", 1.5),
        ("anchors_per_image", 0),
        ("negative_iou", 0.8),
        ("smooth_l1_sigma", 0),
        ("min_size", -1),
    ],
)
def test_options_that_make_no_sense_are_named(key: str, value: float):
    with pytest.raises(ConfigError, match=f"rpn.{key} must be"):
        RPNOptions(**{key: value})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_proposals_of_a_diverging_network_are_still_boxes(bad: float) -> None:
    """RoI align would crash on anything else."""
    predictions = predictions_of([[0, 0, 40, 40], [30, 30, 70, 70]], [bad, 1.0], torch.full((2, 4), bad).double())
    for to_train in (True, False):
        (boxes,) = make_rpn().propose([predictions], [(80, 64)], to_train=to_train)
        assert len(boxes) >= 1
        assert boxes.isfinite().all()
        assert ((boxes >= 0) & (boxes <= 80)).all()
