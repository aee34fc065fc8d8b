"""Long lists of objects in JSON files, a part of them at a time: parsed, they are eight times as large as the file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from backbones.errors import DataError
from detection.data.json_columns import read_json

BLOCK = 2**20  # bytes
MOST = 8  # blocks without the end of an entry, before the file is read whole
_SPACE = b" \t\r\n"  # as JSON has it


def read_json_list(path: Path) -> Iterator[list[Any]]:
    """The entries of a JSON file that holds one list, in order, some thousands at a time.

    Raises:
        DataError: the file can't be read, or holds no list.
    """
    done = 0
    try:
        if path.is_file():  # opening a pipe would wait for who writes
            with path.open("rb") as file:
                for entries in _parts(file):
                    yield entries
                    done += len(entries)
            return
    except (OSError, ValueError):
        pass  # no file, not a list of (not too long) objects, NaN, no JSON: reading it whole decides, and says so
    everything = read_json(path)
    if not isinstance(everything, list):
        raise DataError(f"{path}: not a JSON list of detections, as a COCO results file is: name such a file")
    yield everything[done:]


def _parts(file: BinaryIO) -> Iterator[list[Any]]:
    """Cuts a list wherever an object ends. Raises ValueError where this can't be done."""
    text = file.read(BLOCK).lstrip(_SPACE)
    if text[:1] != b"[":
        raise ValueError("not a list")
    text, first = text[1:], True
    while block := file.read(BLOCK):
        entries, end = _whole_entries(text)
        if not end:
            if len(text) > MOST * BLOCK:
                raise ValueError("no end of an entry")
            text += block
            continue
        yield entries
        first = False
        text = (text[end:] + block).lstrip(_SPACE)
        if text[:1] != b",":  # then this was the last one
            if (text + file.read()).strip(_SPACE) != b"]":
                raise ValueError("no comma between two objects")
            return
        text = text[1:]
    entries = orjson.loads(b"[" + text)
    if not entries and not first:
        raise ValueError("nothing after a comma")
    yield entries


def _whole_entries(text: bytes) -> tuple[list[Any], int]:
    """The entries that a text begins with, and where they end: 0 if the last brace is none of an entry's end.

    It may stand in a string or in an object inside of another: the text to there is no JSON.
    """
    end = text.rfind(b"}") + 1
    try:
        return orjson.loads(b"[" + text[:end] + b"]"), end
    except orjson.JSONDecodeError:
        return [], 0
