"""Dividing the learning rate when the error plateaus (3.4): a schedule that is no function of the step alone."""

from typing import Any

from torch import Tensor

from backbones.engine.error_window import ErrorWindow
from backbones.engine.schedule import ScheduleOptions


class Plateau:
    """Watches the training error in windows of steps, and lowers the rate where it no longer falls.

    A window whose mean error is not at least `improvement` below the best so far is a bad one; after `patience` bad
    windows in a row the rate is multiplied by `factor`, at most `reductions` times. What it knows is saved with the
    checkpoints, so that a resumed run decides the same.

    Args:
        schedule: holds these five numbers, as `plateau_...` and `factor`.
    """

    def __init__(self, schedule: ScheduleOptions):
        self._schedule = schedule
        self._window = ErrorWindow(schedule.plateau_window)
        self.reductions = 0
        self.best = float("inf")
        self.bad_windows = 0

    @property
    def factor(self) -> float:
        """What the learning rate is multiplied by at present."""
        return self._schedule.factor**self.reductions

    def observe(self, error: Tensor) -> str | None:
        """Takes the error of one step (a scalar, this process's); a sentence, if the rate goes down after this step."""
        mean = self._window.add(error)
        if mean is None:
            return None
        if mean <= self.best - self._schedule.plateau_improvement:
            self.best, self.bad_windows = mean, 0
            return None
        self.bad_windows += 1
        if self.bad_windows < self._schedule.plateau_patience or self.reductions >= self._schedule.plateau_reductions:
            return None
        self.bad_windows = 0
        self.reductions += 1
        return f"the training error stays at {mean:.2f} (best {self.best:.2f}): the learning rate is lowered"

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, for a checkpoint."""
        state = {"reductions": self.reductions, "best": self.best, "bad_windows": self.bad_windows}
        return state | self._window.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there. Raises KeyError, TypeError or ValueError where a number is missing or none."""
        self.reductions, self.bad_windows, self.best = (
            int(state["reductions"]),
            int(state["bad_windows"]),
            float(state["best"]),
        )
        if self.reductions < 0:
            raise ValueError("the plateau's state is of another schedule")
        self._window.load_state_dict(state)
