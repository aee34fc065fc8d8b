"""The time below which no training step can come, from operations and bytes; and the paper's targets on paper.

The model is a simple one, of the least that must happen:

- Operations: the multiply-adds of the forward pass, and twice as many in the backward pass (the gradient of each
  layer's input and that of its weights). A multiply-add is two operations. Batch norm, ReLU and additions are free.
- Bytes: each number that a convolution or linear layer puts out passes through memory five times, even where all that
  follows the layer is fused with the next: it is written and read in the forward pass, read once more in the backward
  pass, and its gradient is written and read. Weights are read in both passes, their gradient is written and read, and
  weight and momentum are read and written by the update: eight times, always in fp32. Pictures are few bytes, and free.
- Arithmetic and transport overlap completely: a step takes the longer of the two.
"""

from dataclasses import dataclass

import torch

from backbones.analysis.complexity import Complexity, complexity
from backbones.data.cifar10 import CLASS_NAMES
from backbones.models import get_model

ACTIVATION_PASSES = 5
WEIGHT_PASSES = 8
BYTES = {"fp32": 4, "bf16": 2}
ITERATIONS = 64_000  # Section 4.2


@dataclass(frozen=True)
class StepCost:
    """What one optimizer step takes at least.

    Args:
        operations: floating-point operations.
        bytes: through memory.
    """

    operations: float
    bytes: float


def step_cost(network: Complexity, *, batch_size: int, precision: str) -> StepCost:
    """The least cost of a training step, by the model of this module.

    Args:
        network: counted at the pictures' size.
        precision: of the activations, "fp32" or "bf16".
    """
    numbers = network.activations * batch_size
    return StepCost(
        2 * 3 * network.multiply_adds * batch_size,
        ACTIVATION_PASSES * numbers * BYTES[precision] + WEIGHT_PASSES * network.parameters * BYTES["fp32"],
    )


def cifar_complexity(name: str) -> Complexity:
    """What a network costs for one picture of CIFAR-10."""
    with torch.device("meta"):
        return complexity(get_model(name, len(CLASS_NAMES)), (3, 32, 32))


def floor_seconds(cost: StepCost, *, operations_per_second: float, bytes_per_second: float) -> tuple[float, str]:
    """The least seconds of a step, and what sets them: "arithmetic" or "bandwidth"."""
    arithmetic, transport = cost.operations / operations_per_second, cost.bytes / bytes_per_second
    return max(arithmetic, transport), "arithmetic" if arithmetic >= transport else "bandwidth"


def predict_seconds(floor: float, *, layers: int, kernels_per_layer: float, seconds_per_kernel: float) -> float:
    """A step's seconds on a GPU, of a network so small that starting kernels takes longer than their work.

    Args:
        floor: seconds, from `floor_seconds`.
        layers: with weights.
        kernels_per_layer: in forward pass, backward pass and update.
        seconds_per_kernel: from the start of one to the start of the next, at least, in a CUDA graph.
    """
    return floor + layers * kernels_per_layer * seconds_per_kernel


def clock(seconds: float) -> str:
    """H:MM:SS."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
