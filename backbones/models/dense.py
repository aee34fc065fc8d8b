"""Classifiers made fully convolutional: they slide over pictures of any size (Section 3.4; VGG's dense evaluation)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.errors import ConfigError
from backbones.models.stages import StagedNetwork, run_stages
from backbones.models.vgg import VGG

_POOLED = 7  # cells a side of what VGG's fc6 sees
_LARGEST_WINDOW = 16  # pictures of 512 pixels: VGG-16's fc6 then takes 2 GB


def dense_classifier(network: StagedNetwork, input_size: int) -> Callable[[Tensor], Tensor]:
    """Makes the map of class scores of a network in eval mode: its fully-connected layers become convolutions.

    The classifier looks at a window of the last map: as many cells as that has of a picture of `input_size`. The window
    moves in steps of one cell. Of a picture of `input_size` x `input_size` the map is 1x1 and holds the network's
    ordinary logits. It does not equal the logits of crops elsewhere: layers see the pixels around a window, not zeros.

    Args:
        network: the classifier. Its weights are used as they are now.
        input_size: the side of its training crops in pixels.

    Returns:
        A function of pictures (B, 3, H, W), H and W `input_size` or more (it raises ConfigError otherwise), that gives
        logits (B, num_classes, H', W').

    Raises:
        ConfigError: a VGG for pictures so small or so large that fc6 can't be made a convolution.
    """
    apply = _dense_vgg(network, input_size) if isinstance(network, VGG) else _dense_resnet(network, input_size)

    def scores(x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if min(height, width) < input_size:
            raise ConfigError(f"a picture of {width}x{height} is smaller than the network's window of {input_size}")
        return apply(x)

    return scores


def check_dense(network: StagedNetwork, input_size: int) -> None:
    """Finds out whether `dense_classifier` can be made. Raises ConfigError as it does."""
    if isinstance(network, VGG) and not 32 <= input_size <= 32 * _LARGEST_WINDOW:
        raise ConfigError(
            f"a VGG for pictures of {input_size} pixels can't be tested on several scales: "
            f"its pictures must be of 32 to {32 * _LARGEST_WINDOW}"
        )


@torch.no_grad()
def _last_map(stages: Callable[[Tensor], Tensor], network: nn.Module, input_size: int) -> int:
    """Cells a side of the last map of a picture of `input_size`."""
    first = next(network.parameters())
    return stages(torch.zeros(1, 3, input_size, input_size, dtype=first.dtype, device=first.device)).shape[-1]


def _dense_resnet(network: StagedNetwork, input_size: int) -> Callable[[Tensor], Tensor]:
    """Global average pooling becomes a pooling of the window, `fc` a 1x1 convolution."""
    first, *_, last = network.stages()
    window = _last_map(lambda x: run_stages(network, x, first, last), network, input_size)
    fc = _pointwise(network.get_submodule("fc"))
    return lambda x: fc(F.avg_pool2d(run_stages(network, x, first, last), window, stride=1))


def _dense_vgg(network: VGG, input_size: int) -> Callable[[Tensor], Tensor]:
    """fc6 becomes a convolution of the window's size, fc7 and fc8 1x1 convolutions."""
    check_dense(network, input_size)
    window = _last_map(network.features, network, input_size)
    fc6, fc7, fc8 = network.classifier[0], _pointwise(network.classifier[3]), _pointwise(network.classifier[6])
    assert isinstance(fc6, nn.Linear)
    weight = fc6.weight.unflatten(1, (-1, _POOLED, _POOLED))
    if window != _POOLED:
        # The adaptive pool before fc6 is linear, the same matrix along both axes: it becomes a part of fc6.
        identity = torch.eye(window, dtype=weight.dtype, device=weight.device)
        pool = F.adaptive_avg_pool1d(identity, _POOLED)  # (window, 7)
        weight = torch.einsum("ocpq,ip,jq->ocij", weight, pool, pool)
    return lambda x: fc8(F.relu(fc7(F.relu(F.conv2d(network.features(x), weight, fc6.bias)))))


def _pointwise(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    """A fully-connected layer as a 1x1 convolution."""
    assert isinstance(layer, nn.Linear), "a classifier has classes"
    return lambda x: F.conv2d(x, layer.weight[:, :, None, None], layer.bias)
