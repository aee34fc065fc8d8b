"""Views of pictures of any sizes, on their way to a network that is tested."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass
class PackedViews:
    """Views of some pictures, those of the same shape together; few tensors, which loading processes hand over fast.

    Args:
        pixels: all views' values, one after another.
        places: (V,) int64: of which picture of the batch each view is.
        shapes: (height, width): how many views have this shape.
        pictures: how many there are.
    """

    pixels: Tensor
    places: Tensor
    shapes: dict[tuple[int, int], int]
    pictures: int

    def pin_memory(self) -> "PackedViews":
        """The same views in memory from which a GPU copies while it computes; a data loader asks for it."""
        return replace(self, pixels=self.pixels.pin_memory(), places=self.places.pin_memory())

    def to(self, device: torch.device, non_blocking: bool = False) -> "PackedViews":
        """The same views on `device`."""
        pixels, places = (tensor.to(device, non_blocking=non_blocking) for tensor in (self.pixels, self.places))
        return replace(self, pixels=pixels, places=places)

    def portions(self, pixels: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Views (B, H, W, 3) and their pictures' places (B,), as many at a time as `pixels` allow, but at least one."""
        lengths = [number * height * width * 3 for (height, width), number in self.shapes.items()]
        groups = self.pixels.split(lengths), self.places.split(list(self.shapes.values()))
        for (height, width), views, places in zip(self.shapes, *groups, strict=True):
            count = max(1, pixels // (height * width))
            yield from zip(views.view(-1, height, width, 3).split(count), places.split(count), strict=True)


def pack_array(views: np.ndarray) -> PackedViews:
    """One view of each picture, (B, H, W, 3)."""
    count, height, width, _ = views.shape
    return PackedViews(torch.from_numpy(views).flatten(), torch.arange(count), {(height, width): count}, count)


def pack(pictures: list[list[np.ndarray]]) -> PackedViews:
    """The views (h, w, 3) uint8 of each picture."""
    groups: dict[tuple[int, int], list[tuple[int, np.ndarray]]] = {}
    for place, views in enumerate(pictures):
        for view in views:
            groups.setdefault((view.shape[0], view.shape[1]), []).append((place, view))
    ordered = [each for group in groups.values() for each in group]
    pixels = np.concatenate([view.ravel() for _, view in ordered])
    places = torch.tensor([place for place, _ in ordered])
    shapes = {shape: len(group) for shape, group in groups.items()}
    return PackedViews(torch.from_numpy(pixels), places, shapes, len(pictures))
