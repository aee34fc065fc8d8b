"""What happens to pictures, against slow plain implementations and torchvision."""

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as tv
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import RandomResizedCrop as TorchvisionCrop

from backbones.data.augment import (
    Augmentation,
    PadCropFlip,
    RandomResizedCrop,
    ScaleCropFlip,
    Whole,
    center_crop,
    resize_shorter,
    ten_crop,
    whole_picture,
)
from backbones.data.cut import cut_picture
from backbones.errors import DataError

FLIP = Image.Transpose.FLIP_LEFT_RIGHT


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture in which any crop is found in one place only."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def crop(picture: Image.Image, left: int, top: int, size: int) -> np.ndarray:
    return np.asarray(picture.crop((left, top, left + size, top + size)))


def find(pixels: np.ndarray, inside: np.ndarray) -> tuple[int, int] | None:
    """Where a crop is from: (left, top)."""
    height, width = pixels.shape[:2]
    for top in range(inside.shape[0] - height + 1):
        for left in range(inside.shape[1] - width + 1):
            if np.array_equal(inside[top : top + height, left : left + width], pixels):
                return left, top
    return None


sides = st.integers(12, 40)


@settings(deadline=None, max_examples=50)
@given(sides, sides, st.sampled_from([12, 15, None]))
def test_test_crops_are_those_of_a_plain_loop(width: int, height: int, shorter: int | None) -> None:
    size = 11
    picture = noise(width, height)
    scaled = resize_shorter(picture, shorter) if shorter else picture
    right, bottom = scaled.width - size, scaled.height - size
    places = [(0, 0), (right, 0), (0, bottom), (right, bottom), ((right + 1) // 2, (bottom + 1) // 2)]
    expected = [crop(scaled, left, top, size) for left, top in places]
    expected += [crop(scaled.transpose(FLIP), right - left, top, size) for left, top in places]
    views = ten_crop(picture, size, shorter)
    assert len(views) == 10
    for ours, plain in zip(views, expected, strict=True):
        assert np.array_equal(ours, plain)
    (center,) = center_crop(picture, size, shorter)
    assert np.array_equal(center, expected[4])


def test_test_crops_are_torchvision_s() -> None:
    picture = noise(30, 24)
    views = [np.asarray(view) for view in tv.ten_crop(picture, [10, 10])]
    assert sorted(v.tobytes() for v in ten_crop(picture, 10, None)) == sorted(v.tobytes() for v in views)
    assert np.array_equal(center_crop(picture, 10, None)[0], np.asarray(tv.center_crop(picture, [10, 10])))


@settings(deadline=None, max_examples=50)
@given(sides, sides, st.lists(st.integers(8, 60), max_size=3))
def test_the_whole_picture_is_shown_at_every_scale(width: int, height: int, scales: list[int]) -> None:
    picture = noise(width, height)
    views = whole_picture(picture, scales)
    assert [min(view.shape[:2]) for view in views] == scales
    for view, scale in zip(views, scales, strict=True):
        assert np.array_equal(view, np.asarray(resize_shorter(picture, scale)))


@settings(deadline=None, max_examples=50)
@given(sides, sides, st.integers(8, 60))
def test_the_shorter_side_is_resized_and_the_shape_kept(width: int, height: int, shorter: int) -> None:
    resized = resize_shorter(noise(width, height), shorter)
    assert min(resized.size) == shorter
    assert max(resized.size) == pytest.approx(shorter * max(width, height) / min(width, height), abs=0.51)
    assert (resized.width > resized.height) <= (width > height)


def test_resizing_is_antialiased() -> None:
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8)[None, :, None], (64, 32, 3)))
    pixels = np.asarray(resize_shorter(stripes, 8)).astype(int)
    assert np.abs(pixels[:, 1:-1] - 127).max() < 20


