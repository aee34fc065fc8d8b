"""The training error over windows of steps: what schedules look at that are no functions of the step alone."""

import math
from typing import Any

from torch import Tensor

from backbones.engine.distributed import mean_over_processes


class ErrorWindow:
    """Averages the errors of so many steps, one window after another.

    Args:
        length: steps of a window.
    """

    def __init__(self, length: int):
        self._length = length
        self._steps = 0  # of the window so far
        self._total: Tensor | float = 0.0  # of their errors; stays on the device until the window ends

    def add(self, error: Tensor) -> float | None:
        """Takes the error of one step.

        Args:
            error: a scalar, this process's; all processes see their mean.

        Returns:
            The window's mean error, where this step is its last.
        """
        # Averaged at each step, so that it does not matter when checkpoints cut the window in two.
        self._total = self._total + mean_over_processes(error.detach().double().clone())
        self._steps += 1
        if self._steps < self._length:
            return None
        mean = float(self._total) / self._steps
        self._steps, self._total = 0, 0.0
        return mean

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, for a checkpoint."""
        return {"steps": self._steps, "total": float(self._total)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there. Raises KeyError, TypeError or ValueError where a number is missing or none."""
        self._steps, self._total = int(state["steps"]), float(state["total"])
        if not (0 <= self._steps < self._length and math.isfinite(self._total)):
            raise ValueError("the window of training errors is of another schedule")
