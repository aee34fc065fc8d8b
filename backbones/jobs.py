"""Commands that run as processes side by side, under one progress bar: trainings that leave run folders."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from backbones.errors import UserError

_PATIENCE = 60  # seconds that an interrupted process has to end by itself
_PROCESS = re.compile(rb"^process (\d{1,10})$\n", re.MULTILINE)
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Job:
    """One training.

    Args:
        name: its run folder; what it prints goes to `<name>.log` beside that.
        arguments: of the interpreter.
        after: the job that has to be finished before.
        steps: optimizer steps of its run.
        done_steps: those that an earlier process has done.
        weight: what a step costs, beside those of the other jobs.
        threads: of its computations on a CPU; None leaves that to `run_jobs`.
        failure: why it failed or could not start, once that is so.
    """

    name: str
    arguments: list[str]
    after: str | None = None
    steps: int = 1
    done_steps: int = 0
    weight: float = 1.0
    threads: int | None = None
    failure: str | None = None
    process: subprocess.Popen | None = field(default=None, repr=False)
    done: bool = False
    device: str | None = None

    @property
    def running(self) -> bool:
        """Whether its process is started and not yet seen to have ended."""
        return self.process is not None and not self.done

    @property
    def succeeded(self) -> bool:
        """Whether its process has ended as it should."""
        return self.process is not None and self.process.returncode == 0


def run_jobs(jobs: Sequence[Job], folder: Path, *, at_once: int | None = None, keep_going: bool = False) -> list[Job]:
    """Runs jobs as processes and shows their progress; several GPUs are dealt out among them.

    Ctrl-C (or SIGTERM, or a closed terminal) interrupts the processes, waits for them and raises KeyboardInterrupt;
    a second one kills them.

    Args:
        jobs: the more urgent first; run folders and logs lie in `folder`.
        at_once: how many run at a time; by default two, or one on a single core.
        keep_going: let the others go on where one fails.

    Returns:
        The jobs that failed, and those that could not start for that; none but with `keep_going`.

    Raises:
        UserError: a job failed (names its log), or another process is at work in its run folder; not with `keep_going`.
    """
    cores = os.cpu_count() or 1
    at_once = at_once or min(2, cores)
    threads = max(1, min(cores // at_once, 4))
    with _stop_requests() as stops, _bar(jobs) as bar:
        try:
            while not all(job.done for job in jobs):
                if stops:
                    raise KeyboardInterrupt
                for job in filter(lambda job: job.running, jobs):
                    _look_after(job, folder)
                _check(jobs, keep_going)
                for job in _ready(jobs)[: max(0, at_once - sum(job.running for job in jobs))]:
                    _start(job, folder, threads, _least_used_gpu(jobs))
                _check(jobs, keep_going)
                _show(bar, jobs, folder)
                time.sleep(0.3)
        finally:
            _stop([job for job in jobs if job.running], stops)
    return [job for job in jobs if job.failure]


def usable_gpus() -> list[str]:
    """The GPUs of this machine, or those of them that CUDA_VISIBLE_DEVICES leaves, by their names in that variable."""
    if torch.cuda.device_count() == 0:
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(number) for number in range(torch.cuda.device_count())]
    return [name.strip() for name in named.split(",") if name.strip()]


def in_use(run: Path) -> bool:
    """Whether a process that a job started is still at work in the run folder, whoever started it."""
    try:
        with _log(run.parent, run.name).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no log, or a file system without locks
        return False
    return False


def process_at_work(run: Path) -> int | None:
    """The process that the first line of a run's log names; None where there is none."""
    try:
        with _log(run.parent, run.name).open("rb") as file:
            match = _PROCESS.fullmatch(file.readline(64))
    except OSError:
        return None
    return int(match[1]) if match else None


def _check(jobs: Sequence[Job], keep_going: bool) -> None:
    failures = [job.failure for job in jobs if job.failure]
    if failures and not keep_going:
        raise UserError(failures[0])


def _ready(jobs: Sequence[Job]) -> list[Job]:
    """The jobs that can start now; marks those that never can."""
    states = {job.name: job for job in jobs}
    for job in jobs:
        if not job.done and job.after and states[job.after].failure:
            job.failure, job.done = f"{job.name} was not started: {job.after} failed", True
    return [j for j in jobs if not j.process and not j.done and (j.after is None or states[j.after].done)]


