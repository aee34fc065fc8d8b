"""Proposals under the paper's own numbers (4.3, Faster R-CNN): 12000 / 2000 in training, 6000 / 300 in testing."""

import pytest
import torch
from torch import Tensor

from detection.models.rpn import RPN, Predictions, RPNOptions

SIZE = (2000, 2000)


def propose(boxes: Tensor, training: bool, size: tuple[int, int] = SIZE) -> list[list[float]]:
    """Of anchors that are left as they are, the first with the highest score."""
    rpn = RPN(1, 16, anchor_scales=(16,), anchor_ratios=(1,), options=RPNOptions(channels=1))
    logits = torch.arange(len(boxes), 0, -1).float()
    (proposals,) = rpn.propose(
        [Predictions(boxes.float(), logits, torch.zeros(len(boxes), 4))], [size], to_train=training
    )
    return proposals.tolist()


@pytest.mark.parametrize(("training", "before"), [(True, 12000), (False, 6000)])
def test_so_many_go_into_suppression(training: bool, before: int) -> None:
    """Copies of one box, then another one: it is seen if it is among the best."""
    first, last = [0.0, 0, 20, 20], [500.0, 500, 540, 540]
    assert propose(torch.tensor([first] * (before - 1) + [last]), training) == [first, last]
    assert propose(torch.tensor([first] * before + [last]), training) == [first]


@pytest.mark.parametrize(("training", "after"), [(True, 2000), (False, 300)])
def test_so_many_are_left(training: bool, after: int) -> None:
    corners = 20 * torch.cartesian_prod(torch.arange(50), torch.arange(50))
    boxes = torch.cat([corners, corners + 20], dim=1)
    assert propose(boxes, training) == boxes[:after].tolist()


@pytest.mark.parametrize("training", [True, False])
def test_the_thresholds_themselves(training: bool) -> None:
    sixteen, less = [100.0, 0, 116, 16], [200.0, 0, 215.75, 40]
    assert propose(torch.tensor([less, sixteen]), training) == [sixteen]
    # An overlap of 0.7 is kept, one of 0.71 is not.
    best, kept, dropped = [0.0, 0, 100, 100], [0.0, 0, 100, 70], [0.0, 0, 100, 71]
    assert propose(torch.tensor([best, dropped, kept]), training) == [best, kept]


@pytest.mark.parametrize("training", [True, False])
def test_anchors_across_the_border_give_clipped_proposals(training: bool) -> None:
    """They are left out of the loss alone. What is too small is so after clipping."""
    anchors = torch.tensor([[-10.0, -20, 50, 60], [70, 70, 130, 140], [90, 0, 180, 60], [60, 10, 90, 40]])
    assert propose(anchors, training, (100, 105)) == [[0, 0, 50, 60], [70, 70, 105, 100], [60, 10, 90, 40]]