def shown(augment: Augmentation, picture: Image.Image, seed: int) -> np.ndarray:
    """What training shows of a picture."""
    pixels, cut = cut_picture(picture, augment, np.random.default_rng(seed))
    return pixels[:, ::-1] if cut.mirrored else pixels


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 2**32), st.integers(0, 32))
def test_scale_crop_flip_cuts_where_a_crop_of_the_rescaled_picture_lies(
    width: int, height: int, seed: int, more: int
) -> None:
    """By the paper's words: resize the shorter side to a random length, then a random crop; here in reverse."""
    augment = ScaleCropFlip(32, 32, 32 + more)
    cut = augment(width, height, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    scale = rng.integers(32, 33 + more) / min(width, height)
    wide, high = (max(round(side * scale), round(min(width, height) * scale)) for side in (width, height))
    top, left = rng.integers(0, high - 31), rng.integers(0, wide - 31)
    exact = left * width / wide, top * height / high, (left + 32) * width / wide, (top + 32) * height / high
    x1, y1, x2, y2 = cut.box
    assert 0 <= x1 < x2 <= width
    assert 0 <= y1 < y2 <= height
    np.testing.assert_allclose(cut.box, exact, atol=1 if min(width, height) < 3 else 0.5 + 1e-9)
    assert cut.size == (32, 32)
    assert cut.mirrored == (rng.random() < 0.5)


def test_scale_crop_flip_shows_what_a_crop_of_the_rescaled_picture_shows() -> None:
    """Of a smooth picture, where half a pixel makes little difference; every scale and both mirror images occur."""
    augment = ScaleCropFlip(10, 12, 16)
    picture = noise(4, 5).resize((60, 78), Image.Resampling.BICUBIC)
    scales = {shorter: np.asarray(resize_shorter(picture, shorter)) for shorter in range(12, 17)}
    seen, mirrored = set(), 0
    for seed in range(150):
        cut = augment(*picture.size, np.random.default_rng(seed))
        pixels = shown(augment, picture, seed)
        pixels = pixels[:, ::-1] if cut.mirrored else pixels
        rng = np.random.default_rng(seed)
        scaled = scales[shorter := int(rng.integers(12, 17))]
        top, left = (int(rng.integers(0, side - 9)) for side in scaled.shape[:2])
        difference = np.abs(scaled[top : top + 10, left : left + 10].astype(int) - pixels)
        assert difference.mean() < 3
        assert difference.max() < 35  # at the border, beyond which the crop does not see
        seen.add(shorter)
        mirrored += cut.mirrored
    assert seen == set(scales)  # both ends of the range too
    assert 50 < mirrored < 100


def test_pad_crop_flip_cuts_every_place_of_the_padded_picture() -> None:
    picture = noise(8, 8)
    padded = np.zeros((12, 12, 3), np.uint8)
    padded[2:10, 2:10] = np.asarray(picture)
    seen = set()
    for seed in range(400):
        pixels = shown(PadCropFlip(8, 2), picture, seed)
        flip = find(pixels, padded) is None
        place = find(pixels[:, ::-1] if flip else pixels, padded)
        assert place is not None
        seen.add((place, flip))
    assert len(seen) == 2 * 5 * 5


def test_the_whole_picture_or_its_mirror_image() -> None:
    picture = noise(6, 4)
    results = [shown(Whole(flip=True), picture, seed) for seed in range(100)]
    plain = [np.array_equal(result, np.asarray(picture)) for result in results]
    assert all(p or np.array_equal(r, np.asarray(picture.transpose(FLIP))) for p, r in zip(plain, results, strict=True))
    assert 30 < sum(plain) < 70
    assert all(np.array_equal(shown(Whole(flip=False), picture, seed), np.asarray(picture)) for seed in range(20))


@pytest.mark.parametrize("augment", [ScaleCropFlip(8, 9, 20), PadCropFlip(8, 3), Whole(flip=True)])
def test_augmentation_is_a_function_of_its_seed(augment: Augmentation) -> None:
    picture = noise(16, 16)
    first, again = ([shown(augment, picture, seed) for seed in range(20)] for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({pixels.tobytes() for pixels in first}) > 1


def test_a_picture_smaller_than_the_crop_is_named() -> None:
    for view in (center_crop, ten_crop):
        with pytest.raises(DataError, match=r"20x9 .* crop of 10.*test_resize"):
            view(noise(20, 9), 10, None)
    with pytest.raises(DataError, match=r"8x7 .* crop of 10.*input_size"):
        PadCropFlip(10, 1)(6, 5, np.random.default_rng(0))


def test_a_picture_like_a_thread_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(DataError, match="long and narrow"):
        resize_shorter(noise(1, 60000), 256)


def test_random_resized_crop_draws_as_torchvision_does() -> None:
    """Area and aspect ratio of many draws: the same quantiles, within sampling error."""
    crop = RandomResizedCrop(8, 0.08, 1.0)
    rng, picture = np.random.default_rng(0), torch.empty(3, 375, 500)
    torch.manual_seed(0)
    ours, theirs = [], []
    for _ in range(4000):
        x1, y1, x2, y2 = crop.draw_box(500, 375, rng)
        assert 0 <= x1 < x2 <= 500
        assert 0 <= y1 < y2 <= 375
        ours.append((x1, y1, x2 - x1, y2 - y1))
        top, left, height, width = TorchvisionCrop.get_params(picture, [0.08, 1.0], [3 / 4, 4 / 3])
        theirs.append((left, top, width, height))
    for a, b in zip(np.array(ours, float).T, np.array(theirs, float).T, strict=True):
        quantiles = [np.quantile(v, [0.1, 0.25, 0.5, 0.75, 0.9]) for v in (a, b)]
        np.testing.assert_allclose(quantiles[0], quantiles[1], atol=14)
    areas = [np.prod(np.array(v)[:, 2:], axis=1).mean() / (375 * 500) for v in (ours, theirs)]
    assert areas[0] == pytest.approx(areas[1], abs=0.015)


def test_random_resized_crop_of_a_picture_that_is_too_long_takes_the_middle() -> None:
    assert RandomResizedCrop(8, 1.0, 1.0).draw_box(100, 10, np.random.default_rng(0)) == (43, 0, 56, 10)
    assert RandomResizedCrop(8, 1.0, 1.0).draw_box(10, 100, np.random.default_rng(0)) == (0, 43, 10, 56)


def test_random_resized_crop_resizes_that_part() -> None:
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    crop = RandomResizedCrop(16, 0.2, 0.6)
    result = shown(crop, picture, 3)
    box = crop.draw_box(80, 60, np.random.default_rng(3))
    expected = tv.resize(picture.crop(box), [16, 16])
    candidates = [np.asarray(candidate).astype(int) for candidate in (expected, expected.transpose(FLIP))]
    assert min(np.abs(candidate - result).max() for candidate in candidates) <= 1  # PIL's, but for rounding
