"""Disks that are full, or can only be read, while a run writes to them. They are mounted, which takes root."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from signal import SIGCONT, SIGSTOP

from tests.faults.comparison import checkpoints
from tests.faults.harness import Trial
from tests.faults.lab import Unavailable


def full_disk(trial: Trial, random: Random) -> None:
    """The disk has no room for the next checkpoint: said with the remedy, and what was there stays whole."""
    trial.output.mkdir()
    trial.cleanup.enter_context(_mounted("-t", "tmpfs", "-o", "size=256m", "tmpfs", str(trial.output)))
    trial.start()
    trial.wait_for_steps(random.randint(1, trial.workload.steps // 2))
    size = max((path.stat().st_size for path in checkpoints(trial.undisturbed).values()), default=300_000)
    left = random.choice([0, random.randrange(size)])
    filler = trial.output / "checkpoints/filler"
    filler.parent.mkdir(exist_ok=True)
    trial.wait_for(lambda: _fill(filler, left))  # again and again, as an old checkpoint makes room when it is removed
    ended = trial.running.wait()
    trial.hurt(f"{left:,} bytes left, a checkpoint has {size:,}", ended)
    trial.expect_refusal(ended, str(trial.output), "No space left on device", "--resume")
    trial.expect(not list(trial.output.rglob(".step_*.tmp")), "a temporary file is left")
    filler.unlink()


def read_only_disk(trial: Trial, random: Random) -> None:
    """The output can't be written any more, as after a disk's error; nor can a resumed run, until it is mended."""
    trial.start()
    trial.wait_for_steps(random.randint(1, trial.workload.steps // 2))
    folders = [trial.output, trial.output / "checkpoints"]
    folder = random.choice([each for each in folders if each.is_dir()])
    trial.running.send(SIGSTOP)  # it may be faster than a disk
    if trial.running.poll() is not None:
        return
    with _mounted("--bind", str(folder), str(folder)):
        _run("mount", "-o", "remount,bind,ro", str(folder))
        trial.running.send(SIGCONT)
        ended = trial.running.wait()
        trial.hurt(f"{folder.relative_to(trial.folder)} became read-only after step {trial.steps_logged()}", ended)
        trial.expect_refusal(ended, str(folder), "Read-only file system")
        trial.start()
        trial.expect_refusal(trial.running.wait(), str(folder), "Read-only file system")


@contextmanager
def _mounted(*arguments: str) -> Iterator[None]:
    target = arguments[-1]
    if os.geteuid() or _run("mount", *arguments):
        raise Unavailable("disks can't be mounted here: run it as root, outside of containers that forbid it")
    try:
        yield
    finally:
        _run("umount", "--lazy", target)


def _run(*command: str) -> int:
    return subprocess.run(command, capture_output=True).returncode


def _fill(path: Path, left: int) -> bool:
    """Leaves the disk only so many bytes; False, as the run is not seen to end by this."""
    free = os.statvfs(path.parent)
    size = free.f_bavail * free.f_bsize - left
    with path.open("ab", buffering=0) as file, suppress(OSError):  # the run was faster
        if size > 0:
            os.posix_fallocate(file.fileno(), file.tell(), size)
    return False
