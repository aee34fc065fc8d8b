"""The stages of a network, named as in Table 1 of the paper, so that others can take a network apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor, nn

from backbones.errors import ConfigError
from backbones.models.blocks import Blocks


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
        self.frozen_stages: tuple[str, ...] = ()

    def last_layer(self) -> nn.Module:
        """A new layer that classifies the features, or passes them on where there are no classes."""
        return nn.Linear(self.num_features, self.num_classes) if self.num_classes else nn.Identity()

    def freeze(self, names: Sequence[str]) -> None:
        """Fixes stages: their weights get no gradient and their batch norm keeps its statistics in training.

        Raises:
            ConfigError: the network has no such stage.
        """
        stages = self.stages()
        for name in names:
            if name not in stages:
                raise ConfigError(f"no stage {name!r}: the network has {', '.join(stages)}")
            for module in stages[name].modules:
                module.requires_grad_(False)
        self.frozen_stages = tuple(names)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for name in self.frozen_stages:
            for module in self.stages()[name].modules:
                module.eval()
        return self

    def recompute(self, blocks: int) -> None:
        """Has training keep less: so many blocks at a time are computed again in the backward pass, see `Blocks`.

        Args:
            blocks: 0 to keep everything.

        Raises:
            ConfigError: a negative number, or the network has no blocks.
        """
        stages = [module for module in self.modules() if isinstance(module, Blocks)]
        if blocks < 0:
            raise ConfigError(f"recompute {blocks}: give the number of blocks, or 0 to compute nothing again")
        if blocks and not stages:
            raise ConfigError(f"recompute {blocks}: a {type(self).__name__} has no blocks to compute again; give 0")
        for stage in stages:
            stage.recompute = blocks

    def describe_parameters(self) -> str:
        """A table of the trainable and the fixed parameters of each stage and of the layers after the last."""
        staged = {id(p) for stage in self.stages().values() for m in stage.modules for p in m.parameters()}
        parts = {name: [p for m in stage.modules for p in m.parameters()] for name, stage in self.stages().items()}
        parts["classifier"] = [p for p in self.parameters() if id(p) not in staged]
        lines = [f"{'part':<10}{'trainable':>14}{'fixed':>14}"]
        for name, parameters in parts.items():
            trainable = sum(p.numel() for p in parameters if p.requires_grad)
            lines.append(f"{name:<10}{trainable:>14,}{sum(p.numel() for p in parameters) - trainable:>14,}")
        return "\n".join(lines)

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
