"""Signals that ask to stop: the step is finished and saved, and the run says so."""

import re
import time
from random import Random
from signal import SIGCONT, SIGHUP, SIGINT, SIGSTOP, SIGTERM, Signals

from tests.faults.comparison import checkpoints, folders_of, read_record
from tests.faults.harness import Kind, Trial
from tests.faults.running import Ended, members

_IN_A_ROW = 3  # stops of one run


def stopped_by(number: Signals) -> Kind:
    """The kind of fault that a signal is; Ctrl-C goes to the whole group, loading processes too, as in a terminal."""

    def stopped(trial: Trial, random: Random) -> None:
        for _ in range(_IN_A_ROW):
            trial.start()
            if random.random() < 0.3:
                delay = random.uniform(0.2, 1)
                trial.wait_for(lambda: (trial.output / "run.json").exists())
            else:
                delay = random.uniform(0, 0.02)
                if not trial.wait_for_steps(trial.steps_saved() + random.randint(1, trial.workload.steps // 4)):
                    break
            time.sleep(delay)
            send = trial.running.send_group if number == SIGINT else trial.running.send
            send(number)
            ended = trial.running.wait()
            if ended.code == 0:
                break
            trial.hurt(f"{number.name} {1000 * delay:.0f} ms after step {trial.steps_logged()} was logged", ended)
            check_stopped(trial, ended, number)

    stopped.__doc__ = f"{number.name} at random moments: exit code {128 + number}, and the step that it names is saved."
    return stopped


def interrupted_twice(trial: Trial, random: Random) -> None:
    """Ctrl-C, and once more after more than a second, as of a user who does not want to wait.

    It leaves at once, saved or not. It is halted in between, as it would have ended by then.
    """
    for _ in range(_IN_A_ROW):
        running = trial.start()
        if not trial.wait_for_steps(trial.steps_saved() + random.randint(1, trial.workload.steps // 4)):
            break
        running.send_group(SIGINT)
        understood = trial.wait_for(lambda running=running: "saves after this step" in running.ended(0).errors)
        running.send_group(SIGSTOP)
        delay = random.uniform(1.1, 1.5)
        time.sleep(delay)
        lives = running.pid in members(running.pid)
        running.send_group(SIGINT)
        running.send_group(SIGCONT)
        ended = running.wait()
        if ended.code == 0:
            break
        if understood and lives:
            trial.hurt(f"Ctrl-C, and once more {delay:.2f} s later", ended)
            check_stopped(trial, ended, SIGINT)


def check_stopped(trial: Trial, ended: Ended, number: Signals) -> None:
    """What a run that a signal has stopped must have said and left: no step is lost."""
    trial.expect(ended.code == 128 + number, ended)
    last = ended.errors.strip().splitlines()[-1]
    said = re.fullmatch(rf"interrupted by {number.name}(?: after step (\d+))?(: go on with --resume)?", last)
    trial.expect(said is not None, f"the last line is {last!r}")
    trial.expect("Traceback" not in ended.errors, ended)
    if said and said[1]:
        newest = [max(checkpoints(each), default=0) for each in folders_of(trial.output)]
        trial.expect(int(said[1]) in newest, f"says step {said[1]}, the newest checkpoint is of {newest}")
        repeated = trial.faults[-1].steps_repeated
        trial.expect(repeated == 0, f"{repeated} steps were lost")
    status = read_record(trial.output).get("status")
    trial.expect(status in ("interrupted", None), f"run.json says {status}")
    end = time.monotonic() + 20  # loading processes find out by themselves, after seconds
    while members(trial.running.pid):
        trial.expect(time.monotonic() < end, f"processes are left: {members(trial.running.pid)}")
        time.sleep(0.1)


terminated = stopped_by(SIGTERM)
interrupted = stopped_by(SIGINT)
hung_up = stopped_by(SIGHUP)
