"""The built-in shapes as a detection set."""

import numpy as np
import pytest
import torch

from backbones.data.shapes import CLASS_NAMES, paint, scene_seed
from backbones.errors import DataError
from detection.data.annotations import DetectionDataset
from detection.data.shapes import shapes_for_detection

SIZE, COUNT = 96, 300


@pytest.fixture(scope="module")
def val() -> DetectionDataset:
    return shapes_for_detection("val", COUNT, SIZE)


def test_boxes_lie_in_the_picture_and_sizes_are_as_promised(val: DetectionDataset) -> None:
    annotations = val.annotations
    boxes = annotations.boxes
    assert boxes.min() >= 0
    assert boxes.max() <= SIZE
    sides = boxes[:, 2:] - boxes[:, :2]
    # Smaller than the circle around a shape by at most half, where a triangle or square lies well.
    assert sides.min() > SIZE / 7 / 2
    assert sides.max() <= SIZE / 2 + 2
    assert annotations.sizes.tolist() == [[SIZE, SIZE]] * COUNT
    assert not annotations.ignore.any()
    assert np.array_equal(annotations.areas, sides.prod(1))


def test_boxes_are_tight_around_what_is_painted(val: DetectionDataset) -> None:
    """Against the same picture without its only object."""
    annotations = val.annotations
    errors = []
    for index in np.flatnonzero(np.diff(annotations.offsets) == 1):
        empty = np.asarray(paint(scene_seed("val", int(index)), SIZE, []), dtype=int)
        image = val.load_image(int(index)).permute(1, 2, 0).numpy().astype(int)
        # Noise differs between the two, by at most 24; a shape's colour by 150 over three channels at its centre.
        changed = np.abs(image - empty).max(2) > 24
        x1, y1, x2, y2 = val.target(int(index)).boxes[0].int().tolist()
        assert changed[y1:y2, x1:x2].mean() > 0.1
        changed_outside = changed.copy()
        changed_outside[y1:y2, x1:x2] = False
        assert not changed_outside.any()
        rows, columns = changed.any(1).nonzero()[0], changed.any(0).nonzero()[0]
        found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        errors.append(np.abs(found - (x1, y1, x2, y2)).max())
    assert len(errors) > 30
    assert np.median(errors) <= 1
    assert np.mean(np.array(errors) <= 2) > 0.9


def test_all_classes_and_numbers_of_objects_occur_and_some_pictures_are_empty(val: DetectionDataset) -> None:
    numbers = np.diff(val.annotations.offsets)
    assert set(numbers) == {0, 1, 2, 3, 4, 5}
    assert 0.01 < (numbers == 0).mean() < 0.1
    counts = np.bincount(val.annotations.labels, minlength=7)
    assert counts[0] == 0
    assert counts[1:].min() > len(val.annotations.labels) / 6 * 0.7
    empty = int(np.flatnonzero(numbers == 0)[0])
    assert val.target(empty).boxes.shape == (0, 4)
    assert val.load_image(empty).shape == (3, SIZE, SIZE)
    assert val.annotations.class_names == CLASS_NAMES


def test_a_picture_is_a_function_of_split_size_and_index(val: DetectionDataset) -> None:
    fewer = shapes_for_detection("val", 20, SIZE)
    for index in (7, 0, 19):
        assert torch.equal(fewer.load_image(index), val.load_image(index))
        assert torch.equal(fewer.target(index).boxes, val.target(index).boxes)
        assert torch.equal(fewer.target(index).labels, val.target(index).labels)


def test_splits_differ() -> None:
    pictures = [
        shapes_for_detection(split, 30, 32).load_image(index).numpy().tobytes()
        for split in ("train", "val", "test")
        for index in range(30)
    ]
    assert len(set(pictures)) == 90


def test_what_can_not_be_drawn() -> None:
    with pytest.raises(DataError, match=r"holiday.*train, val, test"):
        shapes_for_detection("holiday", 3, 64)
    for count, size in ((0, 64), (3, 8)):
        with pytest.raises(DataError, match=f"{count} built-in shapes of {size} pixels"):
            shapes_for_detection("val", count, size)
