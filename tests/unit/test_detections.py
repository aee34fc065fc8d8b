"""From scored regions to detections under the paper's numbers: scores above 0.05, NMS of 0.3 per class, at most 100."""

import torch
from torch import Tensor

from detection.models import RoIOptions, postprocess

SIZE = (100, 2000)


def detect(scores: list[list[float]], boxes: Tensor) -> list[tuple[int, list[float]]]:
    """Label and box of each detection; a region's box is the same for both classes, its background's score is 0."""
    found = postprocess(
        torch.tensor([[0.0, *row] for row in scores]), boxes.float()[:, None].expand(-1, 2, 4), SIZE, RoIOptions()
    )
    return list(zip(found.labels.tolist(), found.boxes.tolist(), strict=True))


def test_scores_of_0_05_are_too_low() -> None:
    box = [0.0, 0, 10, 10]
    assert detect([[0.05, 0.0500001]], torch.tensor([box])) == [(2, box)]


def test_suppression_is_within_a_class_and_above_an_overlap_of_0_3() -> None:
    best, kept, dropped = [0.0, 0, 100, 100], [0.0, 0, 100, 29], [0.0, 0, 31, 100]
    boxes = torch.tensor([best, kept, dropped])
    assert detect([[0.9, 0], [0.8, 0], [0.7, 0]], boxes) == [(1, best), (1, kept)]
    assert detect([[0.9, 0], [0.8, 0], [0, 0.7]], boxes) == [(1, best), (1, kept), (2, dropped)]


def test_the_best_hundred_of_all_classes() -> None:
    boxes = torch.tensor([[20.0 * i, 0, 20 * i + 10, 10] for i in range(90)])
    scores = [[0.5 + i / 1000, 0.3 + i / 1000] for i in range(90)]
    found = detect(scores, boxes)
    expected = [(1, i) for i in reversed(range(90))] + [(2, i) for i in reversed(range(80, 90))]
    assert found == [(label, boxes[i].tolist()) for label, i in expected]
