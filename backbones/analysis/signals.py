"""Forward signals and backward gradients layer by layer: do they vanish or explode? (4.1; He et al. 2015)"""

import copy
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.models import get_model
from backbones.models.stages import StagedNetwork

Norm = Literal["batch", "none"]
Initialisation = Literal["he", "small", "large"]

CARELESS_DEVIATIONS = {"small": 0.01, "large": 0.1}
"""One standard deviation for all layers, whatever their fan-in: 0.01 is AlexNet's and VGG's."""


@dataclass(frozen=True)
class LayerSignal:
    """What passes through one convolution or linear layer, over the pictures of a batch.

    Args:
        name: in the network.
        variance: of the layer's output (before batch norm), over pictures, channels and positions.
        gradient_norm, gradient_rms: of the loss with respect to that output.
        weight_gradient_norm, weight_gradient_rms: of the loss with respect to the layer's weights.
    """

    name: str
    variance: float
    gradient_norm: float
    gradient_rms: float
    weight_gradient_norm: float
    weight_gradient_rms: float


@dataclass(frozen=True)
class SignalCase:
    """What was measured of one network.

    Args:
        network: its name, or the path of its weights.
        norm: "batch" or "none".
        initialisation: of its weights; "trained" where they are not new.
        layers: in the order in which they run.
    """

    network: str
    norm: Norm
    initialisation: Initialisation | Literal["trained"]
    layers: list[LayerSignal]


def new_network(
    name: str, *, norm: Norm, initialisation: Initialisation, seed: int, **options: object
) -> StagedNetwork:
    """A network with new weights.

    Args:
        name: one of `backbones.list_models()`.
        norm: "none" leaves out all batch normalisation.
        initialisation: "he" (He et al. 2015), or a normal distribution of one deviation for all layers
            (`CARELESS_DEVIATIONS`); biases are 0.
        seed: of the weights; the careless initialisations scale the same draws.
        options: of `get_model`.
    """
    torch.manual_seed(seed)
    network = get_model(name, norm_layer=nn.BatchNorm2d if norm == "batch" else _no_norm, **options)  # type: ignore[arg-type]
    if initialisation != "he":
        torch.manual_seed(seed)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, std=CARELESS_DEVIATIONS[initialisation])
    return network


def measure_signals(network: nn.Module, pictures: Tensor, labels: Tensor) -> list[LayerSignal]:
    """One pass forward and backward in training mode, with cross-entropy, on a copy of the network.

    Computed in double precision, so that what vanishes does not become 0 altogether.

    Args:
        network: a classifier; left as it is.
        pictures: (B, 3, H, W), normalised.
        labels: (B,) int64.

    Returns:
        A row for each convolution and linear layer, in the order in which they run.
    """
    network = copy.deepcopy(network).double().train().requires_grad_(True)
    layers: list[tuple[str, nn.Module, float]] = []
    gradients: dict[int, Tensor] = {}

    def record(name: str, module: nn.Module, output: Tensor) -> None:
        place = len(layers)
        layers.append((name, module, output.detach().var(correction=0).item()))
        # A tensor's hook sees the gradient of the value it was registered at, even if ReLU then changes it in place.
        output.register_hook(lambda gradient: gradients.update({place: gradient}))

    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda module, _, output, name=name: record(name, module, output))
    F.cross_entropy(network(pictures.double()), labels).backward()
    return [
        LayerSignal(name, variance, *_norm_and_rms(gradients[place]), *_norm_and_rms(module.weight.grad))  # type: ignore[arg-type]
        for place, (name, module, variance) in enumerate(layers)
    ]


def spread(values: list[float]) -> float:
    """The largest of the values divided by the smallest: 1 where all are alike, infinite where one is 0."""
    return max(values) / min(values) if min(values) > 0 else float("inf")


def _norm_and_rms(gradient: Tensor) -> tuple[float, float]:
    norm = torch.linalg.vector_norm(gradient).item()
    return norm, norm / gradient.numel() ** 0.5


def _no_norm(channels: int) -> nn.Module:
    return nn.Identity()
