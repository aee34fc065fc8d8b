"""Columns of numbers and ids out of parsed JSON, where every entry may be wrong in any way."""

import gc
import json
import math
import re
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import orjson
from numpy.typing import NDArray

from backbones.errors import DataError
from backbones.regular import read_regular_file

Describe = Callable[[int], str]
MEND = "mend it or get it again"  # a file that can't be parsed

# "segmentation" with a polygon, several, or a run-length code. Quantifiers are possessive: no text makes it slow.
_NUMBERS = rb"\[[-+0-9.eE,\s]*+\]"
_OUTLINE = re.compile(
    rb'(?<!\\)"segmentation"\s*+:\s*+(?:%s|\[(?:[\s,]*+%s)*+[\s,]*+\]'
    rb'|\{\s*+"counts"\s*+:\s*+%s\s*+,\s*+"size"\s*+:\s*+%s\s*+\})' % ((_NUMBERS,) * 4)
)


def read_json(path: Path) -> Any:
    """The content of a JSON file, with None for the outlines of objects. Raises DataError if it can't be parsed.

    Outlines are not looked at: one with a comma too many or a broken number passes, too.
    """
    try:
        # Outlines are most of a COCO file, and nothing here needs them: without, it is parsed in a third of the time.
        # No string holds such text: in strings there is a backslash before each quote.
        text, outlines = _OUTLINE.subn(b'"segmentation":null', read_regular_file(path, advice="name a JSON file"))
        with without_collection():
            return _parse(text, path, whole=not outlines)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except RecursionError as error:
        raise DataError(f"{path}: nested too deep to be read: {MEND}") from error
    except (OSError, ValueError) as error:  # ValueError: JSON, encoding, and numbers of thousands of digits
        raise DataError(f"{path}: not a JSON file that can be read ({error}): {MEND}") from error


def _parse(text: bytes, path: Path, *, whole: bool) -> Any:
    """The content of a text that is a file, or what was left of it; errors name places in the file."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    # Python's own parser says more of what is wrong, and takes NaN, which is named with its entry later.
    try:
        return json.loads(text.decode("utf-8"))
    except ValueError:
        if whole:
            raise
        return json.loads(path.read_bytes().decode("utf-8"))


@contextmanager
def without_collection() -> Iterator[None]:
    """Parsing makes millions of objects and no garbage; looking for some takes longer than the parsing itself."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def column_of_ids(entries: list, key: str, types: tuple[type, ...], describe: Describe) -> list:
    """`key` of every entry of a parsed JSON list. Raises DataError if an entry lacks it or has another type there."""
    try:
        values = [entry[key] for entry in entries]
    except (KeyError, TypeError):
        values = [_value(entry, key, describe(row)) for row, entry in enumerate(entries)]
    for row, value in enumerate(values):
        if type(value) not in types:
            wanted = " or ".join({int: "a whole number", str: "a string"}[t] for t in types)
            if type(value) is float and abs(value) >= 2**63:  # as what orjson takes a whole number of that size
                wanted += " of at most 64 bits"
            raise DataError(f"{describe(row)}: '{key}' is {short(value)}, not {wanted}: mend it")
    return values


def look_up(entries: list, key: str, places: dict[Hashable, int], describe: Describe) -> NDArray[np.int64]:
    """The places of the ids under `key`. Raises DataError if an id is not listed in the annotation file."""
    values = column_of_ids(entries, key, (int, str), describe)
    try:
        return np.array([places[v] for v in values], dtype=np.int64)
    except KeyError:
        row = next(r for r, v in enumerate(values) if v not in places)
        raise DataError(
            f"{describe(row)}: {key} {short(values[row])} is not listed in the annotations: mend it, or list it there"
        ) from None


def column_of_numbers(
    entries: list,
    key: str | tuple[str, ...],
    describe: Describe,
    *,
    length: int | None = None,
    default: float | None = None,
) -> NDArray[np.float64]:
    """Finite numbers of every entry of a parsed JSON list.

    Args:
        entries: the list, of M entries.
        key: the key that holds them, or several that hold one each.
        describe: names an entry, for errors.
        length: how many numbers `key` holds, as a list.
        default: for entries without the key.

    Returns:
        (M,), or (M, n) for several keys or a length of n.
    """
    if isinstance(key, tuple):
        return np.stack([column_of_numbers(entries, k, describe) for k in key], axis=1)
    shape = (len(entries),) if length is None else (len(entries), length)
    if not entries:
        return np.zeros(shape)
    try:
        values = [e[key] for e in entries] if default is None else [e.get(key, default) for e in entries]
        array = np.array(values)
        # Numbers only, the same number of them everywhere (else numpy's kind is another, or it raises).
        if array.shape == shape and array.dtype.kind in "ifb" and np.isfinite(array).all():
            return array.astype(np.float64)
    except (KeyError, ValueError, TypeError, AttributeError):
        pass
    _refuse(entries, key, describe, length, default)


def _refuse(entries: list, key: str, describe: Describe, length: int | None, default: float | None) -> NoReturn:
    """Finds the entry that is not as it should be."""
    for row, entry in enumerate(entries):
        if default is not None and isinstance(entry, dict) and key not in entry:
            continue
        value = _value(entry, key, describe(row))
        numbers = value if length is not None else [value]
        if not isinstance(numbers, list) or (length is not None and len(numbers) != length):
            raise DataError(f"{describe(row)}: '{key}' is {short(value)}, not a list of {length} numbers: mend it")
        for number in numbers:
            number_is_int = type(number) in (int, bool)
            if not (abs(number) < 2**63 if number_is_int else type(number) is float and math.isfinite(number)):
                raise DataError(f"{describe(row)}: '{key}' is {short(value)}, not finite numbers: mend it")
    raise DataError(f"{describe(0)}: '{key}' is not numbers everywhere: mend it")


def _value(entry: Any, key: str, description: str) -> Any:
    if not isinstance(entry, dict):
        raise DataError(f"{description} is {short(entry)}, not an object: mend or remove it")
    if key not in entry:
        raise DataError(f"{description} has no '{key}': add it, or remove the entry")
    return entry[key]


def short(value: Any) -> str:
    """A value for a message, cut where it is long."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deep, or a number of thousands of digits
        return f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:60]}..."
