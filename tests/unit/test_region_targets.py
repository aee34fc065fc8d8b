"""What the RoI heads are trained on, against the papers' rules in plain loops."""

import math
from collections import Counter
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from plain_rules import Box, Thing, boxes, coding, nearest, region_label, smooth_l1, smooth_l1_slope, target, things
from torch import nn

from backbones.models import get_model
from detection.models.features import split_backbone
from detection.models.roi_heads import RoIHeads, RoIOptions

SIDE = 24
CLASSES = 3
UNITS = (0.1, 0.1, 0.2, 0.2)
FEATURES = torch.zeros(1, 16, 2, 2)


def heads(**options: object) -> RoIHeads:
    """Their two layers ignore the features: they answer 0 for each class, and for its box what their bias says."""
    made = RoIHeads(split_backbone(get_model("resnet18", 0, width=4).eval()), CLASSES, options=RoIOptions(**options))
    for layer in (made.classification, made.box):
        nn.init.zeros_(layer.weight)
    with torch.no_grad():
        made.box.bias.copy_(torch.arange(4 * CLASSES) / 4 - 1.3)
    return made


HEADS = {low: heads(background_iou_low=low) for low in (0.0, 0.1)}
ANSWERS = (torch.arange(4 * CLASSES) / 4 - 1.3).view(CLASSES, 4).tolist()


def regions_of(proposals: list[Box], objects: list[Thing]) -> list[Box]:
    """Objects that are not ignored join the proposals."""
    return proposals + [each.box for each in objects if not each.ignore]


def fitting(regions: list[Box], objects: list[Thing]) -> bool:
    """Whether each region has one nearest object: where two tie, either is right."""
    return all(len({(each.box, each.label) for each in nearest(region, objects)}) <= 1 for region in regions)


@settings(deadline=None, max_examples=70)
@given(
    st.lists(boxes(0, SIDE), min_size=1, max_size=14), things(SIDE), st.sampled_from([0.0, 0.1]), st.integers(0, 2**40)
)
@example([(0, 0, 10, 5), (0, 0, 10, 1), (0, 4, 10, 10)], [Thing((0, 0, 10, 10), 3)], 0.1, 0)
@example([(0, 0, 10, 5), (0, 0, 20, 10)], [Thing((0, 0, 10, 10), 3, True), Thing((15, 0, 16, 1), 2)], 0.0, 0)
def test_losses_and_gradients_equal_a_plain_implementation(
    proposals: list[Box], objects: list[Thing], low: float, seed: int
) -> None:
    """With 64 regions all that may be trained on are, unless more than 16 are foreground."""
    regions = regions_of(proposals, objects)
    labels = [region_label(region, objects, Fraction(low).limit_denominator(10)) for region in regions]
    assume(fitting(regions, objects) and sum(label > 0 for label in labels) <= 16)
    ours = HEADS[low]
    ours.zero_grad()
    classification, box = ours.loss(
        FEATURES, [torch.tensor(proposals).float()], [(SIDE, SIDE)], [target(objects)], [seed]
    )
    (classification + box).backward()

    count = max(1, sum(label >= 0 for label in labels))
    loss, slopes = 0.0, [[0.0] * 4 for _ in range(CLASSES)]
    for region, label in zip(regions, labels, strict=True):
        if label > 0:
            goal = [g / u for g, u in zip(coding(nearest(region, objects)[0].box, region), UNITS, strict=True)]
            errors = [a - g for a, g in zip(ANSWERS[label - 1], goal, strict=True)]
            loss += sum(smooth_l1(e, 1) for e in errors) / count
            for k in range(4):
                slopes[label - 1][k] += smooth_l1_slope(errors[k], 1) / count
    chosen = Counter(labels)
    trained = sum(chosen[label] for label in range(CLASSES + 1))
    assert classification.item() == pytest.approx(math.log(CLASSES + 1) if trained else 0, rel=1e-5)
    assert box.item() == pytest.approx(loss, rel=1e-4, abs=1e-5)
    # Only the four columns of a region's own class learn from it.
    assert ours.box.bias.grad.view(CLASSES, 4).tolist() == [pytest.approx(row, rel=1e-4, abs=1e-5) for row in slopes]
    pulls = [trained / count / (CLASSES + 1) - chosen[label] / count for label in range(CLASSES + 1)]
    assert ours.classification.bias.grad.tolist() == pytest.approx(pulls, abs=1e-5)


@settings(deadline=None, max_examples=70)
@given(
    st.lists(boxes(0, SIDE), min_size=1, max_size=40),
    things(SIDE),
    st.integers(1, 24),
    st.sampled_from([0.25, 0.5]),
    st.sampled_from([0.0, 0.1]),
    st.integers(0, 2**40),
)
@example([(0, 0, 10, 5)] * 6, [Thing((0, 0, 10, 10), 2)], 4, 0.25, 0.1, 0)  # too much foreground is no background
def test_at_most_a_quarter_are_foreground_and_background_fills_the_rest(
    proposals: list[Box], objects: list[Thing], count: int, fraction: float, low: float, seed: int
) -> None:
    ours = RoIHeads(
        HEADS[low].split,
        CLASSES,
        options=RoIOptions(rois_per_image=count, foreground_fraction=fraction, background_iou_low=low),
    )
    regions = regions_of(proposals, objects)
    assume(fitting(regions, objects))
    drawn = ours.select(torch.tensor(proposals).float(), target(objects), seed)
    wanted = Counter(
        (region, label) for region in regions if (label := region_label(region, objects, Fraction(str(low)))) >= 0
    )
    trained = drawn.weight > 0
    boxes_of = [tuple(map(int, row)) for row in drawn.rois[trained].tolist()]
    chosen = Counter(zip(boxes_of, drawn.labels[trained].tolist(), strict=True))
    assert chosen <= wanted  # each of them, and none more often than it is there
    foreground = min(sum(n for (_, label), n in wanted.items() if label > 0), int(fraction * count))
    background = min(sum(n for (_, label), n in wanted.items() if label == 0), count - foreground)
    assert int((drawn.labels[trained] > 0).sum()) == foreground
    assert int(trained.sum()) == foreground + background
    if foreground + background:
        torch.testing.assert_close(
            drawn.weight[trained], torch.full((foreground + background,), 1 / (foreground + background))
        )
    for region, label, deltas in zip(boxes_of, drawn.labels[trained], drawn.deltas[trained].tolist(), strict=True):
        goal = coding(nearest(region, objects)[0].box, region) if label > 0 else [0.0] * 4
        assert deltas == pytest.approx([g / u for g, u in zip(goal, UNITS, strict=True)], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("low", "region", "label"),
    [
        (0.1, (0, 0, 10, 5), 2),  # IoU 0.5 exactly
        (0.1, (0, 0, 100, 10), 0),  # 0.1 exactly
        (0.1, (0, 0, 101, 10), None),
        (0.0, (0, 0, 101, 10), 0),
        (0.1, (50, 50, 60, 60), None),
        (0.0, (50, 50, 60, 60), 0),
    ],
)
def test_the_thresholds_themselves(low: float, region: Box, label: int | None) -> None:
    drawn = HEADS[low].select(torch.tensor([region]).float(), target([Thing((0, 0, 10, 10), 2)]), 0)
    trained = {
        tuple(map(int, box)): int(k)
        for box, k, w in zip(drawn.rois.tolist(), drawn.labels, drawn.weight, strict=True)
        if w
    }
    assert trained.pop((0, 0, 10, 10)) == 2  # the object's own box
    assert trained == ({} if label is None else {region: label})
