"""SIGKILL, which no process can answer."""

import time
from random import Random
from signal import SIGKILL

from tests.faults.harness import Trial

_AT_ONCE = 5  # kills of one run


def killed(trial: Trial, random: Random) -> None:
    """Killed at random moments, again and again: at the start, in a step, in a test, when the last weights are written."""
    for _ in range(_AT_ONCE):
        trial.start()
        if random.random() < 0.3:
            moment = f"{(delay := random.uniform(0, 1)):.3f} s after the start"
        else:
            steps = trial.steps_saved() + random.randint(1, max(1, trial.workload.steps // 4))
            if not trial.wait_for_steps(steps):
                break
            delay = random.uniform(0, 0.03)
            moment = f"{1000 * delay:.0f} ms after step {trial.steps_logged()}"
        time.sleep(delay)
        trial.running.send(SIGKILL)
        ended = trial.running.wait()
        if ended.code == 0:  # it was faster
            break
        trial.expect(ended.code == -SIGKILL, ended)
        trial.hurt(moment, ended)


def killed_in_a_write(trial: Trial, random: Random) -> None:
    """Killed while a checkpoint is being written: its temporary file is left, and lacks the end."""
    while len(trial.faults) < _AT_ONCE:
        trial.start()
        number = random.randint(1, 2)  # of the writes of this process
        for _ in range(number):
            written = set(trial.output.rglob("step_*.pt"))
            if not trial.wait_for(lambda: any(trial.output.rglob(".step_*.tmp"))):
                return
            if _ < number - 1:
                trial.wait_for(lambda: set(trial.output.rglob("step_*.pt")) != written)  # noqa: B023
        time.sleep(random.uniform(0, 0.004))
        trial.running.send(SIGKILL)
        ended = trial.running.wait()
        if ended.code == 0:
            return
        if left := list(trial.output.rglob(".step_*.tmp")):
            trial.hurt(f"{left[0].name} had {left[0].stat().st_size:,} bytes", ended)
