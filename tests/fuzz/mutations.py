"""Mutations that keep an input's structure, so that what is wrong with it lies behind a parser's first look.

Each takes an input and a source of chance and gives a changed input; None where the input has no such structure any
more: bytes are then changed blindly.
"""

import io
import json
import pickletools
import random
import re
import struct
import zipfile
import zlib
from typing import Any

import numpy as np
import yaml

from .values import NUMBERS, TEXTS, change, hostile_value

_DEEP = 10_000


def mutate_json(data: bytes, rng: random.Random) -> bytes | None:
    """JSON, nested too deep, or with NaN, with numbers of any length, with lone halves of characters."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = change(value, rng)
    text = json.dumps(value)
    kind = rng.randrange(40)
    if kind == 0:
        text = text.replace("null", "[" * _DEEP + "]" * _DEEP, 1)
    elif kind == 1:
        text = re.sub(r"\d+", lambda m: "9" * 5000 if rng.random() < 0.1 else m[0], text)
    elif kind == 2:
        return b"\xef\xbb\xbf" + text.encode()
    elif kind == 3:
        return text.encode(rng.choice(("utf-16", "utf-32")))
    return text.encode()


def mutate_json_lines(data: bytes, rng: random.Random) -> bytes | None:
    """A JSON value a line."""
    lines = data.splitlines()
    if not lines:
        return None
    place = rng.randrange(len(lines))
    changed = mutate_json(lines[place], rng)
    if changed is None:
        return None
    return b"\n".join([*lines[:place], changed, *lines[place + rng.randrange(2) :]]) + b"\n"


def mutate_yaml(data: bytes, rng: random.Random) -> bytes | None:
    """YAML of the same keys, with aliases that grow when they are followed, or nested too deep."""
    try:
        value = yaml.safe_load(data)
        if not isinstance(value, dict):
            return None
        for _ in range(rng.choice((1, 1, 2, 4))):
            value = change(value, rng)
        text = yaml.safe_dump(value, allow_unicode=True, sort_keys=False)
    except Exception:  # whatever is no YAML, or can't be written as such
        return None
    kind = rng.randrange(30)
    levels = rng.choice((8, 24, 60))
    if kind == 0 and isinstance(value, dict) and value:  # billion laughs
        rows = [f"a0: &a0 [{', '.join('x' * 9)}]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, levels)]
        text = "\n".join(rows) + f"\n{rng.choice(list(value))}: *a{levels - 1}\n" + text
    elif kind == 1:
        text = f"{rng.choice(list(value) or ['a'])}: " + "[" * _DEEP + "]" * _DEEP + "\n"
    elif kind == 2:
        text = re.sub(r": (\S+)", lambda m: f": !!{rng.choice(_TAGS)} {m[1]}" if rng.random() < 0.2 else m[0], text)
    elif kind == 3:
        text = "&a " + text.replace("\n", "\n<<: *a\n", 1)
    return text.encode("utf-8", "surrogatepass")


_TAGS = ("python/object/apply:os.system", "python/name:os.system", "binary", "timestamp", "set", "int", "float", "bool")


def mutate_xml(data: bytes, rng: random.Random) -> bytes | None:
    """XML with other numbers and texts in its elements, without some of them, with entities, or nested too deep."""
    text = data.decode("utf-8", "replace")
    elements = list(re.finditer(r"<(\w+)>([^<]*)</\1>", text))
    if not elements:
        return None
    for _ in range(rng.choice((1, 1, 2, 4))):
        match = rng.choice(elements)
        start, end = match.span(2)
        kind = rng.randrange(10)
        if kind < 5:
            value = str(rng.choice((*NUMBERS, *TEXTS)))
            text = text[:start] + re.sub(r"[<&\0]", "", value) + text[end:]
        elif kind == 5:
            text = text[: match.start()] + text[match.end() :]
        elif kind == 6:
            text = text[: match.end()] + match[0] + text[match.end() :]
        elif kind == 7:
            text = text[:start] + f"<{match[1]}>" * rng.choice((1, _DEEP)) + text[end:]
        elif kind == 8:
            text = text[:start] + rng.choice(("&a;", "&#0;", "&#xD800;", "&#x10FFFF;", "<![CDATA[1]]>")) + text[end:]
        else:
            text = rng.choice(_PROLOGUES) + text
        elements = list(re.finditer(r"<(\w+)>([^<]*)</\1>", text)) or elements[:1]
        if match.end() > len(text):
            break
    encoding = rng.choice(("utf-8",) * 20 + ("utf-16", "utf-7", "latin-1"))
    return text.encode(encoding, "replace")


_LAUGHS = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
_PROLOGUES = (
    f'<!DOCTYPE x [<!ENTITY a0 "ha">{_LAUGHS}<!ENTITY a "&a11;">]>',
    '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
    '<!DOCTYPE x SYSTEM "http://localhost:9/x.dtd">',
    '<!DOCTYPE x [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]>',
    '<?xml version="1.0" encoding="utf-7"?>',
    '<?xml version="1.0" encoding="rot13"?>',
    '<?xml version="1.0" encoding="zlib"?>',
    '<?xml version="1.0" encoding="idna"?>',
)


def mutate_lines(data: bytes, rng: random.Random) -> bytes | None:
    """Lines of words."""
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(lines))
        words = lines[place].split(" ")
        kind = rng.randrange(6)
        if kind < 3:
            words[rng.randrange(len(words))] = str(rng.choice((*NUMBERS, *TEXTS)))
        elif kind == 3:
            words = words[1:] if rng.random() < 0.5 else [*words, words[0]]
        lines[place] = " ".join(words)
        if kind == 4:
            lines.insert(place, rng.choice(lines))
        elif kind == 5 and len(lines) > 1:
            del lines[place]
    return "\n".join(lines).encode("utf-8", "surrogatepass" if rng.random() < 0.5 else "replace")


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


def mutate_pickle(data: bytes, rng: random.Random) -> bytes | None:
    """A pickle with an opcode changed, gone, doubled, or others put in: code, references, sizes that are not there."""
    try:
        starts = [place for _, _, place in pickletools.genops(data)]
    except Exception:  # pickletools raises all kinds of errors
        return None
    parts = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(parts))
        kind = rng.randrange(5)
        if kind == 0:
            del parts[place]
        elif kind == 1:
            parts.insert(place, rng.choice(parts))
        elif kind == 2:
            parts[place] = rng.choice(_OPCODES)
        elif kind == 3:
            parts.insert(place, rng.choice(_OPCODES))
        else:
            parts.insert(place, rng.choice(_CALLS))
        parts = parts or [b"."]
    return b"".join(parts)


_GROWING = b"".join([b"(t", *(b"q%c(h%ch%ct" % (i, i, i) for i in range(40)), b"q\x50"])  # a tuple of 2**40 leaves
_OPCODES = (
    b"N", b"0", b"2", b"(", b"t", b"l", b"d", b"]", b"}", b")", b"a", b"e", b"s", b"u", b"R", b"b", b"\x81", b"\x88", b"\x8f",
    b"K\x07", b"J\xff\xff\xff\xff", b"\x8a\xff" + b"\xff" * 255, b"U\x01a", b"C\x01a", b"X\x01\0\0\0a", b"B\xff\xff\xff\x7f",
    b"\x8e" + b"\xff" * 7 + b"\x7f", b"\x96" + b"\0\0\0\x40\0\0\0\0", b"r\xff\xff\xff\x07", b"r\xff\xff\xff\x7f", b"h\0", b"q\0",
    b"\x94", b"\x95" + b"\xff" * 8, b"I99\n", b"L9L\n", b"Fnan\n", b"P1\n", b"Q", b"\x85", b"\x86", b"\x87", b".", b"\x91", _GROWING,
)  # fmt: skip
_CALLS = (
    b"cos\nsystem\n(U\x04truetR", b"cbuiltins\neval\n(U\x031+1tR", b"cbuiltins\nbytearray\n(J\0\0\0\x40tR", b"cnumpy\nndarray\n",
    b"cnumpy\nndarray\n((J\0\0\0\x20tU\x01OtR", b"cnumpy\ndtype\n(U\x0bV1000000000tR", b"c_codecs\nencode\n(U\x01aU\x03hextR",
    b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(U\x0bV1000000000tRtR", b"ccollections\nOrderedDict\n)R", b"ctorch\nTensor\n)R",
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"cargparse\nNamespace\n)R",
)  # fmt: skip


def mutate_zip(data: bytes, rng: random.Random, inner: Any = None) -> bytes | None:
    """An archive with one of its files changed (as `inner` does), renamed, doubled, gone, or packed in another way.

    Checksums fit again; it is the archive's directory that mutations of bytes reach anyway.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = [(info.filename, archive.read(info)) for info in archive.infolist() if info.file_size < 2**16]
    except Exception:  # zipfile raises all kinds of errors on damaged archives
        return None
    if not files:
        return None
    place = rng.randrange(len(files))
    name, content = files[place]
    action = rng.randrange(6)
    method = zipfile.ZIP_STORED if rng.random() < 0.9 else zipfile.ZIP_DEFLATED
    if action == 0:
        files[place] = (
            rng.choice((*TEXTS[:20], "../x", "/x", "a/../../x", "a/", "C:\\x")).replace("\ud800", "?"),
            content,
        )
    elif action == 1:
        del files[place]
    elif action == 2:
        files.append((name, bytes(2**20)))
        method = zipfile.ZIP_DEFLATED
    else:
        changed = inner(content, rng) if inner and name.endswith(".pkl") else _change_bytes(content, rng)
        files[place] = (name, content if changed is None else changed)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name) if method == zipfile.ZIP_STORED else name, content)
    return stream.getvalue()


