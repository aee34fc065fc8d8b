"""How strongly the layers of a network respond: the standard deviations of Figure 7 (4.2, Analysis of Layer Responses).

A layer's response is what a 3x3 convolution puts out after batch norm, before the nonlinearity or the addition.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LayerResponse:
    """The response of one layer.

    Args:
        name: of the 3x3 convolution in the network.
        std: standard deviation over pictures, channels and positions.
    """

    name: str
    std: float


@dataclass(frozen=True)
class NetworkResponses:
    """The responses of one network.

    Args:
        label: what to call the network.
        residual: whether it has shortcuts.
        layers: in the order in which they run.
    """

    label: str
    residual: bool
    layers: list[LayerResponse]


@torch.inference_mode()
def measure_responses(network: nn.Module, batches: Iterable[Tensor]) -> list[LayerResponse]:
    """The standard deviation of each layer's response; memory does not grow with the number of pictures.

    Args:
        network: in eval mode; left as it is.
        batches: (B, 3, H, W) each, normalised; one at least. How pictures are split into batches makes no difference.

    Returns:
        A row for each 3x3 convolution, in the order in which they run.
    """
    moments: dict[str, _Moments] = {}
    with ExitStack() as hooks:
        for pictures in batches:
            if not moments:
                for name, module in responding_modules(network, pictures[:1]).items():
                    moments[name] = _Moments()
                    # In the hook, as a ReLU or an addition may then overwrite the response in place.
                    hooks.enter_context(module.register_forward_hook(moments[name].add_output))
            network(pictures)
    return [LayerResponse(name, found.std) for name, found in moments.items()]


@torch.inference_mode()
def responding_modules(network: nn.Module, pictures: Tensor) -> dict[str, nn.Module]:
    """By the name of each 3x3 convolution, the module whose output is its response; in the order in which they run.

    That is the batch norm that takes what the convolution puts out, or what stands in its place (a scale or bias of
    each channel), else the convolution itself, as in networks without batch norm.

    Args:
        network: in eval mode.
        pictures: (B, 3, H, W) to run it with; one will do.
    """
    found: dict[str, nn.Module] = {}
    convolved: dict[Tensor, str] = {}  # a tensor is found by its identity

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def see(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(module, nn.Conv2d):
                if module.kernel_size == (3, 3):
                    found[name] = module
                    convolved[output] = name
            elif inputs[0] in convolved and _is_per_channel(module, output.shape[1]):
                found[convolved[inputs[0]]] = module

        return see

    with ExitStack() as hooks:
        for name, module in network.named_modules():
            hooks.enter_context(module.register_forward_hook(look(name)))
        network(pictures)
    return found


def _is_per_channel(module: nn.Module, channels: int) -> bool:
    """Whether a layer holds numbers of each channel, and nothing else but counters, as batch norm does."""
    if any(module.children()):  # of batch norm and ReLU in one module, batch norm is found by itself
        return False
    sizes = [tensor.numel() for tensor in (*module.parameters(), *module.buffers())]
    return channels in sizes and all(size in (1, channels) for size in sizes)


class _Moments:
    """Mean and variance of values that come in parts, in double precision (Chan et al. 1979: nothing cancels)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0  # the sum of squared distances from the mean

    def add_output(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        """A forward hook: takes all values of a module's output."""
        variance, mean = (part.item() for part in torch.var_mean(output.double(), correction=0))
        count = output.numel()
        total = self.count + count
        distance = mean - self.mean
        self.squares += variance * count + distance**2 * self.count * count / total
        self.mean += distance * count / total
        self.count = total

    @property
    def std(self) -> float:
        """The standard deviation of all values so far."""
        return (self.squares / self.count) ** 0.5
