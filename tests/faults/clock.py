"""The clock of the machine is set back, or forward, in the middle of a run."""

import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from tests.faults.harness import Trial
from tests.faults.lab import Unavailable

_LIBRARIES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1")
_SOON = 120  # seconds in which the run must have written something of the new date


def clock_set(trial: Trial, random: Random) -> None:
    """What the run is told of the date jumps by up to years: it goes on as if nothing had been (its clock of monotonic
    time goes on too, as when an administrator sets the date)."""
    found = [path for pattern in _LIBRARIES for path in Path("/").glob(pattern.lstrip("/"))]
    if not found:
        raise Unavailable("libfaketime is not installed: apt-get install faketime")
    offset = trial.folder / "clock"
    offset.write_text("+0s\n")
    environment = {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    trial.start(environment=environment)
    dates = []
    for _ in range(2):
        if not trial.wait_for_steps(trial.steps_logged() + random.randint(1, trial.workload.steps // 3)):
            break
        seconds = random.choice([-1, 1]) * round(10 ** random.uniform(0, 8.5))
        new = offset.with_suffix(".new")
        new.write_text(f"{seconds:+d}s\n")
        new.replace(offset)
        dates.append(time.time() + seconds)
        trial.hurt(f"clock set to {seconds:+,} s after step {trial.steps_logged()}", None)
    trial.must_go_on()
    written = [event.wall_time for path in trial.output.rglob("*tfevents*") for event in _read_events(path)]
    for date in dates:
        seen = any(0 <= each - date < _SOON for each in written)
        trial.expect(seen, f"TensorBoard's events are not of the date {date:.0f}, but {sorted(map(int, written))}")


def _read_events(path: Path) -> Iterator[Any]:
    return EventFileLoader(str(path)).Load()
