"""The built-in shapes as a detection set, with annotations like COCO's."""

import numpy as np
import torch
from torch import Tensor

from backbones.data.shapes import CLASS_NAMES, lay_out, paint, scene_seed
from backbones.errors import DataError
from detection.data.annotations import Annotations, DetectionDataset


def shapes_for_detection(split: str, count: int, size: int, *, most: int = 5) -> DetectionDataset:
    """`count` square pictures of `size` pixels, each with up to `most` shapes of a seventh to half the picture's side.

    One in twenty pictures holds nothing.

    Raises:
        DataError: an unknown split, no pictures, or pictures too small to draw on.
    """
    if count < 1 or size < 16:
        raise DataError(f"{count} built-in shapes of {size} pixels: ask for 1 or more, of 16 pixels or more")
    seeds = [scene_seed(split, index) for index in range(count)]
    scenes = []
    for seed in seeds:
        rng = np.random.default_rng([seed, 2])
        number = 0 if rng.random() < 0.05 else int(rng.integers(1, most + 1))
        labels = rng.integers(0, len(CLASS_NAMES), number).tolist()
        scenes.append(lay_out(seed, size, labels, smallest=size / 7, largest=size / 2))
    shapes = [(index, shape) for index, scene in enumerate(scenes) for shape in scene]
    annotations = Annotations.from_objects(
        class_names=CLASS_NAMES,
        image_ids=list(range(1, count + 1)),
        sizes=np.full((count, 2), size),
        images=[index for index, _ in shapes],
        boxes=[shape.box for _, shape in shapes],
        labels=[shape.label + 1 for _, shape in shapes],
    )

    def load_image(index: int) -> Tensor:
        return torch.from_numpy(np.array(paint(seeds[index], size, scenes[index]))).permute(2, 0, 1)

    return DetectionDataset(annotations, load_image)
