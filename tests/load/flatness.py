"""Whether something that was measured again and again grows."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

MEMORY_SHARE, MEMORY_LEAST = 0.02, 4e6
"""Memory is flat if its line rises by less than 2% of the median over the whole stretch, or less than 4 MB."""

COUNT_RISE = 1.0
"""Open files and threads are flat if their line rises by less than one over the whole stretch; files of a loading
process, by less than one more than the batches take that wait in it."""


@dataclass(frozen=True)
class Trend:
    """A straight line under measurements.

    Args:
        first, last: the lowest of the first and the last tenth.
        median: of all.
        highest: of all.
        per_minute: the slope.
        per_1000_pictures: the same, by what was done meanwhile.
        rise: of the line, over the whole stretch.
        limit: of the rise.
        flat: whether it is below.
    """

    first: float
    last: float
    median: float
    highest: float
    per_minute: float
    per_1000_pictures: float
    rise: float
    limit: float
    flat: bool

    def record(self) -> dict[str, Any]:
        """For a JSON file, numbers rounded."""
        return {name: value if isinstance(value, bool) else round(value, 3) for name, value in asdict(self).items()}


def trend_of(
    minutes: list[float], values: list[float], *, pictures_per_minute: float, memory: bool, in_hand: int = 0
) -> Trend:
    """The Theil-Sen line, the median of the slopes between all pairs, through the lowest of each tenth.

    What leaks lifts even the lowest, whereas evaluations, and whether a batch is just in use, lift only some.

    Args:
        minutes, values: of N measurements, 2 or more.
        memory: bytes, else something that is counted.
        in_hand: so many more may be counted at any time, or not: each tensor that waits to be fetched is an open file.
    """
    x, y = np.array(minutes), np.array(values)
    tenth = max(1, len(y) // 10)
    lowest = np.array([start + int(y[start : start + tenth].argmin()) for start in range(0, len(y) - tenth + 1, tenth)])
    a, b = np.triu_indices(len(lowest), 1)
    slope = float(np.median((y[lowest[b]] - y[lowest[a]]) / (x[lowest[b]] - x[lowest[a]])))
    median = float(np.median(y))
    rise = slope * float(x[-1] - x[0])
    limit = max(MEMORY_SHARE * median, MEMORY_LEAST) if memory else COUNT_RISE + in_hand
    return Trend(
        first=float(y[lowest[0]]),
        last=float(y[lowest[-1]]),
        median=median,
        highest=float(y.max()),
        per_minute=slope,
        per_1000_pictures=slope / pictures_per_minute * 1000,
        rise=rise,
        limit=limit,
        flat=rise < limit,
    )
