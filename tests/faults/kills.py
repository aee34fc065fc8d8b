"""SIGKILL, which no process can answer."""

import time
from contextlib import suppress
from random import Random
from signal import SIGKILL

from tests.faults.comparison import checkpoints
from tests.faults.harness import Trial

_IN_A_ROW = 5  # kills of one run


def killed(trial: Trial, random: Random) -> None:
    """Killed at random moments, again and again: at the start, in a step, a test, the write of the last weights."""
    for _ in range(_IN_A_ROW):
        trial.start()
        if random.random() < 0.3:
            delay = random.uniform(0, 1)
            moment = f"{delay:.3f} s after the start"
        else:
            if not trial.wait_for_steps(trial.steps_saved() + random.randint(1, trial.workload.steps // 4)):
                return
            delay = random.uniform(0, 0.03)
            moment = f"{1000 * delay:.0f} ms after step {trial.steps_logged()}"
        time.sleep(delay)
        trial.running.send(SIGKILL)
        ended = trial.running.wait()
        if ended.code == 0:  # it was faster
            return
        trial.expect(ended.code == -SIGKILL, ended)
        trial.hurt(moment, ended)


def killed_in_a_write(trial: Trial, random: Random) -> None:
    """Killed while a checkpoint is being written: its temporary file is left, and lacks the end."""
    size = max((path.stat().st_size for path in checkpoints(trial.undisturbed).values()), default=10**5)
    for _ in range(_IN_A_ROW):
        wanted = size * random.random()

        def is_being_written(wanted: float = wanted) -> bool:
            with suppress(FileNotFoundError):  # it was renamed just now
                return any(path.stat().st_size >= wanted for path in trial.output.rglob(".step_*.tmp"))
            return False

        trial.start()
        time.sleep(random.uniform(0, 1))
        if not trial.wait_for(is_being_written):
            return
        trial.running.send(SIGKILL)
        ended = trial.running.wait()
        if left := list(trial.output.rglob(".step_*.tmp")):
            trial.hurt(f"{left[0].name} had {left[0].stat().st_size:,} of {size:,} bytes", ended)
