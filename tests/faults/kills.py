"""SIGKILL, which no process can answer."""

import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from random import Random
from signal import SIGKILL

from tests.faults.comparison import checkpoints
from tests.faults.harness import Trial

_IN_A_ROW = 5  # kills of one run

_File = tuple[int, int]


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
    """Killed while a checkpoint is being written: its temporary file is left, often without the end."""
    size = max((path.stat().st_size for path in checkpoints(trial.undisturbed).values()), default=10**5)
    for _ in range(_IN_A_ROW):
        wanted = size * random.random()
        earlier = _being_written(trial.output)  # of the kill before, which the new process removes

        def is_being_written(wanted: float = wanted, earlier: Collection[_File] = earlier.keys()) -> bool:
            return any(each[1] >= wanted for file, each in _being_written(trial.output).items() if file not in earlier)

        trial.start()
        time.sleep(random.uniform(0, 1))
        if not trial.wait_for(is_being_written):
            return
        trial.running.send(SIGKILL)
        ended = trial.running.wait()
        left = [each for file, each in _being_written(trial.output).items() if file not in earlier]
        if left:
            name, length = left[0]
            trial.hurt(f"{name} had {length:,} of {size:,} bytes", ended)


def _being_written(run: Path) -> dict[_File, tuple[str, int]]:
    """Name and size of each temporary file of a checkpoint, by its inode and the time of its last write."""
    found = {}
    for path in run.rglob(".step_*.tmp"):
        with suppress(FileNotFoundError):  # it was renamed just now
            status = path.stat()
            found[status.st_ino, status.st_mtime_ns] = path.name, status.st_size
    return found
