"""Protocol buffers' wire format, as far as Caffe's files need it, of bytes that anyone may have written.

A message is a sequence of fields, each with a number and a value. Values are views of the message: nothing is copied,
and nothing is allocated by a size that the bytes only claim.
Source: https://protobuf.dev/programming-guides/encoding
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

MOST_FIELDS = 10_000  # of one message: Caffe's networks have some hundred layers
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SIZES = {_FIXED64: 8, _FIXED32: 4}


class MessageError(Exception):
    """Bytes that are no message."""


@dataclass(frozen=True)
class Field:
    """A field of a message.

    Args:
        number: which of the message's fields it is.
        value: an int of 0 to 2**64 - 1 for a varint; else bytes: of a text, a message, a packed array, or of all the
            fixed-size values that follow one another with the same number (an array that is not packed).
    """

    number: int
    value: int | memoryview

    def integer(self) -> int:
        """The value of a field that must hold a varint."""
        if not isinstance(self.value, int):
            raise MessageError(f"field {self.number} holds bytes, not a whole number")
        return self.value

    def bytes(self) -> memoryview:
        """The value of a field that must hold bytes."""
        if isinstance(self.value, int):
            raise MessageError(f"field {self.number} holds a whole number, not bytes")
        return self.value

    def text(self) -> str:
        """The value of a field that must hold UTF-8."""
        try:
            return str(self.bytes(), "utf8")
        except UnicodeDecodeError as error:
            raise MessageError(f"field {self.number} is no text") from error


def read_fields(message: memoryview) -> Iterator[Field]:
    """The fields of a message in their order.

    Raises:
        MessageError: they end too early, are too many, or of a kind that does not exist.
    """
    position, count = 0, 0
    while position < len(message):
        count += 1
        if count > MOST_FIELDS:
            raise MessageError(f"more than {MOST_FIELDS} fields in one message")
        start = position
        tag, position = read_varint(message, position)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise MessageError("a field has number 0")
        if kind == _VARINT:
            value, position = read_varint(message, position)
            yield Field(number, value)
        elif kind == _BYTES:
            length, position = read_varint(message, position)
            if length > len(message) - position:
                raise MessageError("it ends in the middle of a field")
            yield Field(number, message[position : position + length])
            position += length
        elif kind in _SIZES:
            values, position = _fixed_run(message, start, position - start, _SIZES[kind])
            yield Field(number, values)
        else:
            raise MessageError(f"field {number} is of kind {kind}")


def read_varint(message: memoryview, position: int) -> tuple[int, int]:
    """A whole number, 7 bits a byte, at `position`, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise MessageError("it ends in the middle of a field")
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value >= 1 << 64:
                break
            return value, position
    raise MessageError("a number has more than 64 bits")


def _fixed_run(message: memoryview, start: int, tag_length: int, size: int) -> tuple[memoryview, int]:
    """The values of the fields from `start` on that have the same tag, joined, and the position after them."""
    record = tag_length + size
    count = (len(message) - start) // record
    if not count:
        raise MessageError("it ends in the middle of a field")
    records = np.frombuffer(message, np.uint8, count * record, start).reshape(count, record)
    run, block = 1, 64  # growing blocks, so that neither long runs nor many short ones take long
    while run < count:
        same = (records[run : run + block, :tag_length] == records[0, :tag_length]).all(1)
        if not same.all():
            run += int(same.argmin())
            break
        run += len(same)
        block *= 2
    return memoryview(records[:run, tag_length:].tobytes()), start + run * record
