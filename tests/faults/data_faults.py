"""Training data that vanishes or is damaged while a run reads it, and the death of a process that loads it."""

import os
from contextlib import suppress
from pathlib import Path
from random import Random
from signal import SIGKILL

from tests.faults.comparison import checkpoints, read_record
from tests.faults.harness import Trial
from tests.faults.running import members
from tests.faults.workloads import training_files


def vanished(trial: Trial, random: Random) -> None:
    """A picture is removed: named, nothing that was done is lost, and the run goes on once it is back."""
    path = _choose(trial, random)
    content = path.read_bytes()
    _train_a_while(trial, random)
    path.unlink()
    _expect_the_end(trial, path, f"{path.name} removed")
    path.write_bytes(content)


def corrupted(trial: Trial, random: Random) -> None:
    """A picture becomes something else: an empty file, its beginning, noise."""
    path = _choose(trial, random)
    content = path.read_bytes()
    _train_a_while(trial, random)
    half = content[: random.randrange(20, len(content) // 2)]
    bad = random.choice([b"", half, random.randbytes(len(content)), content[:2] + random.randbytes(200)])
    other = path.with_suffix(".new")
    other.write_bytes(bad)
    os.replace(other, path)
    _expect_the_end(trial, path, f"{path.name} became {len(bad)} bytes, {bad[:6]!r}...")
    path.write_bytes(content)


def worker_killed(trial: Trial, random: Random) -> None:
    """Loading processes are killed, one after the other: the run goes on by itself."""
    trial.start()
    for _ in range(3):
        if not trial.wait_for_steps(trial.steps_logged() + random.randint(1, trial.workload.steps // 5)):
            break
        workers = set(members(trial.running.pid)) - {trial.running.pid}
        if not workers:
            break
        with suppress(ProcessLookupError):
            os.kill(random.choice(sorted(workers)), SIGKILL)
        trial.hurt(f"a loading process was killed after step {trial.steps_logged()}", None)
        # All are replaced, so that the next death is another one to the run.
        trial.wait_for(lambda workers=workers: not workers & set(members(trial.running.pid)))
    trial.must_go_on()
    told = trial.running.wait().output.count("a loading process was killed")
    trial.expect(told == len(trial.faults), f"the run tells of {told} deaths of {len(trial.faults)}")


def _choose(trial: Trial, random: Random) -> Path:
    return random.choice(list(training_files(trial.own_pictures())))


def _train_a_while(trial: Trial, random: Random) -> None:
    """Up to the middle of the run, so that each picture is seen again."""
    trial.start()
    trial.wait_for_steps(random.randint(1, trial.workload.steps // 2))


def _expect_the_end(trial: Trial, path: Path, moment: str) -> None:
    """The run must end by itself, name the picture, and have saved all steps."""
    step = trial.steps_logged()
    ended = trial.running.wait()
    trial.hurt(f"{moment} after step {step}", ended)
    trial.expect_refusal(ended, str(path))
    repeated = trial.faults[-1].steps_repeated
    trial.expect(repeated == 0, f"{repeated} steps were lost; checkpoints {list(checkpoints(trial.output))}")
    status = read_record(trial.output).get("status")
    trial.expect(status == "failed", f"run.json says {status}")
