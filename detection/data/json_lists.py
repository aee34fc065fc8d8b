"""Long lists of objects in JSON files, a part of them at a time: parsed, they are eight times as large as the file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from backbones.errors import DataError
from detection.data.json_columns import read_json

BLOCK = 2**20  # bytes


def read_json_list(path: Path) -> Iterator[list[Any]]:
    """The entries of a JSON file that holds one list, in order, some thousands at a time.

    Raises:
        DataError: the file can't be read, or holds no list.
    """
    done = 0
    try:
        with path.open("rb") as file:
            for entries in _parts(file):
                yield entries
                done += len(entries)
        return
    except (OSError, ValueError):
        pass  # no such file, not a list of plain objects, NaN, or no JSON at all: reading it whole decides, and says so
    everything = read_json(path)
    if not isinstance(everything, list):
        raise DataError(f"{path}: not a JSON list of detections, as a COCO results file is")
    yield everything[done:]


def _parts(file: BinaryIO) -> Iterator[list[Any]]:
    """Cuts a list wherever an object ends. Raises ValueError where this can't be done.

    Braces in strings or inside of objects do no harm: a part that is cut there is no JSON.
    """
    text = file.read(BLOCK).lstrip()
    if text[:1] != b"[":
        raise ValueError("not a list")
    text, first = text[1:], True
    while block := file.read(BLOCK):
        end = text.rfind(b"}") + 1
        if not end:
            text += block
            continue
        yield orjson.loads(b"[" + text[:end] + b"]")
        first = False
        text = (text[end:] + block).lstrip()
        if text[:1] != b",":  # then this was the last one
            if (text + file.read()).strip() != b"]":
                raise ValueError("no comma between two objects")
            return
        text = text[1:]
    entries = orjson.loads(b"[" + text)
    if not entries and not first:
        raise ValueError("nothing after a comma")
    yield entries
