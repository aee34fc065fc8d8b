"""akamaster's CIFAR-10 networks (https://github.com/akamaster/pytorch_resnet_cifar10).

Its option A puts the zeros of a shortcut's new channels on both sides of the old ones, a quarter of all channels on
each; ours puts them after. The channels of a stage have no order of their own, so a permutation of them, in all layers
that write or read them, makes one network of the other.
"""

import re
from pathlib import Path

import torch
from torch import Tensor

from backbones.data.normalization import IMAGENET_MEAN, IMAGENET_STD
from backbones.errors import CheckpointError, ConfigError
from backbones.importing.checkpoint import adapt_state, outputs, read_state
from backbones.importing.network import ImportedNetwork, Preprocessing, empty_network, width_option

USUAL_WIDTH = 16
STAGES = 3
OPTIONS = {"shortcut": "A"}


def import_akamaster(path: Path, architecture: str) -> ImportedNetwork:
    """Reads one of akamaster's checkpoints.

    Args:
        architecture: `cifar_resnet20` (its `resnet20`), or another of 6n+2 layers.

    Raises:
        CheckpointError: the file can't be read or does not fit; names the layer, and the network that it would fit.
        ConfigError: no such architecture.
    """
    if not re.fullmatch(r"cifar_resnet\d+", architecture):
        raise ConfigError(f"--arch {architecture}: akamaster's are cifar_resnet20, 32, 44, 56, 110 and 1202")
    state = read_state(path)
    width, num_classes = outputs(path, state, "conv1.weight"), outputs(path, state, "linear.weight")
    if width % 2:
        raise CheckpointError(f"{path}: conv1.weight has {width} outputs: option A on both sides needs an even number")
    options = OPTIONS | width_option(width, USUAL_WIDTH)
    network = empty_network(path, architecture, num_classes, options)
    renamed = {re.sub(r"^linear\.", "fc.", name): tensor for name, tensor in state.items()}
    try:
        ours = adapt_state(path, renamed, network)
    except CheckpointError as error:
        depth = _depth(state)
        if architecture != f"cifar_resnet{depth}":
            raise CheckpointError(f"{error}; they look like --arch cifar_resnet{depth}") from error
        raise
    # Its training script normalises CIFAR-10 with ImageNet's values.
    preprocessing = Preprocessing(list(IMAGENET_MEAN), list(IMAGENET_STD), "RGB", 32, None)
    return ImportedNetwork(_reorder(ours, channel_orders(width)), num_classes, options, preprocessing)


def channel_orders(width: int) -> list[Tensor]:
    """Of each stage's channels in our order, their place in akamaster's.

    A stage's first channels are those that its shortcut fills, in the order of the stage before.

    Args:
        width: channels of the first stage, even.
    """
    orders = [torch.arange(width)]
    for _ in range(STAGES - 1):
        before = len(orders[-1])
        padding = before // 2
        zeros = torch.cat([torch.arange(padding), torch.arange(padding + before, 2 * before)])
        orders.append(torch.cat([padding + orders[-1], zeros]))
    return orders


def _reorder(state: dict[str, Tensor], orders: list[Tensor]) -> dict[str, Tensor]:
    """The state with the channels of its stages in other orders."""
    result = {}
    for name, tensor in state.items():
        stage, block, layer = _place(name)
        if layer in ("conv2.weight", "bn2.weight", "bn2.bias", "bn2.running_mean", "bn2.running_var"):
            tensor = tensor[orders[stage]]  # writes the stage's channels
        elif layer == "conv1.weight" and name != layer:
            tensor = tensor[:, orders[stage - 1 if block == 0 and stage else stage]]  # reads a block's input
        elif name == "fc.weight":
            tensor = tensor[:, orders[-1]]
        result[name] = tensor.contiguous()
    return result


def _place(name: str) -> tuple[int, int, str]:
    """Stage, block and layer of a name as `layer2.0.conv1.weight`."""
    found = re.fullmatch(r"layer(\d)\.(\d+)\.(.+)", name)
    return (int(found[1]) - 1, int(found[2]), found[3]) if found else (0, 0, name)


def _depth(state: dict[str, Tensor]) -> int:
    """How many layers a checkpoint's network has, by its blocks' names."""
    blocks = {found[0] for name in state if (found := re.match(r"layer\d\.\d+\.", name))}
    return 2 * len(blocks) + 2
