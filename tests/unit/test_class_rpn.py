"""The per-class RPN against the detector's RPN, a plain convolution over all classes, and the rules in plain loops."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_rules import Box, Thing, boxes, coding, iou, smooth_l1, target
from torch import Tensor

from backbones.errors import ConfigError
from detection.localisation.layers import PerClassLayer
from detection.localisation.rpn import ClassPredictions, ClassRPNOptions, PerClassRPN
from detection.models.rpn import RPN, RPNOptions

SCALES, RATIOS = (16.0, 32.0), (0.5, 1.0, 2.0)


def class_rpn(classes: int, **options: object) -> PerClassRPN:
    torch.manual_seed(0)
    chosen = ClassRPNOptions(channels=6, **options)  # type: ignore[arg-type]
    rpn = PerClassRPN(5, 16, classes, anchor_scales=SCALES, anchor_ratios=RATIOS, options=chosen)
    for parameter in rpn.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return rpn.double()


def test_with_one_class_it_is_the_detectors_rpn() -> None:
    ours = class_rpn(1, anchors_per_image=16)
    options = RPNOptions(channels=6, anchors_per_image=16, ignore_border_anchors=False)
    plain = RPN(5, 16, anchor_scales=SCALES, anchor_ratios=RATIOS, options=options).double()
    plain.conv.load_state_dict(ours.conv.state_dict())
    for layer, own in ((plain.objectness, ours.objectness), (plain.box, ours.box)):
        layer.weight.data.copy_(own.weight[0][:, :, None, None])
        layer.bias.data.copy_(own.bias[0])
    maps = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    predictions = ours.predict(maps, torch.ones(2, 1, dtype=torch.int64))
    wanted = plain.predict(maps, [(48, 64)] * 2)
    for i, each in enumerate(wanted):
        assert torch.equal(predictions.anchors, each.anchors)
        torch.testing.assert_close(predictions.logits[i, 0], each.logits)
        torch.testing.assert_close(predictions.deltas[i, 0], each.deltas)
    # With 72 anchors all of these are drawn, so the other seeds of the two draw the same ones.
    objects = [target([Thing((4, 6, 40, 44))]), target([Thing((0, 0, 20, 18)), Thing((30, 10, 60, 46))])]
    few = {"anchors_per_image": 1000, "positive_iou": 0.5}
    ours.options, plain.options = ClassRPNOptions(**few), RPNOptions(**few, ignore_border_anchors=False)
    losses = ours.loss(predictions, objects, [0, 1])
    for loss, same in zip(losses, plain.loss(wanted, [(48, 64)] * 2, objects, [0, 1]), strict=True):
        torch.testing.assert_close(loss, same)
        assert loss > 0.01


def test_classes_are_slices_of_one_large_convolution() -> None:
    rpn = class_rpn(4)
    maps = torch.randn(2, 5, 3, 2, dtype=torch.float64)
    labels = torch.tensor([[3, 1], [4, 4]])
    found = rpn.predict(maps, labels)
    hidden = F.conv2d(maps, rpn.conv.weight, rpn.conv.bias, padding=1).relu()
    for i in range(2):
        for p in range(2):
            label = int(labels[i, p]) - 1
            for y in range(3):
                for x in range(2):
                    cell = hidden[i, :, y, x]
                    scores = rpn.objectness.weight[label] @ cell + rpn.objectness.bias[label]
                    deltas = (rpn.box.weight[label] @ cell + rpn.box.bias[label]).view(6, 4)
                    first = (y * 2 + x) * 6
                    torch.testing.assert_close(found.logits[i, p, first : first + 6], scores)
                    torch.testing.assert_close(found.deltas[i, p, first : first + 6], deltas)


def test_a_layer_of_regions_is_a_fully_connected_one() -> None:
    layer = PerClassLayer(5, 4, 3, std=1.0)
    features, labels = torch.randn(7, 5), torch.tensor([1, 3, 2, 3, 1, 2, 2])
    found = layer(features[:, :, None], labels[:, None])[:, 0, :, 0]
    every = F.linear(features, layer.weight.flatten(0, 1), layer.bias.flatten()).view(7, 3, 4)
    torch.testing.assert_close(found, every[torch.arange(7), labels - 1])


def test_only_the_pictures_own_class_learns() -> None:
    rpn = class_rpn(4)
    maps = torch.randn(2, 5, 3, 3, dtype=torch.float64)
    objects = [target([Thing((4, 6, 40, 44), 2)]), target([Thing((0, 0, 20, 18), 4)])]
    torch.stack(rpn.loss(rpn.predict(maps, torch.tensor([[2], [4]])), objects, [5, 6])).sum().backward()
    for layer in (rpn.objectness, rpn.box):
        for parameter in layer.parameters():
            assert [bool(row.abs().sum() > 0) for row in parameter.grad] == [False, True, False, True]


FOUND = torch.tensor([0.05, -0.02, 0.4, -0.7], dtype=torch.float64)


@settings(deadline=None, max_examples=80)
@given(
    st.lists(boxes(-3, 27), min_size=1, max_size=24),
    st.lists(boxes(0, 24), max_size=3),
    st.integers(0, 2**40),
)
def test_eight_anchors_at_most_half_positive_with_the_targets_of_plain_loops(
    anchors: list[Box], objects: list[Box], seed: int
) -> None:
    rpn = PerClassRPN(1, 16, 1, anchor_scales=(16,), anchor_ratios=(1,), options=ClassRPNOptions(channels=1))
    logits = torch.zeros(1, 1, len(anchors), dtype=torch.float64, requires_grad=True)
    deltas = FOUND.repeat(1, 1, len(anchors), 1).requires_grad_()
    predictions = ClassPredictions(torch.tensor(anchors, dtype=torch.float64), logits, deltas)
    objectness, box = rpn.loss(predictions, [target([Thing(each) for each in objects])], [seed])
    (objectness + box).backward()
    overlaps = [[iou(anchor, each) for each in objects] for anchor in anchors]
    best = [max((row[k] for row in overlaps), default=0) for k in range(len(objects))]
    positive = [any(o >= 0.7 or o == best[k] > 0 for k, o in enumerate(row)) for row in overlaps]
    negative = [not p and all(o < 0.3 for o in row) for p, row in zip(positive, overlaps, strict=True)]
    gradient = logits.grad[0, 0].tolist()
    chosen = [g < 0 for g in gradient], [g > 0 for g in gradient]
    counts = min(4, sum(positive)), min(8 - min(4, sum(positive)), sum(negative))
    assert (sum(chosen[0]), sum(chosen[1])) == counts
    assert all(allowed for pick, allowed in zip(chosen[0], positive, strict=True) if pick)
    assert all(allowed for pick, allowed in zip(chosen[1], negative, strict=True) if pick)
    total = 0.0
    for k, anchor in enumerate(anchors):
        if chosen[0][k]:
            ties = [each for each, o in zip(objects, overlaps[k], strict=True) if o == max(overlaps[k])]
            errors = [f - g for f, g in zip(FOUND.tolist(), coding(ties[0], anchor), strict=True)]
            total += sum(smooth_l1(e, 3) for e in errors) / sum(counts)
            if len(ties) > 1:
                return  # which of them an anchor stands for is arbitrary
    assert box.item() == pytest.approx(total, abs=1e-9)


def test_a_picture_with_enough_of_both_gives_four_and_four() -> None:
    rpn = class_rpn(1)
    count = 9
    predictions = ClassPredictions(
        torch.tensor([[0.0, 0, 10, 10]] * count + [[20.0, 20, 30, 30]] * count, dtype=torch.float64),
        torch.zeros(1, 1, 2 * count, dtype=torch.float64, requires_grad=True),
        torch.zeros(1, 1, 2 * count, 4, dtype=torch.float64),
    )
    rpn.loss(predictions, [target([Thing((0, 0, 10, 10))])], [3])[0].backward()
    gradient: Tensor = predictions.logits.grad[0, 0]  # type: ignore[index]
    assert (gradient[:count] == -0.5 / 8).sum() == 4
    assert (gradient[count:] == 0.5 / 8).sum() == 4
    assert (gradient != 0).sum() == 8


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"anchors_per_image": 0}, "rpn.anchors_per_image must be 1 or more"),
        ({"positive_iou": 0.2}, "rpn.negative_iou must be at most positive_iou"),
        ({"channels": 1.5}, "rpn.channels must be a whole number"),
        ({"positive_fraction": 1.5}, r"rpn.positive_fraction must be in \[0, 1\]"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        ClassRPNOptions(**options)
