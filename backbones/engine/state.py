"""All that changes in training, and its way back from a checkpoint."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.engine.average import WeightAverage
from backbones.engine.checkpoint import load_latest
from backbones.engine.distributed import World, on_main
from backbones.engine.plateau import Plateau
from backbones.engine.warmup import ErrorWarmup
from backbones.engine.window import Window
from backbones.errors import CheckpointError


@dataclass
class TrainState:
    """All that changes in training, and so all that a checkpoint holds.

    Args:
        model: as it is in one process.
        optimizer: of its trainable parameters.
        plateau: lowers the learning rate, where the schedule wants it.
        average: of the weights, where it is wanted.
        warmup: keeps the learning rate low at first, where the schedule wants it.
        window: the numbers that the log does not have yet.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    plateau: Plateau | None = None
    average: WeightAverage | None = None
    warmup: ErrorWarmup | None = None
    window: Window = field(default_factory=Window)

    def rate_factor(self) -> float:
        """What plateau and warm-up multiply the learning rate by at present."""
        return (self.plateau.factor if self.plateau else 1.0) * (self.warmup.factor if self.warmup else 1.0)

    def parts(self) -> dict[str, Any]:
        """What has a `state_dict`, by its name in a checkpoint."""
        return {name: part for name, part in vars(self).items() if part is not None}


def restore(checkpoints: Path, state: TrainState, steps: int, world: World) -> int:
    """Loads the newest of a run's checkpoints that is whole into `state`, in all processes what the main one reads.

    Returns:
        The step to go on from; 0 where there is no checkpoint.

    Raises:
        CheckpointError: all are damaged, or it is of another network, or of a longer run than `steps`.
    """
    latest = on_main(world, lambda: load_latest(checkpoints))
    if latest is None:
        return 0
    path, saved = latest
    saved.setdefault("window", state.window.state_dict())  # checkpoints of earlier versions ended a line of the log
    for name in state.parts():
        if name not in saved:
            raise CheckpointError(f"{path}: holds no {name}, its run went without: go on without it, or start anew")
    groups = state.optimizer.param_groups
    settings = [{key: value for key, value in group.items() if key != "params"} for group in groups]
    try:
        for name, part in state.parts().items():
            part.load_state_dict(saved[name])
        for group, own in zip(state.optimizer.param_groups, settings, strict=True):
            group.update(own)  # a checkpoint's weight decay, or unfused update, is that of its run
        for parameter, values in state.optimizer.state.items():
            for name, buffer in values.items():
                if isinstance(buffer, Tensor) and buffer.shape == parameter.shape:
                    # A fused update takes numbers as they lie in memory, and an old run's may lie otherwise.
                    values[name] = torch.empty_like(parameter, dtype=buffer.dtype).copy_(buffer)
        step = int(saved["step"])
        if any(
            buffer.shape != parameter.shape
            for parameter, values in state.optimizer.state.items()
            for buffer in values.values()
            if isinstance(buffer, Tensor) and buffer.ndim
        ):
            raise ValueError("a momentum has another shape than its parameter")
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise CheckpointError(f"{path}: does not fit this run ({' '.join(str(error).split())[:200]})") from error
    if not 0 <= step <= steps:
        raise CheckpointError(f"{path}: is of step {step}, the run of train.steps {steps}: raise that, or start anew")
    return step
