"""What the RPN is trained on, read off the gradients of its losses, against the papers' rules in plain loops.

With all logits 0 an anchor's gradient is -0.5 / S where it counts as positive, 0.5 / S as negative, 0 if it is left
out; the gradient of its deltas is the slope of smooth L1, from which the regression target follows.
"""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plain_rules import Box, Thing, anchor_labels, boxes, coding, nearest, smooth_l1, smooth_l1_slope, target, things
from torch import Tensor

from detection.models.rpn import RPN, Predictions, RPNOptions

SIDE = 24
FOUND = torch.tensor([0.05, -0.02, 0.4, -0.7], dtype=torch.float64)  # quadratic and linear errors


def trained_on(
    anchors: list[Box], objects: list[Thing], *, seed: int = 0, size: tuple[int, int] = (SIDE, SIDE), **options: float
) -> tuple[Tensor, Tensor, float]:
    """Gradients (n,) of the logits 0 and (n, 4) of the deltas FOUND, and the box loss."""
    rpn = RPN(1, 16, anchor_scales=(16,), anchor_ratios=(1,), options=RPNOptions(channels=1, **options))
    logits = torch.zeros(len(anchors), dtype=torch.float64, requires_grad=True)
    deltas = FOUND.repeat(len(anchors), 1).requires_grad_()
    predictions = Predictions(torch.tensor(anchors, dtype=torch.float64), logits, deltas)
    objectness, box = rpn.loss([predictions], [size], [target(objects)], [seed])
    torch.stack([objectness, box]).sum().backward()
    return logits.grad, deltas.grad, box.item()


def labels_of(gradient: Tensor) -> list[int]:
    return [-1 if g == 0 else int(g < 0) for g in gradient.tolist()]


@settings(deadline=None, max_examples=100)
@given(st.lists(boxes(-3, SIDE + 3), min_size=1, max_size=14), things(SIDE), st.integers(0, 2**40))
@example([(0, 0, 10, 10), (0, 0, 10, 10), (1, 0, 11, 10)], [Thing((0, 0, 10, 3)), Thing((0, 0, 10, 3))], 0)
@example([(-1, 0, 9, 10), (2, 2, 25, 24)], [Thing((0, 0, 10, 10)), Thing((1, 1, 24, 24), 2, True)], 0)
def test_labels_targets_and_weights_equal_a_plain_implementation(
    anchors: list[Box], objects: list[Thing], seed: int
) -> None:
    """With 256 anchors and more places than anchors nothing is left to chance but how many positives go in."""
    wanted = anchor_labels(anchors, SIDE, SIDE, objects)
    logits, deltas, loss = trained_on(anchors, objects, seed=seed)
    assert labels_of(logits) == wanted
    count = max(1, len(wanted) - wanted.count(-1))
    assert logits.abs().tolist() == pytest.approx([0 if label < 0 else 0.5 / count for label in wanted], abs=1e-12)
    total = 0.0
    for anchor, label, gradient in zip(anchors, wanted, deltas.tolist(), strict=True):
        # An anchor regresses to the object that it overlaps most, also where it is the best for another one.
        goals = [coding(each.box, anchor) for each in nearest(anchor, objects)] if label == 1 else []
        errors = [[found - goal for found, goal in zip(FOUND.tolist(), g, strict=True)] for g in goals]
        slopes = [[smooth_l1_slope(e, 3) / count for e in each] for each in errors] or [[0.0] * 4]
        (chosen,) = [k for k, each in enumerate(slopes) if gradient == pytest.approx(each, abs=1e-12)][:1]
        total += sum(smooth_l1(e, 3) for e in errors[chosen]) / count if errors else 0
    assert loss == pytest.approx(total)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(boxes(0, SIDE), min_size=1, max_size=30),
    things(SIDE),
    st.integers(1, 12),
    st.sampled_from([0.5, 0.25, 1.0]),
    st.integers(0, 2**40),
)
@example([(0, 0, 10, 10)] * 6, [Thing((0, 0, 10, 1))], 4, 0.5, 0)  # too many of the best: the others are no negatives
def test_at_most_half_are_positive_and_negatives_fill_the_rest(
    anchors: list[Box], objects: list[Thing], count: int, fraction: float, seed: int
) -> None:
    wanted = anchor_labels(anchors, SIDE, SIDE, objects)
    options = {"anchors_per_image": count, "positive_fraction": fraction}
    logits, _, _ = trained_on(anchors, objects, seed=seed, **options)
    chosen = labels_of(logits)
    assert all(label in (-1, truth) for label, truth in zip(chosen, wanted, strict=True))
    positives = min(wanted.count(1), int(fraction * count))
    negatives = min(wanted.count(0), count - positives)
    assert (chosen.count(1), chosen.count(0)) == (positives, negatives)
    assert logits.abs().sum().item() == pytest.approx(0.5 if positives + negatives else 0)


@pytest.mark.parametrize(
    ("anchor", "label"),
    [
        ((0, 0, 10, 10), 1),  # IoU 0.7 exactly
        ((0, 0, 10, 11), -1),
        ((60, 60, 69, 90), -1),  # 0.3 exactly
        ((60, 60, 69, 89), 0),
    ],
)
def test_the_thresholds_themselves(anchor: Box, label: int) -> None:
    """Objects have better anchors elsewhere, so only the thresholds speak."""
    objects = [Thing((0, 0, 10, 7)), Thing((0, 0, 30, 10)), Thing((60, 60, 90, 90))]
    anchors = [each.box for each in objects] + [anchor]
    logits, _, _ = trained_on(anchors, objects, size=(100, 100))
    assert labels_of(logits) == [1, 1, 1, label]


def test_all_anchors_that_tie_for_an_object_are_positive() -> None:
    """A 4 x 4 object in the middle of two anchors and at the same overlap with a third: 16 / 100 each."""
    anchors = [(0, 0, 10, 10), (0, 0, 10, 10), (3, 3, 13, 13), (14, 14, 24, 24), (0, 0, 24, 24)]
    logits, _, _ = trained_on(anchors, [Thing((4, 4, 8, 8))])
    assert labels_of(logits) == [1, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("error", "loss"), [(1 / 9 - 1e-6, 0.5 / 9), (1 / 9 + 1e-6, 0.5 / 9), (0.1, 0.045), (1.0, 17 / 18)]
)
def test_sigma_3_makes_the_loss_quadratic_below_a_ninth(error: float, loss: float) -> None:
    rpn = RPN(1, 16, anchor_scales=(16,), anchor_ratios=(1,), options=RPNOptions(channels=1))
    deltas = torch.zeros(1, 4, dtype=torch.float64)
    deltas[0, 1] = error
    anchors = torch.tensor([[2.0, 2, 12, 12]], dtype=torch.float64)
    predictions = Predictions(anchors, torch.zeros(1, dtype=torch.float64), deltas)
    _, box = rpn.loss([predictions], [(SIDE, SIDE)], [target([Thing((2, 2, 12, 12))])], [0])
    assert box.item() == pytest.approx(loss, abs=2e-6)
