"""The cost of a network in parameters and multiply-adds (Table 1), and the command `complexity`."""

import copy
import json as json_format
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from backbones.cli import run_command
from backbones.errors import ConfigError
from backbones.models import get_model

PAPER_MULTIPLY_ADDS = {
    "resnet18": 1.8e9,
    "resnet34": 3.6e9,
    "resnet50": 3.8e9,
    "resnet101": 7.6e9,
    "resnet152": 11.3e9,
    "vgg16": 15.3e9,
    "vgg19": 19.6e9,
}
"""At 224x224 pixels: Table 1, and 4.1 for VGG (VGG-16's is that of its convolutions alone)."""


@dataclass(frozen=True)
class LayerCost:
    """What one layer with parameters costs for one picture.

    Args:
        name: in the network.
        output_shape: without the batch: (C, H, W), or (C,).
        parameters: of the layer; 0 where it runs a second time.
        multiply_adds: of a convolution or linear layer; 0 for others.
        activations: numbers in the output.
    """

    name: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    activations: int


@dataclass(frozen=True)
class Complexity:
    """What a network costs for one picture: in all, and by layer in the order in which they run."""

    parameters: int
    multiply_adds: int
    layers: list[LayerCost]


def complexity(network: nn.Module, input_size: tuple[int, int, int] = (3, 224, 224)) -> Complexity:
    """Counts parameters and multiply-adds; one multiply-add is what some tools count as two FLOPs.

    A convolution has H_out * W_out * C_in * C_out * K * K / groups multiply-adds, a linear layer C_in * C_out; batch
    normalisation, biases, activations, pooling and additions are not counted, as in the paper. Nothing is computed
    and the network is left as it is: a copy without data runs on the meta device.

    Args:
        network: any module that takes (1, C, H, W) pictures.
        input_size: (C, H, W) of the picture.
    """
    network = _without_data(network).eval()
    layers: list[LayerCost] = []
    seen: set[nn.Module] = set()

    def record(name: str, module: nn.Module, output: Tensor) -> None:
        parameters = 0 if module in seen else sum(p.numel() for p in module.parameters(recurse=False))
        seen.add(module)
        multiply_adds = 0
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            # Each output number takes as many multiply-adds as one output channel has weights.
            multiply_adds = output.numel() * module.weight[0].numel()
        layers.append(LayerCost(name, tuple(output.shape[1:]), parameters, multiply_adds, output.numel()))

    for name, module in network.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            module.register_forward_hook(lambda module, _, output, name=name: record(name, module, output))
    with torch.no_grad():
        network(torch.empty(1, *input_size, device="meta"))
    parameters = sum(p.numel() for p in network.parameters())
    return Complexity(parameters, sum(layer.multiply_adds for layer in layers), layers)


def _without_data(network: nn.Module) -> nn.Module:
    """A copy whose parameters and buffers are on the meta device; the data is never copied."""
    memo: dict[int, object] = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in network.parameters()}
    memo |= {id(b): b.to("meta") for b in network.buffers()}
    return copy.deepcopy(network, memo)


def report(
    names: list[str] = list(PAPER_MULTIPLY_ADDS),  # noqa: B006 (read by the command line, never changed)
    json: bool = False,
    layers: bool = False,
    input_size: int | None = None,
) -> None:
    """Prints the parameters and multiply-adds of networks, beside the paper's numbers (Table 1).

    One multiply-add is one multiplication and one addition (tools that count FLOPs give twice as much).

    Args:
        names: networks; those of Table 1 by default.
        json: print a list of rows as JSON.
        layers: print every layer with parameters too.
        input_size: height and width of the picture; 224 by default, 32 for CIFAR networks.
    """
    if input_size is not None and input_size < 1:
        raise ConfigError(f"input_size must be 1 or more, not {input_size}")
    rows = [(name, _measure(name, input_size)) for name in names]
    if json:
        print(json_format.dumps([_json_row(name, cost, layers) for name, cost in rows], indent=1))
        return
    width = max(map(len, names), default=0)
    print(f"{'name':{width}} {'parameters':>14} {'multiply_adds':>16} {'paper':>8} {'difference':>10}")
    for name, cost in rows:
        # The paper's numbers are of 224x224 pictures.
        paper = PAPER_MULTIPLY_ADDS.get(name) if input_size in (None, 224) else None
        beside = f" {paper / 1e9:>6.1f}e9 {cost.multiply_adds / paper - 1:>+10.1%}" if paper else f" {'-':>8} {'-':>10}"
        print(f"{name:{width}} {cost.parameters:>14,} {cost.multiply_adds:>16,}{beside}")
    if layers:
        for name, cost in rows:
            _print_layers(name, cost)


def _measure(name: str, input_size: int | None) -> Complexity:
    with torch.device("meta"):
        network = get_model(name)
    size = input_size or network.input_size
    try:
        return complexity(network, (3, size, size))
    except RuntimeError as error:  # a pool has nothing left
        raise ConfigError(f"{name} can't take pictures of {size} pixels, give a larger input_size: {error}") from error


def _json_row(name: str, cost: Complexity, layers: bool) -> dict[str, object]:
    row: dict[str, object] = {"name": name, "parameters": cost.parameters, "multiply_adds": cost.multiply_adds}
    return row | {"layers": [asdict(layer) for layer in cost.layers]} if layers else row


def _print_layers(name: str, cost: Complexity) -> None:
    print(f"\n{name}")
    width = max(len(layer.name) for layer in cost.layers)
    print(f"{'layer':{width}} {'output':>14} {'parameters':>12} {'multiply_adds':>15} {'activations':>12}")
    for layer in cost.layers:
        shape = "x".join(map(str, layer.output_shape))
        print(
            f"{layer.name:{width}} {shape:>14} {layer.parameters:>12,} {layer.multiply_adds:>15,}"
            f" {layer.activations:>12,}"
        )


def main(argv: Sequence[str] | None = None) -> None:
    """The command `complexity`."""
    run_command(report, positional="names", argv=argv)
