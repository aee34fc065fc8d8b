"""The numbers between two lines of the log."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from backbones.engine.distributed import mean_over_processes
from backbones.errors import UserError


class DivergedError(UserError):
    """The loss is no longer a number."""


def diverged(what: str) -> DivergedError:
    """What the user is told of it."""
    return DivergedError(
        f"{what}: checkpoints from before are kept; try a lower --optimizer.lr, a longer --schedule.warmup_steps or "
        "--train.clip_grad_norm 10, anew or with --resume --allow_mismatch (where that fails at once, without the "
        "newest checkpoint)"
    )


class Window:
    """The numbers of the steps since the last line, kept on the device until they are asked for (no synchronisation).

    A checkpoint in the middle keeps them, so that a resumed run writes the lines of a run without a break.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._rows: list[list[float]] = []  # of steps, averaged over processes
        self._steps: list[dict[str, Tensor]] = []  # later ones, of this process alone
        self._open()

    def _open(self) -> None:
        self._rows = []
        self.start_clock()

    def start_clock(self) -> None:
        """Leaves the time until now (an evaluation, a checkpoint) out of the throughput."""
        self._started, self._timed = time.monotonic(), 0

    def add(self, values: dict[str, Tensor]) -> None:
        """Takes the numbers of one step."""
        self._steps.append(values)
        self._timed += 1

    def gather(self, step: int, describe_batch: Callable[[int], str]) -> None:
        """Averages over the processes what is still each process's own.

        Args:
            step: how many steps are done.

        Raises:
            DivergedError: a number was not finite in any process.
        """
        if not self._steps:
            return
        names = list(self._steps[0])
        if names != self._names:  # a checkpoint kept those of a run that logged something else
            self._names, self._rows = names, []
        table = torch.stack([torch.stack([values[name] for name in self._names]) for values in self._steps])
        rows = mean_over_processes(table).tolist()
        for place, row in enumerate(rows):
            if not all(map(math.isfinite, row)):
                bad = step - len(rows) + place
                raise diverged(f"the loss is not a finite number at step {bad + 1}{describe_batch(bad)}")
        self._rows += rows
        self._steps = []

    def close(self, step: int, describe_batch: Callable[[int], str]) -> tuple[dict[str, float], float]:
        """Starts anew; as `gather`.

        Returns:
            The averages over all steps and processes; the steps a second since the clock was started.
        """
        self.gather(step, describe_batch)
        columns = zip(self._names, zip(*self._rows, strict=True), strict=True)
        averages = {name: sum(column) / len(self._rows) for name, column in columns}
        speed = self._timed / max(time.monotonic() - self._started, 1e-9)
        self._open()
        return averages, speed

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps; after `gather`."""
        return {"names": list(self._names), "rows": [list(row) for row in self._rows]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with what a checkpoint kept."""
        names, rows = [str(name) for name in state["names"]], [list(map(float, row)) for row in state["rows"]]
        if any(len(row) != len(names) for row in rows):
            raise ValueError("a row of numbers has another length than their names")
        self._names, self._rows = names, rows
