"""Boxes on pictures."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor
from torch import Tensor

from detection.drawing import Mark, class_colour, draw_detections, draw_marks, grid, load_font, object_marks
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


def test_titles_stand_above_their_pictures_and_are_cut_where_there_is_no_room() -> None:
    pictures = [Image.new("RGB", (60, 30), "red") for _ in range(4)]
    for titles in (["a", "b"], ["a", "b", "c", "a title that is much too long"]):
        sheet = np.asarray(grid(pictures, 2, titles=titles, gap=4))
        assert (sheet == (255, 0, 0)).all(2).sum() == 4 * 60 * 30  # no title hides anything
        dark = (sheet < 99).all(2)
        tops = [4, 60] if len(titles) == 4 else [4]
        assert [dark[y : y + 22, x : x + 60].any() for y in tops for x in (4, 68)] == [True] * len(titles)
        assert not dark[:, -4:].any()
        assert sheet.shape == (4 + 2 * 34 + len(tops) * 22, 4 + 2 * 64, 3)
    assert grid(pictures, 2, narrowest=100, gap=4).size == (4 + 2 * 104, 4 + 2 * 34)


def test_objects_to_ignore_are_dashed_and_said_to_be() -> None:
    box = [1.0, 2.0, 3.0, 4.0]
    marks = object_marks(NAMES, [box, box], [3, 1], [False, True])
    assert marks[0] == Mark(box, "class 2", class_colour(3))
    assert marks[1] == Mark(box, "class 0 (ignored)", class_colour(1), dashed=True)


def test_eighty_classes_have_colours_that_can_be_told_apart() -> None:
    colours = np.array([ImageColor.getrgb(class_colour(label)) for label in range(1, 81)], dtype=float)
    apart = np.abs(colours[:, None] - colours[None]).sum(axis=2) + 999 * np.eye(80)
    assert apart.min() >= 51
    assert (colours.max(axis=1) > 90).all()  # dark lines do not show on dark pictures
    assert class_colour(2) == "#56B4E9"
    assert len({class_colour(label) for label in range(1, 1001)}) == 150  # and no class is without one


@pytest.mark.parametrize("box", [[70, 0, 100, 30], [0, 90, 20, 100], [80, 95, 100, 100], [-9, -9, 200, 200]])
def test_labels_stay_in_the_picture(box: list[float]) -> None:
    """The same number of pixels of the label's colour as where there is room."""

    def label_pixels(box: list[float]) -> int:
        with_text = draw_marks(grey(100, 100), [Mark(box, "zebra", "#FF0000")])
        without = draw_marks(grey(100, 100), [Mark(box, "", "#FF0000")])
        inside = np.asarray(with_text) != np.asarray(without)
        columns, rows = np.flatnonzero(inside.any((0, 2))), np.flatnonzero(inside.any((1, 2)))
        return int((np.ptp(columns) + 1) * (np.ptp(rows) + 1))

    assert label_pixels(box) == pytest.approx(label_pixels([30, 50, 50, 70]), rel=0.15)


def test_a_label_gives_way_to_that_of_a_better_detection() -> None:
    boxes = [[20, 40, 90, 90], [22, 41, 90, 90]]
    both = draw_marks(grey(100, 100), [Mark(boxes[0], "first", "#FF0000"), Mark(boxes[1], "second", "#0000FF")])
    first = draw_marks(grey(100, 100), [Mark(boxes[0], "first", "#FF0000")])
    above = (slice(25, 39), slice(20, 40))
    assert np.array_equal(np.asarray(both)[above], np.asarray(first)[above])
    blue = (np.asarray(both) == (0, 0, 255)).all(2)
    assert blue[42:55, 24:40].sum() > 60  # it stands inside its box


def test_dashed_outlines() -> None:
    drawn = np.asarray(draw_marks(grey(100, 100), [Mark([10, 10, 91, 91], "", "#FF0000", dashed=True)]))
    red = (drawn == (255, 0, 0)).all(2)
    for side in (red[10, 10:91], red[90, 10:91], red[10:91, 10], red[10:91, 90]):
        assert 0.4 < side.mean() < 0.65
        assert (np.diff(side.astype(int)) == 1).sum() >= 3
    assert not red[14:87, 14:87].any()
    assert not red[91:].any()


def test_large_pictures_are_drawn_small() -> None:
    drawn = draw_marks(grey(400, 3000), [Mark([1000, 100, 2000, 300], "", "#FF0000")], scale=0.2)
    assert drawn.size == (600, 80)
    red = (np.asarray(drawn) == (255, 0, 0)).all(2)
    assert red[20:60, 200].all()
    assert red[20:60, 399].all()
    assert not red[:, 400:].any()


@pytest.mark.parametrize("text", ["Löwe", "γάτα", "кошка", "Ǻ"])
def test_names_of_many_scripts_are_no_boxes(text: str) -> None:
    font = load_font(20)
    unknown = font.getmask("\U0010fffd")
    assert all(bytes(font.getmask(letter)) != bytes(unknown) for letter in text)


def test_accents_on_capitals_are_inside_their_label() -> None:
    drawn = np.asarray(draw_marks(grey(100, 100), [Mark([10, 40, 90, 90], "ǺẤ", "#FF0000")]))
    label = (drawn[:40] != 77).any(2)
    rows = np.flatnonzero(label.any(1))
    text = np.flatnonzero((drawn[:40] > 150).all(2).any(1))
    assert rows[0] < text[0]
    assert text[-1] < rows[-1]
