"""A run is gone on with by another command than it was begun with: refused, and untouched."""

from random import Random
from signal import SIGTERM

from tests.faults.harness import Trial
from tests.faults.workloads import training_files

_OTHER_OPTIONS = {
    "seed": ("--seed", "7"),
    "optimizer.lr": ("--optimizer.lr", "0.07"),
    "train.batch_size": ("--train.batch_size", "16"),
    "schedule.warmup_steps": ("--schedule.warmup_steps", "3"),
}


def other_config(trial: Trial, random: Random) -> None:
    """Another value of an option that changes the result."""
    _interrupt(trial, random)
    for key in random.sample(sorted(_OTHER_OPTIONS), 2):
        _refused(trial, key, " ".join(_OTHER_OPTIONS[key]), *_OTHER_OPTIONS[key])


def other_data(trial: Trial, random: Random) -> None:
    """A picture more, one less, or one of another class."""
    pictures = trial.own_pictures()
    _interrupt(trial, random)
    path = random.choice(list(training_files(pictures)))
    other = next(folder for folder in sorted((pictures / "train").iterdir()) if folder != path.parent)
    moved = path.rename(path.with_suffix(".txt") if random.random() < 0.5 else other / f"moved_{path.name}")
    _refused(trial, "data_fingerprint", f"{path.name} became {moved.relative_to(pictures)}")
    moved.rename(path)


def other_threads(trial: Trial, random: Random) -> None:
    """Another number of threads, which changes the order of sums."""
    _interrupt(trial, random)
    _refused(trial, "threads", "2 threads", environment={"OMP_NUM_THREADS": "2"})


def other_world_size(trial: Trial, random: Random) -> None:
    """Another number of processes."""
    _interrupt(trial, random)
    _refused(trial, "processes", "2 processes", processes=2)


def _interrupt(trial: Trial, random: Random) -> None:
    trial.start()
    trial.wait_for_steps(random.randint(1, trial.workload.steps // 2))
    trial.running.send(SIGTERM)
    trial.running.wait()


def _refused(trial: Trial, key: str, moment: str, *options: str, **how: object) -> None:
    with trial.unchanged():
        ended = trial.start(*options, **how).wait()  # type: ignore[arg-type]
        trial.hurt(f"resumed with {moment}", ended)
        if how.get("processes"):  # torchrun's own code is 1, after its report on those of the processes
            said = f"error: {trial.output}: its run had {key}"
            trial.expect(ended.code != 0 and said in ended.errors, ended)
        else:
            trial.expect_refusal(ended, str(trial.output), f"its run had {key}", "--allow_mismatch")
