"""torchvision's ImageNet networks: the names of weights are ours already."""

from pathlib import Path
from typing import Any

from torch import Tensor

from backbones.data.normalization import IMAGENET_MEAN, IMAGENET_STD
from backbones.errors import CheckpointError
from backbones.importing.checkpoint import adapt_state, fits, outputs, read_state
from backbones.importing.network import (
    ImportedNetwork,
    Preprocessing,
    check_architecture,
    empty_network,
    width_option,
)
from backbones.models import StagedNetwork
from backbones.models.resnet import BASIC_DEPTHS, BOTTLENECK_DEPTHS
from backbones.models.vgg import CONVOLUTIONS

# torchvision's bottlenecks have their stride in the 3x3 convolution.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    **{f"resnet{depth}": {"pool": "torch"} for depth in BASIC_DEPTHS},
    **{f"resnet{depth}": {"stride_in": "3x3", "pool": "torch"} for depth in BOTTLENECK_DEPTHS},
    **{f"vgg{depth}{norm}": {"pool": "torch"} for depth in CONVOLUTIONS for norm in ("", "_bn")},
}


def import_torchvision(path: Path, architecture: str) -> ImportedNetwork:
    """Reads a checkpoint of torchvision's network of the same name.

    Raises:
        CheckpointError: the file can't be read or does not fit; names the layer, and the network that it would fit.
        ConfigError: no such architecture.
    """
    check_architecture("torchvision", architecture, list(ARCHITECTURES))
    state = read_state(path)
    try:
        network, options = _network(path, state, architecture)
        state = adapt_state(path, state, network)
    except CheckpointError as error:
        fitting = [name for name in ARCHITECTURES if _fits(path, state, name)]
        if fitting:
            raise CheckpointError(f"{error}; they fit --arch {fitting[0]}") from error
        raise
    preprocessing = Preprocessing(list(IMAGENET_MEAN), list(IMAGENET_STD), "RGB", 224, 256)
    return ImportedNetwork(state, network.num_classes, options, preprocessing)


def _network(path: Path, state: dict[str, Tensor], architecture: str) -> tuple[StagedNetwork, dict[str, Any]]:
    """The network of this name, as wide and with as many classes as the weights, and its options."""
    first, last = ("conv1", "fc") if architecture.startswith("resnet") else ("features.0", "classifier.6")
    width, num_classes = outputs(path, state, f"{first}.weight"), outputs(path, state, f"{last}.weight")
    options = ARCHITECTURES[architecture] | width_option(width, 64)
    return empty_network(path, architecture, num_classes, options), options


def _fits(path: Path, state: dict[str, Tensor], architecture: str) -> bool:
    try:
        return fits(state, _network(path, state, architecture)[0])
    except CheckpointError:
        return False
