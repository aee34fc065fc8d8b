"""Several processes that want the same run folder."""

from random import Random
from signal import SIGCONT, SIGSTOP

from tests.faults.harness import Trial


def same_output(trial: Trial, random: Random) -> None:
    """Another process is given the folder of a run: refused, however it asks; the first one does not notice.

    The first one is halted meanwhile, so that it does not end before.
    """
    first = trial.start()
    for options in ((), ("--no_resume", "--overwrite")):
        if not trial.wait_for_steps(trial.steps_logged() + random.randint(1, 8)):
            break
        first.send(SIGSTOP)
        ended = trial.start(*options, beside=True).wait()
        trial.hurt(f"another process {' '.join(options)} at step {trial.steps_logged()}", None)
        first.send(SIGCONT)
        trial.expect_refusal(ended, str(trial.output), "another process is at work", str(first.pid))
    trial.must_go_on()


def same_moment(trial: Trial, random: Random) -> None:
    """Three processes begin the same run at once: one does it, the others wait for it or are refused."""
    others = [trial.start(beside=True) for _ in range(2)]
    trial.start()
    ends = [running.wait() for running in (*others, trial.running)]
    trial.hurt("three processes began together", None)
    trial.expect(any(ended.code == 0 for ended in ends), " | ".join(map(str, ends)))
    for ended in ends:
        if ended.code:
            trial.expect_refusal(ended, str(trial.output), "another process is at work")
