"""Speeds of several ways to do the same, measured in turn, so that what else a machine does meets all of them alike.

A way works in segments: some steps that do not count, then some that do. A round is one segment of each way. What is
compared are the speeds of one round, so a machine that is slower for a while changes a ratio little.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from backbones.progress import progress_bar


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Args:
        rounds: segments of each way.
        steps: of a segment, timed.
        discard: steps at the start of each segment that are not: after a pause, batches that were loaded ahead are
            there at once, caches are cold, and a graph is captured anew.
    """

    rounds: int
    steps: int
    discard: int


@dataclass(frozen=True)
class Segment:
    """The timed steps of one segment.

    Args:
        items: pictures that were worked through.
        seconds: that it took.
    """

    items: int
    seconds: float

    @property
    def rate(self) -> float:
        """Items a second."""
        return self.items / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class Spread:
    """The middle of several measurements and the quartiles around it."""

    median: float
    lower: float
    upper: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles (linear between neighbours)."""
    lower, median, upper = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return Spread(median, lower, upper)


def ratios(ours: Sequence[float], reference: Sequence[float]) -> list[float]:
    """How many times as fast as the reference ours was, in each round."""
    return [mine / theirs for mine, theirs in zip(ours, reference, strict=True)]


def interleave(
    ways: Mapping[str, Callable[[], Segment]], rounds: int, *, description: str | None = None
) -> dict[str, list[float]]:
    """Runs a segment of each way in turn; the items a second of each, by round.

    Every second round goes through the ways backwards, so that none always follows the same other.
    """
    rates: dict[str, list[float]] = {name: [] for name in ways}
    with progress_bar(total=rounds * len(ways), unit="segment", description=description, stays=False) as bar:
        for number in range(rounds):
            for name in list(ways)[:: 1 if number % 2 == 0 else -1]:
                rates[name].append(ways[name]().rate)
                bar.update()
    return rates


class Stopwatch:
    """Seconds between `start` and `stop`, with all that the device was given to do until then done."""

    def __init__(self, device: torch.device):
        self._device = device
        self._started = float("nan")

    def start(self) -> None:
        """Begins to count."""
        self._finish_work()
        self._started = time.perf_counter()

    def stop(self) -> float:
        """The seconds since `start`."""
        self._finish_work()
        return time.perf_counter() - self._started

    def _finish_work(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Gives every way the same threads, and cuDNN's search for the fastest algorithm; puts back what was set before."""
    before = torch.get_num_threads(), torch.backends.cudnn.benchmark
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.backends.cudnn.benchmark = before[1]
