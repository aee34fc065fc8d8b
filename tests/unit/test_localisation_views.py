"""Crops that the per-class RPN is trained on, and views that it is tested on: where boxes come to lie, exactly."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from backbones.data.augment import center_crop
from backbones.errors import DataError
from detection.data.annotations import Annotations, DetectionDataset
from detection.localisation.crops import objects_in_crop, training_crop
from detection.localisation.views import View, center_view, whole_views
from detection.structures import Target


def dataset_of(image: torch.Tensor, boxes: list[list[float]]) -> DetectionDataset:
    annotations = Annotations.from_objects(
        class_names=["a"],
        image_ids=["one"],
        sizes=[image.shape[1:]],
        images=[0] * len(boxes),
        boxes=boxes,
        labels=[1] * len(boxes),
    )
    return DetectionDataset(annotations, lambda index: image)


def with_rectangle(height: int, width: int, box: tuple[int, int, int, int]) -> torch.Tensor:
    """A black picture with a white rectangle."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, box[1] : box[3], box[0] : box[2]] = 255
    return image


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**40))
def test_the_boxes_of_a_crop_are_where_its_object_is(seed: int) -> None:
    box = (30, 20, 90, 50)
    dataset = dataset_of(with_rectangle(80, 120, box), [list(box)])
    sample = training_crop(dataset, 0, size=64, scale_range=(64, 100), flip=True, min_visible=0.1, seed=seed)
    assert sample.image.shape == (3, 64, 64)
    assert sample.seed == seed
    assert len(sample.target.boxes) == 1
    rows, columns = (sample.image[0] > 127).nonzero(as_tuple=True)
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert sample.target.boxes[0].tolist() == pytest.approx([float(v) for v in seen], abs=1.01)


def test_crops_are_a_function_of_the_seed_and_both_ways_round() -> None:
    image = torch.randint(0, 256, (3, 80, 120), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    dataset = dataset_of(image, [[0, 0, 120, 80]])
    options = {"size": 80, "scale_range": (80, 80), "flip": True, "min_visible": 0.0}
    crops = [training_crop(dataset, 0, seed=seed, **options).image for seed in range(60)]  # type: ignore[arg-type]
    windows = [image[:, :, left : left + 80] for left in range(41)]
    places = [next(i for i, w in enumerate([*windows, *(w.flip(2) for w in windows)]) if w.equal(c)) for c in crops]
    assert len(set(places)) > 30
    assert 15 < sum(place > 40 for place in places) < 45
    again = [training_crop(dataset, 0, seed=seed, **options).image for seed in range(60)]  # type: ignore[arg-type]
    assert all(a.equal(b) for a, b in zip(crops, again, strict=True))


def test_how_much_of_an_object_a_crop_must_show() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [8, 8, 18, 18], [0, 0, 100, 100], [40, 40, 50, 50], [9, 0, 30, 10]])
    target = Target(boxes, torch.ones(5, dtype=torch.int64), torch.zeros(5, dtype=torch.bool))
    found = objects_in_crop(target, 5, 5, 10, 0.25)
    # The first shows a quarter of its area; the second 49 %; the third fills the crop; the fourth lies outside, and of
    # the last 6 x 5 pixels of 210 are seen, of 100 that could be.
    assert found.boxes.tolist() == [[0, 0, 5, 5], [3, 3, 10, 10], [0, 0, 10, 10], [4, 0, 10, 5]]
    assert found.ignore.tolist() == [False, False, False, False]
    assert objects_in_crop(target, 5, 5, 10, 0.31).ignore.tolist() == [True, False, False, True]
    target.ignore[1] = True
    assert objects_in_crop(target, 5, 5, 10, 0.25).ignore.tolist() == [False, True, False, False]


def test_a_crop_without_objects_is_drawn_again() -> None:
    """In a picture ten times as wide as high few crops show the object."""
    dataset = dataset_of(torch.zeros(3, 20, 200, dtype=torch.uint8), [[0, 0, 10, 20]])
    options = {"size": 20, "scale_range": (20, 20), "flip": False, "min_visible": 0.25}
    samples = [training_crop(dataset, 0, seed=seed, **options) for seed in range(200)]  # type: ignore[arg-type]
    shown = sum(bool((~s.target.ignore).any()) for s in samples)
    # 8 of the 181 places show a quarter of it: 1 - (1 - 8/181)^10 = 36 %.
    assert 50 < shown < 95


def test_a_picture_too_narrow_for_a_crop_is_named() -> None:
    dataset = dataset_of(torch.zeros(3, 1, 2000, dtype=torch.uint8), [[0, 0, 10, 1]])
    with pytest.raises(DataError, match="picture one: so long and narrow"):
        training_crop(dataset, 0, size=20, scale_range=(20, 20), flip=False, min_visible=0.0, seed=0)
    with pytest.raises(DataError, match="2000x1 is too long and narrow"):
        center_view(torch.zeros(3, 1, 2000, dtype=torch.uint8), 20, 20)


def test_the_central_crop_is_the_classifiers() -> None:
    image = torch.randint(0, 256, (3, 64, 91), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    (view,) = center_view(image, 57, 64)  # no resizing: the two do it with other libraries
    (wanted,) = center_crop(Image.fromarray(image.permute(1, 2, 0).numpy()), 57, 64)
    assert np.array_equal(view.image.permute(1, 2, 0), wanted)
    assert view.to_picture(torch.tensor([0.0, 0, 57, 57])).tolist() == [17, 4, 74, 61]


@pytest.mark.parametrize("size", [(80, 120), (120, 80), (100, 100), (61, 97)])
def test_boxes_of_views_are_mapped_back_to_where_they_are(size: tuple[int, int]) -> None:
    """A rectangle is found again in every view, at its place in the picture, within half a pixel of the view."""
    box = (35, 28, 47, 44)
    picture = with_rectangle(*size, box)
    views: list[View] = [*center_view(picture, 56, 64), *whole_views(picture, [40, 56, 200], mirror=True)]
    assert [v.mirrored for v in views] == [False, *[False, True] * 3]
    assert [min(v.image.shape[1:]) for v in views] == [56, 40, 40, 56, 56, 200, 200]
    for view in views:
        rows, columns = (view.image[0] > 127).nonzero(as_tuple=True)
        seen = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).double()
        pixel = max(a / b for a, b in zip(view.original, view.resized, strict=True))
        assert view.to_picture(seen).tolist() == pytest.approx(box, abs=0.51 * pixel)


def test_the_whole_picture_is_the_whole_of_every_view() -> None:
    for view in whole_views(torch.zeros(3, 61, 97, dtype=torch.uint8), [30, 61, 77], mirror=True):
        height, width = view.image.shape[1:]
        whole = torch.tensor([[[0.0, 0, width, height]]], dtype=torch.float64)
        assert view.to_picture(whole)[0, 0].tolist() == pytest.approx([0, 0, 97, 61])