def mutate_checkpoint(data: bytes, rng: random.Random) -> bytes | None:
    """A checkpoint of PyTorch's, whose pickle is changed inside of its archive."""
    return mutate_zip(data, rng, mutate_pickle)


def _change_bytes(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 8))):
        if changed:
            changed[rng.randrange(len(changed))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(changed)


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
            segments[chosen] = bytearray(segment[:4]) + bytearray(_change_bytes(bytes(segment[4:]), rng))
    if rng.random() < 0.3:
        rest = _change_bytes(rest[:-2], rng) + b"\xff\xd9"
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
        content = _change_bytes(content, rng)
    chunks[chosen] = (kind, content)
    if rng.random() < 0.2:
        chunks.insert(rng.randrange(len(chunks) + 1), rng.choice(chunks))
    return data[:8] + b"".join(
        struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks
    )


def mutate_tar(data: bytes, rng: random.Random) -> bytes | None:
    """A tar archive one of whose headers is changed; its checksum fits again."""
    blocks = [place for place in range(0, len(data) - 511, 512) if data[place + 257 : place + 262] == b"ustar"]
    if not blocks:
        return None
    place = rng.choice(blocks)
    header = bytearray(data[place : place + 512])
    start, length, values = rng.choice(
        (
            (0, 100, [text.encode("utf-8", "replace") for text in TEXTS] + [b"../x", b"/x", b"a" * 100, b"\xff\xfe"]),
            (124, 12, [b"0", b"77777777777", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"-1", b"9", b"1000"]),
            (156, 1, [bytes((kind,)) for kind in b"0123456789gxLKSV\0"]),
            (100, 8, [b"\xff" * 8, b"x", b""]),
            (136, 12, [b"\xff" * 12, b"x", b"\x80" + b"\xff" * 11]),
            (345, 155, [b"..", b"/", b"a" * 155]),
        )
    )
    header[start : start + length] = rng.choice(values)[:length].ljust(length, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:place] + bytes(header) + data[place + 512 :]


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
