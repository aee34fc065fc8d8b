"""MATLAB files of version 5, as far as ImageNet's `meta.mat` needs them: arrays of structures of numbers and texts.

After "MAT-File Format" (MathWorks), chapter 1. A file from anyone can be given: nothing is allocated by the sizes that
it declares, only by the bytes that it has. (SciPy's reader allocates first: 88 bytes make it ask for 8 GiB.)
"""

import math
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

_MATRIX, _COMPRESSED, _INT8 = 14, 15, 1
_STRUCT, _CHAR = 2, 4
_LARGEST = 2**24  # bytes, when decompressed
_NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}

Value = float | str | None
_Order = str  # "<" or ">": the byte order


class _Matrix(NamedTuple):
    kind: int
    elements: int
    name: str
    rest: Iterator[tuple[int, memoryview]]


def read_structures(data: bytes, variable: str) -> Iterator[dict[str, Value]]:
    """The elements of an array of structures by its variable's name: field -> number, text, or None for all else.

    Raises:
        ValueError: not such a file, damaged, or without such a variable.
    """
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise ValueError("not a MATLAB 5 file")
    try:
        for kind, content in _elements(memoryview(data)[128:], order):
            if kind == _COMPRESSED:
                kind, content = next(_elements(memoryview(_decompress(content)), order))
            if kind == _MATRIX and (matrix := _matrix(content, order)).name == variable:
                yield from _structures(matrix, order)
                return
    except (struct.error, zlib.error, StopIteration, RuntimeError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"a damaged MATLAB file ({error})") from error
    raise ValueError(f"no variable {variable!r} in it")


def _decompress(content: memoryview) -> bytes:
    stream = zlib.decompressobj()
    data = stream.decompress(content, _LARGEST)
    if stream.unconsumed_tail or not stream.eof:
        raise ValueError(f"a part is cut off or decompresses to more than {_LARGEST} bytes")
    return data


def _elements(data: memoryview, order: _Order) -> Iterator[tuple[int, memoryview]]:
    """(type, content) of the data elements that follow each other."""
    place = 0
    while place < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, place)
        if kind >> 16:  # a small element: its size in the upper half, and at most 4 bytes in place of the size
            yield kind & 0xFFFF, data[place + 4 : place + 4 + (kind >> 16)]
            place += 8
            continue
        start, place = place + 8, place + 8 + size
        if place > len(data):
            raise ValueError("a part ends too early")
        yield kind, data[start:place]
        if kind != _COMPRESSED:
            place += -size % 8


def _matrix(content: memoryview, order: _Order) -> _Matrix:
    parts = _elements(content, order)
    flags, sizes, name = (next(parts)[1] for _ in range(3))
    kind = struct.unpack_from(f"{order}I", flags)[0] & 0xFF
    count = math.prod(struct.unpack(f"{order}{len(sizes) // 4}i", sizes))
    return _Matrix(kind, count, bytes(name).decode("ascii"), parts)


def _structures(matrix: _Matrix, order: _Order) -> Iterator[dict[str, Value]]:
    if matrix.kind != _STRUCT:
        raise ValueError(f"{matrix.name!r} is not an array of structures")
    (length,) = struct.unpack(f"{order}i", next(matrix.rest)[1])
    text = bytes(next(matrix.rest)[1])
    if length < 1 or not text:
        raise ValueError(f"{matrix.name!r} has no fields")
    fields = [text[i : i + length].split(b"\0")[0].decode("ascii") for i in range(0, len(text), length)]
    for _ in range(matrix.elements):
        yield {field: _value(next(matrix.rest)[1], order) for field in fields}


def _value(content: memoryview, order: _Order) -> Value:
    if not len(content):  # an empty array
        return None
    matrix = _matrix(content, order)
    kind, data = next(matrix.rest, (0, memoryview(b"")))
    if matrix.kind == _CHAR and kind in _TEXTS:
        suffix = {"<": "-le", ">": "-be"}[order] if _TEXTS[kind] in ("utf-16", "utf-32") else ""
        return bytes(data).decode(_TEXTS[kind] + suffix)
    if matrix.elements == 1 and matrix.kind > _CHAR and kind in _NUMBERS:
        return float(struct.unpack(order + _NUMBERS[kind], data)[0])
    return None
