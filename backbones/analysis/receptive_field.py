"""Which pixels of the picture a position of a feature map depends on."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from backbones.models.blocks import Block, ZeroPadShortcut
from backbones.models.stages import StagedNetwork


@dataclass(frozen=True)
class ReceptiveField:
    """The square of pixels behind a position, the same in height and width.

    Args:
        size: side in pixels.
        stride: pixels between the squares of neighbouring positions.
        start: first pixel of position 0's square; below 0 where it begins in the padding.
    """

    size: int = 1
    stride: int = 1
    start: int = 0

    def extent(self, position: int) -> tuple[int, int]:
        """First pixel and the one after the last of a position's square, in one direction; padding included."""
        first = self.start + position * self.stride
        return first, first + self.size

    def then(self, kernel: int, stride: int, padding: int) -> "ReceptiveField":
        """Of the output of a convolution or pooling over what this field is of."""
        return ReceptiveField(
            self.size + (kernel - 1) * self.stride, self.stride * stride, self.start - padding * self.stride
        )


def stage_fields(network: StagedNetwork) -> dict[str, ReceptiveField]:
    """The receptive field of each stage's output."""
    fields = {}
    field = ReceptiveField()
    for name, stage in network.stages().items():
        field = fields[name] = _through(field, stage.modules)
    return fields


def _through(field: ReceptiveField, modules: Iterable[nn.Module]) -> ReceptiveField:
    for module in modules:
        field = _after(field, module)
    return field


def _after(field: ReceptiveField, module: nn.Module) -> ReceptiveField:
    """Of the output of a module over what `field` is of."""
    match module:
        case nn.Sequential():
            return _through(field, module)
        case Block():
            return _joined(field, _through(field, [layer.conv for layer in module.layers()]), module.downsample)
        case nn.Conv2d():
            return field.then(module.kernel_size[0], module.stride[0], int(module.padding[0]))
        case nn.MaxPool2d(kernel_size=int(kernel), stride=int(stride), padding=int(padding)):
            return field.then(kernel, stride, padding)
        case ZeroPadShortcut():
            return field.then(1, module.stride, 0)
        case _:  # batch norm, ReLU: position by position
            return field


def _joined(field: ReceptiveField, branch: ReceptiveField, shortcut: nn.Module | None) -> ReceptiveField:
    """Of the sum of a block's convolutions and its shortcut: the smallest square around both."""
    if shortcut is None:
        return branch
    other = _after(field, shortcut)
    start = min(branch.start, other.start)
    end = max(branch.start + branch.size, other.start + other.size)
    return ReceptiveField(end - start, branch.stride, start)
