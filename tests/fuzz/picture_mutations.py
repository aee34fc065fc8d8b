"""Mutations of pictures that keep their structure: above all, of the sizes that their headers say.

Each takes an input and a source of chance and gives a changed input; None where the input has no such structure any
more: bytes are then changed blindly.
"""

import random
import struct
import zlib

from .binary_mutations import change_bytes


def mutate_picture(data: bytes, rng: random.Random) -> bytes | None:
    """A picture whose header says another size, or whose parts are swapped; checksums of PNG fit again."""
    side = rng.choice((0, 1, 2, 17, 255, 4096, 11585, 16383, 65535))
    if data[:2] == b"\xff\xd8":
        return _mutate_jpeg(data, rng, side)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _mutate_png(data, rng)
    changed = bytearray(data)
    place = {b"GIF8": 6, b"BM": 18, b"RIFF": 24}.get(data[:4] if data[:2] != b"BM" else b"BM", rng.randrange(1, 40))
    if place + 4 > len(changed):
        return None
    changed[place : place + 2] = side.to_bytes(2, rng.choice(("little", "big")))
    if rng.random() < 0.5:
        changed[place + 2 : place + 4] = rng.choice((side, 1)).to_bytes(2, "little")
    return bytes(changed)


def _mutate_jpeg(data: bytes, rng: random.Random, side: int) -> bytes:
    segments, place = [], 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        segments.append(bytearray(data[place:end]))
        place = end
    rest = data[place:]
    if segments:
        chosen = rng.randrange(len(segments))
        segment = segments[chosen]
        if 0xC0 <= segment[1] <= 0xC2 and len(segment) > 9:
            at = rng.choice((5, 7))
            segment[at : at + 2] = side.to_bytes(2, "big")
        action = rng.randrange(5)
        if action == 0:
            segments.insert(rng.randrange(len(segments) + 1), segment)
        elif action == 1:
            del segments[chosen]
        elif action == 2:
            segment[1] = rng.choice((0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD, 0xE0, 0xE1, 0xEE, 0xFE))
        elif action == 3:
            segments[chosen] = bytearray(segment[:4]) + bytearray(change_bytes(bytes(segment[4:]), rng))
    if rng.random() < 0.3:
        rest = change_bytes(rest[:-2], rng) + b"\xff\xd9"
    return b"\xff\xd8" + b"".join(bytes(segment) for segment in segments) + rest


def _mutate_png(data: bytes, rng: random.Random) -> bytes | None:
    chunks, place = [], 8
    while place + 12 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += 12 + size
    if not chunks:
        return None
    chosen = rng.randrange(len(chunks))
    kind, content = chunks[chosen]
    if kind == b"IHDR" and len(content) == 13:
        sides = [rng.choice((0, 1, 17, 5000, 11585, 2**20, 2**31 - 1, 2**32 - 1)) for _ in range(2)]
        tail = (
            bytes((rng.choice((1, 2, 4, 8, 16)), rng.choice((0, 2, 3, 4, 6)))) if rng.random() < 0.5 else content[8:10]
        )
        content = struct.pack(">II", *sides) + tail + content[10:]
    elif rng.random() < 0.3:
        kind, content = rng.choice((b"zTXt", b"iCCP", b"iTXt")), b"a\0\0" + zlib.compress(bytes(2**22))
    else:
        content = change_bytes(content, rng)
    chunks[chosen] = (kind, content)
    if rng.random() < 0.2:
        chunks.insert(rng.randrange(len(chunks) + 1), rng.choice(chunks))
    return data[:8] + b"".join(
        struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks
    )
