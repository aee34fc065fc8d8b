"""What the per-class RPN is trained on: random crops as in classification (3.4), and the objects that they show."""

import torch
from torch import Tensor

from backbones.engine.randomness import derive_seed
from backbones.errors import DataError
from backbones.weights import LARGEST_SIDE
from detection.data.annotations import DetectionDataset
from detection.data.samples import make_sample
from detection.structures import Sample, Target

SEED_STREAM = 4
"""Keeps this module's random choices apart from those of other modules."""

DRAWS = 10
"""A crop that shows no object is drawn anew at most so often."""


def training_crop(
    dataset: DetectionDataset,
    index: int,
    *,
    size: int,
    scale_range: tuple[int, int],
    flip: bool,
    min_visible: float,
    seed: int,
) -> Sample:
    """A crop of `size` x `size` pixels of one picture, or of its mirror image, with the objects in it.

    Args:
        scale_range: the picture's shorter side, in pixels, is uniform in it.
        flip: take the mirror image in half of all cases.
        min_visible: see `objects_in_crop`.
        seed: decides everything.

    Raises:
        DataError: the picture can't be read, has another size than its annotation says, or is too long and narrow.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, SEED_STREAM))

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    whole = make_sample(dataset, index, shorter=draw(*scale_range), longest=LARGEST_SIDE, flip=flip, seed=seed)
    height, width = whole.image.shape[1:]
    if min(height, width) < size:
        raise DataError(
            f"picture {dataset.annotations.image_ids[index]}: so long and narrow that no crop of {size} fits: remove it"
        )
    for _ in range(DRAWS):
        left, top = draw(0, width - size), draw(0, height - size)
        target = objects_in_crop(whole.target, left, top, size, min_visible)
        if not target.ignore.all():
            break
    image = whole.image[:, top : top + size, left : left + size].contiguous()
    return Sample(image, target, index, whole.original_size, seed)


def objects_in_crop(target: Target, left: int, top: int, size: int, min_visible: float) -> Target:
    """The objects of a picture in the pixels of a crop, their boxes clipped to it.

    Args:
        min_visible: an object of which the crop shows less than this part is neither object nor background there. The
            part is of what a crop can show at most: of the object's area, or of the crop's where that is smaller.
    """
    boxes = target.boxes - target.boxes.new_tensor([left, top, left, top])
    clipped = boxes.clamp(0, size)
    seen = _areas(clipped) / _areas(boxes).clamp(max=size * size)
    inside = _areas(clipped) > 0
    ignore = target.ignore | (seen < min_visible)
    return Target(clipped[inside], target.labels[inside], ignore[inside])


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)
