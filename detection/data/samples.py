"""From a data set to what a detector is fed: resized, perhaps mirrored, with its objects in the same pixels."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from backbones.engine.randomness import derive_seed
from backbones.errors import DataError
from detection.data.annotations import DetectionDataset
from detection.structures import Sample, ScaledPicture, Target, View


def resize_scale(height: int, width: int, shorter: int, longest: int) -> float:
    """The factor that makes a picture's shorter side `shorter`, or its longer one `longest` if that is less (4.3)."""
    return min(shorter / min(height, width), longest / max(height, width))


def scale_image(image: Tensor, scale: float) -> Tensor:
    """Resizes (3, H, W) uint8 by `scale` (bilinear, antialiased), sides rounded, at least one pixel."""
    height, width = (max(1, round(side * scale)) for side in image.shape[1:])
    return image if (height, width) == tuple(image.shape[1:]) else resize(image, [height, width], antialias=True)


def scale_boxes(boxes: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Boxes (N, 4) in the pixels of the picture `source` (3, H, W), in those of its resized copy `target`."""
    height, width = target.shape[1] / source.shape[1], target.shape[2] / source.shape[2]
    return boxes * boxes.new_tensor([width, height, width, height])


def mirror_boxes(boxes: Tensor, width: int) -> Tensor:
    """Boxes (N, 4) in the mirror image of a picture of that width."""
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([width - x2, y1, width - x1, y2], 1)


def mirror(image: Tensor, target: Target) -> tuple[Tensor, Target]:
    """The mirror image (3, H, W) and its objects."""
    return image.flip(2), Target(mirror_boxes(target.boxes, image.shape[2]), target.labels, target.ignore)


def make_sample(
    dataset: DetectionDataset,
    index: int,
    *,
    shorter: int,
    longest: int,
    flip: bool = False,
    seed: int = 0,
    proposals: Tensor | None = None,
) -> Sample:
    """One picture of the data set at the network's size.

    Args:
        shorter, longest: see `resize_scale`.
        flip: mirror the picture in half of all cases; `seed` decides.
        proposals: (P, 4) in the pixels of the resized picture, which are mirrored with it.

    Raises:
        DataError: the picture can't be read, or has another size than its annotation says.
    """
    original, target = _load(dataset, index), dataset.target(index)
    image = scale_image(original, resize_scale(original.shape[1], original.shape[2], shorter, longest))
    target = Target(scale_boxes(target.boxes, original, image), target.labels, target.ignore)
    if flip and torch.rand((), generator=torch.Generator().manual_seed(derive_seed(seed, 0))) < 0.5:
        image, target = mirror(image, target)
        proposals = None if proposals is None else mirror_boxes(proposals, image.shape[2])
    return Sample(image, target, index, tuple(original.shape[1:]), seed, proposals)


def make_scaled_picture(dataset: DetectionDataset, index: int, views: Sequence[View]) -> ScaledPicture:
    """One picture of the data set at several sizes: shorter and longest side of each view, see `resize_scale`.

    Raises:
        DataError: as `make_sample`.
    """
    return scale_picture(_load(dataset, index), index, views)


def scale_picture(original: Tensor, index: int, views: Sequence[View]) -> ScaledPicture:
    """A picture (3, H, W) uint8 at several sizes, each made from the original."""
    size = original.shape[1], original.shape[2]
    return ScaledPicture({view: scale_image(original, resize_scale(*size, *view)) for view in views}, index, size)


def _load(dataset: DetectionDataset, index: int) -> Tensor:
    """A picture; refuses one of another size than its annotation says."""
    image, annotations = dataset.load_image(index), dataset.annotations
    if tuple(image.shape[1:]) != tuple(annotations.sizes[index]):
        (height, width), said = image.shape[1:], annotations.sizes[index]
        raise DataError(
            f"picture {annotations.image_ids[index]}: is {width}x{height}, its annotation says {said[1]}x{said[0]}: "
            "mend the annotation"
        )
    return image
