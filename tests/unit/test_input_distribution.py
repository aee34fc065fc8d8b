"""What training shows of pictures, as a distribution: that of plain references, through the whole way of the pixels.

Files are read, cut, put into batches and made the network's input by what a configuration makes. The colours of the
pictures tell where in them a pixel is, so that what was cut out is seen in the input itself.
"""

import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp, kstest
from torchvision.transforms import v2

from backbones import inputs
from backbones.config import ClassificationData
from backbones.data.folder import read_folder
from backbones.data.normalization import IMAGENET_MEAN, IMAGENET_STD
from backbones.data.sampler import StepSampler
from backbones.data.statistics import PixelStatistics
from backbones.weights import WeightsMetadata

CPU = torch.device("cpu")
SIDE = 32  # of the crops
DARK, RANGE = 20, 210  # red rises from left to right, green from top to bottom: DARK to DARK + RANGE
P_VALUE = 1e-4  # of a statistic that is as far off by chance
FLIP = Image.Transpose.FLIP_LEFT_RIGHT
EXACT = {"quality": 100, "subsampling": 0}
Size = tuple[int, int]


def gradients(size: Size) -> np.ndarray:
    """A picture of (width, height): its colours say where a pixel is, with noise, so that rounding averages out."""
    width, height = size
    pixels = np.full((height, width, 3), 128.0)
    pixels[..., 0] = DARK + RANGE * (np.arange(width) + 0.5) / width
    pixels[..., 1] = (DARK + RANGE * (np.arange(height) + 0.5) / height)[:, None]
    return (pixels + np.random.default_rng(0).uniform(-1, 1, pixels.shape)).round().astype(np.uint8)


def natural(size: Size) -> np.ndarray:
    """A picture whose contrasts fall with their frequency and are mostly grey, as in photographs; with edges."""
    width, height = size
    rng = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(width), np.fft.fftfreq(height))) + 1 / max(size)
    clouds = np.fft.ifft2(np.fft.fft2(rng.normal(size=(4, height, width))) / frequency**1.3).real
    grey, *colors = clouds / clouds.std((1, 2), keepdims=True)
    light = grey + 0.6 * (grey > 0.3)
    return np.stack([110 + 50 * light + 15 * color for color in colors], 2).clip(0, 255).astype(np.uint8)


def make_folder(root: Path, pictures: list[np.ndarray], **options: Any) -> Path:
    """A class folder with one JPEG file for each picture."""
    for label, picture in enumerate(pictures):
        (root / "train" / str(label)).mkdir(parents=True)
        Image.fromarray(picture).save(root / "train" / str(label) / "it.jpg", **options)
    return root


def network_input(
    root: Path, draws: int, statistics: PixelStatistics | None = None, **options: Any
) -> Iterator[np.ndarray]:
    """For each picture of a folder: what a network sees of it in `draws` epochs, (draws, 3, S, S) in 0..255."""
    data = ClassificationData(root=str(root), input_size=SIDE, **options)
    dataset = read_folder(root, "train")
    mean, std = list(IMAGENET_MEAN), list(IMAGENET_STD)
    metadata = WeightsMetadata("classification", "resnet18", {}, dataset.class_names, mean, std, SIDE)
    source = inputs.training_input(dataset, data, statistics, metadata, workers=0, device=CPU, dtype=torch.float32)
    steps, rest = divmod(draws * len(dataset), 100)
    assert not rest
    batches = [source.prepare(batch) for batch in source.batches(sampler(len(dataset), 100, steps))]
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    pixels = images * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    return (pixels[labels == label].numpy() for label in range(len(dataset)))


def sampler(size: int, batch_size: int, steps: int) -> StepSampler:
    return StepSampler(
        size, batch_size=batch_size, accumulate=1, start_step=0, steps=steps, seed=0, rank=0, world_size=1
    )


def find_parts(images: np.ndarray, size: Size) -> np.ndarray:
    """Which parts of `gradients(size)` pictures (B, 3, S, S) show: x1, y1, x2, y2 in its pixels, mirrored; (B, 5).

    A least-squares line through the middle of each: a pixel at the border sees nothing beyond it.
    """
    pixels = np.arange(SIDE) + 0.5
    middle = slice(3, -3)
    ends = []
    for channel, across, side in ((0, 1, size[0]), (1, 2, size[1])):
        places = (images[:, channel].mean(across) - DARK) / RANGE * side
        slope, start = np.polyfit(pixels[middle], places[:, middle].T, 1)
        error = np.abs(start[:, None] + slope[:, None] * pixels - places)[:, middle].max()
        assert error < 1.5 * side / 100  # a straight view of the picture: red and green are whole numbers
        ends.append(np.stack([start, start + SIDE * slope]))
    (left, right), (top, bottom) = ends
    assert (bottom > top).all()  # none is upside down
    return np.stack([np.minimum(left, right), top, np.maximum(left, right), bottom, left > right], axis=1)


