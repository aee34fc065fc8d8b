"""VGG-16 and VGG-19 (Simonyan and Zisserman), the paper's references. Parameter names are torchvision's."""

import torch
from torch import Tensor, nn

from backbones.models.blocks import NormLayer, Pool, he_initialise
from backbones.models.stages import Stage, StagedNetwork

CONVOLUTIONS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
CHANNEL_FACTORS = (1, 2, 4, 8, 8)


class VGG(StagedNetwork):
    """VGG: five stages of 3x3 convolutions with a max pool after each, then fc6, fc7 and the classifying layer.

    Args:
        depth: 16 or 19.
        num_classes: 0 makes the last of `classifier` the identity: the output is fc7's features.
        batch_norm: batch normalisation after each convolution.
        width: channels of conv1; every other layer scales with it, fc6 and fc7 too (64 * width).
        dropout: after fc6 and fc7.
        pool: whether the max pools round their sizes down ("torch", as torchvision) or up ("caffe", as the released
            models): the same for multiples of 32 pixels.
        norm_layer: makes batch normalisation from the number of channels.
    """

    input_size = 224

    def __init__(
        self,
        depth: int,
        num_classes: int = 1000,
        *,
        batch_norm: bool = False,
        width: int = 64,
        dropout: float = 0.5,
        pool: Pool = "torch",
        norm_layer: NormLayer = nn.BatchNorm2d,
    ) -> None:
        super().__init__(num_classes=num_classes, num_features=64 * width)
        self.width = width
        layers: list[nn.Module] = []
        channels = 3
        for count, factor in zip(CONVOLUTIONS[depth], CHANNEL_FACTORS, strict=True):
            for _ in range(count):
                layers.append(nn.Conv2d(channels, factor * width, 3, padding=1))
                channels = factor * width
                if batch_norm:
                    layers.append(norm_layer(channels))
                layers.append(nn.ReLU(inplace=True))
            layers.append(nn.MaxPool2d(2, stride=2, ceil_mode=pool == "caffe"))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(channels * 7 * 7, self.num_features),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(self.num_features, self.num_features),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            self.last_layer(),
        )
        he_initialise(self)

    def stages(self) -> dict[str, Stage]:
        # A pool begins the next stage; the last pool is in none, so conv5 has stride 16.
        parts: list[list[nn.Module]] = [[]]
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                parts.append([])
            parts[-1].append(layer)
        return {
            f"conv{i + 1}": Stage(tuple(parts[i]), factor * self.width, 2**i)
            for i, factor in enumerate(CHANNEL_FACTORS)
        }

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        if x.shape[-2:] != (7, 7):  # else it would change nothing, and has no deterministic gradient on GPUs
            x = self.avgpool(x)
        return self.classifier(torch.flatten(x, 1))
