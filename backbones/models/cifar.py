"""The CIFAR-10 networks of 4.2, residual and plain: 6n+2 layers on 32x32 pictures."""

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from backbones.errors import ConfigError
from backbones.models.blocks import (
    BasicBlock,
    ChannelBias,
    NormLayer,
    ShortcutOption,
    conv3x3,
    he_initialise,
    make_blocks,
    zero_residuals,
)
from backbones.models.stages import Stage, StagedNetwork


class CifarResNet(StagedNetwork):
    """A residual or plain network for CIFAR-10 (4.2).

    Args:
        depth: 6n + 2: 2n layers on each of three map sizes, conv1 and the classifier.
        num_classes: 0 makes `fc` the identity.
        shortcut: option of 3.3 where dimensions change, see `make_shortcut`; None makes a plain net.
        block_layers: convolutions of a residual function F: 1, 2 or 3 (3.2); it must divide 2n.
        dropout: inside each block between its layers, see `BasicBlock`.
        norm: "none" has no batch normalisation but a bias for each channel in its place.
        width: channels of conv1; the three stages have width, 2 and 4 times width.
        zero_init_residual: every residual block starts as its shortcut.
        norm_layer: makes batch normalisation from the number of channels.

    Raises:
        ConfigError: options that do not go together.
    """

    input_size = 32

    def __init__(
        self,
        depth: int,
        num_classes: int = 10,
        *,
        shortcut: ShortcutOption | None = "A",
        block_layers: int = 2,
        dropout: float = 0.0,
        norm: Literal["batch", "none"] = "batch",
        width: int = 16,
        zero_init_residual: bool = False,
        norm_layer: NormLayer = nn.BatchNorm2d,
    ) -> None:
        super().__init__(num_classes=num_classes, num_features=4 * width)
        stage_layers = (depth - 2) // 3
        if stage_layers % block_layers:
            raise ConfigError(
                f"block_layers {block_layers} does not divide the {stage_layers} layers that each stage of "
                f"{depth} layers has; it goes with 18k+2 layers: 20, 38, 56, 74, 92, 110, ..."
            )
        if dropout and block_layers == 1:
            raise ConfigError(f"dropout {dropout} is between a block's layers, and block_layers 1 has no such place")
        if norm == "none" and norm_layer is not nn.BatchNorm2d:
            raise ConfigError("norm none has no batch norm that norm_layer could make: leave out one of the two")
        if norm == "none":
            norm_layer = ChannelBias
        n = stage_layers // block_layers
        block = partial(BasicBlock, shortcut=shortcut, norm_layer=norm_layer, layers=block_layers, dropout=dropout)
        self.conv1 = conv3x3(3, width)
        self.bn1 = norm_layer(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = make_blocks(partial(block, channels=width), n, width, width, 1)
        self.layer2 = make_blocks(partial(block, channels=2 * width), n, width, 2 * width, 2)
        self.layer3 = make_blocks(partial(block, channels=4 * width), n, 2 * width, 4 * width, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = self.last_layer()
        he_initialise(self)
        if zero_init_residual:
            zero_residuals(self)

    def stages(self) -> dict[str, Stage]:
        width = self.conv1.out_channels
        return {
            "conv1": Stage((self.conv1, self.bn1, self.relu), width, 1),
            "conv2": Stage((self.layer1,), width, 1),
            "conv3": Stage((self.layer2,), 2 * width, 2),
            "conv4": Stage((self.layer3,), 4 * width, 4),
        }

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))