def assert_same_distribution(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Of each column, by the Kolmogorov-Smirnov statistic of two samples."""
    for a, b in zip(ours.T, theirs.T, strict=True):
        assert ks_2samp(a, b).pvalue > P_VALUE


def assert_fair_and_independent(*columns: np.ndarray, mirrored: np.ndarray) -> None:
    """Half of the pictures are mirrored, and nothing that is drawn says anything of the rest."""
    draws = len(mirrored)
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / np.sqrt(draws)
    together = np.corrcoef([*columns, mirrored]) - np.eye(len(columns) + 1)
    assert np.abs(together).max() < 4.5 / np.sqrt(draws)


def plain_crops(size: Size, draws: int, scales: tuple[int, int]) -> np.ndarray:
    """Section 3.4 as it is written, by PIL: resize the shorter side to a random length, crop, mirror."""
    rng = np.random.default_rng(1)
    file = io.BytesIO()
    Image.fromarray(gradients(size)).save(file, "JPEG", **EXACT)
    picture = Image.open(file).convert("RGB")

    @cache  # the same picture comes at the same few scales again and again
    def resized(shorter: int) -> Image.Image:
        scale = shorter / min(size)
        return picture.resize((round(scale * size[0]), round(scale * size[1])), Image.Resampling.BILINEAR)

    crops = np.empty((draws, SIDE, SIDE, 3), np.uint8)
    for place in range(draws):
        scaled = resized(int(rng.integers(scales[0], scales[1], endpoint=True)))
        x, y = (int(rng.integers(0, side - SIDE, endpoint=True)) for side in scaled.size)
        crop = scaled.crop((x, y, x + SIDE, y + SIDE))
        crops[place] = crop.transpose(FLIP) if rng.random() < 0.5 else crop
    return crops.transpose(0, 3, 1, 2)


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
@pytest.mark.parametrize(
    ("sizes", "scales", "draws", "grid", "encoded"),
    [
        ([(97, 67), (67, 97), (67, 67)], (36, 72), 1500, 1, False),
        ([(76, 70), (70, 76), (69, 69)], (34, 36), 1000, 1, False),
        ([(76, 70), (70, 76), (69, 69)], (34, 36), 1000, 1, True),
        ([(396, 308), (308, 396), (308, 308)], (33, 37), 400, 4, False),
    ],
    ids=["many places", "few places", "decoded on the device", "decoded smaller"],
)
def test_scale_crop_flip_is_the_paper_s(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sizes: list[Size],
    scales: tuple[int, int],
    draws: int,
    grid: int,
    encoded: bool,
) -> None:
    """Sides are compared in whole pixels of the file (DEVIATIONS.md), and of what is decoded: `grid` of the file's.

    Of few places each has a large share, so that a fraction of a pixel shows; in pictures of these sizes no plain
    crop's side is nearly halves, which could be rounded either way.
    """
    if encoded:  # as on a GPU
        monkeypatch.setattr(inputs, "_decodes_on_gpu", lambda *_: True)
    root = make_folder(tmp_path, [gradients(size) for size in sizes], **EXACT)
    for size, images in zip(sizes, network_input(root, draws, scale_range=scales), strict=True):
        parts, plain = find_parts(images, size), find_parts(plain_crops(size, 2 * draws, scales), size)
        ours, theirs = (describe((each.round() / grid).round(), size, grid) for each in (parts, plain))
        assert_same_distribution(ours, theirs)
        assert not ours[:, :4].min(0).any()  # crops reach the borders
        for end in (np.min, np.max):  # the largest and the smallest scale occur
            assert np.abs(end(ours, 0) - end(theirs, 0))[4:].max() <= 1
        assert np.abs(ours[:, 4] - ours[:, 5]).max() <= 2 + SIDE / scales[0]  # one scale for both sides
        assert_fair_and_independent(*centers(parts, size), mirrored=parts[:, 4])


def describe(parts: np.ndarray, size: Size, grid: int = 1) -> np.ndarray:
    """How far a part's sides are from those of the picture: left, top, right, bottom; its width and height: (B, 6)."""
    x1, y1, x2, y2 = parts.T[:4]
    return np.stack([x1, y1, size[0] // grid - x2, size[1] // grid - y2, x2 - x1, y2 - y1], axis=1)


def centers(parts: np.ndarray, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Where parts lie, from -1 to 1."""
    x1, y1, x2, y2 = parts.T[:4]
    return (x1 + x2) / size[0] - 1, (y1 + y2) / size[1] - 1


@pytest.mark.parametrize("size", [(97, 67), (67, 97), (67, 67)])
def test_random_resized_crop_is_torchvision_s(tmp_path: Path, size: Size) -> None:
    """Area, shape and place; the largest parts are shown at less than their size, the smallest at more."""
    draws, area_range = 2500, (0.1, 0.9)
    root = make_folder(tmp_path, [gradients(size)], **EXACT)
    (images,) = network_input(root, draws, augmentation="random_resized_crop", area_range=area_range)
    parts = find_parts(images, size)
    assert np.abs(parts.round() - parts).max() < 0.3  # whole pixels

    torch.manual_seed(0)
    reference, picture = v2.RandomResizedCrop(SIDE, area_range), torch.empty(3, size[1], size[0])
    drawn = [reference.make_params([picture]) for _ in range(2 * draws)]
    plain = np.array([(d["left"], d["top"], d["left"] + d["width"], d["top"] + d["height"]) for d in drawn])

    ours, theirs = (describe(each, size) for each in (parts.round(), plain))
    shapes = [
        np.stack([each[:, 4] * each[:, 5] / np.prod(size), each[:, 4] / each[:, 5]], 1) for each in (ours, theirs)
    ]
    assert_same_distribution(ours, theirs)
    assert_same_distribution(*shapes)
    assert not ours[:, :4].min(0).any()  # parts reach the borders
    for end in (np.min, np.max):
        np.testing.assert_allclose(*(end(each, 0) for each in shapes), rtol=0.05)
    assert_fair_and_independent(*centers(parts, size), mirrored=parts[:, 4])


def test_colours_are_shifted_as_in_alexnet(tmp_path: Path) -> None:
    """Along each principal component of RGB in 0..1 by a normal draw of deviation 0.1 times its eigenvalue.

    So the shifts' covariance is 0.01 of the square of the colours' covariance matrix, whatever its eigenvectors' signs.
    """
    draws, size = 2000, (96, 64)
    root = make_folder(tmp_path, [gradients(size)], **EXACT)
    covariance = np.array([[5000.0, 4200, 3600], [4200, 4800, 4300], [3600, 4300, 5500]])
    values, vectors = (np.flip(found, -1) for found in np.linalg.eigh(covariance))
    flat = np.zeros((3, SIDE, SIDE))
    statistics = PixelStatistics(flat, flat[:, 0, 0], covariance, values, vectors, 1, None, "")
    (plain,) = network_input(root, draws, scale_range=(36, 72))
    (varied,) = network_input(root, draws, statistics, scale_range=(36, 72), color="pca")

    changes = (varied - plain).astype(float)
    shifts = changes.mean((2, 3))
    assert np.abs(changes - shifts[..., None, None]).max() < 1e-3  # one for all of a crop; the crop is the same

    expected = 255**2 * 0.01 * np.linalg.matrix_power(covariance / 255**2, 2)
    deviations = np.sqrt(expected.diagonal())
    assert (np.abs(shifts.mean(0)) < 4 * deviations / np.sqrt(draws)).all()
    error = np.sqrt((np.outer(deviations, deviations) ** 2 + expected**2) / draws)  # of a normal sample's covariance
    assert (np.abs(np.cov(shifts.T) - expected) < 4 * error).all()
    components = shifts @ np.linalg.inv(vectors * values).T * 255 / 0.1
    for component in components.T:
        assert kstest(component, "norm").pvalue > P_VALUE

    parts = find_parts(plain, size)
    widths = parts[:, 2] - parts[:, 0]
    assert_fair_and_independent(*components.T, *centers(parts, size), widths, mirrored=parts[:, 4])


@pytest.mark.parametrize(
    ("size", "mean", "largest"),
    [((150, 110), 0.02, 1.01), ((600, 440), 1.0, 20)],
    ids=["", "decoded smaller"],
)
def test_pixels_are_those_of_pil(tmp_path: Path, size: Size, mean: float, largest: float) -> None:
    """The same parts of the whole decoded picture, resized by PIL; in 0..255, of a picture like a photograph."""
    root = make_folder(tmp_path, [natural(size)], quality=90)
    picture = Image.open(root / "train" / "0" / "it.jpg").convert("RGB")
    (images,) = network_input(root, 200, scale_range=(34, 40))
    augment = inputs.augmentation(ClassificationData(input_size=SIDE, scale_range=(34, 40)))
    differences = []
    for (key,), image in zip(sampler(1, 1, 200), images, strict=True):
        cut = augment(*picture.size, np.random.default_rng(key.seed))
        crop = picture.crop(cut.box).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        crop = crop.transpose(FLIP) if cut.mirrored else crop
        differences.append(np.abs(np.asarray(crop).transpose(2, 0, 1) - image))
    assert np.mean(differences) < mean
    assert np.max(differences) < largest
