"""The command `complexity`: Table 1, and what lies behind its numbers."""

import json as json_format
from collections.abc import Sequence
from dataclasses import asdict

import torch

from backbones.analysis.activation_memory import ActivationMemory, activation_memory
from backbones.analysis.bottlenecks import BottleneckCost, bottleneck_costs
from backbones.analysis.complexity import PAPER_MULTIPLY_ADDS, Complexity, complexity
from backbones.analysis.stage_costs import stage_costs
from backbones.cli import run_command
from backbones.errors import ConfigError
from backbones.models import get_model
from backbones.models.blocks import Blocks
from backbones.models.stages import StagedNetwork
from backbones.weights import LARGEST_SIDE

_RECOMPUTE = [0, 1, 2, 4, 8, 16]
_MOST_PICTURES = 1_000_000


def report(
    names: list[str] = list(PAPER_MULTIPLY_ADDS),  # noqa: B006 (read by the command line, never changed)
    json: bool = False,
    stages: bool = False,
    layers: bool = False,
    blocks: bool = False,
    memory: int | None = None,
    input_size: int | None = None,
) -> None:
    """Prints the parameters, multiply-adds and activations of networks, beside the paper's numbers (Table 1).

    One multiply-add is one multiplication and one addition (tools that count FLOPs give twice as much). Activations
    are the numbers that convolutions and linear layers put out.

    Args:
        names: networks; those of Table 1 by default.
        json: print a list of rows as JSON.
        stages: print the stages too, as in Table 1.
        layers: print every layer with parameters too.
        blocks: print every bottleneck too, beside two 3x3 convolutions at its wide width, and what a projection on its
            wide ends (option C) would add.
        memory: print the memory too that a training step of this many pictures keeps for its backward pass, by how many
            blocks are computed again in it (`model.recompute`).
        input_size: height and width of the picture; 224 by default, 32 for CIFAR networks.
    """
    if input_size is not None and not 1 <= input_size <= LARGEST_SIDE:
        raise ConfigError(f"input_size must be from 1 to {LARGEST_SIDE}, not {input_size}")
    if memory is not None and not 1 <= memory <= _MOST_PICTURES:
        raise ConfigError(f"memory must be of 1 to {_MOST_PICTURES} pictures, not {memory}")
    measured = [(name, *_measure(name, input_size)) for name in names]
    if blocks and not any(bottleneck_costs(network, cost) for _, network, cost in measured):
        raise ConfigError(f"--blocks: no bottlenecks in {', '.join(names)}; they are in resnet50, resnet101, resnet152")
    if json:
        rows = [_json_row(*row, stages=stages, layers=layers, blocks=blocks) for row in measured]
        if memory:
            for row, (_, network, _) in zip(rows, measured, strict=True):
                found = _memory(network, memory, input_size)
                row["memory"] = [{"recompute": count} | asdict(used) for count, used in found.items()]
        print(json_format.dumps(rows, indent=1))
        return
    # The paper's numbers are of 224x224 pictures.
    _print_table([(name, cost) for name, _, cost in measured], beside_paper=input_size in (None, 224))
    for name, network, cost in measured:
        if stages:
            _print_stages(name, network, cost)
        if layers:
            _print_layers(name, cost)
        if blocks and (bottlenecks := bottleneck_costs(network, cost)):
            _print_blocks(name, bottlenecks, cost)
        if memory:
            _print_memory(name, memory, _memory(network, memory, input_size))


def _measure(name: str, input_size: int | None) -> tuple[StagedNetwork, Complexity]:
    with torch.device("meta"):
        network = get_model(name)
    size = input_size or network.input_size
    try:
        return network, complexity(network, (3, size, size))
    except RuntimeError as error:  # a pool has nothing left
        raise ConfigError(f"{name} can't take pictures of {size} pixels, give a larger input_size: {error}") from error


def _memory(network: StagedNetwork, pictures: int, input_size: int | None) -> dict[int, ActivationMemory]:
    """By how many blocks at a time are computed again; of a VGG, which has none, without."""
    size = input_size or network.input_size
    found = {}
    for count in _RECOMPUTE if any(isinstance(m, Blocks) for m in network.modules()) else [0]:
        network.recompute(count)
        found[count] = activation_memory(network, (pictures, 3, size, size))
    return found


def _json_row(
    name: str, network: StagedNetwork, cost: Complexity, *, stages: bool, layers: bool, blocks: bool
) -> dict[str, object]:
    row: dict[str, object] = {"name": name, "parameters": cost.parameters, "multiply_adds": cost.multiply_adds}
    row["activations"] = cost.activations
    if stages:
        row["stages"] = [asdict(stage) for stage in stage_costs(network, cost)]
    if layers:
        row["layers"] = [asdict(layer) for layer in cost.layers]
    if blocks:
        row["blocks"] = [asdict(block) for block in bottleneck_costs(network, cost)]
    return row


