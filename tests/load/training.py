"""Watches a training for minutes: what it and its loading processes hold, as its pictures go by."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backbones.errors import UserError
from backbones.progress import progress_bar
from tests.load.flatness import Trend, trend_of
from tests.load.processes import Held, children_of, held_by, peak_of, shared_memory

WARM_UP = 0.2
"""Of the stretch, left out of the lines: caches fill. At least until three evaluations are over."""

FEWEST = 6
"""Evaluations without which nothing is said to be flat: the first ones take memory that is not given back."""


@dataclass(frozen=True)
class Training:
    """A training command.

    Args:
        arguments: a tool and its options, without `--output`.
        output: its run folder.
        batch_size: pictures of a step.
        workers: loading processes.
        tensors: of a batch; two batches wait in a loading process, or fewer.
    """

    arguments: list[str]
    output: Path
    batch_size: int
    workers: int
    tensors: int


@dataclass
class Start:
    """How a training came to its first steps.

    Args:
        seconds_to_read: until the data were read and the network was built.
        seconds_to_steps: until the first line of its log.
        peak: bytes that the main process had held by then.
        first_step: where it went on.
    """

    seconds_to_read: float
    seconds_to_steps: float
    peak: int
    first_step: int


@dataclass
class Stretch:
    """Measurements of a training, one a row.

    Args:
        minutes: since it began to train.
        steps: done.
        evaluated: minutes at which each evaluation was seen to be over.
        main: the training process.
        workers: the loading processes of the training, the longest-lived of its children.
        total: proportional bytes of all processes, those of evaluations too.
        shared: bytes in /dev/shm.
    """

    minutes: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    evaluated: list[float] = field(default_factory=list)
    main: list[Held] = field(default_factory=list)
    workers: list[list[Held]] = field(default_factory=list)
    total: list[int] = field(default_factory=list)
    shared: list[int] = field(default_factory=list)


def begin(training: Training, *, resume: bool) -> tuple["subprocess.Popen[bytes]", Start]:
    """Starts the command, and waits until its steps come.

    Raises:
        UserError: it ended.
    """
    log = training.output.parent / f"{training.output.name}{'_resumed' if resume else ''}.log"
    metrics = training.output / "metrics.jsonl"
    known = len(metrics.read_bytes()) if resume else 0
    began = time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, *training.arguments, "--output", str(training.output), *(["--resume"] if resume else [])],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    read = 0.0
    while not metrics.exists() or len(metrics.read_bytes()) <= known or not read:
        if process.poll() is not None:
            raise UserError(f"{' '.join(training.arguments)}: {log.read_text(errors='replace')[-1000:]}")
        text = log.read_text(errors="replace")
        if not read and ", steps " in text:
            read = time.monotonic() - began
            known = len(metrics.read_bytes()) if metrics.exists() else 0  # a resumed run forgets what it does again
        time.sleep(0.1)
    first = int(text.partition(", steps ")[2].split()[0])
    return process, Start(read, time.monotonic() - began, peak_of(process.pid), first)


def watch(process: "subprocess.Popen[bytes]", training: Training, minutes: float, every: float) -> Stretch:
    """Measures a training that goes on, until the minutes are over.

    Raises:
        UserError: it ended.
    """
    stretch = Stretch()
    workers: list[int] = []
    for now in _moments(minutes, every):
        if process.poll() is not None:
            raise UserError(f"{' '.join(training.arguments)}: ended with exit code {process.returncode}")
        children = children_of(process.pid)
        if not workers and len(children) >= training.workers:
            workers = children[: training.workers]
        held = {pid: found for pid in [process.pid, *children] if (found := held_by(pid)) is not None}
        if process.pid not in held or not all(pid in held for pid in workers):
            continue
        step, tests = _progress(training.output)
        stretch.minutes.append(now)
        stretch.steps.append(step)
        stretch.evaluated += [now] * (tests - len(stretch.evaluated))
        stretch.main.append(held[process.pid])
        stretch.workers.append([held[pid] for pid in workers])
        stretch.total.append(sum(found.proportional for found in held.values()))
        stretch.shared.append(shared_memory()[1])
    return stretch


def _moments(minutes: float, every: float) -> Iterator[float]:
    """Minutes since the start, once in `every` seconds; shown as a bar."""
    began = time.monotonic()
    with progress_bar(total=round(minutes * 60), unit="s", description="watching") as bar:
        while (passed := time.monotonic() - began) < minutes * 60:
            yield passed / 60
            bar.update(round(passed) - bar.n)
            time.sleep(every)


def _progress(output: Path) -> tuple[int, int]:
    """The last step that was logged, and how many evaluations were."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return lines[-1]["step"], sum(line["split"] == "test" for line in lines)


