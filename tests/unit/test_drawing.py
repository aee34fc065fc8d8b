"""Boxes on pictures."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from detection.drawing import draw_detections, grid
from detection.structures import Detections

NAMES = [f"class {i}" for i in range(12)]


def detections(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    return Detections(torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), torch.tensor(labels).long())


def grey(height: int, width: int) -> Tensor:
    return torch.full((3, height, width), 77, dtype=torch.uint8)


def test_the_outline_is_on_the_boxs_own_pixels_and_nothing_inside() -> None:
    drawn = np.asarray(draw_detections(grey(200, 300), detections([[60, 50, 161, 151]], [0.9], [3]), NAMES))
    changed = (drawn != 77).any(2)
    assert changed[50:151, 60].all()  # left, right and bottom; the text stands above
    assert changed[50:151, 160].all()
    assert changed[150, 60:161].all()
    assert changed[50, 60:161].all()
    assert not changed[53:148, 63:158].any()
    assert not changed[151:].any()
    assert not changed[:, 161:].any()
    assert not changed[:, :60].any()


def test_scores_below_the_threshold_are_not_drawn() -> None:
    found = detections([[10, 10, 50, 50], [60, 60, 90, 90]], [0.49, 0.5], [1, 2])
    changed = (np.asarray(draw_detections(grey(100, 100), found, NAMES, min_score=0.5)) != 77).any(2)
    assert changed[60:90, 60].all()
    assert not changed[10:45, :59].any()
    none = draw_detections(grey(40, 30), detections([], [], []), NAMES)
    assert np.array_equal(np.asarray(none), grey(40, 30).permute(1, 2, 0).numpy())


def test_the_best_is_on_top() -> None:
    boxes = [[20, 40, 90, 90], [20, 40, 90, 90]]
    for labels in ([1, 2], [2, 1]):
        both = np.asarray(draw_detections(grey(100, 100), detections(boxes, [0.9, 0.6], labels), NAMES))
        alone = np.asarray(draw_detections(grey(100, 100), detections(boxes[:1], [0.9], labels[:1]), NAMES))
        assert np.array_equal(both[89, 20:90], alone[89, 20:90])


def test_enlarged_pictures_have_enlarged_boxes() -> None:
    drawn = np.asarray(draw_detections(grey(50, 60), detections([[10, 20, 40, 45]], [1.0], [1]), NAMES, enlarge=3))
    assert drawn.shape == (150, 180, 3)
    changed = (drawn != 77).any(2)
    assert changed[60:135, 30].all()
    assert changed[60:135, 119].all()
    assert not changed[135:].any()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (500, 1), (30, 4000), (3, 3)])
def test_pictures_of_every_size_and_boxes_on_their_borders(height: int, width: int) -> None:
    boxes = [[0, 0, width, height], [0, 0, 0, 0], [width, height, width, height], [width - 1, 0, width, 0.5]]
    found = detections([[float(v) for v in box] for box in boxes], [0.9, 0.8, 0.7, 0.6], [1, 12, 8, 9])
    drawn = draw_detections(grey(height, width), found, NAMES)
    assert drawn.size == (width, height)
    assert (np.asarray(drawn) != 77).any()


def test_the_picture_itself_is_left_alone() -> None:
    image = grey(60, 60)
    draw_detections(image, detections([[0, 0, 60, 60]], [1.0], [1]), NAMES)
    assert torch.equal(image, grey(60, 60))


def test_a_grid_holds_every_picture_in_order() -> None:
    colours = ["red", "lime", "blue", "black", "magenta"]
    sheet = grid([Image.new("RGB", (20 + place, 30 - place), c) for place, c in enumerate(colours)], 3, gap=4)
    assert sheet.size == (3 * (24 + 4) + 4, 2 * (30 + 4) + 4)
    for place, colour in enumerate(colours):
        row, column = divmod(place, 3)
        corner = (4 + column * 28, 4 + row * 34)
        assert sheet.getpixel(corner) == Image.new("RGB", (1, 1), colour).getpixel((0, 0))
        assert sheet.getpixel((corner[0] - 1, corner[1])) == (255, 255, 255)
