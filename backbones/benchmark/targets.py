"""What one H200 should do, on paper: a prediction from public figures, beside the time that is aimed at.

A prediction is the floor of `floor.py` and what it takes to start the kernels, one after the other, of a network whose
layers are too small to fill such a GPU. Public: 989e12 dense bf16 operations and 4.8e12 bytes a second (NVIDIA's data
sheet). Assumed, and to be replaced by what a run shows: ten kernels a layer (convolution, batch norm, ReLU and half an
addition; as many and one more for the gradients; casts of the weights; the update is shared by all layers) and 2.5
microseconds from one kernel of a CUDA graph to the next.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from backbones.benchmark.floor import (
    ITERATIONS,
    cifar_complexity,
    clock,
    floor_seconds,
    predict_seconds,
    step_cost,
)

H200_OPERATIONS, H200_BYTES = 989e12, 4.8e12  # a second
KERNELS_PER_LAYER, SECONDS_PER_KERNEL = 10, 2.5e-6
BATCH_SIZE = 128

TABLE_6 = [f"cifar_resnet{depth}" for depth in (20, 32, 44, 56, 110)] + [
    f"cifar_plain{depth}" for depth in (20, 32, 44, 56)
]
TARGETS: list[tuple[str, list[str], float]] = [
    ("cifar_resnet20", ["cifar_resnet20"], 60.0),
    ("cifar_resnet110", ["cifar_resnet110"], 300.0),
    ("Table 6 (residual 20-110, plain 20-56)", TABLE_6, 900.0),
]


@dataclass(frozen=True)
class Prediction:
    """Seconds for 64,000 iterations of some networks, one after the other, in bf16 with a batch of 128.

    Args:
        floor_seconds: by operations and bytes alone.
        predicted_seconds: with the start of the kernels.
        target_seconds: aimed at; networks side by side may be needed for it.
    """

    name: str
    floor_seconds: float
    predicted_seconds: float
    target_seconds: float

    def to_json(self) -> dict[str, Any]:
        """As it is."""
        return asdict(self)


def predict(
    name: str,
    networks: Sequence[str],
    target_seconds: float,
    *,
    operations_per_second: float = H200_OPERATIONS,
    bytes_per_second: float = H200_BYTES,
    kernels_per_layer: float = KERNELS_PER_LAYER,
    seconds_per_kernel: float = SECONDS_PER_KERNEL,
) -> Prediction:
    """The prediction for training each of `networks` once."""
    least = predicted = 0.0
    for network in networks:
        cost = cifar_complexity(network)
        floor, _ = floor_seconds(
            step_cost(cost, batch_size=BATCH_SIZE, precision="bf16"),
            operations_per_second=operations_per_second,
            bytes_per_second=bytes_per_second,
        )
        layers = sum(layer.multiply_adds > 0 for layer in cost.layers)
        least += ITERATIONS * floor
        predicted += ITERATIONS * predict_seconds(
            floor, layers=layers, kernels_per_layer=kernels_per_layer, seconds_per_kernel=seconds_per_kernel
        )
    return Prediction(name, least, predicted, target_seconds)


def predictions() -> list[Prediction]:
    """Those for an H200."""
    return [predict(name, networks, target) for name, networks, target in TARGETS]


def format_predictions(rows: Sequence[Prediction]) -> str:
    """A table that says what it is."""
    width = max(len(row.name) for row in rows)
    lines = [
        f"Predicted, not measured: {ITERATIONS:,} iterations on one H200 (bf16, batch {BATCH_SIZE}; "
        f"{H200_OPERATIONS / 1e12:g} TFLOP/s, {H200_BYTES / 1e12:g} TB/s, {KERNELS_PER_LAYER} kernels a layer of "
        f"{SECONDS_PER_KERNEL * 1e6:g} us)",
        f"{'':{width}} {'floor':>8} {'predicted':>10} {'target':>8}",
    ]
    lines += [
        f"{row.name:{width}} {clock(row.floor_seconds):>8} {clock(row.predicted_seconds):>10} "
        f"{clock(row.target_seconds):>8}"
        for row in rows
    ]
    return "\n".join(lines)
