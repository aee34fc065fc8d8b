"""A network stage by stage, as the paper's Table 1 shows it: output size, layers, cost."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from torch import nn

from backbones.analysis.complexity import Complexity
from backbones.models.blocks import Block
from backbones.models.stages import StagedNetwork


@dataclass(frozen=True)
class StageCost:
    """A row of Table 1.

    Args:
        name: of the stage, "conv1" to "conv5"; "classifier" for what follows the last.
        output_shape: (C, H, W), or (C,) of the classifier.
        layers: in words: `[1x1, 64; 3x3, 64; 1x1, 256] x 3` is three blocks of these convolutions.
        parameters, multiply_adds, activations: for one picture, see `Complexity`.
    """

    name: str
    output_shape: tuple[int, ...]
    layers: str
    parameters: int
    multiply_adds: int
    activations: int


def stage_costs(network: StagedNetwork, cost: Complexity) -> list[StageCost]:
    """The stages of a network in order, and its classifier; together they are the whole network.

    Args:
        network: the one that `cost` was counted of.
        cost: from `complexity`.
    """
    stages = {name: stage.modules for name, stage in network.stages().items()}
    stage_of = {module: name for name, parts in stages.items() for part in parts for module in part.modules()}
    rest = [m for m in network.modules() if m not in stage_of and not isinstance(m, nn.Sequential)]
    names = {name: stage_of.get(module, "classifier") for name, module in network.named_modules()}
    rows = []
    for stage, parts in [*stages.items(), ("classifier", rest)]:
        layers = [layer for layer in cost.layers if names[layer.name] == stage]
        if layers:  # a network may be without a classifier
            rows.append(
                StageCost(
                    stage,
                    layers[-1].output_shape,
                    _in_words(parts),
                    sum(layer.parameters for layer in layers),
                    sum(layer.multiply_adds for layer in layers),
                    sum(layer.activations for layer in layers if layer.multiply_adds),
                )
            )
    return rows


def _in_words(modules: Iterable[nn.Module]) -> str:
    texts = [text for module in modules for text in _describe(module)]
    runs = [(text, len(list(run))) for text, run in groupby(texts)]
    return ", ".join(f"{text} x {count}" if count > 1 else text for text, count in runs)


def _describe(module: nn.Module) -> Iterator[str]:
    match module:
        case nn.Sequential():
            for part in module:
                yield from _describe(part)
        case Block():
            yield f"[{'; '.join(_size(layer.conv) for layer in module.layers())}]"
        case nn.Conv2d():
            yield f"[{_size(module)}]" + (f", stride {module.stride[0]}" if module.stride[0] > 1 else "")
        case nn.MaxPool2d():
            yield f"{module.kernel_size}x{module.kernel_size} max pool, stride {module.stride}"
        case nn.AdaptiveAvgPool2d(output_size=1):
            yield "average pool"
        case nn.Linear():
            yield f"{module.out_features}-d fc"


def _size(convolution: nn.Conv2d) -> str:
    return f"{convolution.kernel_size[0]}x{convolution.kernel_size[1]}, {convolution.out_channels}"
