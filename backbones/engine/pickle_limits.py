"""What a checkpoint's pickle may ask of PyTorch's reader, which runs no code from it, but does all else that it says.

Some hundred bytes can ask for a `bytearray` of all memory, for bytes that are encoded again and again, or for a tuple
of tuples of tuples as a key, whose hash takes for ever.
"""

import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from backbones.errors import CheckpointError

_ZIP = b"PK\x03\x04"
_OLD_PARTS = 5  # pickles in a file of PyTorch before 1.6: magic number, version, system, state, storages
_GROWING = {"builtins bytearray", "__builtin__ bytearray", "_codecs encode"}  # plain tensors and values need neither
_MOST_LEAVES = 10_000  # of a tuple, when tuples in it are counted wherever they occur
_MARK = -1  # on the stack
_CHANGES = {"SETITEM": 2, "APPEND": 1, "BUILD": 1}  # what is taken off the stack, by what changes the object below
_CHANGES_TO_MARK = ("SETITEMS", "APPENDS", "ADDITEMS")
_MADE_OF = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def check_pickles(path: Path) -> None:
    """Follows the pickles of a checkpoint without making anything of them.

    Raises:
        CheckpointError: one asks for what would take all memory, or for ever.
        Exception: of any kind: the file is damaged, and no checkpoint.
    """
    with path.open("rb") as file:
        if file.read(4) == _ZIP:
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    if entry.filename.lower().endswith(".pkl"):
                        with archive.open(entry) as content:
                            _check(content, path)
            return
        file.seek(0)
        for _ in range(_OLD_PARTS):
            _check(file, path)


def _check(content: IO[bytes], path: Path) -> None:
    try:
        endless = any(leaves > _MOST_LEAVES for leaves in _tuples(pickletools.genops(content), path))
    except MemoryError as error:  # a length that is made up
        raise CheckpointError(f"{path}: names more bytes than there is memory: it is damaged") from error
    if endless:
        raise CheckpointError(f"{path}: holds tuples of tuples without end, as no checkpoint of PyTorch does")


def _tuples(operations: Iterator[Any], path: Path) -> Iterator[int]:
    """How many leaves each tuple of a pickle has; all else counts as one."""
    stack: list[int] = []
    memo: dict[int, int] = {}

    def to_mark() -> list[int]:
        place = len(stack) - 1 - stack[::-1].index(_MARK)
        items = stack[place + 1 :]
        del stack[place:]
        return items

    for operation, argument, _ in operations:
        name = operation.name
        if name in ("GLOBAL", "INST") and argument in _GROWING:
            raise CheckpointError(f"{path}: names {argument.replace(' ', '.')}, as no checkpoint of plain tensors does")
        if name == "MARK":
            stack.append(_MARK)
        elif name == "TUPLE" or name in _MADE_OF:
            count = _MADE_OF.get(name)
            items = to_mark() if count is None else [stack.pop() for _ in range(count)]
            stack.append(1 + sum(items))
            yield stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[argument])
        elif name in _CHANGES:
            del stack[-_CHANGES[name] :]
        elif name in _CHANGES_TO_MARK:
            to_mark()
        elif name in ("REDUCE", "NEWOBJ"):
            stack[-2:] = [1]
        elif name == "BINPERSID":
            stack[-1] = 1
        elif name not in ("PROTO", "STOP", "FRAME"):
            stack.append(1)
