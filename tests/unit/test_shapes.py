"""The built-in pictures: drawn from their seed alone, with boxes that fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones.data.shapes import CLASS_NAMES, lay_out, paint, scene_seed, shapes_for_classification
from backbones.errors import DataError


def test_a_picture_is_a_function_of_split_and_index() -> None:
    first, again = (shapes_for_classification("train", 20, 32) for _ in range(2))
    longer = shapes_for_classification("train", 40, 32)
    for index in (19, 3):  # in any order
        assert np.array_equal(np.asarray(first.picture(index)), np.asarray(again.picture(index)))
        assert np.array_equal(np.asarray(first.picture(index)), np.asarray(longer.picture(index)))
    assert longer.labels[:20].tolist() == first.labels.tolist()
    assert first.picture(0).size == (32, 32)


def test_splits_share_no_picture() -> None:
    seeds = [scene_seed(split, index) for split in ("train", "val", "test") for index in range(500)]
    assert len(set(seeds)) == len(seeds)


def test_classes_come_equally_often() -> None:
    counts = np.bincount(shapes_for_classification("val", 1200, 16).labels, minlength=6)
    assert len(counts) == len(CLASS_NAMES)
    assert counts.min() > 150
    assert counts.max() < 250


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**62), st.integers(0, 5))
def test_the_box_is_the_smallest_around_what_is_painted(seed: int, label: int) -> None:
    (shape,) = lay_out(seed, 48, [label], smallest=14, largest=40)
    empty, painted = (np.asarray(paint(seed, 48, shapes)).astype(int) for shapes in ([], [shape]))
    # Noise differs between the two, by at most 24; a shape's colour differs by 150 over three channels.
    changed = np.abs(painted - empty).max(2) > 40
    rows, columns = changed.any(1).nonzero()[0], changed.any(0).nonzero()[0]
    found = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    x1, y1, x2, y2 = shape.box
    assert 0 <= x1 < x2 <= 48
    assert 0 <= y1 < y2 <= 48
    np.testing.assert_allclose(found, shape.box, atol=2)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**62), st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_shapes_hide_at_most_a_fifth_of_each_other(seed: int, labels: list[int]) -> None:
    shapes = lay_out(seed, 64, labels, smallest=10, largest=40)
    assert 1 <= len(shapes) <= len(labels)
    cover = np.zeros((len(shapes), 64, 64), bool)
    for place, shape in enumerate(shapes):
        x1, y1, x2, y2 = map(int, shape.box)
        cover[place, y1:y2, x1:x2] = True
    for a in range(len(shapes)):
        for b in range(a):
            assert (cover[a] & cover[b]).sum() <= 0.2 * min(cover[a].sum(), cover[b].sum())


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(DataError, match="no split 'dev'"):
        shapes_for_classification("dev", 5, 32)
    for count, size in [(0, 32), (-1, 32), (5, 0)]:
        with pytest.raises(DataError, match=f"{count} built-in shapes of {size} pixels"):
            shapes_for_classification("train", count, size)
