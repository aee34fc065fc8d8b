"""The cost of a network in parameters, multiply-adds and activations (Table 1)."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

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

    @property
    def activations(self) -> int:
        """Numbers that convolutions and linear layers put out."""
        return sum(layer.activations for layer in self.layers if layer.multiply_adds)


def complexity(network: nn.Module, input_size: tuple[int, int, int] = (3, 224, 224)) -> Complexity:
    """Counts parameters and multiply-adds; one multiply-add is what some tools count as two FLOPs.

    A convolution has H_out * W_out * C_in * C_out * K * K / groups multiply-adds, a linear layer C_in * C_out; batch
    normalisation, biases, activations, pooling and additions are not counted, as in the paper. Nothing is computed
    and the network is left as it is: a copy without data runs on the meta device.

    Args:
        network: any module that takes (1, C, H, W) pictures.
        input_size: (C, H, W) of the picture.
    """
    network = without_data(network).eval()
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


def without_data(network: nn.Module) -> nn.Module:
    """A copy whose parameters and buffers are on the meta device; the data is never copied."""
    memo: dict[int, object] = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in network.parameters()}
    memo |= {id(b): b.to("meta") for b in network.buffers()}
    return copy.deepcopy(network, memo)
