"""What passes between data, models and evaluation. Boxes are (x1, y1, x2, y2) in pixels, x2 and y2 exclusive."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Size = tuple[int, int]
"""(height, width) of a picture in pixels."""

View = tuple[int, int]
"""How a picture is shown: its shorter side becomes the first number, or its longer one the second if that is less."""


@dataclass
class Target:
    """The objects of one picture.

    Args:
        boxes: (N, 4) float32, in the pixels of the picture that they come with; N may be 0.
        labels: (N,) int64 in 1..K; 0 is background and never occurs here.
        ignore: (N,) bool: crowds and difficult objects, which are neither objects nor background.
    """

    boxes: Tensor
    labels: Tensor
    ignore: Tensor

    def pin_memory(self) -> "Target":
        """The same objects in memory from which a GPU copies while it computes."""
        return Target(*(t.pin_memory() for t in (self.boxes, self.labels, self.ignore)))

    def to(self, device: torch.device | str, non_blocking: bool = True) -> "Target":
        """The same objects on `device`."""
        return Target(*(t.to(device, non_blocking=non_blocking) for t in (self.boxes, self.labels, self.ignore)))


@dataclass
class Detections:
    """What was found in one picture, best score first.

    Args:
        boxes: (N, 4) float.
        scores: (N,) float in [0, 1].
        labels: (N,) int64 in 1..K.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> "Detections":
        """The same detections on `device`."""
        return Detections(self.boxes.to(device), self.scores.to(device), self.labels.to(device))

    def __len__(self) -> int:
        return len(self.scores)


@dataclass
class Sample:
    """One picture on its way into a detector.

    Args:
        image: (3, H, W) uint8, RGB.
        target: its objects, in the pixels of `image`.
        index: its place in the data set.
        original_size: (height, width) of the picture before resizing.
        seed: decides every random choice made for this picture in this step (which anchors and regions are sampled).
        proposals: (P, 4) float32 in the pixels of `image`, where they were made before.
    """

    image: Tensor
    target: Target
    index: int
    original_size: tuple[int, ...]
    seed: int
    proposals: Tensor | None = None

    def pin_memory(self) -> "Sample":
        """The same sample in memory from which a GPU copies while it computes; a data loader asks for it."""
        proposals = None if self.proposals is None else self.proposals.pin_memory()
        return replace(self, image=self.image.pin_memory(), target=self.target.pin_memory(), proposals=proposals)

    def to(self, device: torch.device | str, non_blocking: bool = True) -> "Sample":
        """The same sample on `device`; a loop asks for it one batch ahead."""
        proposals = None if self.proposals is None else self.proposals.to(device, non_blocking=non_blocking)
        image, target = self.image.to(device, non_blocking=non_blocking), self.target.to(device, non_blocking)
        return replace(self, image=image, target=target, proposals=proposals)


@dataclass
class ScaledPicture:
    """One picture to be tested, at the sizes that detectors want to see it.

    Args:
        images: (3, h, w) uint8, RGB, by view.
        index: its place in the data set.
        original_size: (height, width) before resizing.
    """

    images: Mapping[View, Tensor]
    index: int
    original_size: Size

    def pin_memory(self) -> "ScaledPicture":
        """The same picture in memory from which a GPU copies while it computes."""
        return replace(self, images={view: image.pin_memory() for view, image in self.images.items()})

    def to(self, device: torch.device | str, non_blocking: bool = True) -> "ScaledPicture":
        """The same picture on `device`."""
        images = {view: image.to(device, non_blocking=non_blocking) for view, image in self.images.items()}
        return replace(self, images=images)
