"""Several processes under torchrun: one of them, or torchrun itself, is killed or told to stop."""

import os
import sys
from pathlib import Path
from random import Random
from signal import SIGKILL, SIGTERM

from tests.faults.comparison import folders_of, read_record
from tests.faults.harness import Trial
from tests.faults.lab import Broken
from tests.faults.running import Running

_RESTARTS = 3  # of one run


def process_killed(trial: Trial, random: Random) -> None:
    """A process is killed, the main one too: torchrun starts all anew, which go on by themselves."""
    start_torchrun(trial)
    logged = []
    for _ in range(_RESTARTS):
        if not trial.wait_for_steps(trial.steps_logged() + random.randint(1, trial.workload.steps // 5)):
            break
        rank = random.randrange(trial.workload.processes)
        os.kill(wait_for_ranks(trial)[rank], SIGKILL)
        logged.append(trial.steps_logged())
        trial.hurt(f"rank {rank} killed after step {trial.steps_logged()}", None)
    trial.must_go_on()
    folders = folders_of(trial.output)
    restarts = [each for folder in folders for each in read_record(folder)["restarts"]]
    # One between stages is none of a stage.
    as_many = len(restarts) == len(trial.faults) if len(folders) == 1 else 0 < len(restarts) <= len(trial.faults)
    trial.expect(as_many, f"run.json has the restarts {restarts}")
    if len(folders) == 1:
        for fault, step, restart in zip(trial.faults, logged, restarts, strict=True):
            fault.steps_repeated = max(0, step - restart["step"])


def torchrun_killed(trial: Trial, random: Random) -> None:
    """Torchrun is killed: its processes save and stop, so that the same command can go on at once."""
    for _ in range(_RESTARTS):
        start_torchrun(trial)
        if not trial.wait_for_steps(trial.steps_logged() + random.randint(1, trial.workload.steps // 5)):
            break
        trial.running.send(SIGKILL)
        trial.hurt(f"torchrun killed after step {trial.steps_logged()}", trial.running.wait())
    start_torchrun(trial)
    trial.must_go_on()


def torchrun_terminated(trial: Trial, random: Random) -> None:
    """SIGTERM to torchrun: its processes agree on a step, save and stop; its own exit code is 1."""
    for _ in range(_RESTARTS):
        start_torchrun(trial)
        if not trial.wait_for_steps(trial.steps_logged() + random.randint(1, trial.workload.steps // 5)):
            break
        trial.running.send(SIGTERM)
        ended = trial.running.wait()
        if ended.code == 0:  # it was faster
            break
        trial.hurt(f"SIGTERM to torchrun after step {trial.steps_logged()}", ended)
        trial.expect(ended.code == 1 and "interrupted by SIGTERM after step" in ended.errors, ended)
        trial.expect(trial.faults[-1].steps_repeated == 0, f"{trial.faults[-1].steps_repeated} steps were lost")
        trial.expect(read_record(trial.output)["status"] == "interrupted", "run.json does not say interrupted")
    start_torchrun(trial)
    trial.must_go_on()


def start_torchrun(trial: Trial) -> Running:
    """Starts the run, or goes on with it, in the workload's processes, which are started anew when one is lost."""
    options = ("--standalone", "--max-restarts", str(_RESTARTS))
    return trial.start(prefix=torchrun(trial.workload.processes, *options), processes=1)


def torchrun(processes: int, *options: str) -> list[str]:
    """A command after these words runs in so many processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    return [*launcher, *options, "--no-python"]


def wait_for_ranks(trial: Trial) -> dict[int, int]:
    """The processes that torchrun has started, by rank, when all are there."""
    found: dict[int, int] = {}

    def all_there() -> bool:
        found.clear()
        found.update(ranks_of(trial.running.pid))
        return len(found) == trial.workload.processes

    if not trial.wait_for(all_there):
        raise Broken(f"torchrun has ended: {trial.running.wait()}")
    return found


def ranks_of(parent: int) -> dict[int, int]:
    """The processes that a torchrun has started, by rank."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            state, its_parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(its_parent) == parent and state not in "ZX":
                variables = dict(each.split(b"=", 1) for each in (entry / "environ").read_bytes().split(b"\0") if each)
                found[int(variables[b"RANK"])] = int(entry.name)
        except (OSError, ValueError, KeyError):  # no process, one that has ended, or another child
            continue
    return found