def end(process: "subprocess.Popen[bytes]", number: int) -> tuple[int, int]:
    """Ends a training by a signal.

    Returns:
        Its exit code, and how many of its children were still there five seconds later.
    """
    children = children_of(process.pid)
    process.send_signal(number)
    code = process.wait(120)
    deadline = time.monotonic() + 5
    while (left := sum(held_by(pid) is not None for pid in children)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return code, left


def trends(stretch: Stretch, training: Training) -> dict[str, Trend]:
    """A line through each thing that was measured, after the warm-up."""
    warm = max(WARM_UP * stretch.minutes[-1], next(iter(stretch.evaluated[2:]), 0.0))
    first = next((i for i, minute in enumerate(stretch.minutes) if minute >= warm), len(stretch.minutes) // 2)
    minutes = stretch.minutes[first:]
    pictures = (stretch.steps[-1] - stretch.steps[first]) * training.batch_size
    rate = pictures / (minutes[-1] - minutes[0])
    workers = list(zip(*stretch.workers[first:], strict=True))
    measured: dict[str, tuple[list[int], bool]] = {
        "all processes, memory": (stretch.total[first:], True),
        "main process, RSS": ([held.resident for held in stretch.main[first:]], True),
        "main process, anonymous": ([held.anonymous for held in stretch.main[first:]], True),
        "main process, open files": ([held.files for held in stretch.main[first:]], False),
        "main process, threads": ([held.threads for held in stretch.main[first:]], False),
        "/dev/shm": (stretch.shared[first:], True),
    }
    for number, worker in enumerate(workers, 1):
        measured |= {
            f"worker {number}, RSS": ([held.resident for held in worker], True),
            f"worker {number}, anonymous": ([held.anonymous for held in worker], True),
            f"worker {number}, open files": ([held.files for held in worker], False),
            f"worker {number}, threads": ([held.threads for held in worker], False),
        }

    def in_hand(name: str) -> int:
        return 2 * training.tensors if name.startswith("worker") and name.endswith("files") else 0

    return {
        name: trend_of(
            minutes, [float(v) for v in values], pictures_per_minute=rate, memory=memory, in_hand=in_hand(name)
        )
        for name, (values, memory) in measured.items()
    }


def watch_and_resume(training: Training, pictures: int, minutes: float, every: float) -> dict[str, Any]:
    """Most of the time in one run, which is then killed; the rest in the same run resumed, which is asked to stop.

    Args:
        pictures: in the training set.

    Returns:
        For a JSON file; "flat" says whether all of it was.
    """
    process, start = begin(training, resume=False)
    try:
        long = watch(process, training, 0.8 * minutes, every)
        _, left = end(process, signal.SIGKILL)
        process, again = begin(training, resume=True)
        short = watch(process, training, 0.2 * minutes, every)
        code, left_again = end(process, signal.SIGTERM)
    finally:
        process.kill()
        process.wait()
    lines = trends(long, training)
    done = long.steps[-1] * training.batch_size
    return {
        "pictures": pictures,
        "workers": training.workers,
        "minutes": round(long.minutes[-1], 2),
        "measurements": len(long.minutes),
        "pictures_seen": done,
        "epochs": round(done / pictures, 2),
        "evaluations": len(long.evaluated),
        "start": vars(start),
        "resumed": vars(again) | {"steps_on": short.steps[-1] - again.first_step, "exit_code": code},
        "processes_left": left + left_again,
        "enough": len(long.evaluated) >= FEWEST,
        "flat": len(long.evaluated) >= FEWEST and all(trend.flat for trend in lines.values()) and not left + left_again,
        "trends": {name: trend.record() for name, trend in lines.items()},
        "curve": _curve(long),
    }


def _curve(stretch: Stretch, most: int = 60) -> list[dict[str, float]]:
    """Some of the measurements, evenly in time."""
    places = range(0, len(stretch.minutes), max(1, len(stretch.minutes) // most))
    return [
        {
            "minutes": round(stretch.minutes[i], 2),
            "steps": stretch.steps[i],
            "all": stretch.total[i],
            "main_rss": stretch.main[i].resident,
            "main_anonymous": stretch.main[i].anonymous,
            "main_files": stretch.main[i].files,
            "worker_1_anonymous": stretch.workers[i][0].anonymous,
        }
        for i in places
    ]
