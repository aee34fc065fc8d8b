"""Anchors against the released Faster R-CNN's nine, closed forms and a plain loop."""

import pytest
import torch

from detection.models.anchors import anchor_grid, anchor_shapes

# generate_anchors() of the released code: corners of inclusive pixels around (7.5, 7.5), sides rounded.
RELEASED = torch.tensor(
    [
        [-84, -40, 99, 55],
        [-176, -88, 191, 103],
        [-360, -184, 375, 199],
        [-56, -56, 71, 71],
        [-120, -120, 135, 135],
        [-248, -248, 263, 263],
        [-36, -80, 51, 95],
        [-80, -168, 95, 183],
        [-168, -344, 183, 359],
    ]
)


def test_the_nine_anchors_are_the_released_ones_up_to_their_rounding():
    ours = anchor_grid(anchor_shapes((128, 256, 512), (0.5, 1, 2)), 1, 1, 16).reshape(9, 4)
    released = (RELEASED + torch.tensor([0, 0, 1, 1])).double()
    centre = (ours[:, :2] + ours[:, 2:]) / 2
    torch.testing.assert_close(centre, torch.full((9, 2), 8.0, dtype=torch.float64))
    torch.testing.assert_close((released[:, :2] + released[:, 2:]) / 2, centre)
    sides, released_sides = (b[:, 2:] - b[:, :2] for b in (ours, released))
    torch.testing.assert_close(sides, released_sides, rtol=0.065, atol=0)
    torch.testing.assert_close(sides[3:6], released_sides[3:6])  # squares are not rounded


def test_areas_are_scales_squared_and_ratios_are_height_by_width():
    scales, ratios = (20.0, 64.0), (0.25, 1.0, 3.0)
    shapes = anchor_shapes(scales, ratios)
    width, height = (shapes[:, 2:] - shapes[:, :2]).unbind(1)
    expected_area = torch.tensor([s * s for _ in ratios for s in scales], dtype=torch.float64)
    expected_ratio = torch.tensor([r for r in ratios for _ in scales], dtype=torch.float64)
    torch.testing.assert_close(width * height, expected_area)
    torch.testing.assert_close(height / width, expected_ratio)
    torch.testing.assert_close(shapes[:, :2], -shapes[:, 2:])


@pytest.mark.parametrize("stride", [8, 16])
def test_every_cell_has_the_anchors_around_its_centre(stride: int):
    shapes = anchor_shapes((32.0,), (0.5, 2.0))
    grid = anchor_grid(shapes, 3, 5, stride)
    assert grid.shape == (3, 5, 2, 4)
    for row in range(3):
        for column in range(5):
            x, y = stride * (column + 0.5), stride * (row + 0.5)
            torch.testing.assert_close(grid[row, column], shapes + torch.tensor([x, y, x, y]))
