"""The stages of a network, named as in Table 1 of the paper, so that others can take a network apart."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from backbones.errors import ConfigError


@dataclass(frozen=True)
class Stage:
    """A part of a network.

    Args:
        modules: what to run, one after another; they belong to the network (no copies).
        channels: of the stage's output.
        stride: of the stage's output, relative to the picture.
    """

    modules: tuple[nn.Module, ...]
    channels: int
    stride: int


class StagedNetwork(nn.Module):
    """A classifier made of stages: (B, 3, H, W) float pictures to (B, num_classes) logits.

    Args:
        num_classes: 0 leaves out the last layer, the output is then (B, num_features).
        num_features: channels just before the last layer.
    """

    input_size: ClassVar[int]
    """Height and width in pixels of the pictures that the paper trains the network on; others work too."""

    def __init__(self, *, num_classes: int, num_features: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = num_features

    def last_layer(self) -> nn.Module:
        """A new layer that classifies the features, or passes them on where there are no classes."""
        return nn.Linear(self.num_features, self.num_classes) if self.num_classes else nn.Identity()

    def stages(self) -> dict[str, Stage]:
        """All stages by name, in the order in which they run, without the pooling and classifier after the last."""
        raise NotImplementedError


def run_stages(network: StagedNetwork, x: Tensor, first: str, last: str) -> Tensor:
    """Runs the stages `first` to `last`, both included.

    Args:
        network: whose stages to run.
        x: (B, C, H, W), pictures or the output of the stage before `first`.
        first: a stage's name, as "conv1".
        last: likewise, not before `first`.

    Returns:
        The output of `last`, (B, channels, H', W').

    Raises:
        ConfigError: the network has no such stages in this order.
    """
    stages = network.stages()
    names = list(stages)
    for name in (first, last):
        if name not in stages:
            raise ConfigError(f"no stage {name!r}: the network has {', '.join(names)}")
    if names.index(first) > names.index(last):
        raise ConfigError(f"stage {first!r} comes after {last!r}: give the earlier one first")
    for name in names[names.index(first) : names.index(last) + 1]:
        for module in stages[name].modules:
            x = module(x)
    return x
