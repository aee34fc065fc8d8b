"""Several trainings side by side on one device: a small network leaves most of a GPU idle."""

import multiprocessing
import queue
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from backbones.benchmark.measure import Plan
from backbones.errors import UserError

_PATIENCE = 600.0  # seconds for all of them to come to the start, compiling included


def rates_side_by_side(
    make_way: Callable[..., Any],
    arguments: Sequence[Any],
    *,
    jobs: int,
    plan: Plan,
    threads: int,
    start_method: str = "spawn",
) -> list[float]:
    """Items a second of all jobs together, by round; each job is a process of its own.

    The jobs start the clock of every round together, after the steps that do not count (with them, a capture is over);
    it runs until the last of them is done.

    Args:
        make_way: makes, in the process, of `arguments` what has a `segment(steps, discard, wait)` that calls `wait`
            before the steps that are timed; both must be picklable.
        threads: of each job.
        start_method: of the processes; "fork" starts faster, but never after work on a GPU.

    Raises:
        UserError: a job failed or never came to the start.
    """
    context: Any = multiprocessing.get_context(start_method)
    barrier, results = context.Barrier(jobs, timeout=_PATIENCE), context.Queue()
    processes = [
        context.Process(target=_work, args=(make_way, arguments, plan, threads, barrier, results), daemon=True)
        for _ in range(jobs)
    ]
    for process in processes:
        process.start()
    try:
        rounds = _collect(results, processes)
    finally:
        for process in processes:
            process.join(5)
            process.kill()
    failures = [result for result in rounds if isinstance(result, str)]
    if failures:
        # Those that waited for the one that failed have failed too, and know no reason.
        raise UserError(f"{jobs} jobs side by side: {min(failures, key=lambda text: 'BrokenBarrier' in text)}")
    return [together(segments) for segments in zip(*rounds, strict=True)]


def together(segments: Sequence[tuple[int, float, float]]) -> float:
    """Items a second of segments (items, start, end) that ran at the same time."""
    items, starts, ends = zip(*segments, strict=True)
    return sum(items) / max(max(ends) - min(starts), 1e-9)


def _collect(results: Any, processes: Sequence[Any]) -> list[Any]:
    """What each process has to say: its segments, or why it failed."""
    collected: list[Any] = []
    while len(collected) < len(processes):
        ended = [process for process in processes if not process.is_alive()]
        try:
            collected.append(results.get(timeout=1))
        except queue.Empty:
            if len(ended) > len(collected):  # killed: nothing more comes of it
                collected.append(f"one ended with exit code {ended[0].exitcode} (out of memory?)")
                break
    return collected


def _work(
    make_way: Callable[..., Any], arguments: Sequence[Any], plan: Plan, threads: int, barrier: Any, results: Any
) -> None:
    try:
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = True
        way = make_way(*arguments)
        way.segment(plan.steps, plan.discard)  # warm-up
        segments = []
        for _ in range(plan.rounds):
            segment = way.segment(plan.steps, plan.discard, barrier.wait)
            ended = time.monotonic()  # one clock for all processes of a machine
            segments.append((segment.items, ended - segment.seconds, ended))
        results.put(segments)
    except Exception as error:
        barrier.abort()
        results.put(" ".join(f"{type(error).__name__}: {error}".split())[:300])
