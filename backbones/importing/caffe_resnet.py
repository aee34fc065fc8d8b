"""MSRA's released ResNet-50, 101 and 152 for Caffe (https://github.com/KaimingHe/deep-residual-networks).

Caffe splits batch normalisation into two layers: BatchNorm holds the sums of means and variances and by what to divide
them, Scale the factor and the shift. ResNet-50's conv1 has a bias, which is subtracted from the mean that follows it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from backbones.errors import CheckpointError
from backbones.importing.caffe import CaffeNetwork
from backbones.models import StagedNetwork
from backbones.models.resnet import BOTTLENECK_DEPTHS

FIRST, LAST = "conv1", "fc1000"
OPTIONS = {"stride_in": "1x1", "pool": "caffe"}


@dataclass(frozen=True)
class ConvolutionNames:
    """A convolution and its batch normalisation, in Caffe and here."""

    caffe: str
    caffe_norm: str
    caffe_scale: str
    ours: str
    our_norm: str


def convolution_names(depth: int) -> list[ConvolutionNames]:
    """All convolutions of the ResNet of this depth (50, 101 or 152)."""
    names = [ConvolutionNames(FIRST, "bn_conv1", "scale_conv1", "conv1", "bn1")]
    for caffe, ours, projects in _blocks(depth):
        parts = {"2a": ("conv1", "bn1"), "2b": ("conv2", "bn2"), "2c": ("conv3", "bn3")}
        if projects:
            parts["1"] = ("downsample.0", "downsample.1")
        for branch, (convolution, norm) in parts.items():
            suffix = f"{caffe}_branch{branch}"
            names.append(
                ConvolutionNames(
                    f"res{suffix}", f"bn{suffix}", f"scale{suffix}", f"{ours}.{convolution}", f"{ours}.{norm}"
                )
            )
    return names


def layer_names(depth: int) -> list[str]:
    """Caffe's names of all layers with weights, in their order."""
    return [name for n in convolution_names(depth) for name in (n.caffe, n.caffe_norm, n.caffe_scale)] + [LAST]


def convert(source: CaffeNetwork, network: StagedNetwork, depth: int) -> dict[str, Tensor]:
    """The state of `network` with the weights of a Caffe ResNet.

    Raises:
        CheckpointError: names the layer that is missing or does not fit.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    state: dict[str, Tensor] = {}
    for names in convolution_names(depth):
        shape = shapes[f"{names.ours}.weight"]
        channels = shape[:1]
        biased = names.caffe == FIRST and len(source.layers[FIRST]) == 2
        weight, *biases = source.blobs(names.caffe, shape, *([channels] if biased else []))
        mean, variance, divisor = source.blobs(names.caffe_norm, channels, channels, (1,))
        scale, shift = source.blobs(names.caffe_scale, channels, channels)
        if divisor <= 0 or (variance < 0).any():
            raise CheckpointError(f"{source.path}: layer {names.caffe_norm} holds no means and variances")
        mean = mean.double() / divisor.double() - (biases[0] if biases else 0)
        state[f"{names.ours}.weight"] = weight.float()
        state[f"{names.our_norm}.running_mean"] = mean.float()
        state[f"{names.our_norm}.running_var"] = (variance.double() / divisor.double()).float()
        state[f"{names.our_norm}.weight"] = scale.float()
        state[f"{names.our_norm}.bias"] = shift.float()
        state[f"{names.our_norm}.num_batches_tracked"] = torch.tensor(0)
    weight, bias = source.blobs(LAST, shapes["fc.weight"], shapes["fc.bias"])
    state["fc.weight"], state["fc.bias"] = weight.float(), bias.float()
    return state


def _blocks(depth: int) -> Iterator[tuple[str, str, bool]]:
    """Each block's name in Caffe and here, and whether its shortcut is a projection.

    ResNet-50 letters the blocks of a stage (4a, 4b, ...), the deeper two number those of conv3 and conv4 after the
    first (4a, 4b1, 4b2, ...).
    """
    for stage, count in enumerate(BOTTLENECK_DEPTHS[depth], start=2):
        for i in range(count):
            numbered = depth > 50 and stage in (3, 4) and i > 0
            yield f"{stage}{f'b{i}' if numbered else 'abcdef'[i]}", f"layer{stage - 1}.{i}", i == 0