def _start(job: Job, folder: Path, threads: int, gpu: str | None) -> None:
    """Starts a job's process, which the first line of its log names; the job fails where another one is at work on it.

    The process holds a lock on its log for as long as it lives, even where this process is killed.
    """
    log = _log(folder, job.name)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = process_at_work(folder / job.name)
            number = f" (process {other})" if other else ""
            job.failure = f"{job.name}: another process is at work on it{number}: wait for it, or end it ({log})"
            job.done = True
            return
        except OSError:  # a file system without locks
            pass
        file.truncate(0)
        job.device = gpu
        job.process = subprocess.Popen(
            [sys.executable, *job.arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ
            | {"OMP_NUM_THREADS": str(job.threads or threads)}
            | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}),
            process_group=0,  # a terminal's Ctrl-C reaches this process alone, which passes it on once
        )
        file.write(f"process {job.process.pid}\n")  # long before an interpreter that starts can print


def _look_after(job: Job, folder: Path) -> None:
    """Notes whether a running job has ended, and why where it failed."""
    assert job.process is not None
    code = job.process.poll()
    if code is None:
        return
    job.done = True
    if code < 0:
        _kill_group(job)  # its loading processes, which only find out after seconds
    if code:
        log = _log(folder, job.name)
        reason = _last_line(log) if code > 0 else f"ended by {_signal_name(-code)}"
        job.failure = f"{job.name} failed: {reason} (all of it in {log})"


def _stop(jobs: Sequence[Job], stops: list[int]) -> None:
    """Interrupts jobs and waits for them; kills those that don't end, or all where the user asks once more."""
    for job in jobs:
        assert job.process is not None
        with suppress(ProcessLookupError):
            job.process.send_signal(signal.SIGINT)
    asked, deadline = len(stops), time.monotonic() + _PATIENCE
    for job in jobs:
        assert job.process is not None
        while job.process.poll() is None:
            if len(stops) > asked or time.monotonic() > deadline:
                _kill_group(job)
            time.sleep(0.05)
        job.done = True


def _kill_group(job: Job) -> None:
    assert job.process is not None
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(job.process.pid, signal.SIGKILL)


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collects signals that ask to stop. As they have handlers here, new processes start with the default ones, even
    where a script that runs this in the background had them ignore Ctrl-C."""
    received: list[int] = []
    wanted = [s for s in _STOPPING if s == signal.SIGINT or signal.getsignal(s) != signal.SIG_IGN]
    earlier = {s: signal.signal(s, lambda number, frame: received.append(number)) for s in wanted}
    try:
        yield received
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _least_used_gpu(jobs: Sequence[Job]) -> str | None:
    gpus = usable_gpus()
    if len(gpus) < 2:
        return None  # what the environment says already
    return min(gpus, key=lambda gpu: sum(job.running and job.device == gpu for job in jobs))


def _bar(jobs: Sequence[Job]) -> tqdm:
    """A bar of the work: steps, each as long as it takes."""
    return tqdm(
        total=sum(job.steps * job.weight for job in jobs),
        initial=sum(job.done_steps * job.weight for job in jobs),
        bar_format="{percentage:3.0f}%|{bar:20}| {elapsed}<{remaining}{postfix}",
        mininterval=0.5 if sys.stderr.isatty() else 30,
    )


def _show(bar: tqdm, jobs: Sequence[Job], folder: Path) -> None:
    done = [job.steps if job.done and not job.failure else _progress(folder, job) for job in jobs]
    ended = sum(job.done for job in jobs)
    names = ", ".join(job.name for job in jobs if job.running)
    steps = f"{sum(done):,}/{sum(job.steps for job in jobs):,} steps"
    bar.set_postfix_str(f"{steps}, {ended}/{len(jobs)} done: {names}", refresh=False)
    bar.update(sum(count * job.weight for count, job in zip(done, jobs, strict=True)) - bar.n)


def _progress(folder: Path, job: Job) -> int:
    """The step that a job's run has last written to its log."""
    if job.process is None:
        return job.done_steps
    return min(job.steps, int(last_metrics(folder / job.name).get("step", job.done_steps)))


def last_metrics(run: Path, split: str | None = None) -> dict[str, Any]:
    """The last whole line of a run's metrics.jsonl with an integer `step`, of that split; empty where there is none."""
    try:
        with (run / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 2**16))
            lines = file.read().splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        with suppress(ValueError, RecursionError):
            values = json.loads(line)
            whole = isinstance(values, dict) and isinstance(values.get("step"), int) and values["step"] >= 0
            if whole and split in (None, values.get("split")):
                return values
    return {}


def _log(folder: Path, name: str) -> Path:
    return folder / f"{name}.log"


def _last_line(log: Path) -> str:
    lines = _PROCESS.sub(b"", log.read_bytes(), count=1).decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it printed nothing"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