def _print_table(rows: Sequence[tuple[str, Complexity]], *, beside_paper: bool) -> None:
    width = max((len(name) for name, _ in rows), default=0)
    print(
        f"{'name':{width}} {'parameters':>14} {'multiply_adds':>16} {'paper':>8} {'difference':>10} {'activations':>12}"
    )
    for name, cost in rows:
        paper = PAPER_MULTIPLY_ADDS.get(name) if beside_paper else None
        beside = f" {paper / 1e9:>6.1f}e9 {cost.multiply_adds / paper - 1:>+10.1%}" if paper else f" {'-':>8} {'-':>10}"
        print(f"{name:{width}} {cost.parameters:>14,} {cost.multiply_adds:>16,}{beside} {cost.activations:>12,}")


def _print_stages(name: str, network: StagedNetwork, cost: Complexity) -> None:
    rows = stage_costs(network, cost)
    width = max(len(row.layers) for row in rows)
    print(
        f"\n{name}\n{'stage':10} {'output':>12}  {'layers':{width}} {'parameters':>12} {'multiply_adds':>15}"
        f" {'activations':>12}"
    )
    for row in rows:
        print(
            f"{row.name:10} {_times(row.output_shape):>12}  {row.layers:{width}} {row.parameters:>12,}"
            f" {row.multiply_adds:>15,} {row.activations:>12,}"
        )


def _print_layers(name: str, cost: Complexity) -> None:
    print(f"\n{name}")
    width = max(len(layer.name) for layer in cost.layers)
    print(f"{'layer':{width}} {'output':>14} {'parameters':>12} {'multiply_adds':>15} {'activations':>12}")
    for layer in cost.layers:
        print(
            f"{layer.name:{width}} {_times(layer.output_shape):>14} {layer.parameters:>12,} {layer.multiply_adds:>15,}"
            f" {layer.activations:>12,}"
        )


def _print_blocks(name: str, rows: Sequence[BottleneckCost], cost: Complexity) -> None:
    print(f"\n{name}: bottlenecks, two 3x3 convolutions at the wide width in their place, a projection as shortcut")
    print(
        f"{'':10} {'':>12} {'bottleneck':^24} {'two 3x3':^26} {'times as much':^15} {'projection':^24}\n"
        f"{'block':10} {'output':>12} {'weights':>10} {'multiply_adds':>13} {'weights':>11} {'multiply_adds':>14}"
        f" {'weights':>7} {'m.-adds':>7} {'weights':>10} {'multiply_adds':>13}"
    )
    for row in rows:
        print(
            f"{row.name:10} {_times(row.output_shape):>12} {row.weights:>10,} {row.multiply_adds:>13,}"
            f" {row.wide_weights:>11,} {row.wide_multiply_adds:>14,} {row.wide_weights / row.weights:>7.1f}"
            f" {row.wide_multiply_adds / row.multiply_adds:>7.1f} {row.projection_weights:>10,}"
            f" {row.projection_multiply_adds:>13,} {'has it' if row.has_projection else 'option C adds it'}"
        )
    narrow, wide = (sum(getattr(row, f"{kind}multiply_adds") for row in rows) for kind in ("", "wide_"))
    added = [row for row in rows if not row.has_projection]
    weights, multiply_adds = (
        sum(getattr(row, f"projection_{k}") for row in added) for k in ("weights", "multiply_adds")
    )
    print(
        f"all: {narrow / 1e9:.2f}e9 multiply-adds in bottlenecks, {wide / 1e9:.2f}e9 in two 3x3 ({wide / narrow:.1f}"
        f" times as much); option C would add {multiply_adds / 1e9:.2f}e9 multiply-adds"
        f" ({multiply_adds / cost.multiply_adds:+.0%}) and {weights / 1e6:.1f}e6 weights"
        f" ({weights / cost.parameters:+.0%})"
    )


def _print_memory(name: str, pictures: int, found: dict[int, ActivationMemory]) -> None:
    print(f"\n{name}: what autograd keeps of a training step of {pictures} pictures in fp32, without its gradients")
    print(f"{'recompute':>9} {'after the forward pass':>24} {'at most':>12}")
    for count, used in found.items():
        print(f"{count:>9} {used.kept / 2**30:>20.3f} GiB {used.peak / 2**30:>8.3f} GiB")


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def main(argv: Sequence[str] | None = None) -> None:
    """The command `complexity`."""
    run_command(report, positional="names", argv=argv)
