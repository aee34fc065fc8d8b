"""The ImageNet networks of Table 1, residual and plain. Parameter names are torchvision's."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from backbones.models.blocks import (
    BasicBlock,
    Bottleneck,
    NormLayer,
    Pool,
    ShortcutOption,
    StrideIn,
    he_initialise,
    make_blocks,
    zero_residuals,
)
from backbones.models.stages import Stage, StagedNetwork

BASIC_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
BOTTLENECK_DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class ResNet(StagedNetwork):
    """A residual or plain network for ImageNet (Table 1).

    Args:
        depth: 18 or 34 (basic blocks), 50, 101 or 152 (bottlenecks).
        num_classes: 0 makes `fc` the identity.
        shortcut: option of 3.3 where dimensions change, see `make_shortcut`; None makes a plain net.
        stride_in: where a bottleneck has its stride; basic blocks have no such choice.
        pool: the max pool pads by 1 and rounds its size down ("torch", as torchvision), or pads nothing and rounds up
            ("caffe", as the paper's released models).
        width: channels of conv1; every other layer scales with it.
        zero_init_residual: every residual block starts as its shortcut.
        norm_layer: makes batch normalisation from the number of channels.
    """

    input_size = 224

    def __init__(
        self,
        depth: int,
        num_classes: int = 1000,
        *,
        shortcut: ShortcutOption | None = "B",
        stride_in: StrideIn = "1x1",
        pool: Pool = "torch",
        width: int = 64,
        zero_init_residual: bool = False,
        norm_layer: NormLayer = nn.BatchNorm2d,
    ) -> None:
        bottleneck = depth in BOTTLENECK_DEPTHS
        expansion = Bottleneck.expansion if bottleneck else BasicBlock.expansion
        super().__init__(num_classes=num_classes, num_features=8 * width * expansion)
        counts = BOTTLENECK_DEPTHS[depth] if bottleneck else BASIC_DEPTHS[depth]
        block: Callable[..., nn.Module] = partial(Bottleneck, stride_in=stride_in) if bottleneck else BasicBlock
        block = partial(block, shortcut=shortcut, norm_layer=norm_layer)

        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm_layer(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=int(pool == "torch"), ceil_mode=pool == "caffe")
        w = width
        self.layer1 = make_blocks(partial(block, channels=w), counts[0], w, w * expansion, 1)
        self.layer2 = make_blocks(partial(block, channels=2 * w), counts[1], w * expansion, 2 * w * expansion, 2)
        self.layer3 = make_blocks(partial(block, channels=4 * w), counts[2], 2 * w * expansion, 4 * w * expansion, 2)
        self.layer4 = make_blocks(partial(block, channels=8 * w), counts[3], 4 * w * expansion, 8 * w * expansion, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = self.last_layer()
        he_initialise(self)
        if zero_init_residual:
            zero_residuals(self)

    def stages(self) -> dict[str, Stage]:
        channels = self.num_features
        return {
            "conv1": Stage((self.conv1, self.bn1, self.relu), self.conv1.out_channels, 2),
            "conv2": Stage((self.maxpool, self.layer1), channels // 8, 4),
            "conv3": Stage((self.layer2,), channels // 4, 8),
            "conv4": Stage((self.layer3,), channels // 2, 16),
            "conv5": Stage((self.layer4,), channels, 32),
        }

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))
