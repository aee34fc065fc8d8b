"""What a detector is fed: pictures resized by the paper's rule, mirrored or not, boxes in the same pixels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from backbones.errors import DataError
from detection.data.annotations import Annotations, DetectionDataset
from detection.data.samples import make_sample, mirror, resize_scale, scale_boxes, scale_image
from detection.structures import Target

sides = st.integers(1, 40)


def target(boxes: Tensor) -> Target:
    n = len(boxes)
    return Target(boxes, torch.arange(n) % 3 + 1, torch.arange(n) % 2 == 0)


@st.composite
def pictures(draw: st.DrawFn) -> tuple[Tensor, Target]:
    """A noisy picture and boxes of whole pixels in it."""
    height, width = draw(sides), draw(sides)
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    boxes = []
    for _ in range(draw(st.integers(0, 4))):
        x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        boxes.append([x1, y1, draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))])
    return image, target(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))


@settings(deadline=None, max_examples=60)
@given(pictures())
def test_mirroring_mirrors_the_pixels_in_the_boxes(picture: tuple[Tensor, Target]) -> None:
    image, objects = picture
    flipped, mirrored = mirror(image, objects)
    for before, after in zip(objects.boxes.int().tolist(), mirrored.boxes.int().tolist(), strict=True):
        x1, y1, x2, y2 = before
        fx1, fy1, fx2, fy2 = after
        assert torch.equal(flipped[:, fy1:fy2, fx1:fx2], image[:, y1:y2, x1:x2].flip(2))
    assert torch.equal(mirrored.labels, objects.labels)
    assert torch.equal(mirrored.ignore, objects.ignore)


@settings(deadline=None, max_examples=60)
@given(pictures())
def test_mirroring_twice_changes_nothing(picture: tuple[Tensor, Target]) -> None:
    image, objects = picture
    again, twice = mirror(*mirror(image, objects))
    assert torch.equal(again, image)
    assert torch.equal(twice.boxes, objects.boxes)
    assert (mirror(image, objects)[1].boxes[:, 2:] > mirror(image, objects)[1].boxes[:, :2]).all()


@pytest.mark.parametrize(
    ("height", "width", "resized"),
    [
        (375, 500, (600, 800)),  # most of VOC: the shorter side becomes 600
        (500, 375, (800, 600)),
        (600, 1000, (600, 1000)),  # both limits at once
        (300, 600, (500, 1000)),  # the longer side would be 1200
        (1200, 1200, (600, 600)),
        (400, 4000, (100, 1000)),  # a panorama
        (4000, 100, (1000, 25)),
        (1, 4000, (1, 1000)),  # a quarter of a pixel is one
        (1, 1, (600, 600)),
    ],
)
def test_the_papers_sizes(height: int, width: int, resized: tuple[int, int]) -> None:
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    assert scale_image(image, resize_scale(height, width, 600, 1000)).shape[1:] == resized


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.integers(1, 1000), st.integers(0, 1000))
def test_one_limit_is_met_and_none_exceeded(height: int, width: int, shorter: int, more: int) -> None:
    longest = shorter + more
    scale = resize_scale(height, width, shorter, longest)
    small, large = sorted((scale * height, scale * width))
    assert small <= shorter * (1 + 1e-12)
    assert large <= longest * (1 + 1e-12)
    assert small == pytest.approx(shorter) or large == pytest.approx(longest)


@settings(deadline=None, max_examples=60)
@given(sides, sides, sides, sides)
def test_boxes_follow_the_real_size(height: int, width: int, new_height: int, new_width: int) -> None:
    source, resized = torch.zeros(3, height, width), torch.zeros(3, new_height, new_width)
    whole = torch.tensor([[0.0, 0, width, height]])
    assert scale_boxes(whole, source, resized).tolist() == [pytest.approx([0, 0, new_width, new_height])]
    back = scale_boxes(scale_boxes(whole, source, resized), resized, source)
    torch.testing.assert_close(back, whole)


def test_a_marked_region_is_still_under_its_box() -> None:
    """A white rectangle on black: after resizing, white is inside the box and black outside."""
    image = torch.zeros(3, 90, 210, dtype=torch.uint8)
    image[:, 30:60, 70:140] = 255
    annotations = Annotations.from_objects(
        class_names=["a"], image_ids=[1], sizes=[(90, 210)], images=[0], boxes=[[70, 30, 140, 60]], labels=[1]
    )
    dataset = DetectionDataset(annotations, lambda index: image)
    for seed in range(8):
        sample = make_sample(dataset, 0, shorter=64, longest=100, flip=True, seed=seed)
        assert sample.image.shape == (3, 43, 100)
        assert (sample.original_size, sample.seed, sample.index) == ((90, 210), seed, 0)
        x1, y1, x2, y2 = sample.target.boxes[0].tolist()
        assert (x1, x2) == pytest.approx((100 / 3, 200 / 3))
        assert (y1, y2) == pytest.approx((43 / 3, 86 / 3))
        inside = sample.image[0, round(y1) + 1 : round(y2) - 1, round(x1) + 1 : round(x2) - 1]
        assert inside.min() > 250
        outside = sample.image[0].clone()
        outside[int(y1) - 1 : int(y2) + 2, int(x1) - 1 : int(x2) + 2] = 0
        assert outside.max() < 5


def test_half_of_the_pictures_are_mirrored_as_the_seed_says() -> None:
    image = torch.zeros(3, 20, 20, dtype=torch.uint8)
    image[:, :, :10] = 200
    annotations = Annotations.from_objects(
        class_names=["a"], image_ids=[1], sizes=[(20, 20)], images=[0], boxes=[[0, 0, 10, 20]], labels=[1]
    )
    dataset = DetectionDataset(annotations, lambda index: image)

    def mirrored(flip: bool) -> list[bool]:
        samples = [make_sample(dataset, 0, shorter=20, longest=20, flip=flip, seed=seed) for seed in range(200)]
        for sample in samples:
            assert sample.target.boxes[0, 0] == (10 if sample.image[0, 0, 0] == 0 else 0)
        return [bool(sample.image[0, 0, 0] == 0) for sample in samples]

    assert 70 < sum(mirrored(True)) < 130
    assert mirrored(True) == mirrored(True)
    assert not any(mirrored(False))
    assert image[0, 0, 0] == 200  # the data set's own picture is left alone


def test_a_picture_of_another_size_than_its_annotation_says_is_named() -> None:
    annotations = Annotations.from_objects(
        class_names=["a"], image_ids=["street"], sizes=[[300, 400]], images=[0], boxes=[[350, 10, 390, 200]], labels=[1]
    )
    dataset = DetectionDataset(annotations, lambda index: torch.zeros(3, 80, 100, dtype=torch.uint8))
    with pytest.raises(DataError, match="street: is 100x80, its annotation says 400x300"):
        make_sample(dataset, 0, shorter=80, longest=100)
