"""The learning rate as a pure function of the step (but for `plateau.py` and `warmup.py`)."""

import math
from dataclasses import dataclass, field
from typing import Literal

from backbones.errors import ConfigError


@dataclass
class ScheduleOptions:
    """How the learning rate changes.

    Args:
        name: "step" divides at milestones, "plateau" when the training error stops falling (3.4), "cosine" falls to
            zero at the last step, "constant" stays.
        milestones: optimizer steps at which "step" multiplies the rate by `factor`.
        factor: what each milestone, or plateau, multiplies the rate by.
        plateau_window: steps over which "plateau" averages the training error before it looks at it.
        plateau_patience: windows in a row without a better error that make a plateau.
        plateau_improvement: how much lower an error must be to be a better one (errors in percent).
        plateau_reductions: plateaus after which the rate stays.
        warmup_steps: steps with a lower rate at the start.
        warmup_factor: the share of the rate in the first of them; it rises linearly ("linear") or stays ("constant").
        warmup: "linear", "constant", or "error" (4.2, ResNet-110): that share stays until the training error is below
            `warmup_error`, and `warmup_steps` is 0.
        warmup_error: the training error in percent that ends it.
        warmup_window: steps over which it is averaged, one window after another.
    """

    name: Literal["step", "plateau", "cosine", "constant"] = "step"
    milestones: list[int] = field(default_factory=list)
    factor: float = 0.1
    plateau_window: int = 5000
    plateau_patience: int = 5
    plateau_improvement: float = 0.1
    plateau_reductions: int = 3
    warmup_steps: int = 0
    warmup_factor: float = 0.1
    warmup: Literal["linear", "constant", "error"] = "linear"
    warmup_error: float = 80.0
    warmup_window: int = 100


def check_schedule(schedule: ScheduleOptions) -> None:
    """Refuses schedules that make no sense.

    Raises:
        ConfigError: milestones out of order, a negative warm-up or factor, an empty window.
    """
    if schedule.milestones != sorted(set(schedule.milestones)) or min(schedule.milestones, default=1) < 1:
        raise ConfigError(f"schedule.milestones {schedule.milestones}: give rising steps, of 1 or more")
    if schedule.warmup_steps < 0:
        raise ConfigError(f"schedule.warmup_steps {schedule.warmup_steps}: give 0 or more")
    if schedule.warmup == "error" and schedule.warmup_steps:
        raise ConfigError(
            f"schedule.warmup_steps {schedule.warmup_steps}: leave it at 0, schedule.warmup error ends by the error "
            "(or set schedule.warmup constant)"
        )
    for name in ("plateau_window", "plateau_patience", "warmup_window"):
        if getattr(schedule, name) < 1:
            raise ConfigError(f"schedule.{name} {getattr(schedule, name)}: give 1 or more")
    for name in ("factor", "warmup_factor", "plateau_improvement", "plateau_reductions", "warmup_error"):
        if not 0 <= getattr(schedule, name) < math.inf:
            raise ConfigError(f"schedule.{name} {getattr(schedule, name)}: give a number of 0 or more")


def learning_rate(step: int, *, base: float, steps: int, schedule: ScheduleOptions) -> float:
    """The rate of optimizer step `step` (the first is 0) in a run of `steps` steps.

    The factors of a plateau and of a warm-up by the error come on top.
    """
    rate = base
    if schedule.name == "step":
        rate *= schedule.factor ** sum(step >= milestone for milestone in schedule.milestones)
    elif schedule.name == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / steps))
    if step < schedule.warmup_steps:
        progress = step / schedule.warmup_steps if schedule.warmup == "linear" else 0.0
        rate *= schedule.warmup_factor + (1 - schedule.warmup_factor) * progress
    return rate
