"""Oxford's released VGG-16 and VGG-19 for Caffe (https://www.robots.ox.ac.uk/~vgg/research/very_deep).

fc6 takes conv5's maps as Caffe lays them out, channels before rows before columns: as PyTorch does.
"""

from torch import Tensor, nn

from backbones.importing.caffe import CaffeNetwork
from backbones.models import StagedNetwork
from backbones.models.vgg import CONVOLUTIONS

FIRST, LAST = "conv1_1", "fc8"
OPTIONS = {"pool": "caffe"}


def layer_names(depth: int) -> list[str]:
    """Caffe's names of all layers with weights (16 or 19), in their order."""
    counts = enumerate(CONVOLUTIONS[depth], start=1)
    return [f"conv{stage}_{i}" for stage, count in counts for i in range(1, count + 1)] + ["fc6", "fc7", LAST]


def convert(source: CaffeNetwork, network: StagedNetwork, depth: int) -> dict[str, Tensor]:
    """The state of `network` with the weights of a Caffe VGG.

    Raises:
        CheckpointError: names the layer that is missing or does not fit.
    """
    ours = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    state: dict[str, Tensor] = {}
    for layer, (name, module) in zip(layer_names(depth), ours, strict=True):
        weight, bias = source.blobs(layer, tuple(module.weight.shape), tuple(module.weight.shape[:1]))
        state[f"{name}.weight"], state[f"{name}.bias"] = weight.float(), bias.float()
    return state
