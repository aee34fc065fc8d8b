"""A backbone taken apart for detection (4.3): layers that all regions of a picture share, layers run on each."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from backbones.models import StagedNetwork, run_stages
from backbones.models.resnet import ResNet
from backbones.models.vgg import VGG


class SplitBackbone(ABC):
    """A view of a network, which it does not own: no module, so the weights appear once, where the network is.

    Args:
        network: without its classifying layer (`num_classes=0`).
    """

    last_shared: ClassVar[str]
    pool_size: ClassVar[int]
    """Height and width of a region's pooled features where nothing else is asked for."""
    any_pool_size: ClassVar[bool]
    """Whether other sizes work: fully connected layers fix it."""

    def __init__(self, network: StagedNetwork) -> None:
        self.network = network
        stage = network.stages()[self.last_shared]
        self.channels = stage.channels
        self.stride = stage.stride
        self.region_channels = network.num_features

    def shared_stages(self) -> list[str]:
        """The names of the stages that all regions share."""
        names = list(self.network.stages())
        return names[: names.index(self.last_shared) + 1]

    @abstractmethod
    def region_layers(self) -> Sequence[nn.Module]:
        """The layers that are run on each region."""

    def shared(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) normalised pictures to (N, channels, H / stride, W / stride) features."""
        return run_stages(self.network, pictures, "conv1", self.last_shared)

    @abstractmethod
    def region(self, pooled: Tensor) -> Tensor:
        """(R, channels, pool_size, pool_size) pooled features to (R, region_channels)."""


class SplitResNet(SplitBackbone):
    """conv1 to conv4 shared; conv5, stride 2 within, and global average pooling on each region. Plain nets alike."""

    last_shared = "conv4"
    pool_size = 14
    any_pool_size = True

    def region_layers(self) -> Sequence[nn.Module]:
        return self.network.stages()["conv5"].modules

    def region(self, pooled: Tensor) -> Tensor:
        # Pooling gives float32 in the usual layout; made once what conv5 and its shortcut both take.
        if torch.is_autocast_enabled(pooled.device.type) and pooled.dtype == torch.float32:
            pooled = pooled.to(torch.get_autocast_dtype(pooled.device.type))
        pooled = pooled.contiguous(memory_format=torch.channels_last)
        return run_stages(self.network, pooled, "conv5", "conv5").mean(dim=(2, 3))


class SplitVGG(SplitBackbone):
    """conv1 to conv5 without the last pooling shared; fc6 and fc7 on each region."""

    network: VGG
    last_shared = "conv5"
    pool_size = 7
    any_pool_size = False

    def region_layers(self) -> Sequence[nn.Module]:
        return [self.network.classifier]

    def region(self, pooled: Tensor) -> Tensor:
        return self.network.classifier(pooled.flatten(1))


def split_backbone(network: StagedNetwork) -> SplitBackbone:
    """Takes an ImageNet network apart.

    Raises:
        TypeError: a network of another kind (those for CIFAR-10 have no conv5).
    """
    if isinstance(network, VGG):
        return SplitVGG(network)
    if isinstance(network, ResNet):
        return SplitResNet(network)
    raise TypeError(f"no way to split a {type(network).__name__}")


def full_precision(x: Tensor) -> Tensor:
    """In float32 at least: box arithmetic and losses need it, also where autocast runs the network in bfloat16."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
