"""A lower learning rate until the training error shows that learning has begun (4.2, ResNet-110)."""

from typing import Any

from torch import Tensor

from backbones.engine.error_window import ErrorWindow
from backbones.engine.schedule import ScheduleOptions


class ErrorWarmup:
    """Multiplies the rate by `warmup_factor` until the mean training error of a window of steps is low enough.

    What it knows is saved with the checkpoints, so that a resumed run decides the same.

    Args:
        schedule: holds `warmup_factor`, `warmup_window` (steps) and `warmup_error` (percent).
    """

    def __init__(self, schedule: ScheduleOptions):
        self._schedule = schedule
        self._window = ErrorWindow(schedule.warmup_window)
        self.done = False

    @property
    def factor(self) -> float:
        """What the learning rate is multiplied by at present."""
        return 1.0 if self.done else self._schedule.warmup_factor

    def observe(self, error: Tensor) -> str | None:
        """Takes the error of one step (a scalar, this process's); a sentence, if the warm-up ends after this step."""
        if self.done:
            return None
        mean = self._window.add(error)
        if mean is None or mean >= self._schedule.warmup_error:
            return None
        self.done = True
        return f"the training error is {mean:.2f}, below {self._schedule.warmup_error:g}: the warm-up is over"

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, for a checkpoint."""
        return {"done": self.done} | self._window.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there. Raises KeyError, TypeError or ValueError where a number is missing or none."""
        self.done = bool(state["done"])
        self._window.load_state_dict(state)
