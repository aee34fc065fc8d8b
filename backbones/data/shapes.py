"""Built-in pictures: shapes on textured backgrounds, drawn from a seed. One drawer serves classification and detection.

A class is a form; colour, size, turn, place, texture and noise say nothing about it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from backbones.data.datasets import ClassificationDataset
from backbones.engine.randomness import derive_seed
from backbones.errors import DataError

CLASS_NAMES = ["circle", "square", "triangle", "star", "cross", "ring"]
_SPLITS = {"train": 0, "val": 1, "test": 2}


@dataclass
class Shape:
    """One shape of a scene.

    Args:
        label: its place in CLASS_NAMES.
        outline: (P, 2) corners (x, y) in pixels.
        center: (x, y).
        radius: of the circle around it.
        box: (x1, y1, x2, y2) in pixels, x2 and y2 exclusive, the smallest around the outline's pixels.
    """

    label: int
    outline: np.ndarray
    center: np.ndarray
    radius: float
    box: tuple[float, float, float, float]


def scene_seed(split: str, index: int) -> int:
    """The seed of a picture of a split; different splits share no picture.

    Raises:
        DataError: an unknown split.
    """
    if split not in _SPLITS:
        raise DataError(f"the built-in shapes have no split {split!r}: use one of {', '.join(_SPLITS)}")
    return derive_seed(_SPLITS[split], index)


def lay_out(seed: int, size: int, labels: Sequence[int], *, smallest: float, largest: float) -> list[Shape]:
    """Places a shape for each label in a square picture, as a function of the arguments alone.

    Shapes overlap by at most a fifth of the smaller one's box; one for which no place is found is left out.

    Args:
        size: the picture's side in pixels.
        smallest, largest: a shape's diameter in pixels; its logarithm is uniform between them.
    """
    rng = np.random.default_rng([seed, 0])
    shapes: list[Shape] = []
    for label in labels:
        for _ in range(20):
            radius = float(np.exp(rng.uniform(np.log(smallest), np.log(largest)))) / 2
            center = rng.uniform(radius, size - radius, 2)
            outline = _unit_outline(CLASS_NAMES[label], rng.uniform(0, 2 * np.pi)) * radius + center
            x1, y1 = np.floor(outline.min(0)).clip(0)
            x2, y2 = (np.floor(outline.max(0)) + 1).clip(max=size)
            box = (float(x1), float(y1), float(x2), float(y2))
            if all(_overlap(box, other.box) <= 0.2 for other in shapes):
                shapes.append(Shape(int(label), outline, center, radius, box))
                break
    return shapes


def paint(seed: int, size: int, shapes: Sequence[Shape]) -> Image.Image:
    """Paints shapes on a textured background, later ones on top, with noise over all."""
    rng = np.random.default_rng([seed, 1])
    picture = _background(rng, size)
    draw = ImageDraw.Draw(picture)
    for shape in shapes:
        under = np.array(picture.getpixel((int(shape.center[0]), int(shape.center[1]))))
        colour = rng.integers(0, 256, 3)
        while np.abs(colour - under).sum() < 150:  # stay visible
            colour = rng.integers(0, 256, 3)
        if CLASS_NAMES[shape.label] == "ring":  # the stroke's outer edge is the outline
            middle = [tuple(shape.center + 0.85 * (corner - shape.center)) for corner in shape.outline]
            width = max(2, round(0.3 * shape.radius))
            draw.line([*middle, *middle[:2]], fill=tuple(colour), width=width, joint="curve")
        else:
            draw.polygon([tuple(corner) for corner in shape.outline], fill=tuple(colour))
    pixels = np.asarray(picture, dtype=np.int16) + rng.integers(-12, 13, (size, size, 3), dtype=np.int16)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def shapes_for_classification(split: str, count: int, size: int) -> ClassificationDataset:
    """`count` pictures of `size` pixels, each with one large shape.

    Raises:
        DataError: an unknown split, no pictures, or pictures too small to draw on.
    """
    if count < 1 or size < 8:
        raise DataError(f"{count} built-in shapes of {size} pixels: ask for 1 or more, of 8 pixels or more")
    seeds = [scene_seed(split, index) for index in range(count)]
    labels = np.array([seed % len(CLASS_NAMES) for seed in seeds], dtype=np.int64)

    def picture(index: int) -> Image.Image:
        shapes = lay_out(seeds[index], size, [labels[index]], smallest=0.4 * size, largest=0.85 * size)
        return paint(seeds[index], size, shapes)

    return ClassificationDataset(
        CLASS_NAMES, labels, picture, lambda index: f"shapes {split} picture {index}", f"shapes {split} {size}"
    )


def _background(rng: np.random.Generator, size: int) -> Image.Image:
    """Coarse and fine coloured clouds."""
    coarse = rng.integers(0, 256, (3, 3, 3), dtype=np.uint8)
    fine = rng.integers(0, 256, (max(2, size // 6), max(2, size // 6), 3), dtype=np.uint8)
    layers = [Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC) for noise in (coarse, fine)]
    clouds = Image.blend(layers[0], layers[1], 0.3)
    return Image.blend(clouds, Image.new("RGB", (size, size), (128, 128, 128)), 0.4)


def _unit_outline(name: str, turn: float) -> np.ndarray:
    """Corners (P, 2) of a shape in the unit circle."""
    if name in ("circle", "ring"):
        return _corners(np.linspace(0, 2 * np.pi, 32, endpoint=False), np.ones(32))
    if name in ("square", "triangle"):
        sides = 4 if name == "square" else 3
        return _corners(turn + np.arange(sides) * 2 * np.pi / sides, np.ones(sides))
    if name == "star":
        return _corners(turn + np.arange(10) * np.pi / 5, np.where(np.arange(10) % 2, 0.42, 1.0))
    arm = 0.28  # a cross: twelve corners, arms of width 2 * arm
    corners = np.array([(1, arm), (arm, arm), (arm, 1), (-arm, 1), (-arm, arm), (-1, arm)])
    corners = np.concatenate([corners, -corners]) / np.hypot(1, arm)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return corners @ rotation.T


def _corners(angles: np.ndarray, radii: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angles) * radii, np.sin(angles) * radii], axis=1)


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """The share of the smaller box that both cover."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(width, 0) * max(height, 0) / smaller
