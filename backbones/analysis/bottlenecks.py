"""What bottlenecks save, block by block, and what projections (option C) on their wide ends would add (4.1, Fig. 5)."""

import math
from dataclasses import dataclass

from torch import nn

from backbones.analysis.complexity import Complexity
from backbones.models.blocks import Bottleneck


@dataclass(frozen=True)
class BottleneckCost:
    """One bottleneck beside two 3x3 convolutions at its wide width, in weights and multiply-adds for one picture.

    With 256 channels: 256x64 + 64x64x3x3 + 64x256 weights against 256x256x3x3 of each 3x3 convolution.

    Args:
        name: in the network.
        output_shape: (C, H, W).
        weights, multiply_adds: of the three convolutions, without the shortcut.
        wide_weights, wide_multiply_adds: of two 3x3 convolutions from and to as many channels.
        projection_weights, projection_multiply_adds: of a 1x1 convolution as shortcut.
        has_projection: whether the block has that shortcut; else it is what option C would add.
    """

    name: str
    output_shape: tuple[int, ...]
    weights: int
    multiply_adds: int
    wide_weights: int
    wide_multiply_adds: int
    projection_weights: int
    projection_multiply_adds: int
    has_projection: bool


def bottleneck_costs(network: nn.Module, cost: Complexity) -> list[BottleneckCost]:
    """All bottlenecks of a network, in order; none where it has other blocks.

    Args:
        network: the one that `cost` was counted of.
        cost: from `complexity`.
    """
    layers = {layer.name: layer for layer in cost.layers}
    rows = []
    for name, block in network.named_modules():
        if not isinstance(block, Bottleneck):
            continue
        own = [layers[f"{name}.conv{i}"] for i in (1, 2, 3)]
        shape = own[-1].output_shape
        channels_in, channels_out, positions = block.conv1.in_channels, shape[0], math.prod(shape[1:])
        # The first of two 3x3 convolutions has the stride, so that both have the block's output size.
        wide = 9 * channels_out * (channels_in + channels_out)
        projection = channels_in * channels_out
        rows.append(
            BottleneckCost(
                name,
                shape,
                sum(layer.parameters for layer in own),
                sum(layer.multiply_adds for layer in own),
                wide,
                wide * positions,
                projection,
                projection * positions,
                f"{name}.downsample.0" in layers,
            )
        )
    return rows
