"""Progress bars: what every long work shows."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress_bar(
    items: Iterable[Any] | None = None,
    *,
    total: int | None = None,
    initial: int = 0,
    unit: str,
    scaled: bool = False,
    description: str | None = None,
    stays: bool = True,
    shown: bool = True,
) -> tqdm:
    """A bar on stderr with the time left: lively in a terminal, a line each half minute in a log file.

    Args:
        items: what to go through; None for a bar that is moved by `update`.
        total: how many there are, where `items` does not tell.
        initial: how many were done before.
        unit: what one is called.
        scaled: write 1200 as 1.2k.
        description: what is being done.
        stays: whether the full bar remains; those inside another bar should not.
        shown: False for all processes but one.
    """
    interval = 0.5 if sys.stderr.isatty() else 30
    return tqdm(
        items,
        total=total,
        initial=initial,
        unit=unit,
        unit_scale=scaled,
        desc=description,
        leave=stays or not sys.stderr.isatty(),  # in a log file every line stays
        disable=not shown,
        mininterval=interval,
    )
