"""Mutations of arrays, tensors and messages that keep their structure.

Each takes an input and a source of chance and gives a changed input; None where the input has no such structure any
more: bytes are then changed blindly.
"""

import io
import json
import random
import struct
from typing import Any

import numpy as np

from .text_mutations import mutate_json
from .values import TEXTS, change, hostile_value


def change_bytes(data: bytes, rng: random.Random) -> bytes:
    """Some of the bytes are others."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 8))):
        if changed:
            changed[rng.randrange(len(changed))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(changed)


def mutate_safetensors(data: bytes, rng: random.Random) -> bytes | None:
    """Another header before the same numbers: other metadata, types, shapes and places, or another length."""
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        return None
    if not isinstance(header, dict):
        return None
    body = data[8 + length :]
    texts = header.get("__metadata__")
    if isinstance(texts, dict) and texts and rng.random() < 0.7:
        key = rng.choice(list(texts))
        inner = mutate_json(texts[key].encode("utf-8", "replace"), rng) if isinstance(texts[key], str) else None
        header["__metadata__"] = texts | {key: inner.decode("utf-8", "replace") if inner else rng.choice(TEXTS)}
    elif rng.random() < 0.5:
        names = [name for name in header if name != "__metadata__" and isinstance(header[name], dict)]
        if names:
            name = rng.choice(names)
            header[name] = header[name] | rng.choice(
                (
                    {"dtype": rng.choice(_DTYPES)},
                    {"shape": rng.choice(([], [0], [0, 2**62], [2**62, 2**62], [2**32, 2**32, 0], [1], [-1]))},
                    {"data_offsets": [rng.choice((0, 1, 2**63, len(body))) for _ in range(2)]},
                )
            )
    else:
        header = change(header, rng)
    text = json.dumps(header).encode()
    said = rng.choice((0, 1, len(text) + 1, 2**31, 2**63)) if rng.random() < 0.05 else len(text)
    return said.to_bytes(8, "little") + text + body


_DTYPES = (
    "F64",
    "F32",
    "F16",
    "BF16",
    "F8_E4M3",
    "F8_E5M2",
    "F4",
    "I64",
    "I32",
    "I8",
    "U8",
    "U16",
    "U64",
    "BOOL",
    "C64",
    "X",
)


def mutate_protobuf(data: bytes, rng: random.Random, depth: int = 4) -> bytes | None:
    """A message with a field that is changed, gone, doubled, or has another number or kind."""
    fields = _split_message(data)
    if not fields:
        return None
    place = rng.randrange(len(fields))
    number, kind, value = fields[place]
    action = rng.randrange(9)
    if action == 0:
        del fields[place]
    elif action == 1:
        fields.insert(place, fields[place])
    elif action == 2:
        fields[place] = (rng.choice((1, 2, 3, 4, 5, 6, 7, 8, 100, 2**29)), kind, value)
    elif action == 3:
        fields[place] = (number, 0, rng.choice((0, 1, 3, 2**31, 2**32, 2**62, 2**63, 2**64 - 1)))
    elif kind == 2 and depth and (inner := mutate_protobuf(value, rng, depth - 1)) is not None and rng.random() < 0.9:
        fields[place] = (number, kind, inner)
    elif kind == 2:
        size = rng.choice((0, 1, 3, 4, 7, 8, len(value) // 2))
        fields[place] = (number, kind, rng.choice((value[:size], value + bytes(size), bytes(value[::-1]))))
    else:
        fields[place] = (number, 0, rng.choice((0, 1, 3, 64, 2**31, 2**62, 2**64 - 1)))
    message = b"".join(_encode_field(*field) for field in fields)
    return message[: rng.randrange(len(message) + 1)] if rng.random() < 0.03 else message


def _varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])


def _encode_field(number: int, kind: int, value: Any) -> bytes:
    tag = _varint(number << 3 | kind)
    if kind == 0:
        return tag + _varint(value)
    return tag + (_varint(len(value)) if kind == 2 else b"") + value


def _split_message(data: bytes) -> list[tuple[int, int, Any]] | None:
    """The fields of a message as (number, kind, value), or None of bytes that are none."""

    def varint(place: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = data[place]
            value |= (byte & 127) << shift
            place, shift = place + 1, shift + 7
            if byte < 128:
                return value, place

    fields: list[tuple[int, int, Any]] = []
    place = 0
    try:
        while place < len(data) and len(fields) < 2000:
            tag, place = varint(place)
            kind = tag & 7
            if kind == 0:
                value, place = varint(place)
                fields.append((tag >> 3, kind, value))
                continue
            size = {1: 8, 5: 4}.get(kind)
            if kind == 2:
                size, place = varint(place)
            if size is None or place + size > len(data) or not tag >> 3:
                return None
            fields.append((tag >> 3, kind, data[place : place + size]))
            place += size
    except IndexError:
        return None
    return fields


def mutate_array(data: bytes, rng: random.Random) -> bytes | None:
    """A .npy file with another header: Python's literals, which NumPy reads."""
    if data[:6] != b"\x93NUMPY":
        return None
    if rng.random() < 0.1:
        stream = io.BytesIO()
        np.savez(stream, a=np.zeros(2))
        return stream.getvalue()
    shape = tuple(rng.choice((0, 1, 2, 4, 2**31, 2**62, -1)) for _ in range(rng.randrange(5)))
    kind = rng.choice(("<f4", "|O", "<f8", "V1000000000", "M8[ns]", "<U5", "|S0"))
    text = rng.choice(
        (
            repr({"descr": kind, "fortran_order": rng.random() < 0.5, "shape": shape}),
            repr({"descr": [("a", kind)], "fortran_order": False, "shape": shape}),
            "[" * 5000,
            "-" * 9000 + "1",
            repr(hostile_value(rng)),
        )
    ).encode("latin-1", "replace")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) & 0xFFFF) + text + data[128:]
