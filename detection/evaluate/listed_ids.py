"""Which of the ids in a file of detections are not those of the annotations."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from backbones.errors import DataError
from detection.evaluate.arrays import Indices


class ListedIds:
    """The places of ids in a list, and what is known of the ids that are not in it."""

    def __init__(self, key: str, listed: Sequence[Any], of: str = "the annotations"):
        self._key = key
        self._of = of
        self._places = {value: place for place, value in enumerate(listed)}
        self._used: set[Any] = set()
        self._unknown = 0
        self._first: tuple[int, Any] = (0, None)

    def __call__(self, values: list[Any], start: int) -> Indices:
        """The place of each value, -1 where there is none; the first of them is detection `start`, from 0."""
        found = np.fromiter(map(self._places.get, values, itertools.repeat(-1)), dtype=np.int64, count=len(values))
        self._used.update(values)
        unknown = np.flatnonzero(found < 0)
        if len(unknown) and not self._unknown:
            self._first = (start + int(unknown[0]), values[unknown[0]])
        self._unknown += len(unknown)
        return found

    def refuse_unknown(self, describe: Callable[[int], str], count: int) -> None:
        """Raises DataError if one of the `count` values that came was not listed; `describe` says where it stands."""
        if not self._unknown:
            return
        row, value = self._first
        ids = len(self._used - self._places.keys())
        others = f"{self._unknown:,} of {count:,} detections name such ids, {ids:,} in all"
        raise DataError(
            f"{describe(row)}: {self._key} {value!r:.60} is not listed in {self._of} "
            f"({others if self._unknown > 1 else f'the only one of {count:,}'}){self._hint()}"
        )

    def _hint(self) -> str:
        listed = list(self._places)
        if len({type(value) for value in [*listed, *self._used]}) > 1:
            return f"; ids are {'numbers' if type(listed[0]) is int else 'strings'} there" if listed else ""
        if self._key != "category_id":
            return (
                ""
                if self._used & self._places.keys()
                else "; none of the pictures is: are these detections of another set?"
            )
        for first in (0, 1):
            labels = range(first, first + len(listed))
            if self._used <= set(labels) and set(listed) != set(labels):
                return (
                    f"; all lie in {labels[0]}..{labels[-1]}: they look like contiguous labels, not like the data "
                    f"set's category ids, which go from {min(listed)} to {max(listed)}"
                )
        return ""
